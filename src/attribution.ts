import type { Table } from 'apache-arrow'
import { componentColumns, cycle, rowColumns } from './arrow.js'
import {
  ATTRIBUTING_OPTIONS,
  type AttributingOptions,
  nativeAsked,
  nativeAttributing,
  PROMPT_OPTIONS,
  type PromptOptions,
} from './asked.js'
import { call } from './calls.js'
import { columnOf, type Component, frozen, ranked, type Share } from './components.js'
import type { Loaded } from './loaded.js'
import type { NativeAttributing, NativeAttribution } from './native.js'
import { checkRows, firstLines, Observed, type Origin } from './observed.js'
import { checkKeys, index, oneOf, wholeNumber } from './options.js'
import { bars, heatmap, type Plot } from './plot.js'
import { type ComponentMean, type MeanOptions, Sums } from './summary.js'
import { copiedDirections, type NativeTargets, type ResolvedTarget, resolvedTarget, type Target } from './targets.js'
import type { Prompt } from './tokens.js'

/** Options of {@link Model.attribute}. */
export interface AttributeOptions extends PromptOptions, AttributingOptions {}

/** @internal Names of {@link AttributeOptions}. */
export const ATTRIBUTE_OPTIONS = [...ATTRIBUTING_OPTIONS, ...PROMPT_OPTIONS] as const

/** How an attribution was made. */
export interface Method {
  /** What the columns are. */
  readonly unit: 'layer' | 'head' | 'neuron'
  /** Whether the final norm, held at its scale of the run, is in the numbers. */
  readonly norm: 'frozen' | 'none'
  /** Where value biases count: in the heads, or as TransformerLens has it in `attn_bias`. */
  readonly convention: 'default' | 'transformerlens'
}

/**
 * Direct logit attributions: rows (prompt, position) × components, in logits. Every row carries its certificate:
 * `total = Σ components + constant` and `measured`, the same quantity as the forward pass computed it, agree within
 * `tolerance`. Attribution observes; it does not prove a cause.
 */
export class Attribution extends Observed implements Iterable<AttributionRow> {
  /** How it was made. */
  readonly method: Method
  /** In a stream of results: the number of this one's first prompt; else 0. */
  readonly firstPrompt: number
  /** What each column is. */
  readonly components: readonly Component[]
  /** [rows, components], row-major, in logits. */
  readonly values: Float32Array
  /** What no component writes: the final norm's bias and the unembedding's, [rows]. */
  readonly constant: Float32Array
  /** Σ components + constant, [rows]. */
  readonly total: Float32Array
  /** The same quantity by the forward pass's own final norm and unembedding, [rows]. */
  readonly measured: Float32Array
  /** `measured` of the logits after the cap, [rows]; only for models that cap them. NaN with `against: 'mean'`. */
  readonly measuredAfterCap: Float32Array | undefined
  /** total − measured, [rows]. */
  readonly residual: Float32Array
  /** How large |residual| may be: 1e-5 (1 + Σ |attributions|), heads one by one whatever the unit, [rows]. */
  readonly tolerance: Float32Array
  /** Whether every row's certificate holds; always false with `norm: 'none'`, which has none. */
  readonly certified: boolean

  // fields, not a closure: what a closure holds outlives V8's sweeps of young objects, and a stream would grow by it
  readonly #native: NativeTargets
  readonly #directions: readonly (Float32Array | undefined)[]
  #targets: readonly ResolvedTarget[] | undefined

  /** @internal */
  constructor(
    native: NativeAttribution,
    components: readonly Component[],
    directions: readonly (Float32Array | undefined)[],
    method: Method,
    origin: Origin,
    firstPrompt = 0,
  ) {
    super(native, origin)
    const n = native.rowPrompt.length
    const part = (i: number) => native.certificates.subarray(i * n, (i + 1) * n)
    this.method = Object.freeze(method)
    this.firstPrompt = firstPrompt
    this.components = components
    this.values = native.values
    this.constant = part(0)
    this.total = part(1)
    this.measured = part(2)
    this.measuredAfterCap = native.afterCap
    this.residual = part(3)
    this.tolerance = part(4)
    this.certified = method.norm !== 'none' && native.violations === 0
    this.#native = native
    this.#directions = directions
  }

  /** What each row attributes, resolved to ids. */
  get targets(): readonly ResolvedTarget[] {
    this.#targets ??= Object.freeze(Array.from(this.rows.prompt, (_, i) => this.#target(i)))
    return this.#targets
  }

