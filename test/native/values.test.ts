// Every checkpoint against what transformers computed on it in float64.
import { describe, expect, test } from 'vitest'
import { Model, type Target } from '../../src/index.js'
import { byHead, byLayer, expectClose, expectRow, fixture, open, type ReferenceRow, readJson } from '../helpers.js'

interface Reference {
  readonly prompts: number[][]
  readonly answer: number[]
  readonly against: number[]
  readonly attributions: ReferenceRow[]
  readonly first_prompt: { head_at_every_position: number[][][]; logit_difference_at_every_position: number[] }
}

const CHECKPOINTS = [
  'gpt2',
  'gpt2_bare',
  'gpt2_bf16',
  'gpt2_f16',
  'gpt2_relu',
  'gpt2_scaled',
  'gpt2_sharded',
  'gpt2_silu',
  'gpt2_unscaled',
  'gpt2_untied',
  'gpt2_wide',
]

const reference = (name: string) => readJson<Reference>(fixture(name), 'reference.json')
const pairs = ({ answer, against }: Reference): Target[] => answer.map((id, i) => ({ answer: id, against: against[i] ?? -1 }))

describe.each(CHECKPOINTS)('%s', (name) => {
  test('answer minus against at the last position, by head', async () => {
    const model = await open(fixture(name))
    const expected = reference(name)
    const result = await model.attribute(expected.prompts, pairs(expected))
    expect(result.certified).toBe(true)
    expect([...result.rows.prompt]).toEqual([0, 1, 2, 3])
    expect([...result.rows.position]).toEqual(expected.prompts.map((ids) => ids.length - 1))
    expected.attributions.forEach((row, i) => expectRow(result, i, byHead(row), row.constant, row.logit_difference))
    const difference = expected.attributions.map((row) => row.logit_difference)
    expectClose(result.measured, difference, 'measured')
    result.residual.forEach((residual, i) => {
      expect(Math.abs(residual)).toBeLessThanOrEqual(result.tolerance[i] ?? 0)
    })
  })

  test('the same by layer', async () => {
    const model = await open(fixture(name))
    const expected = reference(name)
    const result = await model.attribute(expected.prompts, pairs(expected), { unit: 'layer' })
    expected.attributions.forEach((row, i) => expectRow(result, i, byLayer(row), row.constant, row.logit_difference))
  })

  test('every position of the first prompt', async () => {
    const model = await open(fixture(name))
    const { prompts, answer, against, first_prompt: first } = reference(name)
    const target = { answer: answer[0] ?? -1, against: against[0] ?? -1 }
    const result = await model.attribute(prompts.slice(0, 1), target, { position: 'all' })
    expectClose(result.total, first.logit_difference_at_every_position, 'total')
    first.head_at_every_position.forEach((heads, l) => {
      heads.forEach((values, h) => {
        const actual = values.map((_, i) => result.row(i).value(`L${l}H${h}`))
        expectClose(actual, values, `L${l}H${h}`)
      })
    })
  })
})

test('a layer is the sum of its heads and its bias; what is one column in both is the same', async () => {
  const model = await open(fixture('gpt2'))
  const { prompts } = reference('gpt2')
  const [heads, layers] = await Promise.all(
    (['head', 'layer'] as const).map((unit) => model.attribute(prompts, { answer: 6 }, { unit, position: 'all' })),
  )
  if (!heads || !layers) throw new Error('no results')
  expect(layers.rows.prompt.length).toBe(29)
  for (let i = 0; i < layers.rows.prompt.length; i++) {
    const [head, layer] = [heads.row(i), layers.row(i)]
    for (const label of ['embed', 'pos_embed', 'L0 mlp', 'L1 mlp', 'L2 mlp']) expect(layer.value(label)).toBe(head.value(label))
    for (const l of [0, 1, 2]) {
      const parts = [0, 1, 2, 3].map((h) => head.value(`L${l}H${h}`))
      const sum = parts.reduce((a, b) => a + b, head.value(`L${l} attn_bias`))
      expect(Math.abs(layer.value(`L${l} attn`) - sum)).toBeLessThan(1e-5)
    }
    expect(layer.constant).toBe(head.constant)
    expect(layer.measured).toBe(head.measured)
  }
})

test('what a column is: kind, layer and head', async () => {
  const model = await open(fixture('gpt2_wide'))
  const [heads, layers] = await Promise.all(
    (['head', 'layer'] as const).map((unit) => model.attribute([[1, 2]], { answer: 3 }, { unit })),
  )
  expect(heads?.components).toEqual([
    { label: 'embed', kind: 'embed' },
    { label: 'pos_embed', kind: 'pos_embed' },
    { label: 'L0H0', kind: 'head', layer: 0, index: 0 },
    { label: 'L0 attn_bias', kind: 'attn_bias', layer: 0 },
    { label: 'L0 mlp', kind: 'mlp', layer: 0 },
  ])
  expect(layers?.components).toEqual([
    { label: 'embed', kind: 'embed' },
    { label: 'pos_embed', kind: 'pos_embed' },
    { label: 'L0 attn', kind: 'attn', layer: 0 },
    { label: 'L0 mlp', kind: 'mlp', layer: 0 },
  ])
})

test('neither the batch around a prompt, nor the threads, nor how it is cut changes its numbers', async () => {
  const { prompts } = reference('gpt2')
  const target = { answer: 6, against: 5 }
  const model = await open(fixture('gpt2'))
  const threaded = await open(fixture('gpt2'), { threads: 1 })
  const whole = await model.attribute(prompts, target)
  const others = [
    ...(await Promise.all([1, 7, 10_000].map((batchTokens) => model.attribute(prompts, target, { batchTokens })))),
    await threaded.attribute(prompts, target),
  ]
  const n = whole.components.length
  for (let i = 0; i < prompts.length; i++) {
    const alone = await model.attribute(prompts.slice(i, i + 1), target)
    const allowed = 1e-5 * (1 + whole.row(i).values.reduce((sum, value) => sum + Math.abs(value), 0))
    const rows = [alone.values, ...others.map((other) => other.values.subarray(i * n, (i + 1) * n))]
    for (const row of rows) row.forEach((value, c) => expect(Math.abs(value - (whole.row(i).values[c] ?? 9))).toBeLessThan(allowed))
  }
})

test('kernels and plain operations agree, and are not the same', async () => {
  const { prompts } = reference('gpt2')
  const run = async (kernels: 'fused' | 'plain') =>
    (await open(fixture('gpt2'), { kernels })).attribute(prompts, { answer: 6, against: 5 })
  const [fused, plain] = await Promise.all([run('fused'), run('plain')])
  const apart = fused.values.map((value, i) => Math.abs(value - (plain.values[i] ?? 9)))
  expect(Math.max(...apart)).toBeLessThan(1e-5)
  expect(Math.max(...apart)).toBeGreaterThan(0) // rounded otherwise: the option is heard
})

test('the same call twice is bitwise equal', async () => {
  const model = await Model.demo()
  const prompts = Array.from({ length: 40 }, (_, i) => Array.from({ length: 1 + i }, (_, t) => (i * 31 + t * 7) % 342))
  const run = () => model.attribute(prompts, { answer: 'predicted', against: 'mean' }, { position: 'all' })
  const [first, second] = [await run(), await run()]
  for (const part of ['values', 'constant', 'total', 'measured', 'residual', 'tolerance'] as const) {
    const bytes = (list: Float32Array) => Buffer.from(list.buffer, list.byteOffset, list.byteLength)
    expect(bytes(second[part]).equals(bytes(first[part])), part).toBe(true)
  }
  await model.close()
})
