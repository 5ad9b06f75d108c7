// Pictures: every spec is one by Vega-Lite's own schema, its colours and labels say what they should, and vega renders it.
import { Ajv, type ValidateFunction } from 'ajv'
import { createRequire } from 'node:module'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { Model, type Plot, type Target, toSvg } from '../../src/index.js'
import { bars, heatmap, lines, pairs, tokenLabels, tokenTable, visible } from '../../src/plot.js'
import { DEMO_PROMPT, DEMO_TARGET, refusal } from '../helpers.js'

const schema = createRequire(import.meta.url)('vega-lite/vega-lite-schema.json') as object

let model: Model
let validate: ValidateFunction
beforeAll(async () => {
  model = await Model.demo()
  // formats are those of URLs and colours, which the schema names and JSON Schema does not know
  validate = new Ajv({ strict: false, validateFormats: false, allowUnionTypes: true }).compile(schema)
})
afterAll(() => model.close())

const PROMPTS = [DEMO_PROMPT, 'When Anna and Mark arrived at the park, Mark gave a ring to']
const TARGETS: Target[] = [DEMO_TARGET, { answer: ' Anna', against: ' Mark' }]
const ITEMS = PROMPTS.map((prompt, i) => ({ prompt, target: TARGETS[i] ?? DEMO_TARGET }))
const ODD = ['\n', '👍', '"', "'", ' the', '\t', 'a\\b', '\u001b[2J', '玛丽', '\u0301', '<b>&', '\u202eabc', '', 'x'.repeat(60)]

const grid = (n: number, m: number, value: (i: number, j: number) => number) => {
  const [xs, ys] = [Array.from({ length: n }, (_, i) => `H${i}`), Array.from({ length: m }, (_, j) => `L${j}`)]
  const cells = ys.flatMap((y, j) => xs.map((x, i) => ({ x, y, value: value(i, j) })))
  return { title: 'A grid', cells, xs, ys, xTitle: 'head', yTitle: 'layer', legend: 'logits', scale: 'diverging' as const }
}

const oddTokens = () => {
  const xs = tokenLabels(ODD)
  const cells = xs.map((x) => ({ x, y: 'L0H0', value: 0.5 }))
  return { ...grid(1, 1, () => 1), xs, ys: ['L0H0'], cells, scale: 'sequential' as const }
}

/** Every kind of picture, from results and from data that no demo has. */
const PLOTS: Record<string, () => Plot | Promise<Plot>> = {
  'attribution, one row': async () => (await model.attribute(PROMPTS, TARGETS)).plot({ row: 0 }),
  'attribution, mean': async () => (await model.attribute(PROMPTS, TARGETS)).plot(),
  'attribution, bars': async () => (await model.attribute(PROMPTS, TARGETS)).plot({ type: 'bars', top: 4 }),
  'attribution by layer': async () => (await model.attribute(PROMPTS, TARGETS, { unit: 'layer' })).plot(),
  'attribution by neuron': async () => (await model.attribute(PROMPTS, TARGETS, { unit: 'neuron', top: 5 })).plot({ row: 1 }),
  summary: async () => (await model.attributeSummary(ITEMS)).plot(),
  'lens with targets': async () => (await model.logitLens(PROMPTS, { targets: TARGETS })).plot(),
  'lens with tokens': async () => (await model.logitLens(PROMPTS, { top: 2, position: [-2, -1] })).plot(),
  sources: async () => (await model.attributeSources(PROMPTS, TARGETS, { heads: ['L3H0', 'L1H1'] })).plot({ row: 1 }),
  attention: async () => (await model.attention(PROMPTS)).plot(3, 1, 0),
  composition: () => pairs('K-composition', 'of the demo', [{ from: 'L0H2', to: 'L1H1', score: 0.2 }, { from: 'L0H10', to: 'L1H1', score: -0.1 }], 'score'), // prettier-ignore
  '12 × 12': () => heatmap({ ...grid(12, 12, (i, j) => i - j), upwards: true }),
  '144 × 144': () => heatmap(grid(144, 144, (i, j) => Math.sin(i * j))),
  'all zero': () => heatmap(grid(2, 2, () => 0)),
  'odd tokens': () => heatmap(oddTokens()),
  'one bar': () => bars('One', 'bar', [{ label: 'L0H0', value: 0 }], 'logits'),
  'one line': () => lines('One', 'line', [{ state: 'embed', value: 1, series: 'a' }], ['embed'], 'logits'),
  'a cell of text': () => tokenTable('One', 'cell', [{ x: 'a', y: 'embed', text: '<&>', value: 0.7 }], ['a'], ['embed']),
}

