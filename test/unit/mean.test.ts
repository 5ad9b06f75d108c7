import { expect, test } from 'vitest'
import { type Clustered, componentMeans } from '../../src/mean.js'

const column = (values: number[], clusters: number[] = values.map((_, i) => i)): Clustered => {
  return { values: Float32Array.from(values), clusters: Uint32Array.from(clusters), labels: ['c'] }
}

/** The only column's statistics. */
const one = (data: Clustered, seed = 0, resamples = 1000) => {
  const [mean] = componentMeans(data, seed, resamples)
  if (!mean) throw new Error('no column')
  return mean
}

test('mean, deviation and sign of every column, by hand', () => {
  // columns: 1 3 5 → mean 3, variance (4 + 0 + 4) / 2; −2 0 −4 → mean −2, variance (0 + 4 + 4) / 2, one row of three is not negative
  const values = Float32Array.of(1, -2, 3, 0, 5, -4)
  const [a, b] = componentMeans({ values, clusters: Uint32Array.of(0, 1, 2), labels: ['a', 'b'] }, 0, 100)
  expect(a).toMatchObject({ label: 'a', mean: 3, std: 2, sameSign: 1 })
  expect(b).toMatchObject({ label: 'b', mean: -2, std: 2, sameSign: 2 / 3 })
})

test('a single row has no spread', () => {
  expect(one(column([7]))).toEqual({ label: 'c', mean: 7, std: 0, interval: [7, 7], sameSign: 1 })
})

test('the rows of one prompt are drawn together: two prompts of 50 equal rows', () => {
  // 0 × 50, 10 × 50. Drawn by prompt, both come from one prompt with probability 1/4 each way, so the 95 % interval is [0, 10].
  // Drawn by row, it is 5 ± 1.96 · 5 / √100.
  const values = Array.from({ length: 100 }, (_, i) => (i < 50 ? 0 : 10))
  const prompts = values.map((_, i) => (i < 50 ? 0 : 1))
  expect(one(column(values, prompts)).interval).toEqual([0, 10])
  const [low, high] = one(column(values)).interval
  expect(low).toBeGreaterThan(3.7)
  expect(low).toBeLessThan(4.3)
  expect(high).toBeGreaterThan(5.7)
  expect(high).toBeLessThan(6.3)
})

test('the rows of one prompt are drawn together: rows that cancel within their prompt', () => {
  const values = Array.from({ length: 40 }, (_, i) => (i % 2 === 0 ? 1 : -1))
  const prompts = values.map((_, i) => Math.floor(i / 2))
  expect(one(column(values, prompts)).interval).toEqual([0, 0])
  const [low, high] = one(column(values)).interval
  expect(low).toBeLessThan(-0.2)
  expect(high).toBeGreaterThan(0.2)
})

test('a prompt with more rows weighs more', () => {
  // prompt 0: 0; prompt 1: 4 4 4. Two draws of prompts give 0, (0 + 12) / 4 = 3 or 4, never (0 + 4) / 2
  const seen = new Set<number>()
  for (let seed = 0; seed < 60; seed++) seen.add(one(column([0, 4, 4, 4], [0, 1, 1, 1]), seed, 1).interval[0])
  expect([...seen].sort()).toEqual([0, 3, 4])
  expect(one(column([0, 4, 4, 4], [0, 1, 1, 1])).mean).toBe(3)
})

test('prompts may be numbered with gaps and their rows may lie apart', () => {
  const apart = one(column([1, 5, 1, 9, 5, 9], [7, 3, 7, 900, 3, 900]))
  const together = one(column([1, 1, 5, 5, 9, 9], [0, 0, 1, 1, 2, 2]))
  expect(apart).toEqual(together)
})

test('quantiles lie between the order statistics', () => {
  // two prompts, 0 and 1: a draw has mean 0, 1/2 or 1. Of two draws a ≤ b the ends are a + 0.025 (b − a) and a + 0.975 (b − a)
  const possible = [
    [0, 0],
    [0.0125, 0.4875],
    [0.025, 0.975],
    [0.5, 0.5],
    [0.5125, 0.9875],
    [1, 1],
  ]
  const seen = new Set<number>()
  for (let seed = 0; seed < 100; seed++) {
    const [low, high] = one(column([0, 1]), seed, 2).interval
    const which = possible.findIndex(([a = 9, b = 9]) => Math.abs(a - low) < 1e-12 && Math.abs(b - high) < 1e-12)
    expect(which, `[${low}, ${high}]`).toBeGreaterThanOrEqual(0)
    seen.add(which)
  }
  expect(seen.size).toBe(possible.length)
})

test('quantiles of five draws stand at 0.1 and 3.9 of them', () => {
  // (5 − 1) · 0.025 = 0.1 and (5 − 1) · 0.975 = 3.9: with draws x₀ ≤ … ≤ x₄ the ends are x₀ + 0.1 (x₁ − x₀) and
  // x₃ + 0.9 (x₄ − x₃), each x one of 0, 1/2, 1
  const lows = new Set([0, 0.05, 0.1, 0.5, 0.55, 1])
  const highs = new Set([0, 0.45, 0.5, 0.9, 0.95, 1])
  const round = (x: number) => Math.round(x * 1e9) / 1e9
  for (let seed = 0; seed < 100; seed++) {
    const [low, high] = one(column([0, 1]), seed, 5).interval
    expect(lows).toContain(round(low))
    expect(highs).toContain(round(high))
  }
})

test('the interval of many independent rows is the normal one', () => {
  // 0 … 399: σ = √((400² − 1) / 12) = 115.47, mean 199.5, σ / √400 = 5.7735, so 199.5 ± 11.32
  const [low, high] = one(column(Array.from({ length: 400 }, (_, i) => i)), 5, 4000).interval
  expect(Math.abs(low - 188.18)).toBeLessThan(0.8)
  expect(Math.abs(high - 210.82)).toBeLessThan(0.8)
})

test('the same seed gives the same interval, another seed another one', () => {
  const data = column([1, 2, 4, 8, 16, 32, 64])
  expect(one(data, 3)).toEqual(one(data, 3))
  expect(one(data, 3).interval).not.toEqual(one(data, 4).interval)
  expect(one(data, 2 ** 32 - 1).interval).not.toEqual(one(data, 0).interval)
})

test('columns are drawn together: a column that is twice another has twice its interval', () => {
  const values = Float32Array.from([1, 2, 5, 10, 3, 6, 8, 16])
  const [a, b] = componentMeans({ values, clusters: Uint32Array.of(0, 1, 2, 3), labels: ['a', 'b'] }, 9, 200)
  expect(b?.interval).toEqual(a?.interval.map((end) => 2 * end))
})
