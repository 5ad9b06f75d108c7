// The bundled model against its own float64 figures (models/demo/figures.json), and its planted circuit.
import { expect, test } from 'vitest'
import { type Target } from '../../src/index.js'
import { DEMO, DEMO_PROMPT, DEMO_TARGET, open, readJson } from '../helpers.js'

interface Figures {
  readonly demo: { logit_difference: number; attribution: Record<string, number> }
  readonly examples: { kind: string; prompt: string; top: string }[]
}

const figures = readJson<Figures>(DEMO, 'figures.json')

test('the demo prompt is attributed as evaluate.py did it', async () => {
  const model = await open(DEMO)
  const result = await model.attribute([DEMO_PROMPT], DEMO_TARGET)
  const row = result.row(0)
  const { constant, ...components } = figures.demo.attribution
  expect(result.components.map(({ label }) => label)).toEqual(Object.keys(components))
  // the figures have four decimals
  for (const [label, value] of Object.entries(components)) expect(row.value(label), label).toBeCloseTo(value, 3.7)
  expect(row.constant).toBeCloseTo(constant ?? Number.NaN, 3.7)
  expect(row.total).toBeCloseTo(figures.demo.logit_difference, 3.7)
  expect(row.measured).toBeCloseTo(figures.demo.logit_difference, 3.7)
  expect(result.certified).toBe(true)
})

test.each(figures.examples)('it predicts what evaluate.py measured: $kind', async ({ prompt, top }) => {
  const model = await open(DEMO)
  const result = await model.attribute([prompt], { answer: 'predicted' })
  const [target] = result.targets
  const id = target && 'tokens' in target ? target.tokens[0]?.id : undefined
  expect(model.tokenizer?.idToToken(id ?? -1)).toBe(top)
})

// names, places, objects and templates are those of models/demo/words.py
const NAMES = ['Mary', 'John', 'Anna', 'Peter', 'Emma', 'Paul', 'Laura', 'Jack', 'Rose', 'Simon', 'Julia', 'Mark']
const PLACES = ['store', 'park', 'school', 'garden', 'museum', 'beach']
const OBJECTS = ['drink', 'book', 'ring', 'key', 'flower', 'map', 'lamp']
const TEMPLATES = [
  'When {A} and {B} went to the {P}, {S} gave a {O} to',
  'Then, {A} and {B} went to the {P} and {S} handed the {O} to',
  'While {A} and {B} were at the {P}, {S} decided to give the {O} to',
]

/** Indirect-object prompts; in every second one the first name is the answer. */
function ioiPrompts(n: number): { prompt: string; target: Target }[] {
  return Array.from({ length: n }, (_, i) => {
    const pick = (list: string[], step: number) => list[(i * step) % list.length] ?? ''
    const [a, b] = [NAMES[i % 12] ?? '', NAMES[(i * 5 + 3) % 12 === i % 12 ? (i + 1) % 12 : (i * 5 + 3) % 12] ?? '']
    const [answer, subject] = i % 2 === 0 ? [a, b] : [b, a]
    const words: Record<string, string> = { A: a, B: b, S: subject, P: pick(PLACES, 1), O: pick(OBJECTS, 1) }
    const prompt = pick(TEMPLATES, 1).replace(/\{(.)\}/g, (_, key: string) => words[key] ?? '')
    return { prompt, target: { answer: ` ${answer}`, against: ` ${subject}` } }
  })
}

test('the planted name movers are found', async () => {
  const model = await open(DEMO)
  const asked = ioiPrompts(48)
  expect(new Set(asked.map(({ prompt }) => prompt)).size).toBe(48)
  const result = await model.attribute(
    asked.map(({ prompt }) => prompt),
    asked.map(({ target }) => target),
  )
  for (let i = 0; i < asked.length; i++)
    expect([...result.ids(i)], 'every word is known').not.toContain(model.tokenizer?.unknownToken)
  // figures.json, 500 prompts: L3H0 6.87, L3H1 4.43, the next L2H0 0.42
  const means = result.mean()
  const ranked = [...means].sort((a, b) => Math.abs(b.mean) - Math.abs(a.mean))
  expect(ranked.slice(0, 2).map(({ label }) => label)).toEqual(['L3H0', 'L3H1'])
  for (const mover of ranked.slice(0, 2)) {
    expect(mover.sameSign).toBeGreaterThan(0.9)
    expect(mover.interval[0]).toBeGreaterThan(1)
    expect(mover.interval[0]).toBeLessThan(mover.mean)
    expect(mover.interval[1]).toBeGreaterThan(mover.mean)
  }
  for (const other of ranked.slice(2)) expect(Math.abs(other.mean), other.label).toBeLessThan(1)
  const movers = ranked[0] && ranked[1] ? ranked[0].mean + ranked[1].mean : 0
  const total = result.total.reduce((sum, value) => sum + value, 0) / asked.length
  expect(movers / total).toBeGreaterThan(0.8)
})

test('a mean is that of the rows', async () => {
  const model = await open(DEMO)
  const asked = ioiPrompts(20)
  const result = await model.attribute(
    asked.map(({ prompt }) => prompt),
    asked.map(({ target }) => target),
  )
  const column = asked.map((_, i) => result.row(i).value('L3H0'))
  const mean = column.reduce((a, b) => a + b, 0) / 20
  const std = Math.sqrt(column.reduce((sum, value) => sum + (value - mean) ** 2, 0) / 19)
  const found = result.mean().find(({ label }) => label === 'L3H0')
  expect(found?.mean).toBeCloseTo(mean, 9)
  expect(found?.std).toBeCloseTo(std, 9)
  expect(result.mean({ seed: 0 })).toEqual(result.mean())
})

test('rows of one prompt are one draw: a single prompt has an interval of no width', async () => {
  const model = await open(DEMO)
  const result = await model.attribute([DEMO_PROMPT], { answer: ' Mary' }, { position: 'all' })
  expect(result.rows.prompt.length).toBe(15)
  for (const { mean, std, interval } of result.mean()) {
    expect(interval[0]).toBeCloseTo(mean, 12)
    expect(interval[1]).toBeCloseTo(mean, 12)
    expect(std).toBeGreaterThan(0)
  }
})
