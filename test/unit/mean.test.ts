import { expect, test } from 'vitest'
import { type MeanOptions, Sums } from '../../src/summary.js'

const named = (...labels: string[]) => labels.map((label) => ({ label, kind: 'head' as const }))

const means = (values: number[], prompts: number[], labels: string[], options: MeanOptions = {}) =>
  Sums.of(Float32Array.from(values), Uint32Array.from(prompts), named(...labels), options)

/** Statistics of a single column. */
const one = (values: number[], prompts: number[] = values.map((_, i) => i), options: MeanOptions = {}) => {
  const [mean] = means(values, prompts, ['c'], options)
  if (!mean) throw new Error('no column')
  return mean
}

test('mean, deviation and sign of every column, by hand', () => {
  // columns: 1 3 5 → mean 3, variance (4 + 0 + 4) / 2; −2 0 −4 → mean −2, variance (0 + 4 + 4) / 2, one row of three is not negative
  const [a, b] = means([1, -2, 3, 0, 5, -4], [0, 1, 2], ['a', 'b'], { resamples: 100 })
  expect(a).toMatchObject({ label: 'a', mean: 3, std: 2, sameSign: 1 })
  expect(b).toMatchObject({ label: 'b', mean: -2, std: 2, sameSign: 2 / 3 })
})

test('a single row has no spread', () => {
  expect(one([7])).toEqual({ label: 'c', mean: 7, std: 0, interval: [7, 7], sameSign: 1, stability: 1 })
})

test('the rows of one prompt are drawn together: two prompts of 50 equal rows', () => {
  // 0 × 50, 10 × 50. A prompt is not drawn with probability 1/e, so by prompt more than a quarter of the resamples that
  // hold anything are 0, as many are 10, and the 95 % interval is [0, 10]. By row it is 5 ± 1.96 · 5 / √100.
  const values = Array.from({ length: 100 }, (_, i) => (i < 50 ? 0 : 10))
  const prompts = values.map((_, i) => (i < 50 ? 0 : 1))
  expect(one(values, prompts).interval).toEqual([0, 10])
  const [low, high] = one(values).interval
  expect(low).toBeGreaterThan(3.7)
  expect(low).toBeLessThan(4.3)
  expect(high).toBeGreaterThan(5.7)
  expect(high).toBeLessThan(6.3)
})

test('the rows of one prompt are drawn together: rows that cancel within their prompt', () => {
  const values = Array.from({ length: 40 }, (_, i) => (i % 2 === 0 ? 1 : -1))
  const prompts = values.map((_, i) => Math.floor(i / 2))
  expect(one(values, prompts).interval).toEqual([0, 0])
  const [low, high] = one(values).interval
  expect(low).toBeLessThan(-0.2)
  expect(high).toBeGreaterThan(0.2)
})

test('a prompt with more rows weighs more', () => {
  // prompt 0: 0; prompt 1: 4 4 4. Drawn a and b times they make 12 b / (a + 3 b): once each 3, not (0 + 4) / 2
  const possible = new Set(
    Array.from({ length: 400 }, (_, i) => Math.floor(i / 20)).map((a, i) => (12 * (i % 20)) / (a + 3 * (i % 20))),
  )
  const seen = Array.from({ length: 200 }, (_, seed) => one([0, 4, 4, 4], [0, 1, 1, 1], { seed, resamples: 1 }).interval[0])
  expect(seen.filter((mean) => !possible.has(mean))).toEqual([])
  const often = (mean: number) => seen.filter((each) => each === mean).length
  expect([often(0), often(3), often(4)].every((n) => n > 10)).toBe(true)
  expect(often(2), 'three times the first and once the second').toBeLessThan(10)
  expect(one([0, 4, 4, 4], [0, 1, 1, 1]).mean).toBe(3)
})

test('prompts may be numbered with gaps', () => {
  expect(one([1, 1, 5, 5, 9, 9], [7, 7, 3, 3, 900, 900])).toEqual(one([1, 1, 5, 5, 9, 9], [0, 0, 1, 1, 2, 2]))
})

