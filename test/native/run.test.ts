// A run and its cache through the public API: values against transformers, selection, refusals, files, memory.
import { readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { pathToFileURL } from 'node:url'
import { describe, expect, test } from 'vitest'
import { type HookName, Model, Run } from '../../src/index.js'
import {
  DEMO,
  DEMO_PROMPT,
  DEMO_TARGET,
  expectClose,
  fixture,
  open,
  readJson,
  refusal,
  safetensors,
  temporary,
} from '../helpers.js'

const firstPrompt = (name: string) => readJson<{ prompts: number[][] }>(fixture(name), 'reference.json').prompts[0] ?? []

describe.each(['parity/gpt2', 'parity/gemma2', 'parity/mixtral', 'parity/gptj', 'more/exaone4'])('%s', (name) => {
  test('every hook point of the model, as transformers has it', async () => {
    const model = await open(fixture(name))
    const { tensors } = safetensors(join(fixture(name), 'hooks.safetensors'))
    const points = [...tensors.keys()].filter((key) => key.startsWith('0/') && key !== '0/logits').map((key) => key.slice(2))
    expect([...model.hookNames].sort(), 'the model has what transformers has').toEqual(points.sort())
    using run = await model.run([firstPrompt(name)], { cache: ['*'], logits: 'all' })
    expect(run.cache.names).toEqual(model.hookNames)
    for (const point of run.cache.names) {
      const { data, shape } = run.cache.get(point, 0)
      const expected = tensors.get(`0/${point}`)
      expect([...shape], point).toEqual(expected?.shape)
      const [ours, theirs] = [[...data], [...(expected?.data ?? [])]]
      expect(ours.map(Number.isFinite), `${point}: what is masked`).toEqual(theirs.map(Number.isFinite))
      expectClose(ours.filter(Number.isFinite), theirs.filter(Number.isFinite), point)
    }
    expectClose(run.logits(0).data, [...(tensors.get('0/logits')?.data ?? [])], 'logits')
  })
})

const PROMPTS = [DEMO_PROMPT, 'When Tom went home', [5, 6, 7]]

test('names stand for what they match, in the order of the forward pass, each once', async () => {
  const model = await open(DEMO)
  const cached = async (...cache: string[]) => {
    using run = await model.run(PROMPTS, { cache, logits: 'none' })
    return run.cache.names
  }
  const patterns = [0, 1, 2, 3].map((l) => `blocks.${l}.attn.hook_pattern`)
  expect(await cached('blocks.*.attn.hook_pattern')).toEqual(patterns)
  expect(await cached(...patterns.toReversed(), 'blocks.*.attn.hook_pattern')).toEqual(patterns)
  expect(await cached('blocks.3.hook_resid_post', 'blocks.0.*')).toEqual([
    ...model.hookNames.filter((name) => name.startsWith('blocks.0.')),
    'blocks.3.hook_resid_post',
  ])
  expect(await cached()).toEqual([])
  expect(await cached('*')).toEqual(model.hookNames)
})

test('axes are named, and positions are those asked for', async () => {
  const model = await open(DEMO)
  const { nHeads, dHead, dModel } = model.config
  const cache = ['blocks.1.attn.hook_pattern', 'blocks.1.attn.hook_z', 'blocks.1.hook_resid_post', 'blocks.1.ln1.hook_scale']
  using whole = await model.run(PROMPTS, { cache })
  using some = await model.run(PROMPTS, { cache, position: { perPrompt: [[-1, 2], [], [0]] } })
  expect([whole.nPrompts, whole.ids(2)]).toEqual([3, Uint32Array.of(5, 6, 7)])
  const n = whole.ids(0).length
  expect([...some.positions(0)]).toEqual([2, n - 1])
  expect([[...some.positions(1)], [...some.positions(2)], [...whole.positions(2)]]).toEqual([[], [0], [0, 1, 2]])

  const z = whole.cache.get('blocks.1.attn.hook_z', 0)
  expect([z.dims, z.shape]).toEqual([
    ['pos', 'head', 'd_head'],
    [n, nHeads, dHead],
  ])
  const kept = some.cache.get('blocks.1.attn.hook_z', 0)
  expect(kept.shape).toEqual([2, nHeads, dHead])
  expect([...kept.data]).toEqual([...z.slice(2).data, ...z.slice(n - 1).data])
  expect(kept.at(1, 3, 5)).toBe(z.at(n - 1, 3, 5))

  const pattern = whole.cache.get('blocks.1.attn.hook_pattern', 0)
  const rows = some.cache.get('blocks.1.attn.hook_pattern', 0)
  expect([rows.dims, rows.shape]).toEqual([
    ['head', 'query_pos', 'key_pos'],
    [nHeads, 2, n],
  ])
  expect([...rows.slice(1).slice(0).data]).toEqual([...pattern.slice(1).slice(2).data])
  expect(some.cache.get('blocks.1.hook_resid_post', 1).shape).toEqual([0, dModel])
  expect(some.cache.get('blocks.1.ln1.hook_scale', 2).shape).toEqual([1, 1])
})

test('what the cache returns is a copy', async () => {
  const model = await open(DEMO)
  using run = await model.run(PROMPTS, { cache: ['hook_embed'] })
  const first = run.cache.get('hook_embed', 0)
  const kept = first.data.slice()
  first.data.fill(7)
  expect(run.cache.get('hook_embed', 0).data).toEqual(kept)
})

test('logits: the last, all, none', async () => {
  const model = await open(DEMO)
  const [last, all, none] = await Promise.all((['last', 'all', 'none'] as const).map((logits) => model.run(PROMPTS, { logits })))
  if (!last || !all || !none) throw new Error('no run')
  const n = all.ids(0).length
  expect([last.logitsKept, all.logitsKept, none.logitsKept]).toEqual(['last', 'all', 'none'])
  expect([all.logits(0).shape, all.logits(0).dims]).toEqual([
    [n, model.config.dVocab],
    ['pos', 'd_vocab'],
  ])
  expect(last.logits(0).shape).toEqual([1, model.config.dVocab])
  expectClose(last.logits(0).data, [...all.logits(0).slice(n - 1).data])
  const mary = model.tokenizer?.encode(' Mary', { prependBos: false })[0] ?? -1
  expect(last.logits(0).data.indexOf(Math.max(...last.logits(0).data)), 'the demo answers').toBe(mary)
  await refusal('NOT_CACHED', () => none.logits(0))
  await refusal('INVALID_ARGUMENT', () => last.logits(3))
  for (const run of [last, all, none]) run.close()
})

test('what was not kept is named', async () => {
  const model = await open(DEMO)
  using run = await model.run(PROMPTS, { cache: ['blocks.1.hook_resid_post'] })
  const missing = await refusal('NOT_CACHED', () => run.cache.get('blocks.2.hook_resid_post', 0))
  expect(missing.message).toContain('blocks.2.hook_resid_post')
  const needed = await refusal('NOT_CACHED', () => run.attribute(DEMO_TARGET))
  expect(model.attributionHooks().some((name) => needed.message.includes(name))).toBe(true)
  await refusal('NOT_CACHED', () => run.decompose())
  await refusal('UNKNOWN_HOOK', () => run.cache.get('blocks.1.hook_resid_pots' as HookName, 0))
  for (const prompt of [3, -1, 0.5, '0', undefined]) {
    await refusal('INVALID_ARGUMENT', () => run.cache.get('blocks.1.hook_resid_post', prompt as number))
  }
})

test.each([
  ['parity/gptj', 'blocks.0.hook_resid_mid', /parallel/],
  ['parity/llama', 'hook_pos_embed', /positions/],
  ['parity/mixtral', 'blocks.1.mlp.hook_post', /expert/],
  ['parity/gpt2', 'blocks.0.mlp.hook_pre_linear', /gate/],
  ['parity/gpt2', 'blocks.0.attn.hook_rot_q', /rot/],
])('%s has no %s, and says why', async (name, point, reason) => {
  const model = await open(fixture(name))
  const error = await refusal('UNKNOWN_HOOK', () => model.run([[1, 2]], { cache: [point] }))
  expect(error.message).toMatch(reason)
  expect(error.details['name']).toBe(point)
})

test('a name that is misspelt, or matches nothing, is refused with the nearest', async () => {
  const model = await open(DEMO)
  const error = await refusal('UNKNOWN_HOOK', () => model.run(PROMPTS, { cache: ['blocks.3.attn.hook_patern'] }))
  expect(error.details['nearest']).toContain('blocks.3.attn.hook_pattern')
  for (const name of [
    'blocks.4.hook_resid_post',
    'blocks.*.hook_nothing',
    '',
    'blocks.01.hook_resid_pre',
    'blocks.-1.hook_resid_pre',
  ]) {
    await refusal('UNKNOWN_HOOK', () => model.run(PROMPTS, { cache: [name] }))
  }
})

test('options of a run are checked', async () => {
  const model = await open(DEMO)
  const near = await refusal('UNKNOWN_OPTION', () => model.run(PROMPTS, { caches: [] } as object))
  expect(near.details['nearest']).toEqual(['cache'])
  for (const options of [
    { cache: '*' },
    { cache: [1] },
    { cache: null },
    { logits: 'first' },
    { logits: true },
    { position: 'first' },
  ]) {
    await refusal('INVALID_ARGUMENT', () => model.run(PROMPTS, options as object))
  }
  await refusal('POSITION_RANGE', () => model.run(PROMPTS, { position: 3 }))
  await refusal('INVALID_ARGUMENT', () => model.run('text' as unknown as string[]))
  using run = await model.run(PROMPTS, { cache: model.attributionHooks() })
  expect(
    (await refusal('UNKNOWN_OPTION', () => run.attribute(DEMO_TARGET, { units: 'head' } as object))).details['nearest'],
  ).toEqual(['unit'])
  expect((await refusal('UNKNOWN_OPTION', () => run.decompose({ units: 'head' } as object))).details['nearest']).toEqual(['unit'])
  await refusal('INVALID_ARGUMENT', () => run.decompose({ unit: 'heads' as 'head' }))
  await refusal('INVALID_ARGUMENT', () => run.attribute([DEMO_TARGET]))
  await refusal('INVALID_ARGUMENT', () => run.save(7 as unknown as string))
  await refusal('INVALID_ARGUMENT', () => Run.load(model, ''))
})

test('closed: frees, is idempotent, and refuses', async () => {
  const model = await open(DEMO)
  let kept: Run | undefined
  {
    using run = await model.run(PROMPTS, { cache: ['hook_embed'] })
    kept = run
    expect(run.closed).toBe(false)
  }
  kept.close()
  expect(kept.closed).toBe(true)
  const run = kept
  for (const use of [() => run.cache.names, () => run.cache.get('hook_embed', 0), () => run.logits(0)]) await refusal('CLOSED', use)
  await refusal('CLOSED', () => run.attribute(DEMO_TARGET))
  await refusal('CLOSED', () => run.decompose())
  await refusal('CLOSED', () => run.save(join(temporary(), 'run.safetensors')))
  expect([run.nPrompts, [...run.ids(2)]]).toEqual([3, [5, 6, 7]])
})

test('a run does not keep its model: logits stay readable, what needs the model is refused', async () => {
  const model = await Model.load(DEMO)
  using run = await model.run(PROMPTS, { cache: model.attributionHooks() })
  await model.close()
  expect(run.logits(0).shape).toEqual([1, 342])
  await refusal('CLOSED', () => run.attribute(DEMO_TARGET))
  await refusal('CLOSED', () => run.decompose())
})

test('a close does not take a run from the work that is under way on it', async () => {
  const model = await open(DEMO)
  const run = await model.run(PROMPTS, { cache: model.attributionHooks() })
  const running = run.attribute({ answer: 'predicted' })
  run.close()
  expect((await running).certified).toBe(true)
})

test('a saved run is read again as it was, and by others', async () => {
  const model = await open(DEMO)
  const cache = [...model.attributionHooks({ unit: 'neuron' }), 'blocks.*.attn.hook_attn_scores']
  using run = await model.run(PROMPTS, { cache, logits: 'all', position: [0, -1] })
  const path = join(temporary(), 'run.safetensors')
  await run.save(path)
  using read = await Run.load(model, pathToFileURL(path))
  expect([read.nPrompts, read.logitsKept, read.cache.names]).toEqual([3, 'all', run.cache.names])
  const { tensors, metadata } = safetensors(path)
  for (let i = 0; i < 3; i++) {
    expect([read.ids(i), read.positions(i), read.logits(i)]).toEqual([run.ids(i), run.positions(i), run.logits(i)])
    for (const name of run.cache.names) {
      const tensor = run.cache.get(name, i)
      expect(read.cache.get(name, i)).toEqual(tensor)
      const stored = tensors.get(`${i}/${name}`)
      expect([stored?.dtype, stored?.shape, stored?.data]).toEqual(['F32', [...tensor.shape], [...tensor.data]])
    }
    expect(tensors.get(`${i}/ids`)?.data).toEqual([...run.ids(i)])
    expect(tensors.get(`${i}/positions`)?.data).toEqual([...run.positions(i)])
    expect(tensors.get(`${i}/logits`)?.data).toEqual([...run.logits(i).data])
  }
  expect(Object.values(metadata).join()).toContain(await model.fingerprint)
  const [ours, theirs] = await Promise.all([run, read].map((each) => each.attribute(DEMO_TARGET, { unit: 'neuron' })))
  expect(theirs?.values).toEqual(ours?.values)
})

test('a file that is none, or of another model, is refused; so is a folder that is not there', async () => {
  const model = await open(DEMO)
  const other = await open(fixture('parity/gpt2'))
  const folder = temporary()
  const path = join(folder, 'run.safetensors')
  using run = await model.run(PROMPTS, { cache: ['blocks.*.hook_resid_post'] })
  await run.save(path)
  const wrong = await refusal('CHECKPOINT_INVALID', () => Run.load(other, path))
  expect(wrong.message).toMatch(/model/)
  await refusal('IO_ERROR', () => Run.load(model, join(folder, 'no.safetensors')))
  await refusal('IO_ERROR', () => run.save(join(folder, 'no', 'run.safetensors')))
  const whole = readFileSync(path)
  const header = 8 + Number(whole.readBigUInt64LE(0))
  const spoilt: [string, Buffer][] = [
    ['empty', Buffer.alloc(0)],
    ['noise', Buffer.from('not a run at all')],
    ['cut', whole.subarray(0, whole.length - 5)],
    ['cut in the header', whole.subarray(0, header - 9)],
    ['a header that claims to be huge', Buffer.concat([Buffer.from([255, 255, 255, 255, 255, 255, 255, 127]), whole.subarray(8)])],
    [
      'another name',
      Buffer.from(whole.toString('latin1').replace('0/blocks.0.hook_resid_post', '0/blocks.9.hook_resid_post'), 'latin1'),
    ],
    ['longer', Buffer.concat([whole, Buffer.alloc(4)])],
    ['a checkpoint', readFileSync(join(DEMO, 'model.safetensors'))],
  ]
  for (const [how, bytes] of spoilt) {
    writeFileSync(path, bytes)
    const error = await Run.load(model, path).then(
      () => undefined,
      (caught: unknown) => caught,
    )
    expect(error, how).toMatchObject({ code: 'CHECKPOINT_INVALID' })
  }
})

test('live runs count against the memory limit, before anything is run', async () => {
  const prompts = Array.from({ length: 40 }, (_, i) => Uint32Array.from({ length: 48 }, (__, t) => (i * 37 + t * 11) % 342))
  // 40 prompts × 48 tokens × 4 points × 96 numbers × 4 bytes
  const bytes = 40 * 48 * 4 * 96 * 4
  const free = await open(DEMO)
  const memoryLimit = free.weightBytes + 4 * free.forwardBytes(48) + Math.floor(1.5 * bytes)
  const model = await open(DEMO, { memoryLimit, threads: 1 })
  const cache = ['blocks.*.hook_resid_post']
  const first = await model.run(prompts, { cache, logits: 'none' })
  const seen: unknown[] = []
  const error = await refusal('MEMORY', () =>
    model.run(prompts, { cache, logits: 'none', onProgress: (progress) => void seen.push(progress) }),
  )
  expect(seen, 'before anything is run').toEqual([])
  expect(Object.keys(error.details)).toContain('needed')
  await refusal('MEMORY', () => model.run(prompts, { cache: ['*'], logits: 'all' }))
  expect(first.cache.get('blocks.3.hook_resid_post', 39).shape).toEqual([48, 96])
  first.close()
  using second = await model.run(prompts, { cache, logits: 'none' })
  expect(second.cache.names).toHaveLength(4)
})
