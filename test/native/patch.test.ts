// Patching through the public API: against transformers, shapes and labels, what is said where there is nothing to divide by.
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, test } from 'vitest'
import { type PatchAxis, type PathOptions, type PatchPoint, type Target } from '../../src/index.js'
import { DEMO, DEMO_PROMPT, DEMO_TARGET, fixture, open, refusal } from '../helpers.js'

interface Path {
  readonly from: string[]
  readonly to: string[]
  readonly through: 'mlps' | null
  readonly f: number
}

interface Reference {
  readonly clean: number[]
  readonly corrupt: number[]
  readonly answer: number
  readonly against: number
  readonly f_clean: number
  readonly f_corrupt: number
  readonly noising: Record<string, unknown>
  readonly denoising: Record<string, unknown>
  readonly paths: Path[]
}

/** As attribution.md §6 has it for a number against float64. */
const near = (found: ArrayLike<number>, expected: readonly number[], what: string) => {
  expect(found.length, what).toBe(expected.length)
  expected.forEach((value, i) => {
    expect(Math.abs((found[i] ?? Number.NaN) - value), `${what} ${i}`).toBeLessThanOrEqual(1e-4 * (1 + Math.abs(value)))
  })
}

const SWEEPS: readonly [string, PatchPoint, readonly PatchAxis[]][] = [
  ['resid_pre', 'resid_pre', ['layer', 'position']],
  ['attn_out', 'attn_out', ['position', 'layer']],
  ['mlp_out', 'mlp_out', ['layer', 'position']],
  ['head', 'z', ['head']],
  ['head_position', 'z', ['head', 'position']],
]

describe.each(['parity/gpt2', 'parity/llama', 'parity/gemma2', 'parity/gptj'])('%s', (name) => {
  const given = JSON.parse(readFileSync(join(fixture(name), 'patching.json'), 'utf8')) as Reference
  const target: Target = { answer: given.answer, against: given.against }

  test('sweeps are those of transformers, raw and normalised', async () => {
    const model = await open(fixture(name))
    for (const direction of ['noising', 'denoising'] as const) {
      for (const [key, at, over] of SWEEPS) {
        const patched = await model.patch([given.clean], [given.corrupt], target, { at, over, direction })
        const expected = [given[direction][key]].flat(4) as number[]
        near(patched.values, expected, `${direction} ${key}`)
        near([patched.clean[0] ?? 0, patched.corrupt[0] ?? 0], [given.f_clean, given.f_corrupt], key)
        const shares = expected.map((f) => (f - given.f_corrupt) / (given.f_clean - given.f_corrupt))
        patched.normalised.forEach((share, i) => expect(share).toBeCloseTo(shares[i] ?? 0, 2))
        expect(patched.matrix(0).values.flat()).toEqual([...patched.values])
      }
    }
  })

  test('paths are those of transformers, MLPs between frozen or not', async () => {
    const model = await open(fixture(name))
    for (const { from, to, through, f } of given.paths) {
      const options: PathOptions = { from, to, ...(through ? { through } : {}) }
      const patched = await model.patchPaths([given.clean], [given.corrupt], target, options)
      near(patched.values, [f], JSON.stringify(options))
    }
    const each = await model.patchPaths([given.clean], [given.corrupt], target, {
      from: ['L0H1', 'L1H2'],
      to: ['logits'],
      each: true,
    })
    near(each.values, given.paths.filter(({ through }) => !through).slice(0, 2).map(({ f }) => f), 'each') // prettier-ignore
    expect(each.matrix(0)).toMatchObject({ rows: ['L0H1', 'L1H2'], columns: ['logits'] })
  })
})

const TWIN = DEMO_PROMPT.replace('John gave', 'Mary gave')

test('two pairs: labels, means, what is printed, JSON and Arrow hold the same numbers', async () => {
  const model = await open(DEMO)
  expect(TWIN).not.toBe(DEMO_PROMPT)
  const swept = await model.patch([DEMO_PROMPT, TWIN], [TWIN, DEMO_PROMPT], DEMO_TARGET)
  expect(swept.kind).toBe('causal')
  expect(swept.method).toEqual({ change: 'patch', at: 'resid_pre', over: ['layer', 'position'], direction: 'denoising' })
  expect(swept.clean[0]).toBe(swept.corrupt[1])
  const { nLayers } = model.config
  const n = swept.ids(0).length
  const first = swept.matrix(0)
  expect(first.rows).toEqual(Array.from({ length: nLayers }, (_, l) => `L${l}`))
  expect(first.columns.length).toBe(n)
  const [f = 0, g = 0] = [swept.clean[0], swept.corrupt[0]]
  first.values.flat().forEach((value, i) => expect(first.normalised?.flat()[i]).toBeCloseTo((value - g) / (f - g), 9))
  const mean = swept.mean()
  const second = swept.matrix(1)
  expect(mean.values[2]?.[5]).toBeCloseTo(((first.values[2]?.[5] ?? 0) + (second.values[2]?.[5] ?? 0)) / 2, 12)
  expect(mean.normalised?.[2]?.[5]).toBeCloseTo(((first.normalised?.[2]?.[5] ?? 0) + (second.normalised?.[2]?.[5] ?? 0)) / 2, 12)
  const [strongest] = swept.top(1, 0)
  const largest = Math.max(...first.values.flat().map((value) => Math.abs(value - g)))
  expect(Math.abs(strongest?.moved ?? 0)).toBe(largest)
  expect(String(JSON.stringify(swept))).toContain('"undefinedPairs":[]')
  expect((swept.toJSON().pairs as { values: number[][] }[])[1]?.values).toEqual(second.values)
  const arrow = await swept.toArrow()
  expect(arrow.numRows).toBe(2 * nLayers * n)
  const row = arrow.get(n + 3)?.toJSON()
  expect(row).toMatchObject({ pair: 0, row: 'L1', layer: 1, head: null, position: 3, value: first.values[1]?.[3] })
  const plot = swept.plot(0)
  expect(plot.data.values.length).toBe(nLayers * n)
})

