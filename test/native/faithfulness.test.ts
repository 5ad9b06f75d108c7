// Circuits and what is left without everything else: against transformers in float64, against runs with interventions that
// the test declares itself, and completeness and minimality against both.
import { describe, expect, test, vi } from 'vitest'
import {
  type Causal,
  CausalCircuit,
  type CircuitChoice,
  type Faithfulness,
  type FaithfulnessOptions,
  type Intervention,
  type Model,
  type PrismErrorCode,
  type ReplaceWith,
  type Target,
} from '../../src/index.js'
import { DEMO, DEMO_PROMPT, DEMO_TARGET, fixture, open, readJson, refusal } from '../helpers.js'

interface Reference {
  readonly prompts: number[][]
  readonly source: number[][]
  readonly reference: number[][]
  readonly answer: number
  readonly against: number
  readonly full: number[]
  readonly circuits: readonly {
    readonly keep: string[]
    readonly set: 'zero' | 'mean' | 'mean_by_position' | 'from'
    readonly left: number[]
  }[]
}

const close = (found: number | undefined, expected: number) =>
  expect(Math.abs((found ?? Number.NaN) - expected), `${found}, expected ${expected}`).toBeLessThan(1e-4 * (1 + Math.abs(expected)))

describe.each(['gpt2', 'llama', 'gemma2'])('%s: what is left of a circuit is what transformers computes', (name) => {
  const { prompts, source, reference, answer, against, full, circuits } = readJson<Reference>(
    fixture(`parity/${name}`),
    'circuits.json',
  )
  const sets: Record<Reference['circuits'][0]['set'], ReplaceWith> = {
    zero: 'zero',
    mean: { mean: reference },
    mean_by_position: { mean: reference, axis: 'position' },
    from: { from: source },
  }

  test.each(circuits)('$keep.length components, others $set', async ({ keep, set, left }) => {
    const few = keep.length === 3 // by other kernels, and in chunks of one prompt
    const model = await open(fixture(`parity/${name}`), { kernels: few ? 'plain' : 'fused' })
    const causal = await model.ablate(prompts, { answer, against }, { components: ['L0H0'] })
    const circuit = causal.circuit({ components: keep })
    const options = { set: sets[set], batchTokens: few ? 1 : 256 }
    const found = await model.faithfulness(prompts, { answer, against }, circuit, options)
    const none = circuits.find((other) => other.set === set)
    full.forEach((expected, i) => {
      close(found.full[i], expected)
      close(found.circuit[i], left[i] ?? Number.NaN)
      close(found.empty[i], none?.left[i] ?? Number.NaN)
      const [f, c, e] = [expected, left[i] ?? Number.NaN, none?.left[i] ?? Number.NaN]
      expect(found.score[i]).toBeCloseTo((c - e) / (f - e), 3)
      expect(found.ratio[i]).toBeCloseTo(c / f, 3)
    })
  })
})

/** F of the demo question where these components are zero everywhere, by interventions. */
async function without(model: Model, labels: readonly string[], prompt = DEMO_PROMPT): Promise<number> {
  const interventions = labels.map((label): Intervention => {
    const [, layer, head] = /^L(\d+)(?:H(\d+)| mlp)$/.exec(label) ?? []
    if (head === undefined) return { at: `blocks.${Number(layer)}.hook_mlp_out`, set: 'zero' }
    return { at: `blocks.${Number(layer)}.attn.hook_z`, head: Number(head), set: 'zero' }
  })
  using run = await model.run([prompt], { interventions, logits: 'last' })
  const logits = run.logits(0).data
  const logit = (text: string) => logits[model.tokenizer?.tokenToId(text) ?? -1] ?? Number.NaN
  return logit('Mary') - logit('John')
}

const ablated = (model: Model): Promise<Causal> => model.ablate([DEMO_PROMPT], DEMO_TARGET, { ablateAt: 'all' })
const parts = (model: Model) => model.components('head').filter(({ kind }) => kind === 'head' || kind === 'mlp')
const tried = (model: Model, circuit: CausalCircuit, options: FaithfulnessOptions = {}): Promise<Faithfulness> =>
  model.faithfulness([DEMO_PROMPT], DEMO_TARGET, circuit, options)

