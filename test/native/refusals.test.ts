// What a call refuses: prompts, ids, memory, numbers that are not finite, sums that do not hold.
import { expect, test } from 'vitest'
import { Model, type Prompt, type PrismErrorCode } from '../../src/index.js'
import { DEMO, DEMO_PROMPT, editTensor, fixture, open, refusal, spoiled } from '../helpers.js'

const TARGET = { answer: 6, against: 5 }

test.each<[string, PrismErrorCode, Prompt[], object]>([
  ['no prompt', 'INVALID_ARGUMENT', [], {}],
  ['an empty prompt', 'PROMPT_EMPTY', [[1], []], { prompt: 1 }],
  ['a prompt of 65 tokens', 'PROMPT_TOO_LONG', [[1], [2], new Uint32Array(65)], { prompt: 2, length: 65, nContext: 64 }],
  ['an id behind the vocabulary', 'TOKEN_RANGE', [[1, 101]], { id: 101, dVocab: 101 }],
])('refused: %s', async (_, code, prompts, details) => {
  const model = await open(fixture('gpt2'))
  const error = await refusal(code, () => model.attribute(prompts, TARGET))
  expect(error.details).toMatchObject(details)
  await model.attribute([[1, 2]], TARGET)
})

test('the longest prompt and the last id do run', async () => {
  const model = await open(fixture('gpt2'))
  const result = await model.attribute([new Uint32Array(64).fill(100)], { answer: 100 })
  expect([...result.rows.position]).toEqual([63])
})

test('an empty text is refused, with a BOS token in front or without; a lone BOS token may be given as an id', async () => {
  const model = await open(DEMO)
  for (const prependBos of [true, false]) {
    await refusal('PROMPT_EMPTY', () => model.attribute([''], TARGET, { prependBos }))
  }
  await model.attribute([[0]], TARGET)
})

test('a text longer than the context', async () => {
  const model = await open(DEMO)
  const error = await refusal('PROMPT_TOO_LONG', () => model.attribute([Array(64).fill('Mary').join(' ')], TARGET))
  expect(error.details).toMatchObject({ prompt: 0, length: 65, nContext: 64 })
})

test.each([[{ answer: 101 }], [{ answer: 1, against: 101 }], [{ weights: [[101, 1]] as const }]])(
  'a target behind the vocabulary: %j',
  async (target) => {
    const model = await open(fixture('gpt2'))
    const error = await refusal('TOKEN_RANGE', () => model.attribute([[1, 2]], target))
    expect(error.details).toMatchObject({ id: 101, dVocab: 101 })
  },
)

test.each([['unti'], ['positions'], ['onprogress'], ['kernels']])('an unknown option is refused: %s', async (name) => {
  const model = await open(fixture('gpt2'))
  const error = await refusal('UNKNOWN_OPTION', () => model.attribute([[1]], TARGET, { [name]: 1 }))
  expect(error.details['name']).toBe(name)
})

test.each<[string, unknown]>([
  ['unit', 'neurons'],
  ['norm', 'recomputed'],
  ['onViolation', 'ignore'],
  ['prependBos', 1],
  ['batchTokens', 0],
  ['batchTokens', 2 ** 32],
  ['signal', 5],
  ['onProgress', {}],
])('an option out of its range is refused: %s: %j', async (argument, value) => {
  const model = await open(fixture('gpt2'))
  const error = await refusal('INVALID_ARGUMENT', () => model.attribute([[1]], TARGET, { [argument]: value }))
  expect(error.details['argument']).toBe(argument)
})

test('prompts are a list', async () => {
  const model = await open(DEMO)
  await refusal('INVALID_ARGUMENT', () => model.attribute(DEMO_PROMPT as unknown as string[], TARGET))
})

test('a call that would take too much memory is refused with both figures; a smaller one runs', async () => {
  const model = await open(DEMO, { memoryLimit: 4 * 239_488 + 60_000 })
  const error = await refusal('MEMORY', () => model.attribute([new Uint32Array(64)], TARGET))
  const { needed, available } = error.details as { needed: number; available: number }
  expect(needed).toBeGreaterThan(available)
  expect(available).toBeLessThanOrEqual(4 * 239_488 + 60_000)
  await model.attribute([[0, 1]], TARGET)
})

test('numbers that overflow are NOT_FINITE, and where', async () => {
  const directory = spoiled('gpt2')
  editTensor(directory, 'transformer.h.1.mlp.c_proj.weight', (value) => value * 1e38)
  const model = await open(directory)
  const error = await refusal('NOT_FINITE', () => model.attribute([[1, 2, 3]], TARGET))
  expect(error.details).toMatchObject({ prompt: 0, first: expect.stringMatching(/\b1\b/) })
})

/** gpt2_untied with so much of one vector added to the row of every logit that f32 cannot measure their difference. */
function unmeasurable(): string {
  const directory = spoiled('gpt2_untied')
  editTensor(directory, 'lm_head.weight', (value, i) => Math.fround(value + 3e6 * Math.cos(i % 24)))
  return directory
}

test('a certificate that fails is INCOMPLETE, never silent', async () => {
  const model = await open(unmeasurable())
  const error = await refusal('INCOMPLETE', () => model.attribute([[1, 2, 3]], TARGET))
  const { prompt, position, rows, total, measured, tolerance } = error.details as Record<string, number>
  expect([prompt, position, rows]).toEqual([0, 2, 1])
  expect(Math.abs((total ?? 0) - (measured ?? 0))).toBeGreaterThan(tolerance ?? Number.POSITIVE_INFINITY)
})

test('with onViolation warn it is a warning, and the result says so', async () => {
  const model = await open(unmeasurable())
  const warned = new Promise<Error & { code?: string }>((resolve) => process.once('warning', resolve))
  const result = await model.attribute([[1, 2, 3]], TARGET, { onViolation: 'warn' })
  expect(result.certified).toBe(false)
  expect(Math.abs(result.residual[0] ?? 0)).toBeGreaterThan(result.tolerance[0] ?? Number.POSITIVE_INFINITY)
  const warning = await warned
  expect([warning.name, warning.code]).toEqual(['PrismWarning', 'INCOMPLETE'])
})

test('without a norm there is no certificate to fail', async () => {
  const model = await open(unmeasurable())
  const result = await model.attribute([[1, 2, 3]], TARGET, { norm: 'none' })
  expect(result.certified).toBe(false)
})

test('a closed model refuses everything but to be closed', async () => {
  const model = await Model.load(DEMO)
  const { tokenizer } = model
  expect(model.closed).toBe(false)
  const closing = model.close()
  expect(model.closed).toBe(true)
  await closing
  await model.close()
  expect(model.config.dModel).toBe(96)
  for (const use of [
    () => model.attribute([[1]], TARGET),
    () => model.weightBytes,
    () => model.fingerprint,
    () => tokenizer?.encode('Mary'),
    () => tokenizer?.decode([1]),
    () => tokenizer?.tokenToId('Mary'),
    () => tokenizer?.idToToken(1),
    () => tokenizer?.unknownToken,
  ]) {
    await refusal('CLOSED', use)
  }
})
