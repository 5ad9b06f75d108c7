// What results are beside their numbers: tables, JSON, lines for people, iteration.
import { inspect } from 'node:util'
import { type Table, tableFromIPC, tableToIPC } from 'apache-arrow'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import {
  type Attribution,
  type AttributionSources,
  type AttributionSummary,
  type Decomposition,
  type DirectionAttribution,
  type LogitLens,
  Model,
  type TopTokens,
} from '../../src/index.js'
import { DEMO, DEMO_PROMPT, DEMO_TARGET, fixture, open, refusal } from '../helpers.js'

const SHORT = 'When Tom went home'
const PROMPTS = [DEMO_PROMPT, SHORT]
const TARGETS = [DEMO_TARGET, { answer: 'predicted' }] as const

let model: Model
let attribution: Attribution
let neurons: Attribution
let sources: AttributionSources
let lens: LogitLens
let likely: LogitLens
let tokens: TopTokens
let directions: DirectionAttribution
let stack: Decomposition
let summary: AttributionSummary

beforeAll(async () => {
  model = await Model.load(DEMO)
  attribution = await model.attribute(PROMPTS, TARGETS, { position: [-2, -1] })
  neurons = await model.attribute(PROMPTS, TARGETS, { unit: 'neuron', top: 2 })
  sources = await model.attributeSources(PROMPTS, TARGETS, { heads: ['L3H1', 'L2H0'] })
  lens = await model.logitLens(PROMPTS, { targets: TARGETS })
  likely = await model.logitLens(PROMPTS, { top: 3 })
  tokens = await model.topTokens(PROMPTS, { k: 2 })
  directions = await model.attributeDirections(
    PROMPTS,
    new Float32Array(3 * 96).map((_, i) => Math.sin(i)),
  )
  using run = await model.run([SHORT], { cache: model.attributionHooks() })
  stack = await run.decompose()
  summary = await model.attributeSummary(PROMPTS.map((prompt, i) => ({ prompt, target: TARGETS[i] ?? DEMO_TARGET })))
})
afterAll(() => model.close())

/** The columns of a table as lists. */
function columns(table: Table): Record<string, unknown[]> {
  return Object.fromEntries(table.schema.fields.map(({ name }) => [name, [...(table.getChild(name) ?? [])]]))
}

/** Written as Arrow's file format and read again. */
function roundTrip(table: Table): Table {
  return tableFromIPC(tableToIPC(table, 'file'))
}

/** The buffer of a column that is one chunk. */
function bufferOf(table: Table, name: string): ArrayBufferLike | undefined {
  return (table.getChild(name)?.data[0]?.values as Float32Array | undefined)?.buffer
}