test('by hand, with interventions: faithfulness, completeness, minimality', async () => {
  const model = await open(DEMO)
  const circuit = (await ablated(model)).circuit({
    components: ['L0H3', 'L0 mlp', 'L1 mlp', 'L2H0', 'L2H1', 'L3H0', 'L3H1'],
  })
  const all = parts(model).map(({ label }) => label)
  const others = (kept: readonly string[]) => all.filter((label) => !kept.includes(label))
  const K = ['L3H0', 'L3H1']
  const found = await tried(model, circuit, { completeness: { sets: [K], samples: 3, seed: 7 }, minimality: { L3H0: ['L3H1'] } })
  close(found.full[0], await without(model, []))
  close(found.circuit[0], await without(model, others(circuit.labels)))
  close(found.empty[0], await without(model, all))
  expect(found.completeness.map(({ chosen }) => chosen)).toEqual(['named', 'drawn', 'drawn', 'drawn'])
  for (const { without: part, circuit: left, full, difference } of found.completeness) {
    close(left, await without(model, others(circuit.labels.filter((label) => !part.includes(label)))))
    close(full, await without(model, part))
    expect(difference).toBe(Math.abs(left - full))
  }
  expect(found.minimality.map(({ label }) => label)).toEqual(circuit.labels)
  for (const { label, without: part, before, after, change, share } of found.minimality) {
    expect(part).toEqual(label === 'L3H0' ? ['L3H1'] : [])
    const rest = circuit.labels.filter((other) => !part.includes(other))
    close(before, await without(model, others(rest)))
    close(after, await without(model, others(rest.filter((other) => other !== label))))
    expect(change).toBe(Math.abs(after - before))
    expect(share).toBeCloseTo(change / Math.abs(found.full[0] ?? 0), 10)
  }
})

test('the model without one component is what its ablation at every position leaves', async () => {
  const model = await open(DEMO)
  const causal = await ablated(model)
  const all = parts(model).map(({ label }) => label)
  const names = ['L0 mlp', 'L1H1', 'L2H0', 'L3H1']
  const found = await tried(model, causal.circuit({ components: all }), { completeness: { sets: names.map((label) => [label]) } })
  close(found.circuit[0], found.full[0] ?? 0)
  names.forEach((label, i) => {
    close(found.completeness[i]?.full, (found.full[0] ?? 0) - causal.row(0).get(label).total)
    expect(found.completeness[i]?.difference).toBe(0) // one set, one run
  })
})

test('the smallest set that keeps a share: the largest effects, and no smaller set would', async () => {
  const model = await open(DEMO)
  const causal = await ablated(model)
  const candidates = causal.mean().filter(({ label }) => / mlp$|H\d/.test(label))
  const positive = candidates.map(({ total }) => total).filter((total) => total > 0)
  const effect = positive.reduce((sum, total) => sum + total, 0)
  positive.sort((a, b) => b - a)
  for (const keep of [0.2, 0.5, 0.9, 0.99, 1]) {
    const circuit = causal.circuit({ keep })
    const totals = circuit.components.map(({ total }) => total ?? Number.NaN)
    const n = totals.length
    expect(totals.toSorted((a, b) => b - a)).toEqual(positive.slice(0, n))
    const sum = (count: number) => positive.slice(0, count).reduce((a, b) => a + b, 0)
    expect(sum(n) / effect).toBeGreaterThanOrEqual(keep - 1e-12)
    expect(sum(n - 1) / effect).toBeLessThan(keep)
    if (circuit.found.by !== 'total effect') throw new Error('found')
    expect(circuit.found.share).toBeCloseTo(sum(n) / effect, 12)
    expect(circuit.found).toMatchObject({ keep, of: candidates.length, over: ['head', 'mlp'] })
    const order = causal.components.map(({ label }) => label)
    expect(circuit.labels).toEqual(order.filter((label) => circuit.labels.includes(label)))
  }
  expect(causal.circuit({ keep: 1, over: ['head'] }).components.every(({ kind }) => kind === 'head')).toBe(true)
})

