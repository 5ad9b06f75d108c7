// README's table of hook points: the points and axes that models have, and no others.
import { readFileSync } from 'node:fs'
import { expect, test } from 'vitest'
import { fixture, open } from '../helpers.js'

const readme = readFileSync(new URL('../../README.md', import.meta.url), 'utf8')
const table = /<!-- hooks -->([^]*?)<!-- \/hooks -->/.exec(readme)?.[1] ?? ''

/** Point → its axes, as README says. */
const said = new Map(
  table.split('\n').flatMap((line) => {
    const [, points = '', axes = ''] = line.split('|').map((cell) => cell.trim())
    return Array.from(points.matchAll(/`([^`]+)`/g), ([, point = '']): [string, string] => [point, axes])
  }),
)

test('every point that one of these models has, with its axes', async () => {
  const found = new Map<string, string>()
  // learned positions; rotary and gated; norms after the sublayers; experts
  for (const name of ['parity/gpt2', 'parity/llama', 'parity/gemma2', 'parity/mixtral']) {
    const model = await open(fixture(name))
    using run = await model.run([[1, 2, 3]], { cache: ['*'], logits: 'none' })
    expect(run.cache.names).toEqual(model.hookNames)
    for (const point of run.cache.names) {
      found.set(point.replace(/^blocks\.\d+\./, 'blocks.{l}.'), run.cache.get(point, 0).dims.join(', '))
    }
  }
  expect(Object.fromEntries(said)).toEqual(Object.fromEntries(found))
})
