import { expect, test } from 'vitest'
import { nativeTargets } from '../../src/targets.js'
import { refusal } from '../helpers.js'

test('a target becomes what the addon takes', () => {
  expect(nativeTargets({ answer: 5 }, 2)).toEqual([{ answer: [5] }])
  expect(nativeTargets({ answer: ' Mary', against: ' John' }, 2)).toEqual([{ answer: [' Mary'], against: [' John'] }])
  expect(nativeTargets({ answer: [1, 2], against: 'mean' }, 2)).toEqual([{ answer: [1, 2], against: 'mean' }])
  expect(nativeTargets({ answer: 'next' }, 2)).toEqual([{ answer: 'next' }])
  expect(nativeTargets({ answer: 'predicted', against: [3, ' a'] }, 2)).toEqual([{ answer: 'predicted', against: [3, ' a'] }])
  expect(
    nativeTargets(
      {
        weights: [
          [5, 0.5],
          [' a', -1],
        ],
      },
      2,
    ),
  ).toEqual([{ tokens: [5, ' a'], weights: [0.5, -1] }])
  const direction = Float32Array.of(1, 2)
  expect(nativeTargets({ direction }, 2)).toEqual([{ direction }])
})

test('a list is one target per prompt', () => {
  expect(nativeTargets([{ answer: 1 }, { answer: 'next' }], 2)).toEqual([{ answer: [1] }, { answer: 'next' }])
  expect(() => nativeTargets([{ answer: 1 }], 2)).toThrow(/one for each of the 2 prompts/)
})

test('the words next and predicted are names only by themselves: in a list they are texts', () => {
  expect(nativeTargets({ answer: ['next'] }, 2)).toEqual([{ answer: ['next'] }])
  expect(nativeTargets({ answer: 1, against: ['mean'] }, 2)).toEqual([{ answer: [1], against: ['mean'] }])
  expect(nativeTargets({ answer: 'mean' }, 2)).toEqual([{ answer: ['mean'] }])
})

const direction = new Float32Array(2)
test.each<[string, unknown, string]>([
  ['nothing', {}, 'targets'],
  ['against alone', { against: 5 }, 'targets'],
  ['two kinds', { answer: 5, weights: [[5, 1]] }, 'targets'],
  ['two kinds', { weights: [[5, 1]], direction }, 'targets'],
  ['against with weights', { weights: [[5, 1]], against: 3 }, 'targets.against'],
  ['against with a direction', { direction, against: 'mean' }, 'targets.against'],
  ['a direction as a list', { direction: [1, 2] }, 'targets.direction'],
  ['a direction in f64', { direction: new Float64Array(2) }, 'targets.direction'],
  ['weights that are no list', { weights: { 5: 1 } }, 'targets.weights'],
  ['weights without pairs', { weights: [5, 6] }, 'targets.weights'],
  ['a pair of one', { weights: [[5]] }, 'targets.weights'],
  ['a pair of three', { weights: [[5, 1, 2]] }, 'targets.weights'],
  ['a weight that is a text', { weights: [[5, '1']] }, 'targets.weights'],
  ['a weighted token that is none', { weights: [[-5, 1]] }, 'targets.weights'],
  ['an answer that is no token', { answer: -1 }, 'targets.answer'],
  ['an answer that is null', { answer: null }, 'targets.answer'],
  ['an against that is no token', { answer: 1, against: [0.5] }, 'targets.against'],
  ['null', null, 'targets'],
  ['a text', ' Mary', 'targets'],
  ['one of a list', [{ answer: 1 }, {}], 'targets[1]'],
])('refused: %s', async (_, targets, argument) => {
  const error = await refusal('INVALID_ARGUMENT', () => nativeTargets(targets, 2))
  expect(error.details['argument']).toBe(argument)
})

test('an unknown key is refused with the nearest', async () => {
  const error = await refusal('UNKNOWN_OPTION', () => nativeTargets({ answer: 1, againts: 2 }, 2))
  expect(error.details).toEqual({ name: 'againts', nearest: ['against'] })
})