test('of equal effects the earlier component is taken', async () => {
  const model = await open(DEMO)
  const causal = await model.ablate([DEMO_PROMPT], DEMO_TARGET, { components: ['L3H2', 'L3H1', 'L3H0'] })
  const means = causal.mean().map((one) => ({ ...one, total: 1 }))
  vi.spyOn(causal, 'mean').mockReturnValue(means)
  expect(causal.circuit({ keep: 0.3 }).labels).toEqual(['L3H0'])
  expect(causal.circuit({ keep: 0.6 }).labels).toEqual(['L3H0', 'L3H1'])
})

test('over: what stays in place, and embeddings on demand', async () => {
  const model = await open(DEMO)
  const causal = await ablated(model)
  const heads = model.components('head').filter(({ kind }) => kind === 'head')
  const circuit = causal.circuit({ components: ['L3H0', 'L3H1', 'L3 mlp', 'embed'] })
  const found = await tried(model, circuit, { over: ['head'] })
  close(
    found.circuit[0],
    await without(
      model,
      heads.map(({ label }) => label).filter((label) => label !== 'L3H0' && label !== 'L3H1'),
    ),
  )
  // nothing at all: every stream is the same whatever the prompt, but for the biases
  const nothing = await model.faithfulness(
    [DEMO_PROMPT, 'The Eiffel Tower is in the city of Paris'],
    { answer: 5, against: 6 },
    causal.circuit({ components: [] }),
    { over: ['head', 'mlp', 'embed', 'pos_embed'] },
  )
  expect(nothing.empty[0]).toBe(nothing.circuit[0])
  close(nothing.empty[0], nothing.empty[1] ?? Number.NaN)
  expect(Math.abs((nothing.full[0] ?? 0) - (nothing.full[1] ?? 0))).toBeGreaterThan(0.1)
})

test('by layer: attention is its heads', async () => {
  const model = await open(DEMO)
  const layers = await model.ablate([DEMO_PROMPT], DEMO_TARGET, { unit: 'layer', ablateAt: 'all' })
  const circuit = layers.circuit({ components: ['L2 attn', 'L3 attn', 'L3 mlp'] })
  const heads = [2, 3].flatMap((layer) => [0, 1, 2, 3].map((head) => `L${layer}H${head}`))
  const same = (await ablated(model)).circuit({ components: [...heads, 'L3 mlp'] })
  const [a, b] = [await tried(model, circuit), await tried(model, same)]
  expect(a.circuit[0]).toBe(b.circuit[0])
  expect(circuit.unit).toBe('layer')
})