  /** One row. */
  row(i: number): AttributionRow {
    const row = this.rowIndex(i)
    return new AttributionRow(this, row, this.#targets?.[row] ?? this.#target(row))
  }

  /** Row by row. */
  *[Symbol.iterator](): Iterator<AttributionRow> {
    for (let i = 0; i < this.rows.prompt.length; i++) yield this.row(i)
  }

  /**
   * Every component over all rows: mean, standard deviation, bootstrap interval clustered by prompt, how often the sign is
   * the mean's, and how stable its rank is. In column order. A mean near zero does not say that a component is idle: look
   * at `std`.
   */
  mean(options: MeanOptions = {}): ComponentMean[] {
    checkRows(this.rows.prompt.length)
    return Sums.of(this.values, this.rows.prompt, this.components, options)
  }

  /**
   * A tidy Arrow table, a line per row and component: `prompt`, `position`, `component`, `kind`, `layer`, `index`,
   * `value`. `value` shares this result's memory. The schema's metadata says how the numbers were made, and holds both
   * sides of every row's certificate.
   */
  toArrow(): Promise<Table> {
    const columns = {
      ...rowColumns(this.rows, this.components.length),
      ...componentColumns(this.components, cycle(this.components.length, this.rows.prompt.length)),
      value: { numbers: this.values },
    }
    const certificates = { constant: this.constant, total: this.total, measured: this.measured, tolerance: this.tolerance }
    const lists = Object.entries(certificates).map(([name, list]) => [name, JSON.stringify([...list])])
    const targets = JSON.stringify(this.targets, plainNumbers)
    return this.table(columns, {
      ...this.method,
      certified: String(this.certified),
      targets,
      ...Object.fromEntries(lists),
    })
  }

  /**
   * A picture as a Vega-Lite spec: of one row, or of the mean over rows. `'heatmap'` (default): heads, biases and MLPs by
   * layer; `'bars'`: the `top` components of largest magnitude.
   */
  plot(options: { readonly row?: number; readonly type?: 'heatmap' | 'bars'; readonly top?: number } = {}): Plot {
    checkKeys('plot', options, ['row', 'type', 'top'])
    const { row } = options
    const top = wholeNumber('top', options.top, 1, 2 ** 31) ?? 15
    const type = oneOf('type', options.type, ['heatmap', 'bars'], 'heatmap')
    checkRows(this.rows.prompt.length)
    const values = row === undefined ? this.mean({ resamples: 1 }).map(({ mean }) => mean) : [...this.row(row).values]
    const what = row === undefined ? `mean over ${this.rows.prompt.length} rows` : this.#rowTitle(row)
    const title = `Direct logit attribution by ${this.method.unit}`
    if (type === 'heatmap' && this.method.unit !== 'neuron') return this.#heatmap(title, what, values)
    const labelled = this.components.map(({ label }, i) => ({ label, value: values[i] ?? Number.NaN }))
    const strongest = labelled.sort((a, b) => Math.abs(b.value) - Math.abs(a.value)).slice(0, top)
    return bars(title, what, strongest, 'logits')
  }

  #rowTitle(i: number): string {
    const { prompt, position } = this.rowOf(i)
    return `prompt ${prompt}, position ${position}: total ${(this.total[i] ?? Number.NaN).toFixed(3)}`
  }

  #heatmap(title: string, what: string, values: readonly number[]): Plot {
    const column = ({ kind, index: i }: Component) => (kind === 'head' ? `H${i}` : kind)
    const inLayers = this.components.flatMap((component, i) =>
      component.layer === undefined ? [] : [{ x: column(component), y: `L${component.layer}`, value: values[i] ?? Number.NaN }],
    )
    const outside = this.components.flatMap(({ layer, label }, i) =>
      layer === undefined ? [`${label} ${(values[i] ?? Number.NaN).toFixed(3)}`] : [],
    )
    const order = ['attn', 'attn_bias', 'mlp']
    const heads = [...new Set(inLayers.map(({ x }) => x).filter((x) => !order.includes(x)))]
    const xs = [
      ...heads.sort((a, b) => Number(a.slice(1)) - Number(b.slice(1))),
      ...order.filter((x) => inLayers.some((cell) => cell.x === x)),
    ]
    return heatmap({
      title,
      subtitle: [what, ...outside].join(' · '),
      cells: inLayers,
      xs,
      ys: [...new Set(inLayers.map(({ y }) => y))],
      xTitle: this.method.unit === 'layer' ? 'sublayer' : 'head, bias, MLP',
      yTitle: 'layer',
      legend: 'logits',
      scale: 'diverging',
      upwards: true,
    })
  }

  /** Everything, with typed arrays as lists. */
  toJSON(): Record<string, unknown> {
    const rows = Array.from(this, (row) => row.toJSON())
    const { kind, method, provenance, certified, components, prompts } = this
    return { kind, method, provenance, certified, components, prompts, rows }
  }

  [Symbol.for('nodejs.util.inspect.custom')](): string {
    const n = this.rows.prompt.length
    const word = this.certified ? 'certified' : 'not certified'
    const head = `Attribution: ${n} rows × ${this.components.length} components by ${this.method.unit}, ${word}`
    return [head, ...firstLines(n, (i) => this.row(i).inLine())].join('\n')
  }

  #target(row: number): ResolvedTarget {
    return resolvedTarget(this.#native, row, this.#directions[this.rows.prompt[row] ?? 0])
  }
}