describe.each(Object.keys(PLOTS))('%s', (name) => {
  test('is a Vega-Lite spec, as plain data', async () => {
    const plot = await PLOTS[name]?.()
    expect(validate(plot), JSON.stringify(validate.errors?.slice(0, 3))).toBe(true)
    expect(JSON.parse(JSON.stringify(plot))).toEqual(plot)
  })

  test('is rendered, with its title and every mark', async () => {
    const plot = await PLOTS[name]?.()
    if (!plot) throw new Error(name)
    const svg = await toSvg(plot)
    expect(svg).toMatch(/^<svg [^]*<\/svg>$/)
    expect(svg).toContain(plot.title.text)
    expect(svg).not.toMatch(/NaN|undefined/)
    const marks = svg.match(/aria-roledescription="(rect mark|bar|line mark point|point|text mark|rule mark)"/g) ?? []
    expect(marks.length).toBeGreaterThanOrEqual(plot.data.values.length)
  })
})

test('the schema refuses what is no spec', () => {
  const plot = bars('One', 'bar', [{ label: 'L0H0', value: 0 }], 'logits') as unknown as Record<string, unknown>
  expect(validate({ ...plot, mark: 'blob' })).toBe(false)
  expect(validate({ ...plot, encoding: { x: { field: 'value', type: 'number' } } })).toBe(false)
})

const scaleOf = (plot: Plot) => ('encoding' in plot ? plot.encoding.color?.scale : undefined)

test('colours of signed values are centred at 0, whatever the values', async () => {
  const result = await model.attribute(PROMPTS, TARGETS)
  const inLayers = result.components.flatMap(({ layer }, c) =>
    layer === undefined ? [] : [Math.abs(result.row(0).values[c] ?? 0)],
  )
  const largest = Math.max(...inLayers)
  expect(scaleOf(result.plot({ row: 0 }))).toMatchObject({ domain: [-largest, largest] })
  const colour = async (value: number, other: number) => {
    const svg = await toSvg(heatmap(grid(2, 1, (i) => (i === 0 ? value : other))))
    return /aria-label="[^"]*head: H0;[^"]*"[^>]*fill="([^"]+)"/.exec(svg)?.[1] ?? /head: H0[^>]*fill="([^"]+)"/.exec(svg)?.[1]
  }
  expect(await colour(0, 5)).toBe('rgb(255, 255, 255)')
  expect(await colour(0, -0.1)).toBe('rgb(255, 255, 255)')
  expect(await colour(3, -1)).toBe('rgb(127, 39, 4)')
  expect(await colour(-3, 1)).toBe('rgb(8, 48, 107)')
})

test('attention: white is 0 and the scale ends at 1, also where no head reaches it', async () => {
  const plot = (await model.attention(PROMPTS)).plot(0, 0, 0)
  expect(scaleOf(plot)).toMatchObject({ domain: [0, 1] })
  expect(plot.data.values).toHaveLength((15 * 16) / 2) // what the mask hides has no cell
})

test('the values are those of the result, under its labels', async () => {
  const result = await model.attribute(PROMPTS, TARGETS)
  const cells = new Map(result.plot({ row: 0 }).data.values.map(({ x, y, value }) => [`${y}${x}`, value]))
  expect(cells.get('L3H1')).toBe(result.row(0).value('L3H1'))
  expect(cells.get('L3mlp')).toBe(result.row(0).value('L3 mlp'))
  expect(cells.size).toBe(4 * 6)
  expect(result.plot({ row: 0 }).title.subtitle).toContain(`embed ${result.row(0).value('embed').toFixed(3)}`)
  const strongest = result.plot({ row: 0, type: 'bars', top: 3 }).data.values
  expect(strongest.map(({ label, value }) => ({ label, value }))).toEqual(
    result
      .row(0)
      .byMagnitude(3)
      .map(({ label, value }) => ({ label, value })),
  )
  const mean = new Map(result.mean().map((each) => [each.label, each.mean]))
  for (const { x, y, value } of result.plot().data.values) {
    expect(value).toBe(mean.get(String(x).startsWith('H') ? `${y}${x}` : `${y} ${x}`))
  }
})

