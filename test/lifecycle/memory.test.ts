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
