// Streams and summaries: the numbers of one call, in batches, with little in flight, and errors that say where.
import { afterAll, beforeAll, expect, test } from 'vitest'
import { type Attribution, Model, PrismError, type Progress, type StreamItem } from '../../src/index.js'
import { DEMO, expectClose, refusal } from '../helpers.js'

let model: Model
beforeAll(async () => {
  model = await Model.load(DEMO)
})
afterAll(() => model.close())

const item = (i: number): StreamItem => ({
  prompt: Array.from({ length: 3 + (i % 4) }, (_, t) => (i * 37 + t * 11) % 342),
  target: { answer: i % 342, against: 'mean' },
})

const ITEMS = Array.from({ length: 23 }, (_, i) => item(i))
const whole = () =>
  model.attribute(
    ITEMS.map(({ prompt }) => prompt),
    ITEMS.map(({ target }) => target),
    { position: 'all' },
  )

async function collect(stream: AsyncIterable<Attribution>): Promise<Attribution[]> {
  const results: Attribution[] = []
  for await (const result of stream) results.push(result)
  return results
}

function* generated(): Generator<StreamItem> {
  for (const each of ITEMS) yield each
}

async function* arriving(): AsyncGenerator<StreamItem> {
  for (const each of ITEMS) {
    await new Promise(setImmediate)
    yield each
  }
}

test.each([
  ['a list', () => ITEMS],
  ['a generator', generated],
  ['an async generator', arriving],
  ['a set', () => new Set(ITEMS)],
  ['a readable stream', () => ReadableStream.from(ITEMS)],
])('%s gives what one call gives, in batches', async (_, items) => {
  const results = await collect(model.attributeStream(items(), { batchPrompts: 5, position: 'all' }))
  expect(results.map(({ nPrompts, firstPrompt }) => [firstPrompt, nPrompts])).toEqual([
    [0, 5],
    [5, 5],
    [10, 5],
    [15, 5],
    [20, 3],
  ])
  const all = await whole()
  expectClose(results.flatMap(({ values }) => [...values]), [...all.values]) // prettier-ignore
  expect(results.flatMap(({ rows, firstPrompt }) => [...rows.prompt].map((prompt) => prompt + firstPrompt))).toEqual([...all.rows.prompt]) // prettier-ignore
  expect(results.flatMap(({ rows }) => [...rows.position])).toEqual([...all.rows.position])
  expect(results.flatMap(({ targets }) => targets)).toEqual(all.targets)
  expect(results.every(({ certified }) => certified)).toBe(true)
})

test('one batch, exact batches, and nothing at all', async () => {
  const sizes = async (n: number, batchPrompts?: number) =>
    (await collect(model.attributeStream(ITEMS.slice(0, n), batchPrompts ? { batchPrompts } : {}))).map((r) => r.nPrompts)
  expect(await sizes(23)).toEqual([23])
  expect(await sizes(10, 5)).toEqual([5, 5])
  expect(await sizes(3, 1)).toEqual([1, 1, 1])
  expect(await sizes(0)).toEqual([])
})

test('little is read ahead, and leaving early stops the work and closes the source', async () => {
  let read = 0
  let closed = false
  async function* counted(): AsyncGenerator<StreamItem> {
    try {
      for (; ; read++) yield item(read)
    } finally {
      closed = true
    }
  }
  let results = 0
  for await (const result of model.attributeStream(counted(), { batchPrompts: 4 })) {
    expect(result.firstPrompt).toBe(4 * results)
    await new Promise((resolve) => setTimeout(resolve, 20))
    expect(read, 'one batch ahead').toBeLessThanOrEqual(4 * (results + 2))
    if (++results === 3) break
  }
  await new Promise((resolve) => setTimeout(resolve, 20))
  expect(closed).toBe(true)
  const then = read
  await new Promise((resolve) => setTimeout(resolve, 50))
  expect(read).toBe(then)
})

test('a result does not wait for the source to fill the next batch', async () => {
  let release = () => {}
  const gate = new Promise<void>((resolve) => (release = resolve))
  async function* slow(): AsyncGenerator<StreamItem> {
    yield* ITEMS.slice(0, 2)
    await gate
    yield* ITEMS.slice(2, 4)
  }
  const stream = model.attributeStream(slow(), { batchPrompts: 2 })
  expect((await stream.next()).value).toMatchObject({ firstPrompt: 0, nPrompts: 2 })
  release()
  expect((await stream.next()).value).toMatchObject({ firstPrompt: 2, nPrompts: 2 })
  expect((await stream.next()).done).toBe(true)
})

