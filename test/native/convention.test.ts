// The other convention, against what TransformerLens 4.3 itself says after its weight processing.
import { expect, test } from 'vitest'
import { expectClose, fixture, open, readJson, refusal } from '../helpers.js'

interface Rows {
  readonly stack_head_results: Record<string, number>
  readonly decompose_resid: Record<string, number>
  readonly get_full_resid_decomposition: Record<string, number>
  readonly b_O: readonly number[]
  readonly logit: number
}

interface Reference {
  readonly prompt: number[]
  readonly answer: number
  readonly against: number
  readonly pair: Rows
  readonly single: Rows
}

test.each(['gpt2', 'gpt_neox', 'gptj', 'llama', 'mistral', 'opt', 'phi', 'qwen2'])('%s', async (family) => {
  const directory = fixture(`parity/${family}`)
  const { prompt, answer, against, pair, single } = readJson<Reference>(directory, 'transformerlens.json')
  const model = await open(directory)
  // a single token's rows are ours against the mean: W_U is centred over the vocabulary there
  for (const [target, rows] of [
    [{ answer, against }, pair],
    [{ answer, against: 'mean' }, single],
  ] as const) {
    // prettier-ignore
    const result = await model.attribute([prompt], target, { convention: 'transformerlens' })
    expect([result.certified, result.method.convention]).toEqual([true, 'transformerlens'])
    const row = result.row(0)
    const heads = Object.entries(rows.stack_head_results)
    expect(heads).toHaveLength(model.config.nLayers * model.config.nHeads)
    expectClose(heads.map(([label]) => row.value(label)), heads.map(([, value]) => value), 'head') // prettier-ignore
    expectClose(rows.b_O.map((_, l) => biasOf(row, l)), rows.b_O, 'bias') // prettier-ignore
    const others = Object.entries(rows.decompose_resid).filter(([label]) => !label.endsWith('_attn_out'))
    const ours = (label: string) => label.replace(/^(\d+)_mlp_out$/, 'L$1 mlp')
    expectClose(others.map(([label]) => row.value(ours(label))), others.map(([, value]) => value), 'the rest') // prettier-ignore
    const layers = await model.attribute([prompt], target, { convention: 'transformerlens', unit: 'layer' })
    const attention = rows.b_O.map((_, l) => rows.decompose_resid[`${l}_attn_out`] ?? Number.NaN)
    expectClose(attention.map((_, l) => layers.row(0).value(`L${l} attn`)), attention, 'attention') // prettier-ignore
  }
})

const biasOf = (row: { value(label: string): number; components: readonly { label: string }[] }, l: number) =>
  row.components.some(({ label }) => label === `L${l} attn_bias`) ? row.value(`L${l} attn_bias`) : 0

test('where the two differ: heads and bias move, their sum and everything else do not', async () => {
  const model = await open(fixture('parity/gpt2'))
  const { prompt, answer, against } = readJson<Reference>(fixture('parity/gpt2'), 'transformerlens.json')
  const [ours, theirs] = await Promise.all(
    (['default', 'transformerlens'] as const).map((convention) => model.attribute([prompt], { answer, against }, { convention })),
  )
  if (!ours || !theirs) throw new Error('no result')
  expect(theirs.components.map(({ label }) => label)).toEqual(ours.components.map(({ label }) => label))
  const moved = (kind: string) =>
    ours.components
      .filter((c) => c.kind === kind)
      .map(({ label }) => Math.abs(ours.row(0).value(label) - theirs.row(0).value(label)))
  expect(Math.min(...moved('head'))).toBeGreaterThan(1e-5)
  expect(Math.max(...moved('mlp'), ...moved('embed'), ...moved('pos_embed'))).toBeLessThan(1e-6)
  expectClose(theirs.total, [...ours.total])
  await refusal('INVALID_ARGUMENT', () =>
    model.attribute([prompt], { answer }, { convention: 'transformer_lens' } as unknown as object),
  )
})