test('what a circuit and its trial say of themselves', async () => {
  const model = await open(DEMO)
  const causal = await ablated(model)
  const circuit = causal.circuit({ keep: 0.5 })
  expect(circuit).toBeInstanceOf(CausalCircuit)
  expect(await circuit.fingerprint()).toBe(await model.fingerprint)
  expect(circuit.task).toMatchObject({ prompts: 1, rows: 1 })
  expect(circuit.task.sha256).toBe((await ablated(model)).circuit({ components: [] }).task.sha256)
  const other = await model.ablate([DEMO_PROMPT], { answer: ' John' }, { components: ['L3H0'] })
  expect(other.circuit({ components: [] }).task.sha256).not.toBe(circuit.task.sha256)
  expect(causal.circuit({ components: ['L3H1', 'L3H0', 'L3H1'] })).toMatchObject({
    labels: ['L3H0', 'L3H1'],
    found: { by: 'name' },
  })

  const prompts = [DEMO_PROMPT, 'When John and Mary went to the store, Mary gave a drink to', DEMO_PROMPT]
  const targets: Target[] = [DEMO_TARGET, { answer: ' John', against: ' Mary' }, DEMO_TARGET]
  const seen: number[] = []
  const found = await model.faithfulness(prompts, targets, circuit, {
    position: { perPrompt: [[-1], [-1, 3], [-1]] },
    onProgress: ({ done }) => seen.push(done),
  })
  expect(seen.at(-1)).toBe(3)
  expect([...found.rows.prompt]).toEqual([0, 1, 1, 2])
  expect([found.full[3], found.circuit[3]]).toEqual([found.full[0], found.circuit[0]])
  const mean = found.mean({ seed: 3, resamples: 400 })
  const of = (list: Float64Array) => list.reduce((sum, value) => sum + value, 0) / list.length
  const [f, c, e] = [of(found.full), of(found.circuit), of(found.empty)]
  expect(mean.full.value).toBeCloseTo(f, 10)
  expect(mean.score.value).toBeCloseTo((c - e) / (f - e), 10)
  expect(mean.ratio.value).toBeCloseTo(c / f, 10)
  for (const { value, interval } of Object.values(mean)) {
    expect(interval[0]).toBeLessThanOrEqual(value)
    expect(interval[1]).toBeGreaterThanOrEqual(value)
  }
  expect(found.mean({ seed: 3, resamples: 400 })).toEqual(mean)
  const json = JSON.parse(JSON.stringify(found)) as Record<string, never>
  expect(json).toMatchObject({ kind: 'causal', method: { set: 'zero', over: ['head', 'mlp'], ablateAt: 'all' } })
  expect(json.circuit).toMatchObject({ kind: 'causal', found: { by: 'total effect', keep: 0.5 } })
  const table = await found.toArrow()
  expect(table.numRows).toBe(4)
  expect(table.get(1)?.circuit).toBe(found.circuit[1])
  expect(table.schema.metadata.get('logit-prism.kind')).toBe('causal')
})

test('refusals', async () => {
  const model = await open(DEMO)
  const causal = await ablated(model)
  const circuit = causal.circuit({ keep: 0.5 })
  const chosen = (choice: object) => refusal('INVALID_ARGUMENT', () => causal.circuit(choice as CircuitChoice))
  await chosen({})
  await chosen({ keep: 0 })
  await chosen({ keep: 1.01 })
  await chosen({ keep: 0.5, components: [] })
  await chosen({ components: ['L0H0'], over: ['head'] })
  await chosen({ components: ['L9H9'] })
  await chosen({ components: ['L0 attn_bias'] })
  await chosen({ keep: 0.5, over: [] })
  await chosen({ keep: 0.5, over: ['attn_bias'] })
  await refusal('UNKNOWN_OPTION', () => causal.circuit({ share: 0.5 } as never))
  const against = await model.ablate([DEMO_PROMPT], DEMO_TARGET, { components: ['L3 mlp', 'L1H1'] })
  expect(against.mean().every(({ total }) => total < 0)).toBe(true)
  await refusal('INVALID_ARGUMENT', () => against.circuit({ keep: 0.5 }))

  const refused = (options: object, code: PrismErrorCode = 'INVALID_ARGUMENT') =>
    refusal(code, () => tried(model, circuit, options))
  await refused({ sets: 'zero' }, 'UNKNOWN_OPTION')
  await refused({ set: 'mean' })
  await refused({ over: ['heads'] })
  await refused({ completeness: { sets: [['L0H9']] } })
  await refused({ completeness: { sample: 3 } }, 'UNKNOWN_OPTION')
  await refused({ completeness: { samples: -1 } })
  await refused({ minimality: { L0H9: [] } }, 'UNKNOWN_OPTION')
  const [first = ''] = circuit.labels
  await refused({ minimality: { [first]: [first] } })
  await refused({ set: { from: ['Mary'] } })
  await refused({ signal: AbortSignal.abort() }, 'ABORTED')
  const plain = { labels: ['L3H0'], components: [] }
  await refusal('INVALID_ARGUMENT', () => tried(model, plain as never))
  const another = await open(fixture('parity/gpt2'))
  const error = await refusal('INVALID_ARGUMENT', () => another.faithfulness([[1, 2, 3]], { answer: 4 }, circuit))
  expect(error.message).toContain('another model')
})
