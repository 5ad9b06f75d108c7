import type { Table } from 'apache-arrow'
import type { Column } from './arrow.js'
import type { Component } from './components.js'
import { invalidArgument } from './errors.js'
import type { NativePatched } from './native.js'
import { firstLines, type Origin, Result } from './observed.js'
import { index } from './options.js'
import type { PatchAxis, PatchPoint } from './patch.js'
import { heatmap, type Plot, tokenLabels } from './plot.js'
import { type ResolvedTarget, resolvedTarget } from './targets.js'

/** How patches were made. */
export type PatchMethod =
  | {
      readonly change: 'patch'
      readonly at: PatchPoint
      readonly over: readonly PatchAxis[]
      readonly direction: 'denoising' | 'noising'
    }
  | {
      readonly change: 'path'
      readonly from: readonly string[]
      readonly to: readonly string[]
      readonly each: boolean
      readonly through: 'nothing' | 'mlps'
    }

/** Numbers of a pair, or their mean over pairs, in rows and columns. */
export interface PatchMatrix {
  /** Layers, heads or senders; more than three senders together are one row by their number, `method.from` names them. */
  readonly rows: readonly string[]
  /** Positions with their tokens, heads, or receivers. */
  readonly columns: readonly string[]
  /** The target after each patch, [rows][columns], in logits. */
  readonly values: readonly (readonly number[])[]
  /** `(value − corrupt) / (clean − corrupt)`: 0 as corrupted, 1 as clean. `undefined` where clean and corrupted are the same. */
  readonly normalised: readonly (readonly number[])[] | undefined
}

/** One patch, in words and numbers. */
export interface Patch {
  /** Which row and column of the matrix. */
  readonly row: string
  readonly column: string
  /** The target after it, in logits. */
  readonly value: number
  /** 0 as corrupted, 1 as clean; `undefined` where these are the same. */
  readonly normalised: number | undefined
  /** How far it moves the target from the run that was patched, in logits. */
  readonly moved: number
}

/** Where a patch was made, of what it was made at one of. */
interface Spot {
  readonly layer?: number
  readonly head?: number
  readonly position?: number
}

/** @internal What the rows and columns are, but for positions. */
export interface PatchShape {
  readonly nLayers: number
  readonly nHeads: number
  readonly senders: readonly Component[]
}

/**
 * Causes: what of the difference between a clean and a corrupted run hangs on one place of the model. Values of one run
 * stood in the other, one place at a time, and everything behind was computed again. A row per pair of prompts; `ids`, `tokens` and
 * positions are those of the clean prompt.
 */
export class Patched extends Result {
  /** What the numbers are worth. */
  readonly kind = 'causal' as const
  /** How it was made. */
  readonly method: PatchMethod
  /** The target in the clean run of every pair, in logits. */
  readonly clean: Float64Array
  /** The target in the corrupted run of every pair, in logits. */
  readonly corrupt: Float64Array
  /** The target after every patch, in logits: pair after pair, each [rows, columns], row-major; see {@link matrix}. */
  readonly values: Float64Array
  /** `(value − corrupt) / (clean − corrupt)`, in the same order; NaN for the pairs of `undefinedPairs`. */
  readonly normalised: Float64Array
  /** Pairs whose clean and corrupted targets are the same up to rounding, 1e-5 (1 + |clean| + |corrupt|): nothing to divide by. */
  readonly undefinedPairs: readonly number[]
  /** What each pair is about, resolved to ids in its clean run. */
  readonly targets: readonly ResolvedTarget[]

  readonly #native: NativePatched
  readonly #shape: PatchShape
  readonly #offsets: readonly number[]