test('quantiles lie between the order statistics', () => {
  // two prompts, 0 and 1: a draw has mean b / (a + b). Of two draws x ≤ y the ends are x + 0.025 (y − x) and x + 0.975 (y − x);
  // a resample that holds nothing is left out. Solved for x and y, both are fractions of small numbers
  const isDraw = (mean: number) =>
    Array.from({ length: 12 }, (_, n) => mean * (n + 1)).some((times) => Math.abs(times - Math.round(times)) < 1e-9)
  const apart: number[] = []
  for (let seed = 0; seed < 100; seed++) {
    const [low, high] = one([0, 1], [0, 1], { seed, resamples: 2 }).interval
    const beyond = ((high - low) * 0.025) / 0.95
    const [x, y] = [low - beyond, high + beyond]
    expect(isDraw(x) && isDraw(y), `[${low}, ${high}]`).toBe(true)
    expect(x > -1e-9 && y < 1 + 1e-9, `[${low}, ${high}]`).toBe(true)
    if (high > low) apart.push(y - x)
  }
  expect(apart.length).toBeGreaterThan(30)
  expect(Math.max(...apart)).toBeCloseTo(1, 9)
})

test('the interval of many independent rows is the normal one', () => {
  // 0 … 399: σ = √((400² − 1) / 12) = 115.47, mean 199.5, σ / √400 = 5.7735, so 199.5 ± 11.32
  const [low, high] = one(
    Array.from({ length: 400 }, (_, i) => i),
    undefined,
    { seed: 5, resamples: 4000 },
  ).interval
  expect(Math.abs(low - 188.18)).toBeLessThan(0.8)
  expect(Math.abs(high - 210.82)).toBeLessThan(0.8)
})

test('the same seed gives the same interval, another seed another one', () => {
  const interval = (seed?: number) => one([1, 2, 4, 8, 16, 32, 64], undefined, seed === undefined ? {} : { seed }).interval
  expect(interval(3)).toEqual(interval(3))
  expect(interval(3)).not.toEqual(interval(4))
  expect(interval(2 ** 32 - 1)).not.toEqual(interval(0))
  expect(interval()).toEqual(interval(0))
})

test('columns are drawn together: a column that is twice another has twice its interval', () => {
  const [a, b] = means([1, 2, 5, 10, 3, 6, 8, 16], [0, 1, 2, 3], ['a', 'b'], { seed: 9, resamples: 200 })
  expect(b?.interval).toEqual(a?.interval.map((end) => 2 * end))
})

test('stability: in how many resamples a column is among the largest', () => {
  const stabilities = (values: number[], leading: number) =>
    means(values, [0, 1], ['a', 'b', 'c'], { leading, resamples: 500 }).map(({ stability }) => stability)
  expect(stabilities([1, -3, 2, 1, -3, 2], 1), 'magnitude counts').toEqual([0, 1, 0])
  expect(stabilities([1, -3, 2, 1, -3, 2], 2)).toEqual([0, 1, 1])
  expect(stabilities([1, -3, 2, 1, -3, 2], 10)).toEqual([1, 1, 1])
  // a leads when prompt 0 is drawn more often, b when prompt 1 is: as often as not, and one of them always
  const [a = 0, b = 0, c] = stabilities([4, 0, 0, 0, 4, 0], 1)
  expect([a + b, c]).toEqual([1, 0])
  expect(Math.min(a, b)).toBeGreaterThan(0.2)
})

test('options are checked', () => {
  const code = (options: object) => {
    try {
      one([1, 2], undefined, options)
    } catch (error) {
      return (error as { code: string }).code
    }
    return 'none'
  }
  expect(code({ sed: 1 })).toBe('UNKNOWN_OPTION')
  const wrong = [
    { seed: -1 },
    { seed: 0.5 },
    { seed: 2 ** 32 },
    { resamples: 0 },
    { resamples: 1e7 },
    { leading: 0 },
    { leading: '3' },
  ]
  expect(wrong.map(code)).toEqual(wrong.map(() => 'INVALID_ARGUMENT'))
})
