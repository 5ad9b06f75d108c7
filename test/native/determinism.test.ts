// Whether numbers depend on how they are computed: the same call twice is bitwise equal; another batch around a prompt, another
// number of threads and other chunks stay within 1e-5 (1 + Σ |attributions|), the tolerance of the certificate.
import { expect, test } from 'vitest'
import { type AttributeOptions, type Attribution, type Model } from '../../src/index.js'
import { DEMO, fixture, open } from '../helpers.js'

const MODELS = ['demo', 'parity/gpt2', 'parity/llama', 'parity/gemma2', 'parity/mixtral', 'more/exaone4']
const OPTIONS: AttributeOptions[] = [{}, { position: 'all' }, { unit: 'neuron' }, { unit: 'layer' }]
const TARGET = { answer: 3, against: 5 }
const directory = (name: string) => (name === 'demo' ? DEMO : fixture(name))

/** Prompts of 1 to 16 tokens, some of which begin with another; a linear congruence draws them. */
function prompts(dVocab: number): number[][] {
  let state = 2026
  const next = (n: number) => (state = (state * 1_103_515_245 + 12_345) % 2 ** 31) % n
  const fresh = Array.from({ length: 24 }, (_, i) => Array.from({ length: 1 + ((7 * i) % 16) }, () => next(dVocab)))
  const longer = fresh.filter((_, i) => i % 4 === 0).map((ids) => [...ids, ...Array.from({ length: 4 }, () => next(dVocab))])
  return [...fresh, ...longer]
}

/** Every number of a result. */
const numbers = ({ values, constant, total, measured }: Attribution) => [values, constant, total, measured]

/** The largest difference between rows that should be the same, in parts of what is allowed; `rows` says which of `b`. */
function worst(a: Attribution, b: Attribution, rows: readonly number[]): number {
  expect(b.components).toEqual(a.components)
  const width = a.components.length
  return Math.max(
    ...rows.map((row, i) => {
      const allowed = 1e-5 * (1 + a.row(i).values.reduce((sum, value) => sum + Math.abs(value), 0))
      const [ours, theirs] = [a.values.subarray(i * width, (i + 1) * width), b.values.subarray(row * width, (row + 1) * width)]
      return Math.max(...ours.map((value, c) => Math.abs(value - (theirs[c] ?? Number.NaN)))) / allowed
    }),
  )
}

const everyRow = ({ rows }: Attribution) => Array.from(rows.prompt, (_, i) => i)

test.each(MODELS)('%s: the same call twice is bitwise equal, on any number of threads', async (name) => {
  for (const threads of [1, 2, 5]) {
    const model = await open(directory(name), { threads })
    const batch = prompts(model.config.dVocab)
    for (const options of OPTIONS) {
      const [first, second] = [await model.attribute(batch, TARGET, options), await model.attribute(batch, TARGET, options)]
      expect(first.certified).toBe(true)
      expect(numbers(second), `${threads} threads, ${JSON.stringify(options)}`).toEqual(numbers(first))
    }
  }
})

test.each(MODELS)('%s: another number of threads, other chunks', async (name) => {
  const models = await Promise.all([1, 2, 5].map((threads) => open(directory(name), { threads })))
  const [one] = models as [Model, ...Model[]]
  const batch = prompts(one.config.dVocab)
  for (const options of OPTIONS) {
    const expected = await one.attribute(batch, TARGET, options)
    for (const [i, model] of models.entries()) {
      for (const batchTokens of [1, 7, 64, 4096]) {
        const found = await model.attribute(batch, TARGET, { ...options, batchTokens })
        const off = worst(expected, found, everyRow(expected))
        expect(off, `model ${i}, ${batchTokens} tokens, ${JSON.stringify(options)}`).toBeLessThanOrEqual(1)
      }
    }
  }
})

test.each(MODELS)('%s: a prompt alone, among others, and behind others', async (name) => {
  const model = await open(directory(name), { threads: 2 })
  const batch = prompts(model.config.dVocab)
  const together = await model.attribute(batch, TARGET)
  const reversed = await model.attribute(batch.toReversed(), TARGET)
  const backwards = everyRow(together).toReversed()
  expect(worst(together, reversed, backwards), 'in the other order').toBeLessThanOrEqual(1)
  for (const [i, ids] of batch.entries()) {
    const alone = await model.attribute([ids], TARGET)
    expect(worst(alone, together, [i]), `prompt ${i}`).toBeLessThanOrEqual(1)
  }
})

test('numbers that differ are told apart', async () => {
  const model = await open(DEMO, { threads: 1 })
  const [a, b] = [await model.attribute([[1, 2, 3]], TARGET), await model.attribute([[1, 2, 4]], TARGET)]
  expect(worst(a, a, [0])).toBe(0)
  expect(worst(a, b, [0])).toBeGreaterThan(1)
  expect(numbers(a)).not.toEqual(numbers(b))
})
