// bench/published/ioi.mjs: its comparison, and what it says where GPT-2 small is not.
import { cpSync, mkdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import { DEMO, node, temporary } from '../helpers.js'

interface Comparison {
  readonly lines: string[]
  readonly worst: number
  readonly passed: boolean
}
type Compare = (published: Record<string, number>, ours: (label: string) => number, tolerance: number) => Comparison
const { compare } = (await import(new URL('../../bench/published/compare.mjs', import.meta.url).href)) as { compare: Compare }

test('the comparison: the largest difference decides, of either sign', () => {
  const published = { L9H9: 1.9583, L10H7: -1.4267 }
  const found = (shift: number) => (label: string) => (label === 'L10H7' ? -1.4267 + shift : 1.9583)
  expect(compare(published, found(0.0004), 5e-4)).toMatchObject({ worst: expect.closeTo(0.0004, 8), passed: true })
  expect(compare(published, found(0.0006), 5e-4)).toMatchObject({ worst: expect.closeTo(0.0006, 8), passed: false })
  expect(compare(published, found(-0.0006), 5e-4).passed).toBe(false)
  expect(compare(published, (label) => -found(0)(label), 5e-4).passed, 'a wrong sign').toBe(false)
  expect(compare(published, () => Number.NaN, 5e-4).passed).toBe(false)
  expect(compare({}, () => 0, 5e-4).passed, 'nothing was compared').toBe(false)
  const lines = compare(published, found(0.0006), 5e-4).lines.map((line) => line.trim().split(/ +/))
  expect(lines).toEqual([
    ['component', 'published', 'ours', 'difference'],
    ['L9H9', '+1.9583', '+1.9583', '+0.00000'],
    ['L10H7', '−1.4267', '−1.4261', '+0.00060'],
  ])
})

function ioi(cache: string, ...args: string[]) {
  return node(['bench/published/ioi.mjs', ...args], { env: { ...process.env, HF_HUB_CACHE: cache } })
}

test('without GPT-2 small it says how to get it', async () => {
  const { status, stdout, stderr } = await ioi(temporary())
  expect({ status, stdout }).toEqual({ status: 2, stdout: '' })
  expect(stderr).toContain('hf download openai-community/gpt2')
  expect(stderr).not.toContain('    at ') // no stack
})

test('another model is not taken for it: in a directory, or in its place in the cache', async () => {
  const directory = await ioi(temporary(), DEMO)
  expect({ status: directory.status, stdout: directory.stdout }).toEqual({ status: 2, stdout: '' })
  expect(directory.stderr).toContain('is not GPT-2 small: it is gpt2 with 4 layers of 4 heads, d_model 96')
  const cache = temporary()
  const repository = join(cache, 'models--openai-community--gpt2')
  mkdirSync(join(repository, 'refs'), { recursive: true })
  writeFileSync(join(repository, 'refs/main'), 'abc')
  cpSync(DEMO, join(repository, 'snapshots/abc'), { recursive: true })
  const cached = await ioi(cache)
  expect(cached.status).toBe(2)
  expect(cached.stderr).toContain('openai-community/gpt2 is not GPT-2 small')
})
