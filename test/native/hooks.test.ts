// The table of hook points in src/hooks.ts is written by hand for the types: it is the core's.
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import { fixture, open, ROOT } from '../helpers.js'

/** Name → axes of every line of an interface of src/hooks.ts. */
function table(of: 'BlockPoints' | 'OuterPoints'): Map<string, string[]> {
  const source = readFileSync(join(ROOT, 'src/hooks.ts'), 'utf8')
  const [body = ''] = source.slice(source.indexOf(`interface ${of} {`)).split('\n}')
  const lines = body.matchAll(/^ {2}'?([\w.]+)'?: \[(.+)\]$/gm)
  return new Map(Array.from(lines, ([, name = '', dims = '']) => [name, dims.split(', ').map((dim) => dim.slice(1, -1))]))
}

const FAMILIES = ['gpt2', 'llama', 'gemma2', 'gptj', 'mixtral', 'gpt_oss', 'qwen3', 'bloom'].map((name) => `parity/${name}`)

test('every point of every family is in the table with its axes, and the table has no other', async () => {
  const [outer, block] = [table('OuterPoints'), table('BlockPoints')]
  expect([outer.size, block.size]).toEqual([4, 26])
  const seen = new Set<string>()
  for (const name of FAMILIES) {
    const model = await open(fixture(name))
    using run = await model.run([[1, 2, 3]], { cache: ['*'], logits: 'none' })
    for (const point of run.cache.names) {
      const inBlock = /^blocks\.\d+\.(.+)$/.exec(point)?.[1]
      const dims = inBlock === undefined ? outer.get(point) : block.get(inBlock)
      const tensor = run.cache.get(point, 0)
      expect(tensor.dims, point).toEqual(dims)
      const { nHeads, nKeyValueHeads, dHead, dModel } = model.config
      const lengths: Record<string, number> = {
        pos: 3, query_pos: 3, key_pos: 3, head: nHeads, kv_head: nKeyValueHeads, d_head: dHead, d_model: dModel, one: 1,
      } // prettier-ignore
      tensor.dims.forEach((dim, axis) => {
        if (lengths[dim] !== undefined) expect(tensor.shape[axis], `${name} ${point}: ${dim}`).toBe(lengths[dim])
      })
      seen.add(inBlock ?? point)
    }
  }
  expect([...seen].sort()).toEqual([...outer.keys(), ...block.keys()].sort())
})
