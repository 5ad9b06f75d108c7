// Interventions through the public API: against transformers, what is recorded, what is refused.
import { join } from 'node:path'
import { describe, expect, test } from 'vitest'
import { type Intervention, type InterventionHook, type InterventionSet, Model, Run } from '../../src/index.js'
import { DEMO, DEMO_PROMPT, DEMO_TARGET, expectClose, fixture, open, refusal, safetensors, temporary } from '../helpers.js'

interface Reference {
  readonly at: InterventionHook
  readonly head?: number
  readonly neuron?: number
  readonly position: 'last' | 'all' | number
  readonly set: 'zero' | 'scale' | 'add' | 'from' | 'mean' | 'mean_by_position'
}

describe.each(['parity/gpt2', 'parity/gemma2', 'parity/gptj', 'parity/mixtral'])('%s', (name) => {
  test('logits are those of transformers with the same value replaced', async () => {
    const model = await open(fixture(name))
    const { tensors, metadata } = safetensors(join(fixture(name), 'interventions.safetensors'))
    const given = <T>(key: string) => JSON.parse(metadata[key] ?? 'null') as T
    const references = given<Reference[]>('runs')
    const mean = given<number[][]>('reference')
    using from = await model.run([given<number[]>('source')], { cache: ['*'], logits: 'none' })
    const set = ({ at, set }: Reference): InterventionSet => {
      if (set === 'zero') return set
      if (set === 'scale') return { scale: 0.5 }
      if (set === 'add') return { add: [...(tensors.get(`add.${at}`)?.data ?? [])] }
      if (set === 'from') return { from, prompt: 0 }
      return set === 'mean' ? { mean } : { mean, axis: 'position' }
    }
    const prompts = references.map(() => given<number[]>('prompt'))
    const interventions = references.map((reference) => [{ ...reference, set: set(reference) }])
    using run = await model.run(prompts, { interventions })
    const { shape = [], data = [] } = tensors.get('logits') ?? {}
    const [, dVocab = 0] = shape
    expect(shape[0]).toBe(references.length)
    references.forEach((reference, i) =>
      expectClose(run.logits(i).data, data.slice(i * dVocab, (i + 1) * dVocab), JSON.stringify(reference)),
    )
  })
})

const difference = (run: Run, model: Model) => {
  const [mary, john] = [' Mary', ' John'].map((text) => model.tokenizer?.encode(text, { prependBos: false })[0] ?? 0)
  const { data } = run.logits(0)
  return (data[mary ?? 0] ?? 0) - (data[john ?? 0] ?? 0)
}

test('what was done is recorded, kept by a file, and said by what is computed from the run', async () => {
  const model = await open(DEMO)
  const interventions: Intervention[] = [
    { at: 'blocks.*.attn.hook_z', head: 1, position: [-1, 3], set: 'zero' },
    { at: 'hook_embed', position: 'last', set: { scale: 0.5 } },
    { at: 'blocks.2.mlp.hook_post', neuron: 7, set: { mean: [DEMO_PROMPT, 'When Tom went home'] } },
    { at: 'blocks.3.hook_mlp_in', position: 2, set: { add: Float32Array.from({ length: model.config.dModel }, () => 0.25) } },
  ]
  using run = await model.run([DEMO_PROMPT, 'When Tom and Ann'], { interventions, cache: model.attributionHooks() })
  expect(run.interventions).toEqual([
    { at: [0, 1, 2, 3].map((l) => `blocks.${l}.attn.hook_z`), head: 1, position: [-1, 3], set: 'zero' },
    { at: ['hook_embed'], position: 'last', set: 'the value times 0.5' },
    {
      at: ['blocks.2.mlp.hook_post'],
      neuron: 7,
      position: 'all',
      set: expect.stringMatching(/^the mean over \d+ positions of 2 prompts$/) as string,
    },
    { at: ['blocks.3.hook_mlp_in'], position: [2], set: expect.stringMatching(/^a vector of norm \d+\.\d+ added$/) as string },
  ])
  expect(() => Object.assign(run.interventions[0] ?? {}, { head: 2 })).toThrow()
  const attribution = await run.attribute(DEMO_TARGET)
  expect(attribution.certified).toBe(true)
  expect(attribution.provenance.interventions).toEqual(run.interventions)
  expect((await attribution.toArrow()).schema.metadata.get('logit-prism.interventions')).toBe(JSON.stringify(run.interventions))

  const path = join(temporary(), 'run.safetensors')
  await run.save(path)
  expect(JSON.parse(safetensors(path).metadata.interventions ?? '')).toEqual(run.interventions)
  using loaded = await Run.load(model, path)
  expect(loaded.interventions).toEqual(run.interventions)
  using clean = await model.run([DEMO_PROMPT])
  expect(clean.interventions).toEqual([])
  expect((await (await open(DEMO)).attribute([DEMO_PROMPT], DEMO_TARGET)).provenance).not.toHaveProperty('interventions')
})