  /** @internal */
  constructor(
    native: NativePatched,
    shape: PatchShape,
    directions: readonly (Float32Array | undefined)[],
    method: PatchMethod,
    origin: Origin,
  ) {
    super(native, origin)
    origin.remember(native.corruptIds)
    this.#native = native
    this.#shape = shape
    this.method = method
    this.clean = native.clean
    this.corrupt = native.corrupt
    this.values = native.values
    this.targets = Object.freeze(Array.from(native.rowPrompt, (prompt, i) => resolvedTarget(native, i, directions[prompt])))
    const isUndefined = (f: number, i: number) => {
      const g = native.corrupt[i] ?? Number.NaN
      return Math.abs(f - g) <= 1e-5 * (1 + Math.abs(f) + Math.abs(g)) ? [i] : []
    }
    this.undefinedPairs = Object.freeze(Array.from(native.clean).flatMap(isUndefined))
    let end = 0
    this.#offsets = [0, ...Array.from(native.clean, (_, i) => (end += this.#rows.length * this.#width(i)))]
    this.normalised = new Float64Array(native.values.length)
    native.clean.forEach((f, i) => {
      const g = this.corrupt[i] ?? Number.NaN
      for (let at = this.#offsets[i] ?? 0; at < (this.#offsets[i + 1] ?? 0); at++) {
        this.normalised[at] = this.undefinedPairs.includes(i) ? Number.NaN : ((this.values[at] ?? Number.NaN) - g) / (f - g)
      }
    })
  }

