// Tidy tables of apache-arrow: a line per value, its labels beside it. The library is read only when a table is made.
import type * as Arrow from 'apache-arrow'
import type { Component } from './components.js'
import type { Origin, Result } from './observed.js'

/** One column of a table. */
export type Column =
  /** Numbers as they are, shared, not copied. */
  | { readonly numbers: Float32Array | Float64Array | Uint32Array }
  /** Whole numbers, −1 where there is none. */
  | { readonly optional: Int32Array }
  /** Texts by their index in a list; −1, in an Int32Array, where there is none. */
  | { readonly texts: readonly string[]; readonly at: Uint32Array | Int32Array }
  /** Vectors of one length, one behind the other, shared, not copied. */
  | { readonly vectors: Float32Array; readonly width: number }

/** @internal A table of these columns; what is known of its origin goes into the schema's metadata. */
export async function arrowTable(
  columns: Readonly<Record<string, Column>>,
  origin: Origin,
  metadata: Readonly<Record<string, string>>,
): Promise<Arrow.Table> {
  const arrow = await import('apache-arrow')
  const fingerprint = await origin.fingerprint()
  const { unknownConfig, interventions, ...provenance } = origin.provenance
  const entries = Object.entries({
    kind: 'observed',
    ...provenance,
    unknownConfig: JSON.stringify(unknownConfig),
    ...(interventions === undefined ? {} : { interventions: JSON.stringify(interventions) }),
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
  if ('numbers' in column) return numbersData(arrow, column.numbers)
  if ('vectors' in column) {
    const { vectors, width } = column
    const child = arrow.makeData({ type: new arrow.Float32(), data: vectors })
    const type: Arrow.FixedSizeList = new arrow.FixedSizeList(width, new arrow.Field('item', child.type, false))
    return arrow.makeData({ type, length: vectors.length / width, nullCount: 0, child })
  }
  if ('optional' in column) return arrow.makeData({ type: new arrow.Int32(), data: column.optional, ...nulls(column.optional) })
  const dictionary = arrow.vectorFromArray([...column.texts], new arrow.Utf8())
  if (column.at instanceof Uint32Array) {
    const type = new arrow.Dictionary(new arrow.Utf8(), new arrow.Uint32())
    return arrow.makeData({ type, data: column.at, dictionary })
  }
  const type = new arrow.Dictionary(new arrow.Utf8(), new arrow.Int32())
  return arrow.makeData({ type, data: column.at, dictionary, ...nulls(column.at) })
}

function numbersData(arrow: typeof Arrow, data: Float32Array | Float64Array | Uint32Array): Arrow.Data {
  if (data instanceof Float32Array) return arrow.makeData({ type: new arrow.Float32(), data })
  if (data instanceof Float64Array) return arrow.makeData({ type: new arrow.Float64(), data })
  return arrow.makeData({ type: new arrow.Uint32(), data })
}

/** Which of them are there: those that are not negative. */
function nulls(data: Int32Array): { readonly nullBitmap: Uint8Array; readonly nullCount: number } {
  const nullBitmap = new Uint8Array(Math.ceil(data.length / 8))
  let nullCount = 0
  data.forEach((value, i) => {
    if (value < 0) nullCount++
    else nullBitmap[i >> 3] = (nullBitmap[i >> 3] ?? 0) | (1 << (i & 7))
  })
  return { nullBitmap, nullCount }
}

/** @internal What the line of a value is: prompt and position of its row, and `inner` lines per row. */
export function rowColumns(rows: Result['rows'], inner: number): Readonly<Record<'prompt' | 'position', Column>> {
  const repeated = (list: Uint32Array) => {
    const out = new Uint32Array(list.length * inner)
    list.forEach((value, i) => out.fill(value, i * inner, (i + 1) * inner))
    return { numbers: out }
  }
  return { prompt: repeated(rows.prompt), position: repeated(rows.position) }
}

/** @internal 0 … n − 1, `times` over. */
export function cycle(n: number, times: number): Uint32Array {
  return Uint32Array.from({ length: n * times }, (_, i) => i % n)
}

/** @internal Label, kind, layer, index and, where there are any, expert of the component `at[i]` of every line i. */
export function componentColumns(components: readonly Component[], at: Uint32Array): Readonly<Record<string, Column>> {
  const spread = (of: (component: Component) => number) => {
    const one = Int32Array.from(components, of)
    return Int32Array.from(at, (c) => one[c] ?? -1)
  }
  const kinds = [...new Set(components.map(({ kind }) => kind))]
  const experts = [...new Set(components.flatMap(({ expert }) => (expert === undefined ? [] : [expert])))]
  const expertAt = new Map(experts.map((expert, i) => [expert, i]))
  return {
    component: { texts: components.map(({ label }) => label), at },
    kind: { texts: kinds, at: Uint32Array.from(spread(({ kind }) => kinds.indexOf(kind))) },
    layer: { optional: spread(({ layer }) => layer ?? -1) },
    index: { optional: spread(({ index }) => index ?? -1) },
    ...(experts.length === 0
      ? {}
      : {
          expert: {
            texts: experts.map(String),
            at: spread(({ expert }) => (expert === undefined ? -1 : (expertAt.get(expert) ?? -1))),
          },
        }),
  }
}

/** @internal The texts of token ids, each once. */
export function tokenColumn(ids: Uint32Array, origin: Origin): Column {
  const distinct = [...new Set(ids)]
  const at = new Map(distinct.map((id, i) => [id, i]))
  return { texts: distinct.map((id) => origin.tokenText(id)), at: ids.map((id) => at.get(id) ?? 0) }
}
