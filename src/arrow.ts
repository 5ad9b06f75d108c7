// Tidy tables of apache-arrow: a line per value, its labels beside it. The library is read only when a table is made.
import type * as Arrow from 'apache-arrow'
import type { Component } from './components.js'
import type { Observed, Origin } from './observed.js'

/** One column of a table. */
export type Column =
  /** Numbers as they are, shared, not copied. */
  | { readonly numbers: Float32Array | Uint32Array }
  /** Whole numbers, −1 where there is none. */
  | { readonly optional: Int32Array }
  /** Texts by their index in a list. */
  | { readonly texts: readonly string[]; readonly at: Uint32Array }

/** @internal A table of these columns; what is known of its origin goes into the schema's metadata. */
export async function arrowTable(
  columns: Readonly<Record<string, Column>>,
  origin: Origin,
  metadata: Readonly<Record<string, string>>,
): Promise<Arrow.Table> {
  const arrow = await import('apache-arrow')
  const fingerprint = await origin.fingerprint()
  const entries = Object.entries({
    kind: 'observed',
    ...origin.provenance,
    unknownConfig: JSON.stringify(origin.provenance.unknownConfig),
    ...(fingerprint === undefined ? {} : { fingerprint }),
    ...metadata,
  }).map(([key, value]): [string, string] => [`logit-prism.${key}`, value])
  const data = Object.entries(columns).map(([name, column]) => [name, columnData(arrow, column)] as const)
  const fields = data.map(([name, { type, nullCount }]) => new arrow.Field(name, type, nullCount > 0))
  const schema = new arrow.Schema(fields, new Map(entries))
  const length = data[0]?.[1].length ?? 0
  const struct = arrow.makeData({ type: new arrow.Struct(fields), length, nullCount: 0, children: data.map(([, d]) => d) })
  return new arrow.Table(schema, new arrow.RecordBatch(schema, struct))
}

function columnData(arrow: typeof Arrow, column: Column): Arrow.Data {
  if ('numbers' in column) {
    return column.numbers instanceof Float32Array
      ? arrow.makeData({ type: new arrow.Float32(), data: column.numbers })
      : arrow.makeData({ type: new arrow.Uint32(), data: column.numbers })
  }
  if ('texts' in column) {
    const dictionary = arrow.vectorFromArray([...column.texts], new arrow.Utf8())
    const type = new arrow.Dictionary(new arrow.Utf8(), new arrow.Uint32())
    return arrow.makeData({ type, data: column.at, dictionary })
  }
  const { optional: data } = column
  const nullBitmap = new Uint8Array(Math.ceil(data.length / 8))
  let nullCount = 0
  data.forEach((value, i) => {
    if (value < 0) nullCount++
    else nullBitmap[i >> 3] = (nullBitmap[i >> 3] ?? 0) | (1 << (i & 7))
  })
  return arrow.makeData({ type: new arrow.Int32(), data, nullBitmap, nullCount })
}

/** @internal What the line of a value is: prompt and position of its row, and `inner` lines per row. */
export function rowColumns(rows: Observed['rows'], inner: number): Readonly<Record<'prompt' | 'position', Column>> {
  const repeated = (list: Uint32Array) => {
    const out = new Uint32Array(list.length * inner)
    list.forEach((value, i) => out.fill(value, i * inner, (i + 1) * inner))
    return { numbers: out }
  }
  return { prompt: repeated(rows.prompt), position: repeated(rows.position) }
}

/** @internal Label, kind, layer and index of components, `times` over. */
export function componentColumns(components: readonly Component[], times: number): Readonly<Record<string, Column>> {
  const n = components.length
  const cycle = (of: (component: Component, i: number) => number) => {
    const one = components.map(of)
    const out = new Int32Array(n * times)
    for (let t = 0; t < times; t++) out.set(one, t * n)
    return out
  }
  const kinds = [...new Set(components.map(({ kind }) => kind))]
  return {
    component: { texts: components.map(({ label }) => label), at: Uint32Array.from(cycle((_, i) => i)) },
    kind: { texts: kinds, at: Uint32Array.from(cycle(({ kind }) => kinds.indexOf(kind))) },
    layer: { optional: cycle(({ layer }) => layer ?? -1) },
    index: { optional: cycle(({ index }) => index ?? -1) },
  }
}