describe('tables', () => {
  test('an attribution: a line per row and component', async () => {
    const table = await attribution.toArrow()
    const n = attribution.components.length
    const read = columns(table)
    expect(Object.keys(read)).toEqual(['prompt', 'position', 'component', 'kind', 'layer', 'index', 'value'])
    expect(table.schema.fields.map(({ type }) => String(type))).toEqual([
      'Uint32',
      'Uint32',
      'Dictionary<Uint32, Utf8>',
      'Dictionary<Uint32, Utf8>',
      'Int32',
      'Int32',
      'Float32',
    ])
    expect(table.numRows).toBe(4 * n)
    const lines = [...attribution].flatMap(({ prompt, position, values }) =>
      attribution.components.map(({ label, kind, layer = null, index = null }, c) => {
        return { prompt, position, component: label, kind, layer, index, value: values[c] }
      }),
    )
    for (const name of Object.keys(read)) expect(read[name], name).toEqual(lines.map((line) => line[name as 'kind']))
    expect(read['layer']?.slice(0, 3)).toEqual([null, null, 0])
    expect(columns(roundTrip(table))).toEqual(read)
  })

  test('values share the memory of the result', async () => {
    expect(bufferOf(await attribution.toArrow(), 'value')).toBe(attribution.values.buffer)
    expect(bufferOf(await neurons.toArrow(), 'value')).toBe(neurons.values.buffer)
    expect(bufferOf(await lens.toArrow(), 'value')).toBe(lens.values.buffer)
    expect(bufferOf(await directions.toArrow(), 'value')).toBe(directions.values.buffer)
    const table = await sources.toArrow()
    expect(bufferOf(table, 'value')).toBe(sources.row(0).matrix.data.buffer)
  })

  test('the metadata say how the numbers were made', async () => {
    const metadata = Object.fromEntries(roundTrip(await attribution.toArrow()).schema.metadata)
    expect(metadata).toMatchObject({
      'logit-prism.kind': 'observed',
      'logit-prism.family': 'gpt2',
      'logit-prism.device': 'cpu',
      'logit-prism.dtype': 'f32',
      'logit-prism.fingerprint': await model.fingerprint,
      'logit-prism.unit': 'head',
      'logit-prism.norm': 'frozen',
      'logit-prism.convention': 'default',
      'logit-prism.certified': 'true',
    })
    const list = (name: string): unknown => JSON.parse(metadata[`logit-prism.${name}`] ?? 'null')
    expect(list('total')).toEqual([...attribution.total])
    expect(list('measured')).toEqual([...attribution.measured])
    expect(list('targets')).toEqual(attribution.targets)
    expect(list('ids')).toEqual([0, 1].map((i) => [...attribution.ids(i)]))
    for (const result of [sources, lens, tokens, directions]) {
      const { metadata: theirs } = (await result.toArrow()).schema
      expect(theirs.get('logit-prism.fingerprint')).toBe(await model.fingerprint)
      expect(JSON.parse(theirs.get('logit-prism.ids') ?? 'null')).toEqual([0, 1].map((i) => [...attribution.ids(i)]))
    }
  })

  test('neurons and their rest', async () => {
    const { component = [], kind = [], index = [] } = columns(await neurons.toArrow())
    const rest = component.indexOf('rest')
    expect([kind[rest], index[rest]]).toEqual(['rest', null])
    const neuron = kind.indexOf('neuron')
    expect(component[neuron]).toMatch(new RegExp(`^L\\dN${String(index[neuron])}$`))
  })

  test('neurons of experts tell whose they are', async () => {
    const experts = await open(fixture('more/qwen2_moe_mixed'))
    const result = await experts.attribute([[1, 2, 3]], { answer: 4 }, { unit: 'neuron' })
    const table = roundTrip(await result.toArrow())
    const { component = [], expert = [] } = columns(table)
    expect(expert[component.indexOf('L0E3N7')]).toBe('3')
    expect(expert[component.indexOf('L0SN7')]).toBe('shared')
    expect(expert[component.indexOf('L1N7')]).toBeNull()
  })

  test('sources: a line per head and position', async () => {
    const table = roundTrip(await sources.toArrow())
    const { prompt, head, source, token, value } = columns(table)
    const lines = [...sources].flatMap((row) =>
      row.heads.flatMap((label, h) => row.tokens.map((text, j) => [row.prompt, label, j, text, row.matrix.at(h, j)])),
    )
    expect(lines.map((_, i) => [prompt?.[i], head?.[i], source?.[i], token?.[i], value?.[i]])).toEqual(lines)
    expect(table.numRows).toBe(lines.length)
  })

  test('the lens: a line per row and state, with targets or with the likely tokens', async () => {
    const { state, value, position } = columns(roundTrip(await lens.toArrow()))
    expect(state).toEqual([...lens.states, ...lens.states])
    expect(value).toEqual([...lens.values])
    expect(position?.[0]).toBe(lens.rows.position[0])
    const top = columns(roundTrip(await likely.toArrow()))
    const lines = [...likely].flatMap((states) =>
      states.flatMap(({ at, top: list = [] }) => list.map(({ id, text, logit }, rank) => [at, rank, id, text, logit])),
    )
    const names = ['state', 'rank', 'token', 'text', 'logit']
    expect(lines.map((_, i) => names.map((name) => top[name]?.[i]))).toEqual(lines)
    expect(top['prompt']).toHaveLength(lines.length)
  })

  test('moved tokens: a line per component, way and rank', async () => {
    const table = roundTrip(await tokens.toArrow())
    const lines = [...tokens].flatMap((row, i) =>
      row.flatMap(({ component, raised, lowered }) =>
        Object.entries({ raised, lowered }).flatMap(([direction, list]) =>
          list.map(({ id, value }, rank) => [tokens.rows.prompt[i], component.label, direction, rank, id, value]),
        ),
      ),
    )
    const read = columns(table)
    const names = ['prompt', 'component', 'direction', 'rank', 'token', 'value']
    expect(lines.map((_, i) => names.map((name) => read[name]?.[i]))).toEqual(lines)
    expect(table.numRows).toBe(lines.length)
  })

  test('directions: a line per direction and component', async () => {
    const { direction, component, value } = columns(roundTrip(await directions.toArrow()))
    const n = directions.components.length
    expect(direction?.slice(n - 1, n + 1)).toEqual([0, 1])
    expect(component?.[n + 2]).toBe(directions.components[2]?.label)
    expect(value).toEqual([...directions.values])
  })

  test('a summary: a line per component', async () => {
    const table = roundTrip(await summary.toArrow())
    const read = columns(table)
    expect(read['component']).toEqual(summary.means.map(({ label }) => label))
    expect(read['mean']).toEqual(summary.means.map(({ mean }) => mean))
    expect(read['low']).toEqual(summary.means.map(({ interval: [low] }) => low))
    expect(table.schema.metadata.get('logit-prism.prompts')).toBe('2')
  })

  test('the stack: a line per row and component, its vector in it', async () => {
    const table = roundTrip(await stack.toArrow())
    const { component, vector } = columns(table)
    expect(component?.slice(0, stack.components.length)).toEqual(stack.components.map(({ label }) => label))
    expect([...((vector?.[3] as Iterable<number>) ?? [])]).toEqual([...stack.vector(0, stack.components[3]?.label ?? '')])
    expect(table.numRows).toBe(stack.rows.prompt.length * stack.components.length)
  })
})