test('pictures begin at the run that was patched: what a patch leaves as it is, is white', async () => {
  const model = await open(DEMO)
  const turned = DEMO_PROMPT.replace('John gave', 'Mary gave')
  const options = { over: ['head'], positions: [0] } as const // no two prompts differ there, so nothing moves
  for (const direction of ['noising', 'denoising'] as const) {
    const swept = await model.patch([DEMO_PROMPT], [turned], DEMO_TARGET, { ...options, direction })
    for (const { value } of swept.plot().data.values) expect(Math.abs(Number(value))).toBeLessThan(1e-5)
  }
  const paths = await model.patchPaths([DEMO_PROMPT], [turned], DEMO_TARGET, { to: ['logits'], each: true })
  const [f, g] = [paths.clean[0] ?? Number.NaN, paths.corrupt[0] ?? Number.NaN]
  const way = Array.from(paths.values, (value) => (f - value) / (f - g)) // from the clean run to the corrupted one
  paths.plot().data.values.forEach(({ value }, i) => expect(value).toBeCloseTo(way[i] ?? Number.NaN, 9))
  expect(paths.plot().title.subtitle).toBe('pair 0: 0 as clean, 1 as corrupted')
  const all = await model.patchPaths([DEMO_PROMPT], [turned], DEMO_TARGET, { to: ['logits'] })
  expect(all.matrix(0).rows).toEqual([`${paths.matrix(0).rows.length} senders`])
  const same = await model.patch([DEMO_PROMPT], [DEMO_PROMPT], DEMO_TARGET)
  for (const { value } of same.plot().data.values) expect(Math.abs(Number(value))).toBeLessThan(1e-5)
})

test('named positions join prompts of different lengths; the same prompt twice is undefined, and said so', async () => {
  const model = await open(DEMO)
  const short = 'When Mary and John went to the store, Mary gave'
  await refusal('INVALID_ARGUMENT', () => model.patch([DEMO_PROMPT], [short], DEMO_TARGET))
  const swept = await model.patch([DEMO_PROMPT], [short], DEMO_TARGET, { positions: [3, -1], corruptPositions: [1, -2] })
  const [n, m] = [swept.ids(0).length, swept.corruptIds(0).length]
  expect(swept.positions(0)).toEqual({ clean: [3, n - 1], corrupt: [1, m - 2] })
  expect(swept.matrix(0).columns).toHaveLength(2)

  const same = await model.patch([DEMO_PROMPT], [DEMO_PROMPT], DEMO_TARGET)
  expect(same.undefinedPairs).toEqual([0])
  expect(same.matrix(0).normalised).toBeUndefined()
  expect(same.mean().normalised).toBeUndefined()
  expect([...same.normalised].every(Number.isNaN)).toBe(true)
  expect(JSON.parse(JSON.stringify(same)).pairs[0].normalised).toBeUndefined()
  expect(same.plot().title.subtitle).toContain('the same')
})

test('what does not fit is refused before anything runs', async () => {
  const model = await open(DEMO)
  const patch = (options: object) => () => model.patch([DEMO_PROMPT], [TWIN], DEMO_TARGET, options)
  const path = (options: object) => () => model.patchPaths([DEMO_PROMPT], [TWIN], DEMO_TARGET, options as PathOptions)
  await refusal('UNKNOWN_OPTION', patch({ ovr: ['layer'] }))
  for (const options of [
    { over: ['position'] },
    { over: [] },
    { over: ['layer', 'layer'] },
    { over: ['neuron'] },
    { over: ['head'], at: 'resid_pre' },
    { at: 'resid_post' },
    { direction: 'both' },
    { position: 'all' },
    { positions: 'none' },
  ]) {
    await refusal('INVALID_ARGUMENT', patch(options))
  }
  await refusal('UNKNOWN_OPTION', path({ to: ['logits'], form: [] }))
  for (const options of [
    {},
    { to: [] },
    { to: ['L1H0.z'] },
    { to: ['L1H0.q'], from: ['L2H0'] },
    { to: ['logits'], through: 'all' },
  ]) {
    await refusal('INVALID_ARGUMENT', path(options))
  }
  await refusal('INVALID_ARGUMENT', () => model.patch([DEMO_PROMPT], [], DEMO_TARGET))
  await refusal('ABORTED', () => model.patch([DEMO_PROMPT], [TWIN], DEMO_TARGET, { signal: AbortSignal.abort() }))
})
