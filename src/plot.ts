// Pictures as Vega-Lite specs: plain data that any Vega viewer, notebook or page shows, and `toSvg` renders offline.
import { invalidArgument, type PrismError } from './errors.js'
import { cut, width } from './width.js'

/** How a field of the data is shown: a channel of Vega-Lite's `encoding`. */
export interface PlotChannel {
  readonly field?: string
  readonly type?: 'quantitative' | 'ordinal' | 'nominal'
  readonly title?: string | null
  readonly sort?: readonly string[]
  readonly axis?: { readonly labelAngle?: number; readonly labelFontSize?: number; readonly tickCount?: number }
  readonly scale?: Readonly<Record<string, unknown>>
  readonly condition?: { readonly test: string; readonly value: string }
  readonly value?: string
}

/** A mark and what its channels show. */
export interface PlotLayer {
  /** What is drawn for every value, with its options. */
  readonly mark: { readonly type: 'rect' | 'bar' | 'line' | 'rule' | 'text'; readonly [option: string]: unknown }
  /** Channel of the mark → what it shows. */
  readonly encoding: Readonly<Record<string, PlotChannel>>
}

/**
 * A Vega-Lite spec (version 6) with its data inside: a single mark, or several over the same data. These are the parts
 * of the grammar that plots here use; any Vega-Lite reader takes them.
 */
export type Plot = {
  readonly $schema: string
  readonly title: { readonly text: string; readonly subtitle?: string; readonly anchor: 'start' }
  readonly data: { readonly values: readonly Readonly<Record<string, string | number>>[] }
  readonly width: number | { readonly step: number }
  readonly height: number | { readonly step: number }
  readonly config?: Readonly<Record<string, unknown>>
} & (PlotLayer | { readonly layer: readonly PlotLayer[] })

const SCHEMA = 'https://vega.github.io/schema/vega-lite/v6.json'
/** Shares and probabilities: white is 0, so that what a head ignores does not look like little. */
const SHARES = { range: ['#ffffff', '#c6dbef', '#6baed6', '#2171b5', '#08306b'], interpolate: 'rgb', domain: [0, 1] } as const
/** Blue lowers, orange raises, white is 0. */
const SIGNED = { range: ['#08306b', '#4292c6', '#ffffff', '#f58518', '#7f2704'], interpolate: 'rgb' } as const
/** What no cell covers, as what the mask hides: not the colour of 0. */
const NO_CELL = '#e4e4e4'
const ORANGE = '#f58518'
const BLUE = '#4c78a8'

/** @internal One cell of a heat map. */
export interface Cell {
  readonly x: string
  readonly y: string
  readonly value: number
}

/** @internal What a heat map shows and how it is labelled. */
export interface Heatmap {
  readonly title: string
  readonly subtitle?: string
  readonly cells: readonly Cell[]
  /** Labels in the order of the axes. */
  readonly xs: readonly string[]
  readonly ys: readonly string[]
  readonly xTitle: string
  readonly yTitle: string
  /** What a value is, with its unit. */
  readonly legend: string
  /** Values of both signs, or of 0 to 1. */
  readonly scale: 'diverging' | 'sequential'
  /** Whether the first of `ys` stands at the bottom. */
  readonly upwards?: boolean
}

/** @internal */
export function heatmap(map: Heatmap): Plot {
  const step = stepFor(Math.max(map.xs.length, map.ys.length))
  const labelFontSize = Math.min(10, Math.max(8, step - 4))
  return {
    $schema: SCHEMA,
    title: titled(map.title, map.subtitle),
    data: { values: map.cells.map((cell) => ({ ...cell })) },
    mark: { type: 'rect', tooltip: true },
    width: { step },
    height: { step },
    encoding: {
      x: {
        field: 'x',
        type: 'ordinal',
        sort: [...map.xs],
        title: map.xTitle,
        axis: { labelAngle: step < 20 ? -90 : -45, labelFontSize },
      },
      y: {
        field: 'y',
        type: 'ordinal',
        sort: map.upwards ? map.ys.toReversed() : [...map.ys],
        title: map.yTitle,
        axis: { labelFontSize },
      },
      color: {
        field: 'value',
        type: 'quantitative',
        title: map.legend,
        scale: map.scale === 'diverging' ? aroundZero(map.cells) : { ...SHARES },
      },
    },
    config: { view: { stroke: null, fill: NO_CELL }, axis: { grid: false, labelLimit: 0 } },
  }
}

