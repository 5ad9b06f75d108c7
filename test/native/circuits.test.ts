import { expect, test } from 'vitest'
import type { Complex, Model } from '../../src/index.js'
import { DEMO, expectClose, fixture, open, readJson, refusal } from '../helpers.js'

interface Spectrum {
  norm: number
  singular: number[]
  eigenvalues: [number, number][]
}
interface Head {
  layer: number
  head: number
  raw: { ov: number; qk: number }
  ov: Spectrum
  qk: Record<string, Spectrum>
  eigenvalues: [number, number][]
  share: number
  top1: number
  rank: number
  row: number[]
  scores: number[][]
}
/** Dense float64 matrices of numpy: test/fixtures/circuits.py. */
const reference = readJson<{
  models: Record<string, { heads: Head[]; composition: Record<'Q' | 'K' | 'V', number[][]> }>
}>(fixture('circuits.json')).models

const magnitudes = (values: readonly Complex[]) => values.map(({ re, im }) => Math.hypot(re, im))
const opened = (name: string): Promise<Model> => open(fixture(`parity/${name}`))
const of = (name: string) => {
  const found = reference[name]
  if (!found) throw new Error(`no reference of ${name}`)
  return found
}

test.each(['gpt2', 'llama'])('every circuit of %s against dense matrices', async (name) => {
  const model = await opened(name)
  const rotary = model.config.positions.kind === 'rotary'
  for (const expected of of(name).heads) {
    const head = model.circuit(expected.layer, expected.head)
    expect(head.label).toBe(`L${expected.layer}H${expected.head}`)
    const qk = (offset: number) => head.qk(rotary ? { offset } : {})
    const mean = head.qk(rotary ? { average: [0, 3] } : {})
    for (const [circuit, spectrum] of [
      [head.ov, expected.ov],
      [qk(1), expected.qk['1']],
      [mean, expected.qk['mean']],
    ] as const) {
      expectClose([await circuit.norm()], [spectrum?.norm ?? Number.NaN], 'norm')
      expectClose(await circuit.singularValues(), spectrum?.singular ?? [], 'singular values')
      expectClose(magnitudes(await circuit.eigenvalues()), spectrum?.eigenvalues.map(([re, im]) => Math.hypot(re, im)) ?? [])
    }
    const copying = await head.ov.copyingScore({ sample: 'all' })
    expectClose(
      [copying.eigenvalueShare, copying.top1, copying.meanRank],
      [expected.share, expected.top1, expected.rank],
      'copying',
    )
    expect(copying.sampled).toBe(model.config.dVocab)
    const row = await head.ov.row(7, { k: model.config.dVocab })
    expectClose(
      row.top.map(({ value }) => value),
      [...expected.row].sort((a, b) => b - a),
      'row',
    )
    expect(row.bottom[0]?.id).toBe(expected.row.indexOf(Math.min(...expected.row)))
    const scores = await Promise.all([qk(1).score(3, 4), qk(1).score(50, 99)])
    expectClose(scores, [expected.scores[0]?.[0] ?? Number.NaN, expected.scores[1]?.[1] ?? Number.NaN], 'scores')
    const raw = model.circuit(expected.layer, expected.head, { foldNorms: false })
    expectClose([await raw.ov.norm(), await raw.qk().norm()], [expected.raw.ov, expected.raw.qk], 'raw norms')
  }
})

test.each(['Q', 'K', 'V'] as const)('%s composition against dense matrices', async (kind) => {
  const model = await opened('llama')
  const scores = await model.compositionScores(kind)
  const expected = of('llama').composition[kind]
  expectClose(
    scores.values.map((value) => (Number.isNaN(value) ? -1 : value)),
    expected.flat(),
  )
  expectClose([scores.value('L0H1', 'L2H3')], [expected[1]?.[11] ?? Number.NaN])
  expect(scores.value('L1H0', 'L1H1')).toBeNaN()
  const [best, next] = scores.top(2)
  expectClose([best?.score ?? Number.NaN], [Math.max(...expected.flat())])
  expect(best?.score).toBeGreaterThanOrEqual(next?.score ?? Number.NaN)
  expect(best?.deviations).toBeCloseTo(((best?.score ?? 0) - scores.baseline.mean) / scores.baseline.std)
  // directions of unrelated matrices are uniform: the mean square is 1 / dModel
  expect(Math.hypot(scores.baseline.mean, scores.baseline.std) ** 2 * model.config.dModel).toBeCloseTo(1, 0)
  expect(scores.notes.join('\n')).toContain(kind === 'V' ? 'query heads share' : 'offset 0')
})

