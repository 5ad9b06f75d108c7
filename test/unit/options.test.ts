import { expect, test } from 'vitest'
import { Model } from '../../src/index.js'
import { checkKeys, oneOf, optionalFlag, wholeNumber } from '../../src/options.js'
import { DEMO, refusal } from '../helpers.js'

test('known keys pass, an unknown one is refused with the nearest', async () => {
  checkKeys('attribute', { unit: 'head', norm: 'none' }, ['unit', 'norm'])
  checkKeys('attribute', {}, ['unit'])
  const error = await refusal('UNKNOWN_OPTION', () => checkKeys('attribute', { unti: 'head' }, ['unit', 'norm']))
  expect(error.details).toEqual({ name: 'unti', nearest: ['unit'] })
  expect(error.message).toBe("attribute: option 'unti' is unknown; did you mean 'unit'?")
})

test.each([[null], [[]], ['head'], [3]])('options that are no object are refused: %j', async (options) => {
  const error = await refusal('INVALID_ARGUMENT', () => checkKeys('attribute', options, ['unit']))
  expect(error.details).toMatchObject({ argument: 'attribute', expected: 'an object' })
})

test('one of some names', async () => {
  expect(oneOf('unit', undefined, ['layer', 'head'], 'head')).toBe('head')
  expect(oneOf('unit', 'layer', ['layer', 'head'], 'head')).toBe('layer')
  for (const value of ['heads', null, 3, ['head']]) {
    const error = await refusal('INVALID_ARGUMENT', () => oneOf('unit', value, ['layer', 'head'], 'head'))
    expect(error.details).toMatchObject({ argument: 'unit', expected: "'layer' or 'head'" })
  }
})

test('a whole number in a range, both ends in it', async () => {
  expect(wholeNumber('k', undefined, 1, 3)).toBeUndefined()
  expect([1, 2, 3].map((k) => wholeNumber('k', k, 1, 3))).toEqual([1, 2, 3])
  for (const value of [0, 4, 1.5, Number.NaN, Number.POSITIVE_INFINITY, '2', null, 2n]) {
    const error = await refusal('INVALID_ARGUMENT', () => wholeNumber('k', value, 1, 3))
    expect(error.details).toMatchObject({ argument: 'k', expected: 'a whole number from 1 to 3' })
  }
})

test('a flag', async () => {
  expect([undefined, true, false].map((flag) => optionalFlag('bos', flag))).toEqual([undefined, true, false])
  for (const value of [0, 'true', null]) await refusal('INVALID_ARGUMENT', () => optionalFlag('bos', value))
})

test.each([
  ['devise', 'device'],
  ['memorylimit', 'memoryLimit'],
  ['allowCustomRegx', 'allowCustomRegex'],
  ['onProgres', 'onProgress'],
])('load refuses %s and names %s', async (name, nearest) => {
  const error = await refusal('UNKNOWN_OPTION', () => Model.load(DEMO, { [name]: 1 }))
  expect(error.details).toMatchObject({ name, nearest: expect.arrayContaining([nearest]) })
})

test.each<[string, unknown]>([
  ['device', 'tpu'],
  ['device', 'cuda:x'],
  ['device', null],
  ['dtype', 'bf16'],
  ['dtype', 'f8'],
  ['threads', 0],
  ['threads', 1025],
  ['threads', 1.5],
  ['memoryLimit', 0],
  ['memoryLimit', '1GB'],
  ['allowCustomRegex', 1],
  ['allowUnknownConfig', 'yes'],
  ['kernels', 'fast'],
  ['signal', {}],
  ['onProgress', 'tell'],
])('load refuses %s: %j', async (argument, value) => {
  const error = await refusal('INVALID_ARGUMENT', () => Model.load(DEMO, { [argument]: value }))
  expect(error.details['argument']).toBe(argument)
})

test.each([[''], [3], [undefined], [null], [['a']]])('load refuses a path that is none: %j', async (path) => {
  const error = await refusal('INVALID_ARGUMENT', () => Model.load(path as string))
  expect(error.details['argument']).toBe('path')
})

test('load refuses an address that is no file', async () => {
  await refusal('INVALID_ARGUMENT', () => Model.load(new URL('https://example.org/model')))
})

test('a GPU that no machine has is refused with its name and the reason', async () => {
  const error = await refusal('DEVICE_UNAVAILABLE', () => Model.load(DEMO, { device: 'cuda:999' }))
  expect(error.details).toEqual({ device: 'cuda:999', reason: expect.stringMatching(/\S/) })
})