test('several at one point are made in their order; one list per prompt is each its own', async () => {
  const model = await open(DEMO)
  const at = 'blocks.1.hook_mlp_out'
  const add = new Float32Array(model.config.dModel).fill(0.5)
  const run = async (interventions: Intervention[]) => {
    using run = await model.run([DEMO_PROMPT], { interventions, cache: [at] })
    return [...run.cache.get(at, 0).data]
  }
  expect(
    await run([
      { at, set: 'zero' },
      { at, set: { add } },
      { at, set: { scale: 2 } },
    ]),
  ).toEqual((await run([])).map(() => 1))
  using both = await model.run([DEMO_PROMPT, DEMO_PROMPT], { interventions: [[{ at, set: 'zero' }], []], cache: [at] })
  expect([...both.cache.get(at, 0).data].every((x) => x === 0)).toBe(true)
  expectClose(both.cache.get(at, 1).data, await run([]), 'the other prompt')
  expect(both.interventions).toEqual([{ prompt: 0, at: [at], position: 'all', set: 'zero' }])
})

test('patching the stream of a corrupted prompt moves the answer', async () => {
  const model = await open(DEMO)
  const swapped = 'When Mary and John went to the store, Mary gave a drink to'
  using clean = await model.run([DEMO_PROMPT])
  using corrupted = await model.run([swapped], { cache: ['blocks.*.hook_resid_post'] })
  expect(difference(clean, model)).toBeGreaterThan(5)
  expect(difference(corrupted, model)).toBeLessThan(-5)
  const set = { from: corrupted, prompt: 0 }
  using patched = await model.run([DEMO_PROMPT], { interventions: [{ at: 'blocks.3.hook_resid_post', position: 'last', set }] })
  expectClose(patched.logits(0).data, [...corrupted.logits(0).data], 'the stream is all that is read')
  using first = await model.run([DEMO_PROMPT], { interventions: [{ at: 'blocks.0.hook_resid_post', position: 1, set }] })
  expectClose(first.logits(0).data, [...clean.logits(0).data], 'where the prompts do not differ')
})

test('values may come from other positions, pair by pair', async () => {
  const model = await open(DEMO)
  const at = 'blocks.1.hook_resid_post'
  using from = await model.run(
    [
      [5, 6, 7],
      [1, 2, 3, 4, 5],
    ],
    { cache: [at] },
  )
  const set = { from, prompt: 1, position: [4, 0] }
  using run = await model.run([[9, 8, 7, 6]], { cache: [at], interventions: [{ at, position: [1, -1], set }] })
  const [ours, theirs] = [run.cache.get(at, 0), from.cache.get(at, 1)]
  expect([...ours.slice(1).data]).toEqual([...theirs.slice(4).data])
  expect([...ours.slice(3).data]).toEqual([...theirs.slice(0).data])
  expect(run.interventions[0]?.set).toBe('the value in prompt 1 of a run at 4, 0')
})