  /**
   * The ids of the corrupted prompt of a pair as they were run, BOS included.
   *
   * @throws {PrismError} `INVALID_ARGUMENT` for a pair that there is not, as every method that takes one
   */
  corruptIds(pair: number): Uint32Array {
    const [i, { corruptIds, corruptIdOffsets }] = [this.#pair(pair), this.#native]
    return corruptIds.subarray(corruptIdOffsets[i], corruptIdOffsets[i + 1])
  }

  /** The texts of its tokens. */
  corruptTokens(pair: number): string[] {
    return Array.from(this.corruptIds(pair), (id) => this.origin.tokenText(id))
  }

  /** The patched positions of a pair, of the clean prompt, rising, and those of the corrupted one. */
  positions(pair: number): { readonly clean: number[]; readonly corrupt: number[] } {
    const [i, { cleanPositions, corruptPositions, positionOffsets }] = [this.#pair(pair), this.#native]
    const of = (list: Uint32Array) => [...list.subarray(positionOffsets[i], positionOffsets[i + 1])]
    return { clean: of(cleanPositions), corrupt: of(corruptPositions) }
  }

  /** The numbers of one pair in rows and columns. */
  matrix(pair: number): PatchMatrix {
    const i = this.#pair(pair)
    const [rows, columns] = [this.#rows, this.#columns(i)]
    const of = (list: Float64Array) =>
      rows.map((_, row) => {
        const at = (this.#offsets[i] ?? 0) + row * columns.length
        return [...list.subarray(at, at + columns.length)]
      })
    const normalised = this.undefinedPairs.includes(i) ? undefined : of(this.normalised)
    return { rows, columns, values: of(this.values), normalised }
  }

  /**
   * The means over pairs: of the values over all, of the normalised ones over those that have them. Columns are put
   * together by their order, and are labelled by what they have in common: token, position, or their number.
   *
   * @throws {PrismError} `INVALID_ARGUMENT` where pairs have different numbers of positions
   */
  mean(): PatchMatrix {
    const all = Array.from(this.clean, (_, pair) => this.matrix(pair))
    const [first] = all
    if (first === undefined || all.some(({ columns }) => columns.length !== first.columns.length)) {
      throw invalidArgument('result', 'pairs with different numbers of positions', 'pairs of as many, or named positions')
    }
    const mean = (lists: readonly (readonly (readonly number[])[])[]) =>
      first.rows.map((_, row) =>
        first.columns.map((__, column) => lists.reduce((sum, one) => sum + (one[row]?.[column] ?? Number.NaN), 0) / lists.length),
      )
    const defined = all.flatMap(({ normalised }) => (normalised === undefined ? [] : [normalised]))
    const columns = first.columns.map((label, column) => {
      if (all.every((one) => one.columns[column] === label)) return label
      const places = new Set(Array.from(this.clean, (_, pair) => this.positions(pair).clean[column]))
      return places.size === 1 ? String([...places][0]) : `#${column}`
    })
    return {
      rows: first.rows,
      columns,
      values: mean(all.map(({ values }) => values)),
      normalised: defined.length === 0 ? undefined : mean(defined),
    }
  }

  /** The k patches that move the target of a pair, or the mean over pairs, furthest from the run that was patched. */
  top(k = 10, of: number | 'mean' = 'mean'): Patch[] {
    index('k', k, Number.MAX_SAFE_INTEGER)
    const { rows, columns, values, normalised } = this.#of(of)
    const base = this.#baseOf(of)
    const cells = rows.flatMap((row, i) =>
      columns.map((column, j): Patch => {
        const value = values[i]?.[j] ?? Number.NaN
        return { row, column, value, normalised: normalised?.[i]?.[j], moved: value - base }
      }),
    )
    return cells.sort((a, b) => Math.abs(b.moved) - Math.abs(a.moved)).slice(0, k)
  }

  /**
   * A heat map of a pair, or the mean, as a Vega-Lite spec: how far every patch moves the target from the run that was patched
   * (0, white) to the other (1): `normalised`, or `1 − normalised` where the clean run was patched; in logits where the two
   * runs give the same.
   */
  plot(of: number | 'mean' = this.nPrompts === 1 ? 0 : 'mean'): Plot {
    const { rows, columns, values, normalised } = this.#of(of)
    const base = this.#baseOf(of)
    const moved = (value: number) => (this.#base === this.clean ? 1 - value : value)
    const shown = normalised?.map((row) => row.map(moved)) ?? values.map((row) => row.map((value) => value - base))
    const cells = rows.flatMap((y, i) => columns.map((x, j) => ({ x, y, value: shown[i]?.[j] ?? Number.NaN })))
    const [what, xTitle, yTitle] = this.#titles
    const [from, to] = this.#base === this.clean ? ['clean', 'corrupted'] : ['corrupted', 'clean']
    const whose = of === 'mean' ? `mean over ${this.nPrompts} pairs` : `pair ${of}`
    return heatmap({
      title: what,
      subtitle: normalised ? `${whose}: 0 as ${from}, 1 as ${to}` : `${whose}: clean and corrupted are the same`,
      cells,
      xs: columns,
      ys: rows,
      xTitle,
      yTitle,
      legend: normalised ? 'of the way' : 'logits',
      scale: 'diverging',
      upwards: this.method.change === 'patch',
    })
  }

  /**
   * A tidy Arrow table, a line per patch: `pair`, `row`, `column`, the `layer`, `head` and `position` it was made at where it was
   * made at one, `value`, `normalised` (NaN where undefined).
   */
  toArrow(): Promise<Table> {
    const lines: { pair: number; row: string; column: string; at: Spot }[] = []
    this.clean.forEach((_, pair) => {
      const [positions, columns] = [this.positions(pair).clean, this.#columns(pair)]
      this.#rows.forEach((row, i) => {
        columns.forEach((column, j) => lines.push({ pair, row, column, at: this.#place(i, j, positions) }))
      })
    })
    const texts = (of: (line: (typeof lines)[number]) => string): Column => {
      const distinct = [...new Set(lines.map(of))]
      const at = new Map(distinct.map((text, i) => [text, i]))
      return { texts: distinct, at: Uint32Array.from(lines, (line) => at.get(of(line)) ?? 0) }
    }
    const optional = (of: (line: (typeof lines)[number]) => number | undefined): Column => ({
      optional: Int32Array.from(lines, (line) => of(line) ?? -1),
    })
    const columns = {
      pair: { numbers: Uint32Array.from(lines, ({ pair }) => pair) },
      row: texts(({ row }) => row),
      column: texts(({ column }) => column),
      layer: optional(({ at }) => at.layer),
      head: optional(({ at }) => at.head),
      position: optional(({ at }) => at.position),
      value: { numbers: this.values },
      normalised: { numbers: this.normalised },
    }
    const corrupt = JSON.stringify(Array.from(this.clean, (_, pair) => [...this.corruptIds(pair)]))
    return this.table(columns, { kind: this.kind, method: JSON.stringify(this.method), corrupt })
  }

  /** Everything, with typed arrays as lists; `normalised` is absent where it is undefined. */
  toJSON(): Record<string, unknown> {
    const { kind, method, provenance, prompts } = this
    const pairs = prompts.map((clean, pair) => {
      const target = this.targets[pair]
      const plain = target && 'direction' in target ? { direction: [...target.direction] } : target
      const corrupt = { ids: [...this.corruptIds(pair)], tokens: this.corruptTokens(pair) }
      const measured = { clean: this.clean[pair], corrupt: this.corrupt[pair] }
      const [position, positions] = [this.rows.position[pair], this.positions(pair)]
      const { rows, columns, values, normalised } = this.matrix(pair)
      const numbers = { rows, columns, values, ...(normalised === undefined ? {} : { normalised }) }
      return Object.assign({ clean, corrupt, position, target: plain, positions, measured }, numbers)
    })
    return { kind, method, provenance, undefinedPairs: this.undefinedPairs, pairs }
  }

  [Symbol.for('nodejs.util.inspect.custom')](): string {
    const n = this.nPrompts
    const [what] = this.#titles
    const head = `Patched: ${what}, ${n} ${n === 1 ? 'pair' : 'pairs'} × ${this.#rows.length} ${n === 1 ? `× ${this.#width(0)}` : 'rows'}`
    const line = (i: number) => {
      const strongest = this.top(3, i).map(({ row, column, normalised, value }) => {
        const number = normalised === undefined ? value.toFixed(3) : `${Math.round(normalised * 100) || 0} %`
        return `${row} ${column} ${number}`
      })
      return `clean ${this.clean[i]?.toFixed(3)}, corrupted ${this.corrupt[i]?.toFixed(3)}; ${strongest.join(', ')}, …`
    }
    return [head, ...firstLines(n, line)].join('\n')
  }

  /** The target in the runs that were patched. */
  get #base(): Float64Array {
    return this.method.change === 'patch' && this.method.direction === 'denoising' ? this.corrupt : this.clean
  }

  #baseOf(of: number | 'mean'): number {
    const list = this.#base
    return of === 'mean' ? list.reduce((sum, f) => sum + f, 0) / list.length : (list[of] ?? Number.NaN)
  }

  #of(of: number | 'mean'): PatchMatrix {
    return of === 'mean' ? this.mean() : this.matrix(of)
  }

  #pair(pair: number): number {
    return index('pair', pair, this.clean.length)
  }

  /** Title, and what columns and rows are. */
  get #titles(): [string, string, string] {
    const { method } = this
    if (method.change === 'path') return [`Paths to ${method.to.join(', ')}`, 'receivers', 'senders']
    const title = `${method.direction === 'denoising' ? 'Clean' : 'Corrupted'} ${method.at} patched in`
    const byHead = method.over.includes('head')
    if (method.over.includes('position')) return [title, 'position', byHead ? 'head' : 'layer']
    return [title, byHead ? 'head' : 'positions', 'layer']
  }

  get #rows(): string[] {
    const { nLayers, nHeads, senders } = this.#shape
    const { method } = this
    const layers = Array.from({ length: nLayers }, (_, l) => `L${l}`)
    if (method.change === 'path') {
      const labels = senders.map(({ label }) => label)
      if (method.each) return labels
      return [labels.length > 3 ? `${labels.length} senders` : labels.join(' + ')]
    }
    const byBoth = method.over.includes('head') && method.over.includes('position')
    return byBoth ? layers.flatMap((l) => Array.from({ length: nHeads }, (_, h) => `${l}H${h}`)) : layers
  }

  #columns(pair: number): string[] {
    const { method } = this
    if (method.change === 'path') return [method.to.join(', ')]
    if (method.over.includes('position')) {
      const labels = tokenLabels(this.tokens(pair))
      return this.positions(pair).clean.map((position) => labels[position] ?? String(position))
    }
    return method.over.includes('head') ? Array.from({ length: this.#shape.nHeads }, (_, h) => `H${h}`) : ['all positions']
  }

  #width(pair: number): number {
    return this.#columns(pair).length
  }

  /** Where the patch of a row and column was made. */
  #place(row: number, column: number, positions: readonly number[]): Spot {
    const { method } = this
    const { nHeads, senders } = this.#shape
    if (method.change === 'path') {
      const sender = method.each ? senders[row] : undefined
      return {
        ...(sender?.layer === undefined ? {} : { layer: sender.layer }),
        ...(sender?.kind === 'head' && sender.index !== undefined ? { head: sender.index } : {}),
      }
    }
    const [byHead, byPosition] = [method.over.includes('head'), method.over.includes('position')]
    const position = byPosition ? positions[column] : undefined
    const layer = byHead && byPosition ? Math.floor(row / nHeads) : row
    const head = byPosition ? row % nHeads : column
    return { layer, ...(byHead ? { head } : {}), ...(position === undefined ? {} : { position }) }
  }
}
