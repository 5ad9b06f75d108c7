// The finer units through the public API, against what transformers computes of them in float64.
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { Model, type ResidualHook } from '../../src/index.js'
import { Decomposed, expectClose, fixture } from '../helpers.js'

const FAMILIES = [
  'parity/gpt2', 'parity/llama', 'parity/gemma2', 'parity/gptj', 'parity/mixtral', 'parity/gpt_oss', 'parity/glm4',
  'parity/bloom', 'more/qwen2_moe_mixed', 'more/flex_olmo', 'more/granitemoe', 'more/cohere2',
] // prettier-ignore

const finalStream = ({ config }: Model): ResidualHook => `blocks.${config.nLayers - 1}.hook_resid_post`

describe.each(FAMILIES)('%s', (name) => {
  const reference = new Decomposed(name)
  const { prompt, target, rows } = reference
  let model: Model
  beforeAll(async () => {
    model = await Model.load(fixture(name))
  })
  afterAll(() => model.close())

  /** label → value of the neurons of a row. */
  const neurons = (row: number): Map<string, number> => {
    const layers = Array.from({ length: model.config.nLayers }, (_, l) => {
      const [, , width = 0] = reference.get(`neurons.${l}`).shape
      const routed = reference.at(`neurons.${l}`, row).map((value, n): [string, number] => {
        return [width > 0 ? `L${l}E${Math.floor(n / width)}N${n % width}` : `L${l}N${n}`, value]
      })
      const shared = reference.has(`neurons_shared.${l}`) ? reference.at(`neurons_shared.${l}`, row) : []
      return [...routed, ...shared.map((value, n): [string, number] => [`L${l}SN${n}`, value])]
    })
    return new Map(layers.flat())
  }

  test('neurons: every one, and with what is no neuron they are the MLP', async () => {
    const result = await model.attribute([prompt], target, { unit: 'neuron', position: rows })
    expect(result.certified).toBe(true)
    rows.forEach((_, i) => {
      const row = result.row(i)
      const expected = neurons(i)
      const labels = result.components.filter(({ kind }) => kind === 'neuron').map(({ label }) => label)
      expect([...labels].sort()).toEqual([...expected.keys()].sort())
      expectClose(labels.map((label) => row.value(label)), labels.map((label) => expected.get(label) ?? Number.NaN), 'neuron') // prettier-ignore
      for (let l = 0; l < model.config.nLayers; l++) {
        const ofLayer = result.components.filter(({ layer, kind }) => layer === l && (kind === 'neuron' || kind === 'mlp_bias'))
        const sum = ofLayer.reduce((total, { label }) => total + row.value(label), 0)
        expectClose([sum], [reference.at('mlp', i, l)[0] ?? Number.NaN], `MLP ${l}`)
      }
      if (!reference.has('mlp_bias')) return
      const biases = result.components.filter(({ kind }) => kind === 'mlp_bias')
      expect(biases).toHaveLength(model.config.nLayers)
      expectClose(biases.map(({ label }) => row.value(label)), reference.at('mlp_bias', i), 'mlp_bias') // prettier-ignore
    })
  })

  test('the strongest neurons of a row, and the rest of them', async () => {
    const result = await model.attribute([prompt], target, { unit: 'neuron', top: 3, position: rows[1] ?? 0 })
    expect(result.certified).toBe(true)
    const expected = [...neurons(1)].sort(([, a], [, b]) => a - b)
    const kept = result.components.filter(({ kind }) => kind === 'neuron').map(({ label }) => label)
    expect([...kept].sort()).toEqual([...expected.slice(0, 3), ...expected.slice(-3)].map(([label]) => label).sort())
    expectClose([result.row(0).value('rest')], [expected.slice(3, -3).reduce((sum, [, value]) => sum + value, 0)], 'rest')
    expect(result.components.at(-1)).toEqual({ label: 'rest', kind: 'rest' })
  })

  test('sources: head by position, which sum to the head', async () => {
    const result = await model.attributeSources([prompt], target)
    const { nLayers, nHeads } = model.config
    const row = result.row(0)
    expect(row.matrix.shape).toEqual([nLayers * nHeads, prompt.length])
    expectClose(row.matrix.data, reference.get('sources').data, 'source')
    const sums = result.heads.map((_, h) => row.matrix.slice(h).data.reduce((sum, value) => sum + value, 0))
    expectClose(sums, reference.get('head').data, 'head')
    expectClose(result.heads.map((label) => result.attribution.row(0).value(label)), reference.get('head').data, 'head') // prettier-ignore
    const strongest = row.byMagnitude(5)
    const magnitudes = [...row.matrix.data].map(Math.abs).sort((a, b) => b - a)
    expect(strongest.map(({ value }) => Math.abs(value))).toEqual(magnitudes.slice(0, 5))
    for (const { head, position, value } of strongest) expect(row.matrix.at(result.heads.indexOf(head), position)).toBe(value)
  })

  test('sources of some heads, in the order of the model', async () => {
    const all = (await model.attributeSources([prompt], target, { position: rows })).row(0)
    const some = await model.attributeSources([prompt], target, { position: rows, heads: ['L1H1', 'L0H3'] })
    const h = some.heads.map((label) => all.heads.indexOf(label))
    expect([...some.heads].sort()).toEqual(['L0H3', 'L1H1'])
    some.heads.forEach((_, i) => expect([...some.row(0).matrix.slice(i).data]).toEqual([...all.matrix.slice(h[i] ?? -1).data]))
  })

  test('the lens: values with either norm, ranks, probabilities, the most likely tokens', async () => {
    for (const norm of ['recomputed', 'frozen'] as const) {
      const lens = await model.logitLens([prompt], { targets: target, norm, position: rows })
      expectClose(lens.values, reference.get(`lens.${norm}`).data, norm)
    }
    const lens = await model.logitLens([prompt], { targets: target, top: 5, position: rows })
    expect(lens.states).toHaveLength(reference.states.length)
    rows.forEach((_, i) => {
      const states = lens.row(i)
      expectClose(lens.logProbabilities(i, target.answer), reference.at('lens.answer_log_prob', i), 'log probability')
      const answers = states.map(({ tokens }) => tokens?.find(({ id }) => id === target.answer))
      expect(answers.map((standing) => standing?.rank)).toEqual(reference.at('lens.answer_rank', i))
      expectClose(
        answers.map((standing) => standing?.probability ?? Number.NaN),
        reference.at('lens.answer_log_prob', i).map(Math.exp),
        'probability',
      )
      expect(states.flatMap(({ top }) => top?.map(({ id }) => id))).toEqual(reference.at('lens.top_ids', i))
      const logits = states.flatMap(({ top = [] }) => top.map(({ logit }) => logit))
      expectClose(logits, reference.at('lens.top_capped', i), 'logit of a likely token')
    })
  })

  test('the tokens that a component moves', async () => {
    const { components } = reference
    const result = await model.topTokens([prompt], { k: 5 })
    expect(result.components.map(({ label }) => label)).toEqual(components)
    components.forEach((label, c) => {
      const { raised, lowered } = result.get(0, label)
      const moved = [...raised, ...lowered]
      expectClose(moved.map(({ value }) => value), reference.at('top.values', c), label) // prettier-ignore
      expect(
        moved.map(({ id }) => id),
        label,
      ).toEqual(reference.at('top.ids', c))
    })
  })

  test('directions at points of the stream', async () => {
    const { dModel } = model.config
    const flat = Float32Array.from(reference.get('directions').data)
    const list = [0, 1, 2].map((d) => flat.slice(d * dModel, (d + 1) * dModel))
    const points = ['blocks.0.hook_resid_mid', 'blocks.1.hook_resid_pre', finalStream(model)]
    const found = points.filter((at) => reference.has(`directions.${at}`))
    expect(found.length).toBeGreaterThan(1)
    expect(found, 'the final stream').toContain(finalStream(model))
    for (const at of found as ResidualHook[]) {
      for (const directions of [flat, list]) {
        const result = await model.attributeDirections([prompt], directions, { at })
        expect([result.certified, result.nDirections]).toEqual([true, 3])
        expectClose(result.values, reference.get(`directions.${at}`).data, at)
        expectClose(result.measured, reference.get(`measured.${at}`).data, at)
        expectClose(result.row(0).direction(1), reference.at(`directions.${at}`, 1), at)
      }
    }
    const last = await model.attributeDirections([prompt], list)
    const end = await model.attributeDirections([prompt], list, { at: finalStream(model) })
    expect([last.at, [...last.values]]).toEqual([end.at, [...end.values]])
  })

  test('the stack: the vectors of a run sum to its stream', async () => {
    using run = await model.run([prompt], { cache: [...model.attributionHooks(), finalStream(model)] })
    const stack = await run.decompose()
    const last = prompt.length - 1
    expect(stack.components.map(({ label }) => label)).toEqual(reference.components)
    if (reference.has('stack')) expectClose(stack.row(last).data, reference.get('stack').data, 'stack')
    const stream = run.cache.get(finalStream(model), 0).slice(last).data
    const sum = stream.map((_, d) => stack.components.reduce((total, { label }) => total + (stack.vector(last, label)[d] ?? 0), 0))
    expectClose(sum, [...stream], 'stream')
  })

  test('a run gives the numbers of a call', async () => {
    const options = { unit: 'neuron', convention: 'default' } as const
    using run = await model.run([prompt], { cache: model.attributionHooks(options) })
    const [whole, read] = [
      await model.attribute([prompt], target, { ...options, position: 'all' }),
      await run.attribute(target, options),
    ]
    expect(read.components).toEqual(whole.components)
    expectClose(read.values, [...whole.values], 'value')
    expect([read.certified, read.method]).toEqual([true, whole.method])
    expect(read.rows).toEqual(whole.rows)
  })
})
