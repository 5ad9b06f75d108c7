// Every kind of target against what transformers computed in float64 (fixtures/gpt2/targets.json).
import { describe, expect, test } from 'vitest'
import type { AttributeOptions, Target } from '../../src/index.js'
import { byHead, expectClose, expectRow, fixture, open, type ReferenceRow, readJson, refusal } from '../helpers.js'

type Row = ReferenceRow & { readonly answer_token: number | null }

interface Spec {
  readonly answer?: number | number[] | 'next' | 'predicted'
  readonly against?: number | number[] | 'mean'
  readonly weights?: [number, number][]
  readonly direction?: number[]
  readonly norm?: 'none'
}

interface Reference {
  readonly prompts: number[][]
  readonly targets: Record<string, { spec: Spec; last_position: (Row | null)[]; first_prompt: (Row | null)[] }>
}

const { prompts, targets } = readJson<Reference>(fixture('gpt2'), 'targets.json')

function request({ norm, direction, ...spec }: Spec): [Target, AttributeOptions] {
  const target = direction ? { direction: Float32Array.from(direction) } : (spec as Target)
  return [target, norm ? { norm } : {}]
}

const isRow = (row: Row | null): row is Row => row !== null

describe.each(Object.entries(targets))('%s', (_, { spec, last_position: last, first_prompt: first }) => {
  const certified = spec.norm !== 'none'

  test('at every position of the first prompt that has one', async () => {
    const model = await open(fixture('gpt2'))
    const [target, options] = request(spec)
    const rows = first.filter(isRow)
    const result = await model.attribute(prompts.slice(0, 1), target, {
      ...options,
      position: rows.map(({ position }) => position),
    })
    expect(result.certified).toBe(certified)
    rows.forEach((row, i) => {
      expectRow(result, i, byHead(row), row.constant, row.total)
      const resolved = result.targets[i]
      if (row.answer_token !== null && resolved && 'tokens' in resolved) {
        expect(resolved.tokens.find(({ weight }) => weight > 0)).toEqual({ id: row.answer_token, weight: 1 })
      }
    })
    expectClose(
      result.measured,
      rows.map(({ measured }) => measured),
      'measured',
    )
  })

  // 'next' has no row at a last position
  if (!last.every(isRow)) return

  test('at the last position of four prompts', async () => {
    const model = await open(fixture('gpt2'))
    const [target, options] = request(spec)
    const result = await model.attribute(prompts, target, options)
    expect(result.certified).toBe(certified)
    last.forEach((row, i) => expectRow(result, i, byHead(row), row.constant, row.total))
    expectClose(
      result.measured,
      last.map(({ measured }) => measured),
      'measured',
    )
  })
})

test('a result says what its targets were', async () => {
  const model = await open(fixture('gpt2'))
  const direction = Float32Array.from({ length: 32 }, (_, i) => i - 3)
  const result = await model.attribute(
    [[1, 2], [3, 4, 5], [6], [7, 8]],
    [
      { answer: [67, 61], against: [66, 89] },
      { answer: 14, against: 'mean' },
      { weights: [[5, 0.5], [7, -1.25]] }, // prettier-ignore
      { direction },
    ],
  )
  expect(result.targets).toEqual([
    {
      tokens: expect.arrayContaining([
        { id: 67, weight: 0.5 },
        { id: 61, weight: 0.5 },
        { id: 66, weight: -0.5 },
        { id: 89, weight: -0.5 },
      ]),
      mean: 0,
    },
    { tokens: [{ id: 14, weight: 1 }], mean: -1 },
    {
      tokens: [
        { id: 5, weight: 0.5 },
        { id: 7, weight: -1.25 },
      ],
      mean: 0,
    },
    { direction },
  ])
  expect([...result.ids(1)]).toEqual([3, 4, 5])
})

test('one target per prompt is the same as asking one by one', async () => {
  const model = await open(fixture('gpt2'))
  const each: Target[] = [{ answer: 6 }, { answer: 'predicted' }, { answer: 1, against: 'mean' }, { answer: [2, 3], against: 4 }]
  const together = await model.attribute(prompts, each)
  for (const [i, target] of each.entries()) {
    const alone = await model.attribute(prompts.slice(i, i + 1), target)
    expect(together.targets[i]).toEqual(alone.targets[0])
    expectClose(together.row(i).values, [...alone.values])
  }
})

test.each<[string, Target | Target[]]>([
  ['no target', []],
  ['two targets for four prompts', [{ answer: 1 }, { answer: 2 }]],
  ['no answer', { answer: [] }],
  ['nothing to compare with', { answer: 1, against: [] }],
  ['no weights', { weights: [] }],
  ['a weight that is no number', { weights: [[5, Number.NaN]] }],
  ['a weight without end', { weights: [[5, Number.POSITIVE_INFINITY]] }],
  ['an answer against itself', { answer: 5, against: 5 }],
  ['a direction of another length', { direction: new Float32Array(31).fill(1) }],
  ['a direction of zeros', { direction: new Float32Array(32) }],
  ['a direction that is not finite', { direction: new Float32Array(32).fill(Number.NaN) }],
])('refused: %s', async (_, target) => {
  const model = await open(fixture('gpt2'))
  const error = await refusal('INVALID_ARGUMENT', () => model.attribute(prompts, target))
  expect(String(error.details['argument'])).toMatch(/^target/)
})

test.each(['frozen', 'none'] as const)('a direction is read raw: norm %s with it is refused', async (norm) => {
  const model = await open(fixture('gpt2'))
  await refusal('INVALID_ARGUMENT', () => model.attribute(prompts, { direction: new Float32Array(32).fill(1) }, { norm }))
})