test('a summary shows its intervals', async () => {
  const summary = await model.attributeSummary(ITEMS)
  const [first] = summary.byMagnitude(1)
  const { values } = summary.plot({ top: 2 }).data
  expect(values).toHaveLength(2)
  expect(values[0]).toEqual({ label: first?.label, value: first?.mean, low: first?.interval[0], high: first?.interval[1] })
})

test('axes of pairs are in the order of the model', () => {
  const plot = pairs('K', '', [{ from: 'L10H0', to: 'L11H0', score: 1 }, { from: 'L2H10', to: 'L3H0', score: 1 }, { from: 'L2H9', to: 'L3H0', score: 1 }], 'score') // prettier-ignore
  if (!('encoding' in plot)) throw new Error('no single mark')
  expect(plot.encoding.x?.sort).toEqual(['L2H9', 'L2H10', 'L10H0'])
  expect(plot.encoding.y?.sort).toEqual(['L11H0', 'L3H0'])
})

test('tokens as labels: numbered, their blanks seen, nothing that turns the line or is no text', async () => {
  expect(tokenLabels([' the', ' the'])).toEqual(['0 ·the', '1 ·the'])
  expect(['\n', '\t', '\u001b', '\u202e', '\u0301', '👍', ''].map((token) => visible(token))).toEqual([
    '⏎', '⇥', '\\u{1b}', '\\u{202e}', '◌\u0301', '👍', '',
  ]) // prettier-ignore
  expect(visible('x'.repeat(60))).toHaveLength(12)
  const svg = await toSvg(heatmap(oddTokens()))
  for (const text of ['0 ⏎', '1 👍', '2 "', '8 玛丽', '10 &lt;b&gt;&amp;']) expect(svg).toContain(`>${text}<`)
  // oxlint-disable-next-line no-control-regex
  expect(svg).not.toMatch(/[\u0000-\u0008\u000b-\u001f\u202e]/)
})

test('a picture of 60 tokens stays on a screen', async () => {
  const ids = Array.from({ length: 60 }, (_, i) => 2 + ((i * 37) % 300))
  const svg = await toSvg((await model.attention([ids])).plot(0, 2, 0))
  const [, width, height] = /width="([\d.]+)" height="([\d.]+)"/.exec(svg) ?? []
  expect(Number(width)).toBeLessThan(1200)
  expect(Number(height)).toBeLessThan(1200)
})

test('toSvg loads nothing, and leaves vega as it was', async () => {
  const vega = (await import('vega' as string)) as { textMetrics: { width: unknown } }
  const { width } = vega.textMetrics
  const plot = bars('One', 'bar', [{ label: 'L0H0', value: 0 }], 'logits')
  await Promise.all([toSvg(plot), toSvg(plot)])
  expect(vega.textMetrics.width).toBe(width)
  await refusal('INVALID_ARGUMENT', () => toSvg({ ...plot, data: { url: 'file:///etc/hostname' } } as unknown as Plot))
  await expect(toSvg({} as Plot)).rejects.toThrow(/spec/i)
})

test('arguments', async () => {
  const result = await model.attribute(PROMPTS, TARGETS)
  await refusal('UNKNOWN_OPTION', () => result.plot({ rows: 0 } as object))
  await refusal('INVALID_ARGUMENT', () => result.plot({ row: 2 }))
  await refusal('INVALID_ARGUMENT', () => result.plot({ type: 'pie' as 'bars' }))
  await refusal('INVALID_ARGUMENT', () => result.plot({ top: 0 }))
  const sources = await model.attributeSources(PROMPTS, TARGETS, { heads: ['L3H0'] })
  await refusal('INVALID_ARGUMENT', () => sources.plot({ row: 2 }))
  await refusal('UNKNOWN_OPTION', () => sources.plot({ head: 'L3H0' } as object))
  const attention = await model.attention(PROMPTS, { heads: ['L3H0'] })
  await refusal('INVALID_ARGUMENT', () => attention.plot(3, 1, 0))
  await refusal('INVALID_ARGUMENT', () => attention.plot(3, 0, 2))
})