describe('JSON', () => {
  const written = (result: object) => JSON.parse(JSON.stringify(result)) as Record<string, never>

  test('an attribution: everything, numbers as they are', () => {
    const json = written(attribution)
    expect(json).toMatchObject({
      kind: 'observed',
      certified: true,
      method: { unit: 'head', norm: 'frozen', convention: 'default' },
    })
    expect(json['components']).toEqual(attribution.components)
    expect(json['prompts']).toEqual([0, 1].map((i) => ({ ids: [...attribution.ids(i)], tokens: attribution.tokens(i) })))
    const rows = json['rows'] as unknown as { values: number[]; total: number; target: unknown; position: number }[]
    expect(rows.map(({ values }) => Float32Array.from(values))).toEqual([...attribution].map(({ values }) => values.slice()))
    expect(rows.map(({ total, position }) => [total, position])).toEqual([...attribution].map((r) => [r.total, r.position]))
    expect(rows.map(({ target }) => target)).toEqual(attribution.targets)
  })

  test('a target that is a direction is a list', async () => {
    const direction = Float32Array.from({ length: 96 }, (_, i) => i / 7)
    const result = await model.attribute([SHORT], { direction })
    const [row] = written(result)['rows'] as unknown as { target: { direction: number[] } }[]
    expect(row?.target.direction).toEqual([...direction])
  })

  test('the others: rows with their numbers', () => {
    const rows = (result: object) => written(result)['rows'] as unknown as Record<string, never>[]
    expect(rows(sources)[1]?.['matrix']).toEqual(written(sources.row(1).matrix))
    expect(written(sources)['prompts']?.[1]).toEqual({ ids: [...sources.ids(1)], tokens: sources.tokens(1) })
    expect(rows(lens)[1]?.['states']).toEqual(JSON.parse(JSON.stringify(lens.row(1))))
    expect(rows(likely)[0]?.['states']).toEqual(JSON.parse(JSON.stringify(likely.row(0))))
    expect(rows(tokens)[0]?.['components']?.[2]).toMatchObject({ label: 'L0H0', raised: tokens.row(0)[2]?.raised })
    expect(rows(directions)[1]?.['values']?.[2]).toEqual([...directions.row(1).direction(2)])
    expect(rows(stack)[0]?.['vectors']).toEqual(written(stack.row(0)))
    expect(written(summary)['means']).toEqual(summary.means)
    for (const result of [sources, lens, likely, tokens, directions, stack, summary]) {
      expect(written(result)).toMatchObject({ kind: 'observed', provenance: { family: 'gpt2', dtype: 'f32' } })
    }
  })
})

