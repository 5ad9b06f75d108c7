// How calls behave: inputs are copied, the event loop runs on, progress, abort, several at once.
import { beforeAll, afterAll, expect, test } from 'vitest'
import { Model, PrismError, type Progress } from '../../src/index.js'
import { DEMO, DEMO_PROMPT, refusal } from '../helpers.js'

const TARGET = { answer: 'predicted', against: 'mean' } as const

/** 3,000 prompts, most of a second of work. */
const BIG = Array.from({ length: 3000 }, (_, i) =>
  Uint32Array.from({ length: 40 }, (_, t) => (t === 0 ? 0 : (i * 37 + t * 11) % 342)),
)

/** A part of it, where half the time will do. */
const SOME = BIG.slice(0, 1500)

let model: Model
beforeAll(async () => {
  model = await Model.load(DEMO)
})
afterAll(() => model.close())

/** How long all of it takes, in ms. */
async function wholeTime(): Promise<number> {
  const start = performance.now()
  await model.attribute(SOME, TARGET)
  return performance.now() - start
}

/** That the model still gives what it should (figures.json). */
async function expectUsable(): Promise<void> {
  const result = await model.attribute([DEMO_PROMPT], { answer: ' Mary', against: ' John' })
  expect(result.row(0).value('L3H1')).toBeCloseTo(3.518, 3)
}

test('changing the inputs behind a call does not change its result', async () => {
  const ids = Uint32Array.from({ length: 30 }, (_, i) => i * 3)
  const list = Array.from(ids)
  const direction = Float32Array.from({ length: 96 }, (_, i) => Math.sin(i))
  const [kept, keptDirection] = [ids.slice(), direction.slice()]
  const expected = await model.attribute([kept, kept], { direction: keptDirection }, { position: [1, 2] })

  const prompts = [ids, list]
  const target = { direction }
  const position = [1, 2]
  const running = model.attribute(prompts, target, { position })
  ids.fill(9)
  list.fill(9)
  direction.fill(1)
  position.length = 0
  prompts.length = 0
  structuredClone(ids, { transfer: [ids.buffer] })
  structuredClone(direction, { transfer: [direction.buffer] })
  const result = await running
  expect([...result.values]).toEqual([...expected.values])
  expect([...result.ids(0)]).toEqual([...kept])
  expect(result.targets[0]).toEqual({ direction: keptDirection })
})

test('the event loop is not blocked', async () => {
  const ticks: number[] = []
  const timer = setInterval(() => ticks.push(performance.now()), 5)
  const start = performance.now()
  await model.attribute(BIG, TARGET)
  const took = performance.now() - start
  clearInterval(timer)
  expect(took, 'long enough to see').toBeGreaterThan(100)
  // conversion of the arguments and the result is on this thread, and the machine is shared: half of the ticks are enough
  expect(ticks.length).toBeGreaterThan(took / 5 / 4)
  const gaps = ticks.map((tick, i) => tick - (ticks[i - 1] ?? start))
  expect(Math.max(...gaps)).toBeLessThan(Math.max(250, took / 2))
})

test('progress rises to the total, and the total is the number of prompts', async () => {
  const seen: Progress[] = []
  const result = await model.attribute(BIG, TARGET, { onProgress: (progress) => seen.push(progress) })
  expect(result.rows.prompt.length).toBe(3000)
  expect(seen.length).toBeGreaterThan(1)
  expect(seen.every(({ total }) => total === 3000)).toBe(true)
  const done = seen.map((progress) => progress.done)
  expect(done.at(-1)).toBe(3000)
  expect(done).toEqual([...done].sort((a, b) => a - b))
  expect(done[0]).toBeGreaterThanOrEqual(0)
  const settled = seen.length
  await new Promise((resolve) => setTimeout(resolve, 50))
  expect(seen.length, 'no report behind the result').toBe(settled)
})

test('loading reports its layers', async () => {
  const seen: Progress[] = []
  const loaded = await Model.load(DEMO, { onProgress: (progress) => seen.push(progress) })
  await loaded.close()
  expect(seen.at(-1)).toEqual({ done: 4, total: 4 })
})

