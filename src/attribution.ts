import { invalidArgument, unknownName } from './errors.js'
import { type ComponentMean, componentMeans, type MeanOptions } from './mean.js'
import type { NativeAttribution, NativeComponent } from './native.js'
import { checkKeys, index, wholeNumber } from './options.js'
import type { ResolvedTarget } from './targets.js'

/** What a column can be. */
export type ComponentKind = 'embed' | 'pos_embed' | 'head' | 'attn_bias' | 'attn' | 'mlp'

/** What a column of a result is. */
export interface Component {
  /** `embed`, `pos_embed`, `L9H6`, `L9 attn_bias`, `L9 attn` or `L9 mlp`. */
  readonly label: string
  readonly kind: ComponentKind
  /** Its layer, but for the embeddings. */
  readonly layer?: number
  /** Which head, for heads. */
  readonly index?: number
}

/** One component at one row. */
export interface Share {
  readonly label: string
  /** In logits. */
  readonly value: number
  /** |value| / Σ |values| over the components of the row. */
  readonly share: number
}

/**
 * Direct logit attributions: rows (prompt, position) × components, in logits. Every row carries its certificate:
 * `total = Σ components + constant` and `measured`, the same quantity as the forward pass computed it, agree within
 * `tolerance`. Attribution observes; it does not prove a cause.
 */
export class Attribution {
  /** What each row is: prompts in order, positions rising; a BOS token counts as a position. */
  readonly rows: { readonly prompt: Uint32Array; readonly position: Uint32Array }
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
  /** What each row attributes, resolved to ids. */
  readonly targets: readonly ResolvedTarget[]

  readonly #native: NativeAttribution
  readonly #columns: ReadonlyMap<string, number>

  /** @internal */
  constructor(
    native: NativeAttribution,
    components: NativeComponent[],
    directions: (Float32Array | undefined)[],
    hasNorm: boolean,
  ) {
    const n = native.rowPrompt.length
    const parts = n * components.length
    const part = (i: number) => native.numbers.subarray(parts + i * n, parts + (i + 1) * n)
    this.rows = Object.freeze({ prompt: native.rowPrompt, position: native.rowPosition })
    this.components = Object.freeze(components.map((component) => Object.freeze(component as Component)))
    this.values = native.numbers.subarray(0, parts)
    this.constant = part(0)
    this.total = part(1)
    this.measured = part(2)
    this.measuredAfterCap = native.afterCap
    this.residual = part(3)
    this.tolerance = part(4)
    this.certified = hasNorm && native.violations === 0
    this.targets = Object.freeze(Array.from(native.rowPrompt, (prompt, i) => resolvedTarget(native, i, directions[prompt])))
    this.#native = native
    this.#columns = new Map(components.map(({ label }, i) => [label, i]))
  }

  /** The ids of a prompt as they were run, BOS included. */
  ids(prompt: number): Uint32Array {
    const { ids, idOffsets } = this.#native
    const i = index('prompt', prompt, idOffsets.length - 1)
    return ids.subarray(idOffsets[i], idOffsets[i + 1])
  }

  /** One row. */
  row(i: number): AttributionRow {
    return new AttributionRow(this, index('row', i, this.rows.prompt.length), this.#columns)
  }

  /**
   * Every component over all rows: mean, standard deviation, bootstrap interval clustered by prompt, and how often the
   * sign is the mean's. In column order. A mean near zero does not say that a component is idle: look at `std`.
   */
  mean(options: MeanOptions = {}): ComponentMean[] {
    checkKeys('mean', options, ['seed', 'resamples'])
    const seed = wholeNumber('seed', options.seed, 0, 2 ** 32 - 1) ?? 0
    const resamples = wholeNumber('resamples', options.resamples, 1, 1_000_000) ?? 1000
    if (this.rows.prompt.length === 0) throw invalidArgument('result', 'without rows', 'at least one row to take a mean of')
    const labels = this.components.map(({ label }) => label)
    return componentMeans({ values: this.values, clusters: this.rows.prompt, labels }, seed, resamples)
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
  readonly constant: number
  readonly total: number
  readonly measured: number
  /** Only for models that cap their logits. */
  readonly measuredAfterCap: number | undefined
  readonly residual: number
  readonly tolerance: number
  readonly target: ResolvedTarget

  readonly #columns: ReadonlyMap<string, number>
  readonly #labels: readonly string[]

  /** @internal */
  constructor(result: Attribution, i: number, columns: ReadonlyMap<string, number>) {
    const at = (list: Float32Array | Uint32Array) => list[i] ?? Number.NaN
    this.prompt = at(result.rows.prompt)
    this.position = at(result.rows.position)
    this.values = result.values.subarray(i * columns.size, (i + 1) * columns.size)
    this.constant = at(result.constant)
    this.total = at(result.total)
    this.measured = at(result.measured)
    this.measuredAfterCap = result.measuredAfterCap && at(result.measuredAfterCap)
    this.residual = at(result.residual)
    this.tolerance = at(result.tolerance)
    this.target = result.targets[i] ?? { tokens: [], mean: 0 }
    this.#columns = columns
    this.#labels = [...columns.keys()]
  }

  /**
   * The attribution of a component, by its label.
   *
   * @throws {PrismError} `INVALID_ARGUMENT` with the nearest labels
   */
  value(label: string): number {
    const column = this.#columns.get(label)
    if (column === undefined) throw unknownName('INVALID_ARGUMENT', 'component', String(label), [...this.#labels])
    return this.values[column] ?? Number.NaN
  }

  /** The k largest values, largest first. */
  top(k: number): Share[] {
    return this.#ranked((a, b) => b.value - a.value, k)
  }

  /** The k smallest values (most negative), smallest first. */
  bottom(k: number): Share[] {
    return this.#ranked((a, b) => a.value - b.value, k)
  }

  /** The k values of largest magnitude, largest first. */
  byMagnitude(k: number): Share[] {
    return this.#ranked((a, b) => b.share - a.share, k)
  }

  #ranked(order: (a: Share, b: Share) => number, k: number): Share[] {
    index('k', k, Number.MAX_SAFE_INTEGER)
    const all = this.values.reduce((sum, value) => sum + Math.abs(value), 0)
    const shares = Array.from(this.values, (value, i) => {
      return { label: this.#labels[i] ?? '', value, share: all === 0 ? 0 : Math.abs(value) / all }
    })
    return shares.sort(order).slice(0, k)
  }
}

function resolvedTarget(native: NativeAttribution, row: number, direction: Float32Array | undefined): ResolvedTarget {
  if (direction) return Object.freeze({ direction })
  const tokens: { id: number; weight: number }[] = []
  for (let i = native.targetOffsets[row] ?? 0; i < (native.targetOffsets[row + 1] ?? 0); i++) {
    tokens.push({ id: native.targetTokens[i] ?? 0, weight: native.targetWeights[i] ?? 0 })
  }
  return Object.freeze({ tokens, mean: native.targetMean[row] ?? 0 })
}