test('what does not fit is refused before anything is run', async () => {
  const model = await open(DEMO)
  const { nHeads, dModel, dHead } = model.config
  using kept = await model.run(
    [
      [1, 2, 3],
      [4, 5],
    ],
    { cache: ['blocks.0.attn.hook_z'], position: 'last' },
  )
  using closed = await model.run([[1]])
  const other = await open(fixture('parity/gpt2'))
  using foreign = await other.run([[1, 2, 3]], { cache: ['*'] }) // heads of another width
  closed.close()
  const z = 'blocks.0.attn.hook_z'
  const run = (interventions: unknown) => model.run([[1, 2, 3]], { interventions: interventions as Intervention[] })
  for (const [intervention, argument] of [
    [{ at: 'blocks.0.ln1.hook_scale', set: 'zero' }, 'interventions[0].at'],
    [{ at: 'blocks.0.attn.hook_result', set: 'zero' }, 'interventions[0].at'],
    [{ at: 'blocks.0.*', set: 'zero' }, 'interventions[0].at'],
    [{ at: z, head: nHeads, set: 'zero' }, 'interventions[0].head'],
    [{ at: z, head: -1, set: 'zero' }, 'interventions[0].head'],
    [{ at: z, neuron: 0, set: 'zero' }, 'interventions[0].neuron'],
    [{ at: 'hook_embed', head: 0, set: 'zero' }, 'interventions[0].head'],
    [{ at: z, set: 'none' }, 'interventions[0].set'],
    [{ at: z, set: { scale: 1, add: [1] } }, 'interventions[0].set'],
    [{ at: z, set: {} }, 'interventions[0].set'],
    [{ at: z, set: { scale: Number.NaN } }, 'interventions[0].set.scale'],
    [{ at: z, set: { scale: 1e39 } }, 'interventions[0].set.scale'],
    [{ at: z, head: 0, set: { add: new Float32Array(dHead + 1) } }, 'interventions[0].set.add'],
    [{ at: z, set: { add: new Float32Array(dHead) } }, 'interventions[0].set.add'],
    [{ at: 'hook_embed', set: { add: [...new Float32Array(dModel - 1), 1e39] } }, 'interventions[0].set.add'],
    [{ at: z, set: { mean: [] } }, 'interventions[0].set.mean'],
    [{ at: z, set: { mean: [[1, 2]], axis: 'position' } }, 'interventions[0].set.mean'],
    [{ at: 'blocks.0.attn.hook_pattern', set: { mean: [[1, 2, 3]] } }, 'interventions[0].set.axis'],
    [{ at: 'blocks.0.attn.hook_pattern', set: { mean: [[1, 2]], axis: 'position' } }, 'interventions[0].set.mean'],
    [{ at: z, set: { from: kept, prompt: 2 } }, 'interventions[0].set.prompt'],
    [{ at: z, set: { from: kept, prompt: 1 } }, 'interventions[0].set.from'],
    [{ at: z, set: { from: kept, prompt: 0 } }, 'interventions[0].set.position'],
    [{ at: z, position: [0, 1], set: { from: kept, prompt: 0, position: -1 } }, 'interventions[0].set.position'],
    [{ at: z, position: 1, set: { from: kept, prompt: 1, position: 2 } }, 'interventions[0].set.position'],
    [{ at: z, set: { from: foreign, prompt: 0 } }, 'interventions[0].set.from'],
    [{ at: z, set: { mean: foreign } }, 'interventions[0].set.mean'],
    [{ at: z, position: [], set: 'zero' }, 'interventions[0].position'],
    [{ at: z, position: { perPrompt: [[0]] }, set: 'zero' }, 'interventions[0].position'],
    [{ at: 5, set: 'zero' }, 'interventions[0].at'],
  ] as const) {
    const error = await refusal('INVALID_ARGUMENT', () => run([intervention]))
    expect(error.details.argument, error.message).toBe(argument)
  }
  for (const [intervention, code] of [
    [{ at: 'blocks.9.attn.hook_z', set: 'zero' }, 'UNKNOWN_HOOK'],
    [{ at: 'blocks.*.attn.hook_zz', set: 'zero' }, 'UNKNOWN_HOOK'],
    [{ at: 'blocks.0.attn.hook_rot_q', set: 'zero' }, 'UNKNOWN_HOOK'],
    [{ at: z, position: 3, set: 'zero' }, 'POSITION_RANGE'],
    [{ at: z, position: [0, -3], set: 'zero' }, 'POSITION_RANGE'],
    [{ at: 'hook_embed', position: 'last', set: { from: kept, prompt: 0 } }, 'NOT_CACHED'],
    [{ at: 'hook_embed', set: { mean: kept } }, 'NOT_CACHED'],
    [{ at: z, set: { mean: closed } }, 'CLOSED'],
    [{ at: z, set: 'zero', where: 'last' }, 'UNKNOWN_OPTION'],
    [{ at: z, set: { scale: 1, axis: 'all' } }, 'UNKNOWN_OPTION'],
    [{ at: z, set: { scale: 1e38 }, position: 'last' }, 'NOT_FINITE'],
  ] as const) {
    await refusal(code, () => run([intervention]))
  }
  for (const lists of ['zero', [[{ at: z, set: 'zero' }], { at: z, set: 'zero' }], [[], []]]) {
    expect((await refusal('INVALID_ARGUMENT', () => run(lists))).details.argument).toBe('interventions')
  }
  expect((await refusal('UNKNOWN_HOOK', () => model.run([[1]], { cache: ['blocks.0.hook_mlp_in'] }))).message).toContain(
    'written, not kept',
  )
})

test('where the stream is no longer the sum of the components, attribution and decompose say so', async () => {
  const model = await open(DEMO)
  const cache = ['*']
  const at = 'blocks.2.hook_resid_post'
  using here = await model.run([DEMO_PROMPT], {
    cache,
    position: 'last',
    interventions: [{ at, position: -1, set: { scale: 0.9 } }],
  })
  using elsewhere = await model.run([DEMO_PROMPT], {
    cache,
    position: 'last',
    interventions: [{ at, position: -2, set: { scale: 0.9 } }],
  })
  for (const refused of [() => here.attribute(DEMO_TARGET), () => here.decompose()]) {
    const error = await refusal('INVALID_ARGUMENT', refused)
    expect(error.details.argument).toBe('run')
    expect(error.message).toContain(at)
  }
  expect((await elsewhere.attribute(DEMO_TARGET)).certified).toBe(true)
  const stack = await elsewhere.decompose()
  const stream = elsewhere.cache.get('blocks.3.hook_resid_post', 0).data
  const sum = stream.map((_, i) => stack.components.reduce((sum, _, c) => sum + stack.row(0).at(c, i), 0))
  expectClose(sum, [...stream], 'the components add up')
})
