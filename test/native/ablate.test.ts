// The causal check through the public API, against what transformers computes in float64.
import { describe, expect, test } from 'vitest'
import { type AblateOptions, Causal, Observed, type PrismErrorCode } from '../../src/index.js'
import { DEMO, DEMO_PROMPT, DEMO_TARGET, fixture, open, readJson, refusal } from '../helpers.js'

interface Reference {
  readonly prompt: number[]
  readonly answer: number
  readonly against: number
  readonly logit_difference: number
  readonly components: string[]
  readonly attributions: number[]
  readonly ablations: readonly {
    readonly label: string
    readonly direct: number
    readonly total: number
    readonly norm: number
    readonly mediators: number[]
    readonly total_all: number
    readonly verdict: string
  }[]
}

const close = (found: number, expected: number) => expect(Math.abs(found - expected)).toBeLessThan(1e-4 * (1 + Math.abs(expected)))

describe.each(['gpt2', 'gemma2', 'gptj', 'mixtral'])('%s', (name) => {
  const reference = readJson<Reference>(fixture(`parity/${name}`), 'ablate.json')
  const { prompt, answer, against } = reference

  test('every number, at the row and everywhere', async () => {
    const model = await open(fixture(`parity/${name}`))
    const causal = await model.ablate([prompt, prompt.slice(0, 3)], { answer, against })
    const everywhere = await model.ablate([prompt], { answer, against }, { ablateAt: 'all' })
    expect(causal.certified && everywhere.certified).toBe(true)
    const row = causal.row(0)
    close(row.measured, reference.logit_difference)
    for (const { label, direct, total, norm, mediators, total_all, verdict } of reference.ablations) {
      const effect = row.get(label)
      close(effect.direct, direct)
      close(effect.total, total)
      close(effect.indirect, total - direct)
      close(effect.throughNorm, norm)
      expect(effect.verdict).toBe(verdict)
      const shares = new Map(effect.mediators.map((mediator) => [mediator.label, mediator.value]))
      reference.components.forEach((component, j) => close(shares.get(component) ?? 0, mediators[j] ?? 0))
      close(everywhere.row(0).get(label).total, total_all)
    }
  })

  test('some components, in the order of the model, by layer too', async () => {
    const model = await open(fixture(`parity/${name}`))
    const labels = ['L2 mlp', 'embed', 'L1H2']
    const causal = await model.ablate([prompt], { answer, against }, { components: labels })
    expect(causal.ablated.map(({ label }) => label)).toEqual(['embed', 'L1H2', 'L2 mlp'])
    for (const label of labels)
      close(causal.row(0).get(label).total, reference.ablations.find((a) => a.label === label)?.total ?? 0)
    const layers = await model.ablate([prompt], { answer, against }, { unit: 'layer', components: ['L1 attn', 'L2 mlp'] })
    close(layers.row(0).get('L2 mlp').total, causal.row(0).get('L2 mlp').total)
    expect(
      layers
        .row(0)
        .get('L1 attn')
        .mediators.every(({ label }) => !label.includes('H')),
    ).toBe(true)
  })
})

