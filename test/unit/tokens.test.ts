import { expect, test } from 'vitest'
import { nativePrompt, nativeTokens } from '../../src/tokens.js'
import { refusal } from '../helpers.js'

test('a prompt is a text or ids', () => {
  expect(nativePrompt('text', 0)).toBe('text')
  expect(nativePrompt('', 0)).toBe('')
  expect(nativePrompt([1, 2, 2 ** 32 - 1], 0)).toEqual(Uint32Array.of(1, 2, 2 ** 32 - 1))
  expect(nativePrompt(Uint32Array.of(3), 0)).toEqual(Uint32Array.of(3))
})

test.each([
  [5, '5'],
  [null, 'null'],
  [undefined, 'undefined'],
  [new Int32Array(2), 'an object of Int32Array'],
  [{ text: 'a' }, 'an object of Object'],
])('another prompt is refused: %s', async (prompt, found) => {
  const error = await refusal('INVALID_ARGUMENT', () => nativePrompt(prompt, 7))
  expect(error.details).toMatchObject({ argument: 'prompt 7', found })
})

test.each([[-1], [1.5], [2 ** 32], [Number.NaN], ['7'], [null]])('an id that is none is named: %j', async (id) => {
  const error = await refusal('INVALID_ARGUMENT', () => nativePrompt([1, id], 0))
  expect(error.details['found']).toBe(typeof id === 'string' ? `'${id}'` : String(id))
})

test('a list with a hole is refused: a hole is no id 0', async () => {
  const holes = new Array<number>(3)
  holes[0] = 1
  await refusal('INVALID_ARGUMENT', () => nativePrompt(holes, 0))
})

test('tokens are one or several, ids or texts', () => {
  expect(nativeTokens('answer', ' Mary')).toEqual([' Mary'])
  expect(nativeTokens('answer', 0)).toEqual([0])
  expect(nativeTokens('answer', [3, ' John'])).toEqual([3, ' John'])
  expect(nativeTokens('answer', [])).toEqual([])
})

test.each([[-1], [0.5], [2 ** 32], [null], [{}], [[[1]]]])('another token is refused: %j', async (token) => {
  const error = await refusal('INVALID_ARGUMENT', () => nativeTokens('targets.answer', token))
  expect(error.details).toMatchObject({ argument: 'targets.answer', expected: 'a token: an id or a text' })
})