test('what onProgress throws stops the call and is what it rejects with', async () => {
  const took = await wholeTime()
  const mine = new Error('mine')
  let calls = 0
  const start = performance.now()
  const failing = model.attribute(SOME, TARGET, {
    onProgress: () => {
      calls++
      throw mine
    },
  })
  await expect(failing).rejects.toBe(mine)
  expect(performance.now() - start, 'it stops').toBeLessThan(took / 2)
  expect(calls).toBe(1)
  await expectUsable()
})

test('a falsy thing that onProgress throws is thrown too', async () => {
  const onProgress = () => {
    throw undefined
  }
  const outcome = await model.attribute([[1, 2]], { answer: 3 }, { onProgress }).then(
    () => 'settled',
    (error: unknown) => error,
  )
  expect(outcome).toBeUndefined()
})

test('abort in the middle settles soon with ABORTED and the reason; the model stays usable', async () => {
  const took = await wholeTime()
  const controller = new AbortController()
  const reason = new Error('enough')
  const running = model.attribute(SOME, TARGET, { signal: controller.signal })
  await new Promise((resolve) => setTimeout(resolve, took / 10))
  const start = performance.now()
  controller.abort(reason)
  const error = await refusal('ABORTED', () => running)
  expect(performance.now() - start).toBeLessThan(took / 2)
  expect(error.cause).toBe(reason)
  await expectUsable()
})

test('a signal that was aborted before, and one that is aborted afterwards', async () => {
  const error = await refusal('ABORTED', () => model.attribute([[1]], { answer: 2 }, { signal: AbortSignal.abort('early') }))
  expect(error.cause).toBe('early')
  const load = await refusal('ABORTED', () => Model.load(DEMO, { signal: AbortSignal.abort() }))
  expect(load.cause).toBeInstanceOf(DOMException)
  const controller = new AbortController()
  await model.attribute([[1]], { answer: 2 }, { signal: controller.signal })
  controller.abort()
  await expectUsable()
})

test('a signal that times out', async () => {
  const error = await refusal('ABORTED', () =>
    model.attribute([...BIG, ...BIG, ...BIG], TARGET, { signal: AbortSignal.timeout(60) }),
  )
  expect(error.cause).toMatchObject({ name: 'TimeoutError' })
})

test('abort from within onProgress', async () => {
  const controller = new AbortController()
  const running = model.attribute(BIG, TARGET, { signal: controller.signal, onProgress: () => controller.abort('seen') })
  expect((await refusal('ABORTED', () => running)).cause).toBe('seen')
})

test('one abort stops all calls of its signal and no other', async () => {
  const controller = new AbortController()
  const { signal } = controller
  const other = model.attribute([DEMO_PROMPT], { answer: ' Mary' })
  const running = [1, 2, 3].map(() => model.attribute(BIG, TARGET, { signal }))
  controller.abort()
  const outcomes = await Promise.allSettled(running)
  expect(outcomes.map((o) => o.status === 'rejected' && o.reason instanceof PrismError && o.reason.code)).toEqual(
    Array(3).fill('ABORTED'),
  )
  expect((await other).certified).toBe(true)
})

test('calls at the same time give what they give alone', async () => {
  const prompts = Array.from({ length: 20 }, (_, i) => [0, i + 2, 2 * i + 2, 330 - i])
  const alone: number[][] = []
  for (const prompt of prompts) alone.push([...(await model.attribute([prompt], TARGET)).values])
  const together = await Promise.all(prompts.map((prompt) => model.attribute([prompt], TARGET)))
  expect(together.map(({ values }) => [...values])).toEqual(alone)
})

test('two models at the same time', async () => {
  const other = await Model.load(DEMO, { threads: 1 })
  const [a, b] = await Promise.all([model, other].map((one) => one.attribute(BIG.slice(0, 100), TARGET)))
  expect(a?.certified && b?.certified).toBe(true)
  expect([...(a?.targets ?? [])]).toEqual([...(b?.targets ?? [])])
  await other.close()
})