/** Pixels of a cell: small where there are many, so that the whole stays on a screen. */
function stepFor(n: number): number {
  if (n <= 30) return 20
  if (n <= 70) return 14
  return n <= 120 ? 10 : 6
}

/** Equally dark for equal magnitudes. */
function aroundZero(cells: readonly Cell[]): Readonly<Record<string, unknown>> {
  const largest = cells.reduce((most, { value }) => (Math.abs(value) > most ? Math.abs(value) : most), 0) || 1
  return { ...SIGNED, domain: [-largest, largest] }
}

/** @internal A heat map of scores between pairs of heads: `from` writes, `to` reads. */
export function pairs(
  title: string,
  subtitle: string,
  scores: readonly { readonly from: string; readonly to: string; readonly score: number }[],
  legend: string,
): Plot {
  const inOrder = (names: string[]) => [...new Set(names)].sort((a, b) => a.localeCompare(b, 'en', { numeric: true })) // L2H0 before L10H0
  return heatmap({
    title,
    subtitle,
    cells: scores.map(({ from, to, score }) => ({ x: from, y: to, value: score })),
    xs: inOrder(scores.map(({ from }) => from)),
    ys: inOrder(scores.map(({ to }) => to)),
    xTitle: 'head that writes',
    yTitle: 'head that reads',
    legend,
    scale: 'diverging',
    upwards: true,
  })
}

/** @internal A bar of a chart; with an interval around its value, if it has one. */
export interface Bar {
  readonly label: string
  readonly value: number
  readonly low?: number
  readonly high?: number
}

/** @internal Bars around 0, largest magnitude on top. */
export function bars(title: string, subtitle: string, values: readonly Bar[], unit: string): Plot {
  const y: PlotChannel = { field: 'label', type: 'ordinal', sort: values.map(({ label }) => label), title: null }
  const x: PlotChannel = { field: 'value', type: 'quantitative', title: unit, axis: { tickCount: 6 } }
  const bar: PlotLayer = {
    mark: { type: 'bar', tooltip: true },
    encoding: { y, x, color: { condition: { test: 'datum.value < 0', value: BLUE }, value: ORANGE } },
  }
  const interval: PlotLayer = {
    mark: { type: 'rule', strokeWidth: 1.5 },
    encoding: { y, x: { ...x, field: 'low' }, x2: { field: 'high' } },
  }
  return {
    $schema: SCHEMA,
    title: titled(title, subtitle),
    data: { values: values.map((each) => ({ ...each })) },
    width: 360,
    height: { step: 18 },
    ...(values.some(({ low }) => low !== undefined) ? { layer: [bar, interval] } : bar),
  }
}

/** @internal One line per series over states in their order. */
export function lines(
  title: string,
  subtitle: string,
  points: readonly { state: string; value: number; series: string }[],
  states: readonly string[],
  unit: string,
): Plot {
  const many = new Set(points.map(({ series }) => series)).size > 1
  return {
    $schema: SCHEMA,
    title: titled(title, subtitle),
    data: { values: points.map((point) => ({ ...point })) },
    mark: { type: 'line', point: true, tooltip: true },
    width: Math.max(300, 24 * states.length),
    height: 240,
    encoding: {
      x: { field: 'state', type: 'ordinal', sort: [...states], title: 'stream after', axis: { labelAngle: -45 } },
      y: { field: 'value', type: 'quantitative', title: unit },
      ...(many ? { color: { field: 'series', type: 'nominal' as const, title: null } } : {}),
    },
  }
}

