import type { Table } from 'apache-arrow'
import { componentColumns, cycle, rowColumns } from './arrow.js'
import type { CallOptions } from './calls.js'
import { columnOf, type Component } from './components.js'
import type { NativeStack } from './native.js'
import { Observed, type Origin } from './observed.js'
import { Tensor } from './tensor.js'

/** Options of {@link Run.decompose}. */
export interface DecomposeOptions extends Pick<CallOptions, 'signal'> {
  /** The components. Default `'head'`. */
  readonly unit?: 'layer' | 'head' | 'neuron'
}

/** The vectors that components wrote: they sum to the stream that enters the final norm. */
export class Decomposition extends Observed implements Iterable<Tensor<['component', 'd_model']>> {
  readonly components: readonly Component[]
  /** Width of the residual stream. */
  readonly dModel: number
  /** [rows, components, dModel], row-major. */
  readonly vectors: Float32Array

  /** @internal */
  constructor(
    stack: NativeStack,
    prompts: { readonly ids: Uint32Array; readonly idOffsets: Uint32Array },
    components: readonly Component[],
    origin: Origin,
  ) {
    super({ ...prompts, rowPrompt: stack.rowPrompt, rowPosition: stack.rowPosition }, origin)
    this.components = components
    this.vectors = stack.vectors
    const rows = stack.rowPrompt.length
    this.dModel = rows === 0 ? 0 : stack.vectors.length / rows / components.length
  }

  /** One row: a view. */
  row(i: number): Tensor<['component', 'd_model']> {
    const size = this.components.length * this.dModel
    const from = this.rowIndex(i) * size
    return new Tensor(this.vectors.subarray(from, from + size), [this.components.length, this.dModel], ['component', 'd_model'])
  }

  /** The vector of one component at one row, by its label: a view. */
  vector(i: number, label: string): Float32Array {
    return this.row(i).slice(columnOf(this.components, label)).data
  }

  /** Row by row. */
  *[Symbol.iterator](): Iterator<Tensor<['component', 'd_model']>> {
    for (let i = 0; i < this.rows.prompt.length; i++) yield this.row(i)
  }

  /**
   * A tidy Arrow table: `prompt`, `position`, `component`, `kind`, `layer`, `index`, `vector` (a list of dModel numbers,
   * which share this result's memory).
   */
  toArrow(): Promise<Table> {
    const columns = {
      ...rowColumns(this.rows, this.components.length),
      ...componentColumns(this.components, cycle(this.components.length, this.rows.prompt.length)),
      vector: { vectors: this.vectors, width: Math.max(1, this.dModel) },
    }
    return this.table(columns, {})
  }

  /** Everything, with typed arrays as lists. */
  toJSON(): Record<string, unknown> {
    const { kind, provenance, components, dModel, prompts } = this
    const rows = Array.from(this.rows.prompt, (_, i) => ({ ...this.rowOf(i), vectors: this.row(i) }))
    return { kind, provenance, dModel, components, prompts, rows }
  }

  [Symbol.for('nodejs.util.inspect.custom')](): string {
    return `Decomposition: ${this.rows.prompt.length} rows × ${this.components.length} components × ${this.dModel}`
  }
}
