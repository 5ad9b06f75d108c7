import { expect, test } from 'vitest'
import type { Position } from '../../src/index.js'
import { expectClose, fixture, open, refusal } from '../helpers.js'

const PROMPTS = [
  [5, 6, 7, 8, 9],
  [1, 2, 3],
]
const TARGET = { answer: 6, against: 5 }

test.each<[string, Position, [number, number][]]>([
  ['last', 'last', [[0, 4], [1, 2]]],
  ['all', 'all', [[0, 0], [0, 1], [0, 2], [0, 3], [0, 4], [1, 0], [1, 1], [1, 2]]],
  ['one from the start', 1, [[0, 1], [1, 1]]],
  ['one from the end', -2, [[0, 3], [1, 1]]],
  ['the first, counted from the end of each', { perPrompt: [[-5], [-3]] }, [[0, 0], [1, 0]]],
  ['a list for every prompt', [0, -1], [[0, 0], [0, 4], [1, 0], [1, 2]]],
  ['a list out of order', [2, 0], [[0, 0], [0, 2], [1, 0], [1, 2]]],
  ['lists per prompt', { perPrompt: [[1, 3], [-1]] }, [[0, 1], [0, 3], [1, 2]]],
  ['none of one prompt', { perPrompt: [[], [0]] }, [[1, 0]]],
])('%s', async (_, position, expected) => {
  const model = await open(fixture('gpt2'))
  const result = await model.attribute(PROMPTS, TARGET, { position })
  expect(Array.from(result.rows.prompt, (prompt, i) => [prompt, result.rows.position[i]])).toEqual(expected)
  const all = await model.attribute(PROMPTS, TARGET, { position: 'all' })
  expected.forEach(([prompt, at], i) => {
    const row = result.row(i)
    expect([row.prompt, row.position]).toEqual([prompt, at])
    expectClose(row.values, [...all.row((prompt === 0 ? 0 : 5) + at).values])
  })
}) // prettier-ignore

test.each<[string, Position, object]>([
  ['behind the end of the shorter prompt', 3, { prompt: 1, position: 3, length: 3 }],
  ['before its start', -4, { prompt: 1, position: -4, length: 3 }],
  ['far away', [2 ** 40], { prompt: 0, position: 2 ** 40 }],
  ['twice', [1, 1], { prompt: 0, position: 1 }],
  ['twice, once counted from the end', { perPrompt: [[4, -1], [0]] }, { prompt: 0 }],
])('out of range: %s', async (_, position, details) => {
  const model = await open(fixture('gpt2'))
  const error = await refusal('POSITION_RANGE', () => model.attribute(PROMPTS, TARGET, { position }))
  expect(error.details).toMatchObject(details)
})

test.each<[string, unknown]>([
  ['an unknown name', 'first'],
  ['a fraction', 0.5],
  ['a list with a fraction', [0, 1.5]],
  ['an empty list', []],
  ['null', null],
  ['a text of a number', '1'],
  ['perPrompt that is no list', { perPrompt: 1 }],
  ['perPrompt of numbers', { perPrompt: [0, 1] }],
  ['perPrompt with too few lists', { perPrompt: [[0]] }],
  ['an object without perPrompt', {}],
  ['a number beyond those that are exact', 2 ** 53],
])('no position: %s', async (_, position) => {
  const model = await open(fixture('gpt2'))
  const error = await refusal('INVALID_ARGUMENT', () => model.attribute(PROMPTS, TARGET, { position: position as Position }))
  expect(String(error.details['argument'])).toMatch(/^position/)
})

test('an unknown key beside perPrompt is refused', async () => {
  const model = await open(fixture('gpt2'))
  const position = { perprompt: [[0], [0]] } as unknown as Position
  const error = await refusal('UNKNOWN_OPTION', () => model.attribute(PROMPTS, TARGET, { position }))
  expect(error.details['nearest']).toEqual(['perPrompt'])
})

test('the next token exists before the last position only', async () => {
  const model = await open(fixture('gpt2'))
  const result = await model.attribute(PROMPTS, { answer: 'next' }, { position: [0, 1] })
  expect(result.targets.map((target) => 'tokens' in target && target.tokens)).toEqual([
    [{ id: 6, weight: 1 }],
    [{ id: 7, weight: 1 }],
    [{ id: 2, weight: 1 }],
    [{ id: 3, weight: 1 }],
  ])
  await refusal('POSITION_RANGE', () => model.attribute(PROMPTS, { answer: 'next' }))
})