/** One row of an {@link Attribution}. */
export class AttributionRow {
  /** Which prompt of the call. */
  readonly prompt: number
  /** Position in the prompt. */
  readonly position: number
  /** Attributions, in the order of `result.components`. */
  readonly values: Float32Array
  /** What no component writes, in logits. */
  readonly constant: number
  /** Σ components + constant. */
  readonly total: number
  /** The same quantity by the forward pass's own final norm and unembedding. */
  readonly measured: number
  /** Only for models that cap their logits. */
  readonly measuredAfterCap: number | undefined
  /** total − measured. */
  readonly residual: number
  /** How large |residual| may be. */
  readonly tolerance: number
  /** What is attributed, resolved to ids. */
  readonly target: ResolvedTarget

  /** What each value is. */
  readonly components: readonly Component[]

  /** @internal */
  constructor(result: Attribution, i: number, target: ResolvedTarget) {
    const n = result.components.length
    const at = (list: Float32Array | Uint32Array) => list[i] ?? Number.NaN
    this.prompt = at(result.rows.prompt)
    this.position = at(result.rows.position)
    this.components = result.components
    this.values = result.values.subarray(i * n, (i + 1) * n)
    this.constant = at(result.constant)
    this.total = at(result.total)
    this.measured = at(result.measured)
    this.measuredAfterCap = result.measuredAfterCap && at(result.measuredAfterCap)
    this.residual = at(result.residual)
    this.tolerance = at(result.tolerance)
    this.target = target
  }

  /**
   * The attribution of a component, by its label.
   *
   * @throws {PrismError} `INVALID_ARGUMENT` with the nearest labels
   */
  value(label: string): number {
    return this.values[columnOf(this.components, label)] ?? Number.NaN
  }

  /** The k largest values, largest first. */
  top(k = 10): Share[] {
    return this.#ranked((a, b) => b.value - a.value, k)
  }

  /** The k smallest values (most negative), smallest first. */
  bottom(k = 10): Share[] {
    return this.#ranked((a, b) => a.value - b.value, k)
  }

  /** The k values of largest magnitude, largest first. */
  byMagnitude(k = 10): Share[] {
    return this.#ranked((a, b) => b.share - a.share, k)
  }

  /** Everything, with typed arrays as lists. */
  toJSON(): Record<string, unknown> {
    const { prompt, position, target, values, constant, total, measured, measuredAfterCap, residual, tolerance } = this
    const numbers = {
      constant,
      total,
      measured,
      ...(measuredAfterCap === undefined ? {} : { measuredAfterCap }),
      residual,
      tolerance,
    }
    const plain = 'direction' in target ? { direction: [...target.direction] } : target
    return { prompt, position, target: plain, values: [...values], ...numbers }
  }

  /** @internal One line for people. */
  inLine(): string {
    const strongest = this.byMagnitude(3).map(({ label, value }) => `${label} ${value.toFixed(3)}`)
    return `prompt ${this.prompt}, position ${this.position}: total ${this.total.toFixed(3)}; ${strongest.join(', ')}, …`
  }

  [Symbol.for('nodejs.util.inspect.custom')](): string {
    return `AttributionRow: ${this.inLine()}`
  }

  #ranked(order: (a: Share, b: Share) => number, k: number): Share[] {
    index('k', k, Number.MAX_SAFE_INTEGER)
    return ranked(this.values, this.components, order, k)
  }
}

/** @internal The warning of rows whose certificate does not hold. */
export function warnIncomplete(rows: number): void {
  const message = `${rows} row${rows === 1 ? '' : 's'} of the attribution did not add up within the tolerance; see result.residual`
  process.emitWarning(message, { type: 'PrismWarning', code: 'INCOMPLETE' })
}

function plainNumbers(_: string, value: unknown): unknown {
  return value instanceof Float32Array ? [...value] : value
}

/** @internal {@link Model.attribute}; in a stream `firstPrompt` is the number of the batch's first. */
export async function attribute(
  model: Loaded,
  prompts: readonly Prompt[],
  targets: Target | readonly Target[],
  options: AttributeOptions,
  firstPrompt = 0,
): Promise<Attribution> {
  checkKeys('attribute', options, ATTRIBUTE_OPTIONS)
  const asked = nativeAsked(prompts, options)
  const attributing = nativeAttributing(targets, asked.prompts.length, options)
  const directions = copiedDirections(attributing.targets, asked.prompts.length)
  // with `top` the result says which columns were kept: a large model has millions of neurons
  const all = attributing.top === undefined ? model.components(attributing.unit) : []
  const result = await call(model.native, options, (cancel, report) =>
    model.native.attribute({ asked, attributing }, cancel, report),
  )
  return attributed(result, all, directions, attributing, model.origin, firstPrompt)
}

/** @internal What the addon attributed, by its own columns or by all, with a warning where certificates do not hold. */
export function attributed(
  result: NativeAttribution,
  all: readonly Component[],
  directions: readonly (Float32Array | undefined)[],
  { unit, norm = 'frozen', convention }: NativeAttributing,
  origin: Origin,
  firstPrompt = 0,
): Attribution {
  if (result.violations > 0 && norm !== 'none') warnIncomplete(result.violations)
  const components = result.components ? frozen(result.components) : all
  return new Attribution(result, components, directions, { unit, norm, convention }, origin, firstPrompt)
}
