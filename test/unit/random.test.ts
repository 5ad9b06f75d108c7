import { expect, test } from 'vitest'
import { SplitMix } from '../../src/random.js'

test('the numbers of splitmix64 with seed 1234567, a published test vector', () => {
  const random = new SplitMix(1234567)
  const drawn = Array.from({ length: 5 }, () => random.next())
  expect(drawn).toEqual([
    6457827717110365317n,
    3203168211198807973n,
    9817491932198370423n,
    4593380528125082431n,
    16408922859458223821n,
  ])
})

test('below: the high bits of a product', () => {
  const [random, again] = [new SplitMix(7), new SplitMix(7)]
  for (const n of [1, 2, 10, 50257]) expect(random.below(n)).toBe(Number((again.next() * BigInt(n)) / 2n ** 64n))
})

test('a sample: different ones, each as often as the others', () => {
  const random = new SplitMix(3)
  const list = ['a', 'b', 'c', 'd', 'e']
  const times = new Map(list.map((letter) => [letter, 0]))
  for (let i = 0; i < 5000; i++) {
    const drawn = random.sample(list, 2)
    expect(new Set(drawn).size).toBe(2)
    times.set(drawn[0] ?? '', (times.get(drawn[0] ?? '') ?? 0) + 1)
  }
  // 1,000 each, standard deviation √(5,000 · 0.2 · 0.8) = 28
  for (const count of times.values()) expect(Math.abs(count - 1000)).toBeLessThan(140)
  expect(random.sample(list, 5).sort()).toEqual(list)
  expect(list).toEqual(['a', 'b', 'c', 'd', 'e'])
})