describe('for people', () => {
  test('an attribution', () => {
    expect(inspect(attribution)).toMatchInlineSnapshot(`
      "Attribution: 4 rows × 26 components by head, certified
        prompt 0, position 13: total -0.656; L3 mlp -2.911, L3H1 1.318, embed 0.416, …
        prompt 0, position 14: total 6.291; L3H1 3.518, L3H0 3.022, L1H1 -0.746, …
        prompt 1, position 3: total 3.188; L3 mlp 0.733, L0 mlp 0.594, L3H2 0.579, …
        … 1 more row"
    `)
    expect(inspect(attribution.row(1))).toMatchInlineSnapshot(
      `"AttributionRow: prompt 0, position 14: total 6.291; L3H1 3.518, L3H0 3.022, L1H1 -0.746, …"`,
    )
  })

  test('the others', () => {
    const start = (result: object) => inspect(result).split('\n').slice(0, 3).join('\n')
    expect(start(sources)).toMatchInlineSnapshot(`
      "AttributionSources: 2 rows, 2 heads
        prompt 0, position 14: L3H1 from "Mary" 3.521, L2H0 from "John" 0.277, L3H1 from "John" -0.003, …
        prompt 1, position 4: L3H1 from "went" 0.137, L3H1 from "<bos>" 0.136, L3H1 from "When" 0.125, …"
    `)
    expect(start(lens)).toMatchInlineSnapshot(`
      "LogitLens: 2 rows × 9 states, norm recomputed
        blocks.0.hook_resid_pre          -4.750
        blocks.0.hook_resid_mid          -5.500"
    `)
    expect(start(likely)).toMatchInlineSnapshot(`
      "LogitLens: 2 rows × 9 states, norm recomputed
        blocks.0.hook_resid_pre       "to" "for" "working"
        blocks.0.hook_resid_mid       "to" "for" "at""
    `)
    expect(start(tokens)).toMatchInlineSnapshot(`
      "TopTokens: 2 rows × 26 components, 2 each way
        embed          + "to" "for"   − "Prague" "Brasilia"
        pos_embed      + "Kevin" "Richard"   − "because" "when""
    `)
    expect(start(directions)).toMatchInlineSnapshot(
      `"DirectionAttribution: 2 rows × 3 directions × 26 components at blocks.3.hook_resid_post, certified"`,
    )
    expect(start(stack)).toMatchInlineSnapshot(`"Decomposition: 5 rows × 26 components × 96"`)
    expect(start(summary)).toMatchInlineSnapshot(`
      "AttributionSummary: 2 prompts, 2 rows, certified
        L3H1              1.9888  [0.4597, 3.5180]
        L3H0              1.4578  [-0.1067, 3.0224]"
    `)
    expect(inspect(stack.row(0))).toMatchInlineSnapshot(
      `"Tensor { component: 26, d_model: 96 } [ 0.0041127, 0.063482, 0.018765, -0.056909, -0.06316, -0.049747, … ]"`,
    )
    expect(inspect(model)).toMatchInlineSnapshot(`"Model: gpt2, 4 layers × 4 heads, dModel 96, dVocab 342, on cpu"`)
  })

  test('a run, open and closed', async () => {
    const run = await model.run([SHORT], { cache: ['blocks.*.hook_resid_post'] })
    expect(inspect(run)).toBe('Run: 1 prompt, 4 hook points, logits: last')
    expect(inspect(run.cache)).toBe('Cache: 4 hook points, blocks.0.hook_resid_post … blocks.3.hook_resid_post')
    run.close()
    expect(inspect(run)).toBe('Run: 1 prompt, closed')
    expect(inspect(run.cache)).toBe('Cache: closed')
  })

  test('all of them are short, however large the result', async () => {
    const many = Array.from({ length: 40 }, () => SHORT)
    const [all, looked] = [await model.attribute(many, DEMO_TARGET), await model.logitLens(many, { top: 2 })]
    for (const result of [all, looked, await model.topTokens(many, { k: 2 }), await model.attributeSources(many, DEMO_TARGET)]) {
      expect(inspect(result).split('\n').length).toBeLessThan(15)
      expect(
        Math.max(
          ...inspect(result)
            .split('\n')
            .map((line) => line.length),
        ),
      ).toBeLessThan(140)
    }
  })
})