describe('what takes a place, and where', () => {
  const { prompt, answer, against } = readJson<Reference>(fixture('parity/gpt2'), 'ablate.json')
  const target = { answer, against }

  test("a prompt's own values change nothing, and the mean of one position is that position", async () => {
    const model = await open(fixture('parity/gpt2'))
    const same = await model.ablate([prompt], target, { set: { from: [prompt] }, ablateAt: 'all' })
    same.total.forEach((total, i) => expect(Math.abs(total)).toBeLessThanOrEqual(same.tolerance[i] ?? 0))
    expect(same.row(0).byTotal(1)[0]?.verdict).toBe('silent')
    const other = prompt.toReversed()
    const from = await model.ablate([prompt], target, { set: { from: [other] } })
    const mean = await model.ablate([prompt], target, { set: { mean: [other], axis: 'position' } })
    from.total.forEach((total, i) => expect(Math.abs(total - (mean.total[i] ?? 0))).toBeLessThanOrEqual(mean.tolerance[i] ?? 0))
    expect([from.method.set, mean.method.set]).toEqual(['from', 'mean at the same position'])
  })

  test('positions: those that lie behind a row change nothing', async () => {
    const model = await open(fixture('parity/gpt2'))
    const causal = await model.ablate([prompt], target, { ablateAt: [4], position: [2, 4, -1] })
    expect([...causal.total.subarray(0, causal.ablated.length)].every((total) => total === 0)).toBe(true)
    expect(causal.row(1).get('L2 mlp').direct).not.toBe(0)
    expect(causal.row(2).get('L2 mlp').direct).toBe(0) // what it writes at the row itself stays
    const row = await model.ablate([prompt], target, { position: [4] })
    row.total.forEach((total, i) => {
      expect(Math.abs(total - (causal.total[causal.ablated.length + i] ?? 0))).toBeLessThanOrEqual(row.tolerance[i] ?? 0)
    })
  })

  test('refusals', async () => {
    const model = await open(fixture('parity/gpt2'))
    const refused = async (options: object, code: PrismErrorCode, argument?: string) => {
      const error = await refusal(code, () => model.ablate([prompt], target, options as AblateOptions))
      if (argument !== undefined) expect((error.details as Record<string, unknown>).argument).toBe(argument)
    }
    await refused({ sets: 'zero' }, 'UNKNOWN_OPTION')
    await refused({ norm: 'none' }, 'UNKNOWN_OPTION')
    await refused({ unit: 'neuron' }, 'INVALID_ARGUMENT', 'unit')
    await refused({ set: 'mean' }, 'INVALID_ARGUMENT', 'set')
    await refused({ set: { mean: [prompt], from: [prompt] } }, 'INVALID_ARGUMENT', 'set')
    await refused({ set: { from: [prompt], axis: 'all' } }, 'INVALID_ARGUMENT', 'set')
    await refused({ set: { mean: [] } }, 'INVALID_ARGUMENT', 'set.mean')
    await refused({ set: { mean: [prompt], axes: 'all' } }, 'UNKNOWN_OPTION')
    await refused({ set: { mean: [prompt.slice(1)], axis: 'position' } }, 'INVALID_ARGUMENT', 'set.mean')
    await refused({ set: { from: [prompt, prompt] } }, 'INVALID_ARGUMENT', 'set.from')
    await refused({ set: { from: [prompt.slice(1)] } }, 'INVALID_ARGUMENT', 'set.from')
    await refused({ set: { from: [prompt.slice(1)] }, ablateAt: 'all' }, 'INVALID_ARGUMENT', 'set.from')
    await refused({ set: { from: [[5000]] } }, 'TOKEN_RANGE')
    await refused({ ablateAt: 'last' }, 'INVALID_ARGUMENT', 'ablateAt')
    await refused({ ablateAt: [99] }, 'POSITION_RANGE')
    await refused({ components: ['L9H9'] }, 'INVALID_ARGUMENT', 'components')
    // named positions may be taken from a prompt of another length
    const shorter = await model.ablate([prompt], target, { set: { from: [prompt.slice(0, 5)] }, position: 3 })
    shorter.total.forEach((total, i) => expect(Math.abs(total)).toBeLessThanOrEqual(shorter.tolerance[i] ?? 0))
  })

  test('progress and abort', async () => {
    const model = await open(fixture('parity/gpt2'))
    const seen: number[] = []
    await model.ablate([prompt, prompt], target, { batchTokens: 1, onProgress: ({ done }) => seen.push(done) })
    expect(seen.at(-1)).toBe(2)
    await refusal('ABORTED', () => model.ablate([prompt], target, { signal: AbortSignal.abort() }))
  })
})

test('on the demo model: what a result says of itself', async () => {
  const model = await open(DEMO)
  const causal = await model.ablate([DEMO_PROMPT], DEMO_TARGET)
  const attribution = await model.attribute([DEMO_PROMPT], DEMO_TARGET)
  expect(causal).toBeInstanceOf(Causal)
  expect(causal).not.toBeInstanceOf(Observed)
  attribution.values.forEach((value, i) => close(causal.attributions[i] ?? Number.NaN, value))
  causal.ablated.forEach(({ label }, i) => close(causal.direct[i] ?? Number.NaN, attribution.row(0).value(label)))
  const effect = causal.row(0).byTotal(1)[0]
  const sum = (effect?.direct ?? 0) + (effect?.throughNorm ?? 0) + (effect?.mediators ?? []).reduce((s, { value }) => s + value, 0)
  close(effect?.total ?? Number.NaN, sum)
  const { norm, writes } = await causal.erasure(0, 'L2H0')
  expect(writes.map(({ label }) => label)).toEqual(causal.components.map(({ label }) => label).filter((label) => label !== 'L2H0'))
  expect(norm).toBeGreaterThan(0)
  const [before, behind] = ['L2H1', 'L3 mlp'].map((label) => writes.find((write) => write.label === label))
  expect(before?.ablated).toBe(before?.clean)
  expect(behind?.ablated).not.toBe(behind?.clean)
  await refusal('INVALID_ARGUMENT', () => causal.erasure(0, 'L9H9'))
  const json = JSON.parse(JSON.stringify(causal)) as { kind: string; rows: { effects: unknown[] }[] }
  expect(json.kind).toBe('causal')
  expect(json.rows[0]?.effects).toHaveLength(causal.ablated.length)
  const table = await causal.toArrow()
  expect(table.numRows).toBe(causal.ablated.length)
  expect(table.schema.metadata.get('logit-prism.kind')).toBe('causal')
  expect(table.get(3)?.total).toBe(causal.total[3])
  expect(table.get(3)?.verdict).toBe(causal.row(0).get(causal.ablated[3]?.label ?? '').verdict)
  expect(causal.mean()[3]?.total).toBe(causal.total[3])
})
