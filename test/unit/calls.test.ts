// The frame around every native call, with a call that the test controls.
import { expect, test } from 'vitest'
import { call } from '../../src/calls.js'
import type { Progress } from '../../src/index.js'
import { refusal } from '../helpers.js'

/** An object of no addon. */
const nobody = {}

test('reports arrive as they are, and a last one that was dropped is made up', async () => {
  const seen: Progress[] = []
  const onProgress = (progress: Progress) => seen.push(progress)
  const result = await call(nobody, { onProgress }, async (_, report) => {
    report?.(0, 3)
    report?.(1, 3)
    return 'result'
  })
  expect(result).toBe('result')
  expect(seen).toEqual([
    { done: 0, total: 3 },
    { done: 1, total: 3 },
    { done: 3, total: 3 },
  ])
})

test('a last report that came is not repeated, and one that comes too late is dropped', async () => {
  const seen: number[] = []
  let late: ((done: number, total: number) => void) | undefined
  await call(nobody, { onProgress: ({ done }) => seen.push(done) }, async (_, report) => {
    late = report
    report?.(2, 2)
  })
  late?.(2, 2)
  expect(seen).toEqual([2])
})

test('without onProgress nothing is reported', async () => {
  expect(await call(nobody, {}, async (_, report) => report)).toBeUndefined()
})

test('what onProgress throws wins over the result, over the error, and is thrown once', async () => {
  const mine = new Error('mine')
  let calls = 0
  const onProgress = () => {
    calls++
    throw mine
  }
  const reporting = (end: () => unknown) =>
    call(nobody, { onProgress }, async (_, report) => (report?.(0, 2), report?.(1, 2), end()))
  await expect(reporting(() => 'result')).rejects.toBe(mine)
  await expect(reporting(() => Promise.reject(new Error('cancelled')))).rejects.toBe(mine)
  expect(calls).toBe(2)
})

test('an error of the addon is turned into ours; ABORTED is the reason of the signal only if the signal is aborted', async () => {
  const native = (code: string) => Promise.reject(Object.assign(new Error(code), { code, details: '{}' }))
  await refusal('NOT_FINITE', () => call(nobody, {}, () => native('NOT_FINITE')))
  const controller = new AbortController()
  const aborted = await refusal('ABORTED', () =>
    call(nobody, { signal: controller.signal }, () => {
      controller.abort('mine')
      return native('ABORTED')
    }),
  )
  expect(aborted.cause).toBe('mine')
  const other = await refusal('NOT_FINITE', () => call(nobody, { signal: AbortSignal.any([]) }, () => native('NOT_FINITE')))
  expect(other.message).toBe('NOT_FINITE')
})

test('a signal keeps no listener of a call that has settled', async () => {
  const { signal } = new AbortController()
  let listeners = 0
  const [add, remove] = [signal.addEventListener.bind(signal), signal.removeEventListener.bind(signal)]
  signal.addEventListener = ((...args: Parameters<typeof add>) => (listeners++, add(...args))) as typeof add
  signal.removeEventListener = ((...args: Parameters<typeof remove>) => (listeners--, remove(...args))) as typeof remove
  await call(nobody, { signal }, async () => 1)
  await refusal('INTERNAL', () => call(nobody, { signal }, () => Promise.reject(new Error('x'))))
  expect(listeners).toBe(0)
})