/** What arrives before a stream ends, and what it ends with. */
async function untilError(stream: AsyncIterable<Attribution>): Promise<[number[], unknown]> {
  const seen: number[] = []
  try {
    for await (const { firstPrompt } of stream) seen.push(firstPrompt)
  } catch (error) {
    return [seen, error]
  }
  return [seen, 'no error']
}

test('an error in the middle says where, after the results before it', async () => {
  const items = ITEMS.map((each, i) => (i === 11 ? { ...each, prompt: [9999] } : each))
  const [seen, error] = await untilError(model.attributeStream(items, { batchPrompts: 4 }))
  expect(seen).toEqual([0, 4])
  expect(error).toBeInstanceOf(PrismError)
  expect(error).toMatchObject({ code: 'TOKEN_RANGE', details: { firstPrompt: 8 } })
  expect((error as PrismError).message).toContain('prompt 8')
  const [none, first] = await untilError(model.attributeStream([{ prompt: [], target: { answer: 1 } }]))
  expect([none, first]).toMatchObject([[], { code: 'PROMPT_EMPTY', details: { firstPrompt: 0 } }])
})

test('what the source throws comes through as it is, after the results before it', async () => {
  const mine = new Error('mine')
  function* failing(): Generator<StreamItem> {
    yield* ITEMS.slice(0, 9)
    throw mine
  }
  const [seen, error] = await untilError(model.attributeStream(failing(), { batchPrompts: 4 }))
  expect([seen, error]).toEqual([[0, 4], mine])
  await expect(model.attributeSummary(failing(), { batchPrompts: 4 })).rejects.toBe(mine)
})

test.each([
  ['no prompt', { target: { answer: 1 } }],
  ['no target', { prompt: [1] }],
  ['null', null],
  ['a text', 'text'],
])('an item with %s is refused by its number', async (_, wrong) => {
  const items = [...ITEMS.slice(0, 6), wrong as unknown as StreamItem]
  const [seen, error] = await untilError(model.attributeStream(items, { batchPrompts: 4 }))
  expect(seen).toEqual([0])
  expect(error).toMatchObject({ code: 'INVALID_ARGUMENT', details: { argument: 'item 6' } })
})

test.each([[5], [null], [undefined], ['text'], [{}]])('%j is no stream', async (items) => {
  await refusal('INVALID_ARGUMENT', () => collect(model.attributeStream(items as unknown as StreamItem[])))
  await refusal('INVALID_ARGUMENT', () => model.attributeSummary(items as unknown as StreamItem[]))
})

test('options of a stream are checked', async () => {
  const near = await refusal('UNKNOWN_OPTION', () => collect(model.attributeStream(ITEMS, { batchPrompt: 4 } as object)))
  expect(near.details['nearest']).toEqual(['batchPrompts'])
  const wrong = [
    { batchPrompts: 0 },
    { batchPrompts: 2.5 },
    { batchPrompts: '4' },
    { onProgress: 5 },
    { signal: {} },
    { unit: 'heads' },
  ]
  for (const options of wrong) {
    await refusal('INVALID_ARGUMENT', () => collect(model.attributeStream(ITEMS, options as object)))
    await refusal('INVALID_ARGUMENT', () => model.attributeSummary(ITEMS, options as object))
  }
  expect((await refusal('UNKNOWN_OPTION', () => model.attributeSummary(ITEMS, { seeds: 1 } as object))).details['nearest']).toEqual(
    ['seed'],
  )
  for (const options of [{ seed: -1 }, { resamples: 0 }, { leading: 0 }, { leading: 1.5 }, { top: 3, unit: 'neuron' }]) {
    await refusal('INVALID_ARGUMENT', () => model.attributeSummary(ITEMS, options as object))
  }
  await refusal('INVALID_ARGUMENT', () => model.attributeSummary([]))
})