/** @internal A heat map with a text in every cell: the likeliest token and its probability. */
export function tokenTable(
  title: string,
  subtitle: string,
  cells: readonly { x: string; y: string; text: string; value: number }[],
  xs: readonly string[],
  ys: readonly string[],
): Plot {
  const x = { field: 'x', type: 'ordinal' as const, sort: [...xs], title: 'row', axis: { labelAngle: -45 } }
  const y = { field: 'y', type: 'ordinal' as const, sort: ys.toReversed(), title: 'stream after' }
  return {
    $schema: SCHEMA,
    title: titled(title, subtitle),
    data: { values: cells.map((cell) => ({ ...cell })) },
    width: { step: 72 },
    height: { step: 20 },
    layer: [
      {
        mark: { type: 'rect', tooltip: true },
        encoding: {
          x,
          y,
          color: { field: 'value', type: 'quantitative', title: 'probability', scale: { ...SHARES } },
        },
      },
      {
        mark: { type: 'text', fontSize: 10 },
        encoding: {
          x,
          y,
          text: { field: 'text' },
          color: { condition: { test: 'datum.value > 0.55', value: 'white' }, value: 'black' },
        },
      },
    ],
    config: { view: { stroke: null }, axis: { grid: false, labelLimit: 0 } },
  }
}

/** @internal Tokens as labels of an axis: numbered, because tokens repeat and an axis merges equal labels. */
export function tokenLabels(tokens: readonly string[]): string[] {
  return tokens.map((token, i) => `${i} ${visible(token, 16)}`)
}

const NAMED: Readonly<Record<string, string>> = { ' ': '·', '\n': '⏎', '\t': '⇥' }

/**
 * @internal A token with its blanks and breaks shown, and what would turn the direction of writing or be seen by nobody
 * written out; cut to so many cells.
 */
export function visible(token: string, cells = 12): string {
  const code = (character: string) => `\\u{${character.codePointAt(0)?.toString(16)}}`
  const text = token.replace(/[\p{C}\p{Z}]/gu, (character) => NAMED[character] ?? code(character))
  return cut(/^\p{M}/u.test(text) ? `◌${text}` : text, cells)
}

function titled(text: string, subtitle: string | undefined): { text: string; subtitle?: string; anchor: 'start' } {
  return { text, ...(subtitle ? { subtitle } : {}), anchor: 'start' }
}

/**
 * A plot as SVG, rendered by vega without a browser and without the network.
 *
 * @param plot what `plot()` of a result returned, or any Vega-Lite spec whose data is inside
 * @returns the text of an SVG file
 * @throws {PrismError} `INVALID_ARGUMENT` where a spec would load something; what vega throws where it is none
 */
export async function toSvg(plot: Plot): Promise<string> {
  const [{ compile }, vega] = (await Promise.all(['vega-lite', 'vega'].map((name) => import(name)))) as [VegaLite, Vega]
  const loader = vega.loader()
  let refused: PrismError | undefined
  loader.load = (uri) => {
    refused = invalidArgument('plot', uri, 'a spec whose data is inside: nothing is loaded')
    return Promise.reject(refused)
  }
  const view = new vega.View(vega.parse(compile(plot).spec), { renderer: 'none', logLevel: vega.None, loader })
  try {
    laidOut(vega, view)
    const svg = await view.toSVG()
    if (refused) throw refused
    return svg
  } finally {
    view.finalize()
  }
}

/**
 * Lays a view out by better widths of texts. Without a canvas vega takes every character for 0.8 em, which puts titles of
 * axes far away; this takes the average of common fonts. What vega has is put back before anybody else can see it.
 */
function laidOut({ textMetrics }: Vega, view: View): void {
  const { width: vegas } = textMetrics
  textMetrics.width = (item, text) => {
    const size = item.fontSize ?? 11
    return Math.ceil(width(String(text)) * size * (item.fontWeight === 'bold' ? 0.7 : 0.62))
  }
  try {
    view.run()
  } finally {
    textMetrics.width = vegas
  }
}

// The little of vega that is called here. Its own types ask every reader of ours for the DOM's.
interface VegaLite {
  compile(plot: Plot): { spec: unknown }
}

interface View {
  run(): void
  toSVG(): Promise<string>
  finalize(): void
}

interface Vega {
  readonly None: number
  readonly textMetrics: { width: (item: { fontSize?: number; fontWeight?: string | number }, text: unknown) => number }
  loader(): { load: (uri: string) => Promise<string> }
  parse(spec: unknown): unknown
  View: new (runtime: unknown, options: object) => View
}
