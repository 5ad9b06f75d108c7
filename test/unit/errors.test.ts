import { expect, test } from 'vitest'
import { fromNative, invalidArgument, native, unknownName } from '../../src/errors.js'
import { PrismError, type PrismErrorCode } from '../../src/index.js'
import { errorCodes } from '../../src/native.js'

// a code that the union lacks, or has too many, is a type error here; the test below compares it with the core's table
const CODES: Record<PrismErrorCode, true> = {
  IO_ERROR: true,
  CONFIG_INVALID: true,
  CONFIG_UNSUPPORTED: true,
  CHECKPOINT_INVALID: true,
  CHECKPOINT_MISSING: true,
  TENSOR_MISSING: true,
  TENSOR_UNEXPECTED: true,
  TENSOR_SHAPE: true,
  TENSOR_DTYPE: true,
  PICKLE_REFUSED: true,
  TOKENIZER_INVALID: true,
  TOKENIZER_MISSING: true,
  NOT_ONE_TOKEN: true,
  TOKEN_RANGE: true,
  PROMPT_EMPTY: true,
  PROMPT_TOO_LONG: true,
  POSITION_RANGE: true,
  UNKNOWN_HOOK: true,
  UNKNOWN_OPTION: true,
  INVALID_ARGUMENT: true,
  NOT_CACHED: true,
  DEVICE_UNAVAILABLE: true,
  MEMORY: true,
  NOT_FINITE: true,
  INCOMPLETE: true,
  ABORTED: true,
  CLOSED: true,
  POISONED: true,
  INTERNAL: true,
}

test('the union of codes is the table of the core', () => {
  expect(Object.keys(CODES).sort()).toEqual([...errorCodes()].sort())
})

test('a PrismError is an Error with a code, frozen details and a cause', () => {
  const cause = new Error('below')
  const error = new PrismError('MEMORY', 'too little', { needed: 2, available: 1 }, { cause })
  expect(error).toBeInstanceOf(Error)
  expect(error.name).toBe('PrismError')
  expect(String(error)).toBe('PrismError: too little')
  expect(error.code).toBe('MEMORY')
  expect(error.details).toEqual({ needed: 2, available: 1 })
  expect(Object.isFrozen(error.details)).toBe(true)
  expect(error.cause).toBe(cause)
  expect(new PrismError('CLOSED', 'closed').details).toEqual({})
})

test.each([
  ['a text', "'a text'"],
  ['x'.repeat(61), `'${'x'.repeat(60)}…'`],
  [[1, 2, 3], 'a list of 3'],
  [null, 'null'],
  [undefined, 'undefined'],
  [1.5, '1.5'],
  [{}, 'an object of Object'],
  [new Map(), 'an object of Map'],
  [Object.create(null), 'an object of no class'],
])('an argument is described by what was found: %j', (found, shown) => {
  const error = invalidArgument('thing', found, 'something else')
  expect(error.code).toBe('INVALID_ARGUMENT')
  expect(error.message).toBe(`thing is ${shown}; expected something else`)
  expect(error.details).toEqual({ argument: 'thing', found: shown, expected: 'something else' })
})

test('an unknown name comes with the nearest, or with all there are', () => {
  const near = unknownName('UNKNOWN_OPTION', 'option', 'postion', ['unit', 'position', 'norm'])
  expect(near.code).toBe('UNKNOWN_OPTION')
  expect(near.details).toEqual({ name: 'postion', nearest: ['position'] })
  expect(near.message).toContain("did you mean 'position'?")
  const far = unknownName('UNKNOWN_OPTION', 'option', 'zzzzzzzz', ['unit', 'norm'])
  expect(far.details).toEqual({ name: 'zzzzzzzz', nearest: [] })
  expect(far.message).toContain('known: unit, norm')
})

test('an error of the addon keeps its code and its fields', () => {
  const thrown = Object.assign(new Error('no'), { code: 'TOKEN_RANGE', details: '{"id":5}' })
  const error = fromNative(thrown)
  expect([error.code, error.message, error.details, error.cause]).toEqual(['TOKEN_RANGE', 'no', { id: 5 }, thrown])
  expect(fromNative(error)).toBe(error)
})

test.each([
  [new TypeError('odd'), 'odd'],
  ['text', 'text'],
  [undefined, 'undefined'],
  [null, 'null'],
])('anything else that the addon throws is INTERNAL: %s', (thrown, problem) => {
  const throwing = () => {
    throw thrown
  }
  expect(() => native(throwing)).toThrow(PrismError)
  expect(fromNative(thrown)).toMatchObject({ code: 'INTERNAL', details: { place: 'addon', problem } })
})
