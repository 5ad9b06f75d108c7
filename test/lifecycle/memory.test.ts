import { expect, test } from 'vitest'
import { node } from '../helpers.js'

// a demo model is 0.96 MB of weights in f32: 100 that stayed would be 96 MB
test.each([
  ['closed', 'close'],
  ['left to the garbage collector', 'collect'],
])('100 models, %s, do not stay in memory', async (_, how) => {
  const { status, stdout, stderr } = await node(['--expose-gc', 'test/lifecycle/scripts/memory.mjs', how])
  expect([status, stderr]).toEqual([0, ''])
  expect(stdout).toMatch(/^-?\d+\n$/)
  expect(Number(stdout)).toBeLessThan(40e6)
})

// 18,000 prompts of four rows that stayed would be some 75 MB; the process settles some 30 MB above its start
test.each(['results', 'summary'])('a stream of 20,000 prompts does not grow (%s)', { timeout: 90_000 }, async (how) => {
  const { status, stdout, stderr } = await node(['--expose-gc', 'test/lifecycle/scripts/stream.mjs', how], { timeout: 80_000 })
  expect([status, stderr]).toEqual([0, ''])
  const { rows, grown } = JSON.parse(stdout) as { rows: number; grown: number }
  expect(rows).toBe(80_000)
  expect(grown).toBeLessThan(55e6)
})

// V8 sweeps its whole heap when that has grown by tens of megabytes: what waits for it makes a stream grow until then
test('results of a stream are given back with the young objects', async () => {
  const { status, stdout, stderr } = await node(['--expose-gc', 'test/lifecycle/scripts/young.mjs'])
  expect([status, stderr]).toEqual([0, ''])
  const { results, values, left } = JSON.parse(stdout) as { results: number; values: number; left: number }
  expect(results).toBe(100)
  expect(left).toBeLessThan(values / 4)
})

// a run of 40 prompts of 48 tokens with all points is some 60 MB
test.each(['close', 'collect'])('20 runs (%s) do not stay in memory', async (how) => {
  const { status, stdout, stderr } = await node(['--expose-gc', 'test/lifecycle/scripts/runs.mjs', how])
  expect([status, stderr]).toEqual([0, ''])
  expect(stdout).toMatch(/^-?\d+\n$/)
  expect(Number(stdout)).toBeLessThan(120e6)
})
