// Pictures as Vega-Lite specs: plain data that any Vega viewer, notebook or page shows, and `toSvg` renders offline.

/** How a field of the data is shown: a channel of Vega-Lite's `encoding`. */
export interface Channel {
  readonly field?: string
  readonly type?: 'quantitative' | 'ordinal' | 'nominal'
  readonly title?: string | null
  readonly sort?: readonly string[]
  readonly axis?: { readonly labelAngle: number }
  readonly scale?: Readonly<Record<string, unknown>>
  readonly condition?: { readonly test: string; readonly value: string }
  readonly value?: string
}

/** A mark and what its channels show. */
export interface Layer {
  readonly mark: { readonly type: 'rect' | 'bar' | 'line' | 'text'; readonly [option: string]: unknown }
  readonly encoding: Readonly<Record<string, Channel>>
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
} & (Layer | { readonly layer: readonly Layer[] })

const SCHEMA = 'https://vega.github.io/schema/vega-lite/v6.json'
/** Red raises, blue lowers, white is 0. */
const DIVERGING = { scheme: 'blueorange', domainMid: 0 } as const

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
  const diverging = map.scale === 'diverging'
  return {
    $schema: SCHEMA,
    title: titled(map.title, map.subtitle),
    data: { values: map.cells.map((cell) => ({ ...cell })) },
    mark: { type: 'rect', tooltip: true },
    width: { step: 20 },
    height: { step: 20 },
    encoding: {
      x: { field: 'x', type: 'ordinal', sort: [...map.xs], title: map.xTitle, axis: { labelAngle: -45 } },
      y: { field: 'y', type: 'ordinal', sort: map.upwards ? [...map.ys].reverse() : [...map.ys], title: map.yTitle },
      color: {
        field: 'value',
        type: 'quantitative',
        title: map.legend,
        scale: diverging ? { ...DIVERGING } : { scheme: 'blues', domain: [0, 1] },
      },
    },
    config: { view: { stroke: null }, axis: { grid: false, labelLimit: 120 } },
  }
}

/** @internal Bars around 0, largest magnitude on top. */
export function bars(title: string, subtitle: string, values: readonly { label: string; value: number }[], unit: string): Plot {
  return {
    $schema: SCHEMA,
    title: titled(title, subtitle),
    data: { values: values.map((each) => ({ ...each })) },
    mark: { type: 'bar', tooltip: true },
    width: 360,
    height: { step: 18 },
    encoding: {
      y: { field: 'label', type: 'ordinal', sort: values.map(({ label }) => label), title: null },
      x: { field: 'value', type: 'quantitative', title: unit },
      color: { condition: { test: 'datum.value < 0', value: '#4c78a8' }, value: '#f58518' },
    },
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
      x: { field: 'state', type: 'ordinal', sort: [...states], title: 'stream, from the embedding up', axis: { labelAngle: -45 } },
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
  const y = { field: 'y', type: 'ordinal' as const, sort: [...ys].reverse(), title: 'stream' }
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
          color: { field: 'value', type: 'quantitative', title: 'probability', scale: { scheme: 'blues', domain: [0, 1] } },
        },
      },
      {
        mark: { type: 'text', fontSize: 10, limit: 68 },
        encoding: {
          x,
          y,
          text: { field: 'text' },
          color: { condition: { test: 'datum.value > 0.5', value: 'white' }, value: 'black' },
        },
      },
    ],
    config: { view: { stroke: null }, axis: { grid: false } },
  }
}

/** @internal Tokens as labels of an axis: numbered, because tokens repeat and an axis merges equal labels. */
export function tokenLabels(tokens: readonly string[]): string[] {
  return tokens.map((token, i) => `${i} ${visible(token)}`)
}

/** @internal A token with its blanks and breaks shown. */
export function visible(token: string): string {
  return token
    .replaceAll(' ', '·')
    .replaceAll('\n', '⏎')
    .replaceAll('\t', '⇥')
    .replace(/\p{Cc}/gu, '�')
}

function titled(text: string, subtitle: string | undefined): { text: string; subtitle?: string; anchor: 'start' } {
  return { text, ...(subtitle ? { subtitle } : {}), anchor: 'start' }
}

/**
 * A plot as SVG, rendered by vega without a browser and without the network.
 *
 * @param plot what `plot()` of a result returned, or any Vega-Lite spec whose data is inside
 * @returns the text of an SVG file
 */
export async function toSvg(plot: Plot): Promise<string> {
  const [{ compile }, vega] = (await Promise.all(['vega-lite', 'vega'].map((name) => import(name)))) as [VegaLite, Vega]
  const loader = vega.loader()
  loader.load = () => Promise.reject(new Error('a plot loads nothing: its data is inside'))
  const view = new vega.View(vega.parse(compile(plot).spec), { renderer: 'none', logLevel: vega.Warn, loader })
  try {
    return await view.toSVG()
  } finally {
    view.finalize()
  }
}

// The little of vega that is called here. Its own types ask every reader of ours for the DOM's.
interface VegaLite {
  compile(plot: Plot): { spec: unknown }
}

interface Vega {
  readonly Warn: number
  loader(): { load: (uri: string) => Promise<string> }
  parse(spec: unknown): unknown
  View: new (runtime: unknown, options: object) => { toSVG(): Promise<string>; finalize(): void }
}
