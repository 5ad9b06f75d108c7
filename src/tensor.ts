import { invalidArgument } from './errors.js'
import { index } from './options.js'

/** Names of axes, as einsum notation would call them. */
export type Dim =
  | 'pos' | 'query_pos' | 'key_pos' | 'head' | 'kv_head' | 'd_head' | 'd_model' | 'd_mlp' | 'expert' | 'one' | 'd_vocab'
  | 'component' | 'singular' // prettier-ignore

/**
 * A block of numbers with named axes, row-major: `data[(i · shape[1] + j) · shape[2] + k]` is element `[i, j, k]`. It is
 * a copy of its own: changing it changes nothing else.
 *
 * @typeParam D the names of its axes, as a tuple
 */
export class Tensor<D extends readonly Dim[] = readonly Dim[]> {
  /** The numbers, row-major. */
  readonly data: Float32Array
  /** Lengths of the axes. */
  readonly shape: { readonly [K in keyof D]: number }
  /** Names of the axes. */
  readonly dims: D

  constructor(data: Float32Array, shape: { readonly [K in keyof D]: number }, dims: D) {
    const lengths: readonly number[] = shape
    const size = lengths.reduce((product, n) => product * n, 1)
    if (size !== data.length || lengths.length !== dims.length) {
      throw invalidArgument('shape', `[${lengths.join(', ')}]`, `${dims.length} lengths for ${data.length} numbers`)
    }
    this.data = data
    this.shape = shape
    this.dims = dims
  }

  /** One number; as many indices as there are axes. */
  at(...indices: { readonly [K in keyof D]: number }): number {
    const lengths: readonly number[] = this.shape
    const at: readonly number[] = indices
    if (at.length !== lengths.length) throw invalidArgument('indices', at, `${lengths.length} indices`)
    const flat = lengths.reduce((sum, n, axis) => sum * n + index(this.dims[axis] ?? 'index', at[axis], n), 0)
    return this.data[flat] ?? Number.NaN
  }

  /** What lies at index `i` of the first axis: a view, not a copy. */
  slice(i: number): D extends readonly [Dim, ...infer Rest extends readonly Dim[]] ? Tensor<Rest> : never {
    const [n = 0, ...shape] = this.shape as readonly number[]
    const size = this.data.length / Math.max(1, n)
    const from = index(this.dims[0] ?? 'index', i, n) * size
    return new Tensor(this.data.subarray(from, from + size), shape as never, this.dims.slice(1) as never) as never
  }

  /** Plain data: axes, lengths, numbers as a list. */
  toJSON(): { dims: readonly string[]; shape: readonly number[]; data: number[] } {
    return { dims: this.dims, shape: this.shape, data: [...this.data] }
  }

  [Symbol.for('nodejs.util.inspect.custom')](): string {
    const lengths: readonly number[] = this.shape
    const axes = this.dims.map((dim, i) => `${dim}: ${lengths[i]}`).join(', ')
    const shown = [...this.data.subarray(0, 6)].map((value) => Number(value.toPrecision(5))).join(', ')
    return `Tensor { ${axes} } [ ${shown}${this.data.length > 6 ? ', …' : ''} ]`
  }
}
