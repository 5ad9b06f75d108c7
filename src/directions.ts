import type { Table } from 'apache-arrow'
import { type Column, componentColumns, cycle } from './arrow.js'
import { nativeAsked, PROMPT_OPTIONS, type PromptOptions } from './asked.js'
import { warnIncomplete } from './attribution.js'
import { call } from './calls.js'
import { type Component, frozen } from './components.js'
import { invalidArgument } from './errors.js'
import type { ResidualHook } from './hooks.js'
import type { Loaded } from './loaded.js'
import type { NativeProbe } from './native.js'
import { Observed, type Origin } from './observed.js'
import { checkKeys, index, oneOf } from './options.js'
import { Tensor } from './tensor.js'
import type { Prompt } from './tokens.js'

/** Options of {@link Model.attributeDirections}. */
export interface DirectionsOptions extends PromptOptions {
  /** A point of the residual stream. Default: the stream that enters the final norm. */
  readonly at?: ResidualHook
  /** The columns. Default `'head'`. */
  readonly unit?: 'layer' | 'head'
  /** As for {@link Model.attribute}. */
  readonly onViolation?: 'throw' | 'warn'
}

/** Directions at one row, and both sides of every direction's certificate. */
export interface DirectionsRow {
  /** Which prompt of the call. */
  readonly prompt: number
  /** Position in the prompt. */
  readonly position: number
  /** [directions]. */
  readonly total: Float32Array
  /** [directions]. */
  readonly measured: Float32Array
  /** The components of direction `d`, in the order of `components`: a view. */
  direction(d: number): Float32Array
}

/**
 * Many directions (probes, steering vectors, rows of a sparse autoencoder) read raw at a point of the residual stream:
 * `c · v` for every component written up to there. They sum to the stream's own dot product.
 */
export class DirectionAttribution extends Observed implements Iterable<DirectionsRow> {
  /** Where the directions were read. */
  readonly at: ResidualHook
  /** Columns: the components written up to there. */
  readonly components: readonly Component[]
  /** Number of directions. */
  readonly nDirections: number
  /** [rows, directions, components], row-major. */
  readonly values: Float32Array
  /** Σ components, [rows, directions]. */
  readonly total: Float32Array
  /** The dot product with the stream itself, [rows, directions]. */
  readonly measured: Float32Array
  /** How far the two may be apart, [rows, directions]. */
  readonly tolerance: Float32Array
  /** Whether every sum is within its tolerance. */
  readonly certified: boolean

  /** @internal */
  constructor(native: NativeProbe, at: ResidualHook, nDirections: number, origin: Origin) {
    super(native, origin)
    this.at = at
    this.components = frozen(native.components)
    this.nDirections = nDirections
    this.values = native.values
    this.total = native.total
    this.measured = native.measured
    this.tolerance = native.tolerance
    this.certified = native.violations === 0
  }

  /** One row. */
  row(i: number): DirectionsRow {
    const { prompt, position } = this.rowOf(i)
    const [n, width] = [this.nDirections, this.components.length]
    const part = (list: Float32Array) => list.subarray(i * n, (i + 1) * n)
    const direction = (d: number) => {
      const from = (i * n + index('direction', d, n)) * width
      return this.values.subarray(from, from + width)
    }
    return { prompt, position, total: part(this.total), measured: part(this.measured), direction }
  }

  /** Row by row. */
  *[Symbol.iterator](): Iterator<DirectionsRow> {
    for (let i = 0; i < this.rows.prompt.length; i++) yield this.row(i)
  }

  /** A tidy Arrow table: `prompt`, `position`, `direction`, `component`, `kind`, `layer`, `index`, `value`. */
  toArrow(): Promise<Table> {
    const per = this.components.length
    const rows = this.rows.prompt.length
    const line = (of: (row: number, direction: number) => number): Column => {
      const out = new Uint32Array(this.values.length)
      for (let row = 0; row < rows; row++) {
        for (let d = 0; d < this.nDirections; d++) {
          const from = (row * this.nDirections + d) * per
          out.fill(of(row, d), from, from + per)
        }
      }
      return { numbers: out }
    }
    const columns = {
      prompt: line((row) => this.rows.prompt[row] ?? 0),
      position: line((row) => this.rows.position[row] ?? 0),
      direction: line((_, d) => d),
      ...componentColumns(this.components, cycle(per, rows * this.nDirections)),
      value: { numbers: this.values },
    }
    return this.table(columns, { at: this.at, certified: String(this.certified) })
  }

  /** Everything, with typed arrays as lists. */
  toJSON(): Record<string, unknown> {
    const { kind, provenance, at, certified, components, prompts } = this
    const rows = Array.from(this.rows.prompt, (_, i) => {
      const { prompt, position, total, measured, direction } = this.row(i)
      const values = Array.from({ length: this.nDirections }, (__, d) => [...direction(d)])
      return { prompt, position, total: [...total], measured: [...measured], values }
    })
    return { kind, provenance, at, certified, components, prompts, rows }
  }

  [Symbol.for('nodejs.util.inspect.custom')](): string {
    const word = this.certified ? 'certified' : 'not certified'
    return `DirectionAttribution: ${this.rows.prompt.length} rows × ${this.nDirections} directions × ${this.components.length} components at ${this.at}, ${word}`
  }
}

/** @internal Directions as one block: a Float32Array of n · dModel, or a list of vectors. */
export function flatDirections(directions: unknown): Float32Array | undefined {
  if (directions instanceof Float32Array) return directions
  if (directions instanceof Tensor) return directions.data
  if (!Array.isArray(directions) || !directions.every((v): v is Float32Array => v instanceof Float32Array)) return undefined
  const width = directions[0]?.length ?? 0
  if (directions.some((v) => v.length !== width)) return undefined
  const flat = new Float32Array(width * directions.length)
  directions.forEach((v, i) => flat.set(v, i * width))
  return flat
}

/** @internal {@link Model.attributeDirections}. */
export async function attributeDirections(
  model: Loaded,
  prompts: readonly Prompt[],
  directions: Float32Array | readonly Float32Array[],
  options: DirectionsOptions,
): Promise<DirectionAttribution> {
  checkKeys('attributeDirections', options, ['at', 'unit', 'onViolation', ...PROMPT_OPTIONS])
  const asked = nativeAsked(prompts, options)
  const { dModel, nLayers } = model.config
  const flat = flatDirections(directions)
  if (!flat || flat.length === 0 || flat.length % dModel !== 0) {
    throw invalidArgument('directions', directions, `a list of Float32Arrays of ${dModel} numbers, or one that holds them all`)
  }
  const at = options.at ?? (`blocks.${nLayers - 1}.hook_resid_post` as const)
  if (typeof at !== 'string') throw invalidArgument('at', at, 'the name of a hook point')
  const unit = oneOf('unit', options.unit, ['layer', 'head'], 'head')
  const onViolation = oneOf('onViolation', options.onViolation, ['throw', 'warn'], 'throw')
  const request = { asked, directions: flat, at, unit, onViolation }
  const probe = await call(model.native, options, (cancel, report) => model.native.probe(request, cancel, report))
  if (probe.violations > 0) warnIncomplete(probe.violations)
  return new DirectionAttribution(probe, at, flat.length / dModel, model.origin)
}