test('rows can be gone through', () => {
  expect([...lens].map((states) => states.length)).toEqual([9, 9])
  expect([...sources].map(({ prompt, tokens: texts }) => [prompt, texts.length])).toEqual([
    [0, sources.ids(0).length],
    [1, sources.ids(1).length],
  ])
  expect([...tokens].map((row) => row.length)).toEqual([26, 26])
  expect([...directions].map(({ prompt }) => prompt)).toEqual([0, 1])
  expect([...stack].map(({ shape }) => shape)).toEqual(Array.from({ length: stack.ids(0).length }, () => [26, 96]))
  expect([...summary]).toEqual(summary.means)
})

test('what is no row, and no component, is refused', async () => {
  for (const result of [attribution, sources, lens, tokens, directions, stack]) {
    for (const i of [-1, 99, 0.5, '0']) await refusal('INVALID_ARGUMENT', () => result.row(i as number))
  }
  const near = { name: 'L3H9', nearest: ['L3H0', 'L3H1', 'L3H2'] }
  expect((await refusal('INVALID_ARGUMENT', () => tokens.get(0, 'L3H9'))).details).toEqual(near)
  expect((await refusal('INVALID_ARGUMENT', () => stack.vector(0, 'L3H9'))).details).toEqual(near)
  await refusal('INVALID_ARGUMENT', () => directions.row(0).direction(3))
  await refusal('INVALID_ARGUMENT', () => sources.row(0).byMagnitude(-1))
  await refusal('INVALID_ARGUMENT', () => summary.byMagnitude(0.5))
  await refusal('INVALID_ARGUMENT', () => lens.logProbabilities(0, 341))
})

test('results outlive their model', async () => {
  const other = await Model.load(DEMO)
  const moved = await other.topTokens([SHORT], { k: 1 })
  const predicted = await other.logitLens([SHORT], { top: 3 })
  const shown = await other.attribute([SHORT], { answer: 'predicted' })
  await other.close()
  expect(shown.tokens(0)).toEqual(['<bos>', 'When', '<unk>', 'went', '<unk>'])
  expect(predicted.row(0)).toEqual(likely.row(1))
  expect(moved.row(0)[3]?.raised[0]).toEqual(tokens.row(1)[3]?.raised[0])
  const table = await shown.toArrow()
  expect(table.numRows).toBe(26)
})
