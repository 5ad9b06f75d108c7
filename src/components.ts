import { invalidArgument, unknownName } from './errors.js'
import type { NativeComponent } from './native.js'

/** What a column can be. */
export type ComponentKind =
  | 'embed' | 'pos_embed' | 'head' | 'attn_bias' | 'attn' | 'mlp' | 'neuron' | 'mlp_bias' | 'rest' // prettier-ignore

/** What a column of a result is. */
export interface Component {
  /** `embed`, `pos_embed`, `L9H6`, `L9 attn_bias`, `L9 attn`, `L9 mlp`, `L9N611`, `L9E3N17`, `L9SN17`, `L9 mlp_bias`, `rest`. */
  readonly label: string
  /** What it is. */
  readonly kind: ComponentKind
  /** Its layer, but for the embeddings and `rest`. */
  readonly layer?: number
  /** Which head or neuron, for heads and neurons. */
  readonly index?: number
  /** Whose neuron, for neurons of experts. */
  readonly expert?: number | 'shared'
}

/** One component and its value. */
export interface Share {
  /** Of the component, as in `result.components`. */
  readonly label: string
  /** In logits. */
  readonly value: number
  /** |value| / Σ |values| over the components of the row. */
  readonly share: number
}

/** @internal Components as the addon returns them, frozen. */
export function frozen(components: readonly NativeComponent[]): readonly Component[] {
  return Object.freeze(components.map((component) => Object.freeze(component as Component)))
}

// a model's components are the same list for all its results, and may be hundreds of thousands: they are numbered once
const columns = new WeakMap<readonly Component[], ReadonlyMap<string, number>>()

/** @internal The column of a label. */
export function columnOf(components: readonly Component[], label: string): number {
  const numbered = columns.get(components) ?? new Map(components.map((component, i) => [component.label, i]))
  columns.set(components, numbered)
  const column = numbered.get(label)
  if (column !== undefined) return column
  throw unknownName('INVALID_ARGUMENT', 'component', String(label), [...numbered.keys()])
}

/** @internal The k first shares of a row in some order; `k` is checked by the caller. */
export function ranked(
  values: Float32Array,
  components: readonly Component[],
  order: (a: Share, b: Share) => number,
  k: number,
): Share[] {
  const all = values.reduce((sum, value) => sum + Math.abs(value), 0)
  const shares = Array.from(values, (value, i) => {
    return { label: components[i]?.label ?? '', value, share: all === 0 ? 0 : Math.abs(value) / all }
  })
  return shares.sort(order).slice(0, k)
}

/** @internal Labels that were given, or nothing. */
export function labels(argument: string, list: unknown): string[] | undefined {
  if (list === undefined) return undefined
  if (Array.isArray(list) && list.length > 0 && list.every((label) => typeof label === 'string')) return [...list]
  throw invalidArgument(argument, list, 'a list of labels')
}
