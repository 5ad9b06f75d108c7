import { expect, test } from 'vitest'
import { Model } from '../../src/index.js'
import { DEMO, refusal } from '../helpers.js'

const PROMPTS = Array.from({ length: 1500 }, (_, i) => [0, (i * 7) % 342, (i * 3) % 342, 5, 6, 7])
const TARGET = { answer: 'predicted' } as const

test('close lets the calls under way settle with their results, and refuses the next', async () => {
  const model = await Model.load(DEMO)
  const order: string[] = []
  const running = [1, 2].map((i) => model.attribute(PROMPTS, TARGET).finally(() => order.push(`call ${i}`)))
  const closing = model.close().then(() => order.push('closed'))
  expect(model.closed).toBe(true)
  await refusal('CLOSED', () => model.attribute(PROMPTS, TARGET))
  for (const result of await Promise.all(running)) {
    expect(result.certified).toBe(true)
    expect(result.rows.prompt.length).toBe(1500)
  }
  await closing
  expect(order.at(-1)).toBe('closed')
  expect(order).toHaveLength(3)
})

test('close is idempotent, at once and later', async () => {
  const model = await Model.load(DEMO)
  const [first, second] = [model.close(), model.close()]
  await Promise.all([first, second])
  await model.close()
  await model[Symbol.asyncDispose]()
  expect(model.closed).toBe(true)
})

test('a result outlives its model', async () => {
  const model = await Model.load(DEMO)
  const result = await model.attribute(PROMPTS.slice(0, 3), { answer: 9 })
  await model.close()
  expect(result.row(2).byMagnitude(1)).toHaveLength(1)
  expect([...result.ids(2)]).toEqual(PROMPTS[2])
  expect(result.mean()).toHaveLength(26)
})

test('await using closes at the end of the block, after an error too', async () => {
  let kept: Model | undefined
  {
    await using model = await Model.load(DEMO)
    kept = model
    expect(model.closed).toBe(false)
  }
  expect(kept.closed).toBe(true)
  const failing = async () => {
    await using model = await Model.load(DEMO)
    kept = model
    throw new Error('mine')
  }
  await expect(failing()).rejects.toThrow('mine')
  expect(kept.closed).toBe(true)
  await refusal('CLOSED', () => kept?.attribute([[1]], { answer: 2 }))
})

test('an abort and a close together settle both', async () => {
  const model = await Model.load(DEMO)
  const controller = new AbortController()
  const running = model.attribute(PROMPTS, TARGET, { signal: controller.signal })
  const closing = model.close()
  controller.abort()
  await refusal('ABORTED', () => running)
  await closing
})