test('an abort ends a stream whose source does not answer, and an empty one', async () => {
  async function* silent() {
    yield ITEMS[0] ?? { prompt: [0], target: { answer: 1 } }
    await new Promise(() => {})
  }
  const started = performance.now()
  await refusal('ABORTED', () => collect(model.attributeStream(silent(), { signal: AbortSignal.timeout(200), batchPrompts: 1 })))
  expect(performance.now() - started).toBeLessThan(5000)
  await refusal('ABORTED', () => collect(model.attributeStream([], { signal: AbortSignal.abort() })))
  await refusal('ABORTED', () => model.attributeSummary(silent(), { signal: AbortSignal.timeout(200), batchPrompts: 1 }))
})

test('an abort ends the stream, with its reason', async () => {
  const controller = new AbortController()
  function* endless(): Generator<StreamItem> {
    for (let i = 0; ; i++) yield item(i)
  }
  const [seen, error] = await untilError(
    (async function* () {
      for await (const result of model.attributeStream(endless(), { batchPrompts: 4, signal: controller.signal })) {
        yield result
        if (result.firstPrompt === 8) controller.abort('enough')
      }
    })(),
  )
  expect(seen.slice(0, 3)).toEqual([0, 4, 8])
  expect(seen.length).toBeLessThan(6)
  expect(error).toMatchObject({ code: 'ABORTED', cause: 'enough' })
  await refusal('ABORTED', () => collect(model.attributeStream(ITEMS, { signal: AbortSignal.abort() })))
  await refusal('ABORTED', () => model.attributeSummary(endless(), { batchPrompts: 4, signal: AbortSignal.timeout(50) }))
})

test('progress counts prompts; what it throws ends the stream', async () => {
  const seen: Progress[] = []
  await collect(model.attributeStream(ITEMS, { batchPrompts: 5, onProgress: (progress) => seen.push(progress) }))
  expect(seen.map(({ done }) => done)).toEqual([5, 10, 15, 20, 23])
  expect(seen.every(({ done, total }) => done <= total && total <= 23)).toBe(true)
  expect(seen.at(-1)).toEqual({ done: 23, total: 23 })
  const mine = new Error('mine')
  const throwing = () => {
    throw mine
  }
  const [none, error] = await untilError(model.attributeStream(ITEMS, { batchPrompts: 5, onProgress: throwing }))
  expect([none, error]).toEqual([[], mine])
  const rejecting = (async () => {
    throw mine
  }) as unknown as () => void
  await expect(model.attributeSummary(ITEMS, { onProgress: rejecting })).rejects.toBe(mine)
})

test('a summary is the mean of the whole', async () => {
  const options = { seed: 4, resamples: 300 }
  const all = (await whole()).mean({ ...options, leading: 5 })
  const summary = await model.attributeSummary(arriving(), { ...options, leading: 5, batchPrompts: 4, position: 'all' })
  expect([summary.prompts, summary.certified, summary.method.unit]).toEqual([23, true, 'head'])
  expect(summary.rows).toBe(ITEMS.reduce((sum, { prompt }) => sum + prompt.length, 0))
  expect(summary.worstResidual).toBeLessThan(1)
  expect(summary.worstResidual).toBeGreaterThan(0)
  for (const figure of ['mean', 'std', 'sameSign', 'stability'] as const) {
    expectClose(summary.means.map((mean) => mean[figure]), all.map((mean) => mean[figure]), figure) // prettier-ignore
  }
  expectClose(summary.means.flatMap(({ interval }) => [...interval]), all.flatMap(({ interval }) => [...interval]), 'interval') // prettier-ignore
  expect(summary.means.map(({ label }) => label)).toEqual(summary.components.map(({ label }) => label))
  const largest = [...all].sort((a, b) => Math.abs(b.mean) - Math.abs(a.mean)).slice(0, 3)
  expect(summary.byMagnitude(3).map(({ label }) => label)).toEqual(largest.map(({ label }) => label))
})

test('the interval is that of its seed, however the stream is cut', async () => {
  const intervals = async (seed: number, batchPrompts: number) =>
    (await model.attributeSummary(ITEMS, { seed, batchPrompts, resamples: 200 })).means.map(({ interval }) => interval)
  const first = await intervals(1, 7)
  expect(await intervals(1, 7)).toEqual(first)
  expectClose((await intervals(1, 3)).flat(), first.flat())
  expect(await intervals(2, 7)).not.toEqual(first)
})
