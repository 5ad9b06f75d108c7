import { expect, test } from 'vitest'
import { Attribution } from '../../src/attribution.js'
import { frozen } from '../../src/components.js'
import { refusal } from '../helpers.js'

const COMPONENTS = frozen([
  { label: 'embed', kind: 'embed' },
  { label: 'L0H0', kind: 'head', layer: 0, index: 0 },
  { label: 'L0H1', kind: 'head', layer: 0, index: 1 },
  { label: 'L0 mlp', kind: 'mlp', layer: 0 },
])

/** Two rows, of prompts 0 and 1, with numbers that can be told apart; prompt 0 is ids 7 8, prompt 1 is 9. */
function twoRows(norm: 'frozen' | 'none' = 'frozen', violations = 0): Attribution {
  const values = [0.5, -4, 2, 1.5, 1, 2, 3, 4]
  const constant = [0.25, 10]
  const total = [0.25, 20]
  const [measured, residual, tolerance] = [
    [0.5, 19],
    [-0.25, 1],
    [0.125, 0.0625],
  ]
  const native = {
    values: Float32Array.from(values),
    certificates: Float32Array.from([constant, total, measured, residual, tolerance].flatMap((list) => list ?? [])),
    rowPrompt: Uint32Array.of(0, 1),
    rowPosition: Uint32Array.of(1, 0),
    ids: Uint32Array.of(7, 8, 9),
    idOffsets: Uint32Array.of(0, 2, 3),
    targetTokens: Uint32Array.of(3, 5, 6),
    targetWeights: Float64Array.of(1, -1, 0.5),
    targetOffsets: Uint32Array.of(0, 2, 3),
    targetMean: Float64Array.of(0, -1),
    violations,
  }
  const provenance = { family: 'gpt2', device: 'cpu', deviceReason: 'the default', dtype: 'f32', unknownConfig: [] } as const
  const origin = { provenance, tokenText: (id: number) => `#${id}`, remember: () => {}, fingerprint: () => Promise.resolve('f00d') }
  const method = { unit: 'head', norm, convention: 'default' } as const
  return new Attribution(native, COMPONENTS, [undefined, undefined], method, origin)
}

test('one buffer is cut into rows and columns', () => {
  const result = twoRows()
  expect([...result.values]).toEqual([0.5, -4, 2, 1.5, 1, 2, 3, 4])
  expect([...result.constant, ...result.total, ...result.measured]).toEqual([0.25, 10, 0.25, 20, 0.5, 19])
  expect([...result.residual, ...result.tolerance]).toEqual([-0.25, 1, 0.125, 0.0625])
  expect(result.components).toEqual(COMPONENTS)
  expect(result.rows).toEqual({ prompt: Uint32Array.of(0, 1), position: Uint32Array.of(1, 0) })
})

test('a row is one line of it', () => {
  const row = twoRows().row(1)
  expect([...row.values]).toEqual([1, 2, 3, 4])
  const { prompt, position, constant, total, measured, residual, tolerance } = row
  expect({ prompt, position, constant, total, measured, residual, tolerance }).toEqual({
    prompt: 1,
    position: 0,
    constant: 10,
    total: 20,
    measured: 19,
    residual: 1,
    tolerance: 0.0625,
  })
  expect(row.target).toEqual({ tokens: [{ id: 6, weight: 0.5 }], mean: -1 })
})

test('a value by its label; a near miss names the near ones', async () => {
  const row = twoRows().row(0)
  expect(COMPONENTS.map(({ label }) => row.value(label))).toEqual([0.5, -4, 2, 1.5])
  const error = await refusal('INVALID_ARGUMENT', () => row.value('L0H7'))
  expect(error.details).toEqual({ name: 'L0H7', nearest: ['L0H0', 'L0H1'] })
  expect((await refusal('INVALID_ARGUMENT', () => row.value('L0mlp'))).details['nearest']).toEqual(['L0 mlp'])
  expect((await refusal('INVALID_ARGUMENT', () => row.value('attention'))).message).toContain('embed, L0H0, L0H1, L0 mlp')
  await refusal('INVALID_ARGUMENT', () => row.value('constructor'))
})

test('ranked by value and by magnitude, with shares of Σ |values| = 8', () => {
  const row = twoRows().row(0)
  expect(row.top(2)).toEqual([
    { label: 'L0H1', value: 2, share: 0.25 },
    { label: 'L0 mlp', value: 1.5, share: 0.1875 },
  ])
  expect(row.bottom(2)).toEqual([
    { label: 'L0H0', value: -4, share: 0.5 },
    { label: 'embed', value: 0.5, share: 0.0625 },
  ])
  expect(row.byMagnitude(3).map(({ label }) => label)).toEqual(['L0H0', 'L0H1', 'L0 mlp'])
  expect(row.top(0)).toEqual([])
  expect(row.top(99)).toHaveLength(4)
  expect([...row.values], 'ranking must not reorder').toEqual([0.5, -4, 2, 1.5])
})

test.each([[-1], [1.5], ['3'], [Number.NaN], [null]])('k is a whole number, not %j', async (k) => {
  const row = twoRows().row(0)
  for (const rank of [row.top, row.bottom, row.byMagnitude]) {
    await refusal('INVALID_ARGUMENT', () => rank.call(row, k as number))
  }
})

test.each([[-1], [2], [0.5], ['0'], [undefined]])('there is no row and no prompt %j', async (i) => {
  const result = twoRows()
  await refusal('INVALID_ARGUMENT', () => result.row(i as number))
  await refusal('INVALID_ARGUMENT', () => result.ids(i as number))
})

test('the ids of a prompt', () => {
  const result = twoRows()
  expect([...result.ids(0)]).toEqual([7, 8])
  expect([...result.ids(1)]).toEqual([9])
  expect(result.nPrompts).toBe(2)
  expect(result.tokens(0)).toEqual(['#7', '#8'])
})

test('row by row', () => {
  expect([...twoRows()].map(({ prompt, position, total }) => [prompt, position, total])).toEqual([
    [0, 1, 0.25],
    [1, 0, 20],
  ])
})

test('certified: every row within the tolerance, and a norm to certify', () => {
  expect(twoRows('frozen', 0).certified).toBe(true)
  expect(twoRows('frozen', 1).certified).toBe(false)
  expect(twoRows('none', 0).certified).toBe(false)
})

test('what a row is cannot be changed', () => {
  const result = twoRows()
  for (const part of [result.rows, result.components, result.components[0], result.targets, result.targets[0]]) {
    expect(Object.isFrozen(part)).toBe(true)
  }
})

test('means over the rows; options are checked', async () => {
  const means = twoRows().mean({ seed: 1, resamples: 10 })
  expect(means.map(({ label, mean }) => [label, mean])).toEqual([
    ['embed', 0.75],
    ['L0H0', -1],
    ['L0H1', 2.5],
    ['L0 mlp', 2.75],
  ])
  const error = await refusal('UNKNOWN_OPTION', () => twoRows().mean({ sed: 1 } as object))
  expect(error.details['nearest']).toEqual(['seed'])
  for (const options of [{ seed: -1 }, { seed: 2 ** 32 }, { seed: 0.5 }, { resamples: 0 }, { resamples: 1_000_001 }]) {
    await refusal('INVALID_ARGUMENT', () => twoRows().mean(options))
  }
  await refusal('INVALID_ARGUMENT', () => twoRows().mean(null as unknown as object))
})