test('the matrix and its singular vectors', async () => {
  const { ov } = (await opened('llama')).circuit(1, 2)
  const matrix = await ov.matrix()
  const { values, left, right } = await ov.singularVectors(3)
  const d = matrix.shape[0]
  expect([matrix.shape, left.shape, left.dims]).toEqual([
    [d, d],
    [3, d],
    ['singular', 'd_model'],
  ])
  for (let i = 0; i < 3; i++) {
    const written = Array.from({ length: d }, (_, column) =>
      Array.from({ length: d }, (_, row) => left.at(i, row) * matrix.at(row, column)).reduce((a, b) => a + b),
    )
    const expected = Array.from(right.slice(i).data, (value) => value * (values[i] ?? Number.NaN))
    expectClose(written, expected, `left[${i}] M`)
  }
})

// numpy on dense matrices of models/demo/model.safetensors; which heads these are was measured on prompts (models/demo/README.md)
test('the demo: its induction heads copy, and their keys read what its previous-token head writes', async () => {
  const demo = await open(DEMO)
  const scores = await demo.compositionScores('K')
  const top = scores.top(3)
  expect(top.map(({ from, to }) => `${from} ${to}`)).toEqual(['L0H2 L1H1', 'L0H2 L1H2', 'L0H2 L1H3'])
  expectClose(
    top.map(({ score }) => score),
    [0.282936524, 0.271665451, 0.26607405],
  )
  const { ov } = demo.circuit(1, 1)
  const { eigenvalueShare, top1, meanRank } = await ov.copyingScore({ sample: 'all' })
  expect([eigenvalueShare.toFixed(4), top1.toFixed(4), meanRank.toFixed(3)]).toEqual(['0.9993', '0.9883', '1.711'])
  const row = await ov.row(' Mary', { k: 5 })
  expect(row.token.text).toBe('Mary')
  expect(row.top.map(({ text }) => text)).toEqual(['Mary', 'Jessica', 'Opera', 'Taj', 'hospital'])
  expect(ov.notes.join('\n')).toContain('γ and centring of the norm before attention folded into W_V')
  expect(JSON.parse(JSON.stringify(ov))).toMatchObject({ kind: 'weights', circuit: { layer: 1, head: 1, kind: 'ov' } })
})

test('samples are drawn from a seed', async () => {
  const { ov } = (await opened('gpt2')).circuit(0, 1)
  const score = (seed: number) => ov.copyingScore({ sample: 20, seed })
  expect(await score(1)).toEqual(await score(1))
  expect((await score(1)).meanRank).not.toBe((await score(2)).meanRank)
  expect((await score(1)).sampled).toBe(20)
})

test('what there is not is refused', async () => {
  const [gpt2, llama, olmo2] = await Promise.all(['gpt2', 'llama', 'olmo2'].map(opened))
  if (!gpt2 || !llama || !olmo2) throw new Error('not opened')
  await refusal('INVALID_ARGUMENT', () => llama.circuit(9, 0))
  await refusal('INVALID_ARGUMENT', () => llama.circuit(0, -1))
  await refusal('UNKNOWN_OPTION', () => llama.circuit(0, 0, { fold: true } as object))
  await refusal('UNKNOWN_OPTION', () => llama.circuit(0, 0).qk({ offsets: 1 } as object))
  await refusal('INVALID_ARGUMENT', () => llama.circuit(0, 0).qk({ offset: 1, average: [0, 1] }))
  await refusal('INVALID_ARGUMENT', () => llama.circuit(0, 0).qk({ average: [2, 1] }))
  await refusal('INVALID_ARGUMENT', () => llama.circuit(0, 0).qk({ length: 8 }))
  await refusal('INVALID_ARGUMENT', () => gpt2.circuit(0, 0).qk({ offset: 1 }))
  const unsupported = await refusal('CONFIG_UNSUPPORTED', () => olmo2.circuit(0, 0).qk())
  expect(unsupported.message).toContain('norm of queries and keys')
  await refusal('CONFIG_UNSUPPORTED', () => olmo2.compositionScores('K'))
  await refusal('INVALID_ARGUMENT', () => llama.compositionScores('O' as 'K'))
  await refusal('INVALID_ARGUMENT', () => llama.compositionScores('V', { baseline: 1 }))
  const { ov } = llama.circuit(0, 0)
  await refusal('TOKEN_RANGE', () => ov.row(101))
  await refusal('INVALID_ARGUMENT', () => ov.row(0, { k: 0 }))
  await refusal('INVALID_ARGUMENT', () => ov.singularVectors(99))
  await refusal('ABORTED', () => ov.copyingScore({ signal: AbortSignal.abort() }))
  await llama.close()
  await refusal('CLOSED', () => ov.norm())
  await refusal('CLOSED', () => llama.circuit(0, 0).ov)
})
