import { call, CALL_OPTIONS, type CallOptions } from './calls.js'
import { type Component, frozen } from './components.js'
import { invalidArgument, unknownName } from './errors.js'
import type { Loaded } from './loaded.js'
import type { NativeComposition } from './native.js'
import type { Origin, Provenance } from './observed.js'
import { checkKeys, oneOf, optionalFlag, wholeNumber } from './options.js'
import { pairs, type Plot } from './plot.js'

/** Options of {@link Model.compositionScores}. */
export interface CompositionOptions extends CallOptions {
  /** As for {@link Model.circuit}. */
  readonly foldNorms?: boolean
  /** Pairs of random heads behind the baseline. Default 50. */
  readonly baseline?: number
  /** Their seed. Default 0. */
  readonly seed?: number
}

/** @internal Names of {@link CompositionOptions}. */
export const COMPOSITION_OPTIONS = ['foldNorms', 'baseline', 'seed', ...CALL_OPTIONS] as const

/** A pair of heads. */
export interface ComposedPair {
  /** Label of the earlier head, which writes. */
  readonly from: string
  /** Label of the later head, which reads. */
  readonly to: string
  /** From 0 to 1. */
  readonly score: number
  /** The score less the baseline's mean, in its standard deviations. */
  readonly deviations: number
}

/**
 * How much of what an earlier head can write lies where a later head reads, for all pairs: `‖OV₁ M₂‖ / (‖OV₁‖ ‖M₂‖)` in
 * Frobenius norms, with M₂ the later head's QK for its queries (`Q`), QKᵀ for its keys (`K`), OV for its values (`V`)
 * (Elhage et al. 2021, "A Mathematical Framework for Transformer Circuits").
 */
export class CompositionScores {
  /** What the numbers are worth: they are read from weights, and no prompt shows that the heads do this. */
  readonly kind = 'weights' as const
  /** Queries, keys or values. */
  readonly composition: 'Q' | 'K' | 'V'
  /** What rows and columns are: all heads, layer by layer. */
  readonly heads: readonly Component[]
  /** [heads, heads], row-major: row the earlier head, column the later one; NaN where the row's layer is not before. */
  readonly values: Float32Array
  /** Pairs of random heads of the same shapes (independent normal factors): what unrelated weights would score. */
  readonly baseline: { readonly mean: number; readonly std: number; readonly samples: number }
  /** What was folded in, and what else holds for the numbers. */
  readonly notes: readonly string[]
  /** Where the numbers come from. */
  readonly provenance: Provenance

  /** @internal */
  constructor(native: NativeComposition, composition: 'Q' | 'K' | 'V', samples: number, origin: Origin) {
    this.composition = composition
    this.heads = frozen(native.heads)
    this.values = native.values
    this.baseline = Object.freeze({ mean: native.baselineMean, std: native.baselineStd, samples })
    this.notes = Object.freeze(native.notes)
    this.provenance = origin.provenance
  }

  /** The score of two heads by their labels; NaN where the first is not in an earlier layer. */
  value(from: string, to: string): number {
    return this.values[this.#index(from) * this.heads.length + this.#index(to)] ?? Number.NaN
  }

  /** The `k` pairs of the highest scores, highest first. */
  top(k = 10): ComposedPair[] {
    const n = wholeNumber('k', k, 1, 2 ** 31) ?? 10
    const places = Array.from(this.values.keys()).filter((i) => !Number.isNaN(this.values[i]))
    const score = (i: number) => this.values[i] ?? 0
    return places
      .sort((i, j) => score(j) - score(i) || i - j)
      .slice(0, n)
      .map((i) => this.#pair(i))
  }

  /** A picture as a Vega-Lite spec: earlier heads by later heads, in standard deviations above random heads. */
  plot(): Plot {
    const scores = this.top(2 ** 31).map(({ from, to, deviations }) => ({ from, to, score: deviations }))
    const { mean, samples } = this.baseline
    const title = `${this.composition}-composition`
    return pairs(title, `${samples} pairs of random heads score ${mean.toFixed(3)}`, scores, 'σ above random heads')
  }

  /** Everything, with typed arrays as lists; NaN, where a head is not earlier, as null. */
  toJSON(): Record<string, unknown> {
    const { kind, composition, provenance, baseline, notes } = this
    const heads = this.heads.map(({ label }) => label)
    const values = Array.from(this.values, (value) => (Number.isNaN(value) ? null : value))
    return { kind, composition, provenance, baseline, notes, heads, values }
  }

  [Symbol.for('nodejs.util.inspect.custom')](): string {
    const { mean, std } = this.baseline
    const lines = this.top(5).map(({ from, to, score }) => `  ${from} → ${to}  ${score.toPrecision(3)}`)
    const title = `CompositionScores: ${this.composition} of ${this.heads.length} heads, baseline`
    return [`${title} ${mean.toPrecision(3)} ± ${std.toPrecision(2)}`, ...lines].join('\n')
  }

  #index(label: string): number {
    const i = this.heads.findIndex((head) => head.label === label)
    if (i >= 0) return i
    throw unknownName(
      'INVALID_ARGUMENT',
      'head',
      String(label),
      this.heads.map((head) => head.label),
    )
  }

  #pair(i: number): ComposedPair {
    const n = this.heads.length
    const score = this.values[i] ?? Number.NaN
    const deviations = (score - this.baseline.mean) / this.baseline.std
    return { from: this.heads[Math.floor(i / n)]?.label ?? '', to: this.heads[i % n]?.label ?? '', score, deviations }
  }
}

/** @internal {@link Model.compositionScores}. */
export async function compositionScores(
  model: Loaded,
  kind: 'Q' | 'K' | 'V',
  options: CompositionOptions,
): Promise<CompositionScores> {
  checkKeys('compositionScores', options, COMPOSITION_OPTIONS)
  if (kind === undefined) throw invalidArgument('kind', kind, "'Q' or 'K' or 'V'")
  const request = {
    kind: oneOf('kind', kind, ['Q', 'K', 'V'], 'K'),
    foldNorms: optionalFlag('foldNorms', options.foldNorms) ?? true,
    baseline: wholeNumber('baseline', options.baseline, 2, 100_000) ?? 50,
    seed: wholeNumber('seed', options.seed, 0, 2 ** 32 - 1) ?? 0,
  }
  const scores = await call(model.native, options, (cancel, report) => model.native.composition(request, cancel, report))
  return new CompositionScores(scores, request.kind, request.baseline, model.origin)
}
