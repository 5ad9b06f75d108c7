// Many rows reduced to one line per component; the sums are the core's.
import { native } from './errors.js'
import { type NativeColumns, NativeSummary } from './native.js'
import { checkKeys, wholeNumber } from './options.js'

/** One component over many rows, in logits. */
export interface ComponentMean {
  /** Its label, as in `result.components`. */
  readonly label: string
  /** Mean over the rows. */
  readonly mean: number
  /** Standard deviation over the rows (n − 1; 0 for a single row). */
  readonly std: number
  /** 95 % bootstrap interval of the mean; prompts are drawn, with all their rows. */
  readonly interval: readonly [low: number, high: number]
  /** Share of rows whose sign is that of the mean. */
  readonly sameSign: number
  /** Share of resamples in which the component is among the `leading` of largest |mean|. */
  readonly stability: number
}

/**
 * How means are made. The bootstrap is Poisson's: in every resample a prompt counts as often as a Poisson(1) variable
 * says, so that it can be drawn while prompts stream by.
 */
export interface MeanOptions {
  /** Seed of the resampling; the same seed gives the same interval. Default 0. */
  readonly seed?: number
  /** How often the prompts are drawn anew. Default 1,000. */
  readonly resamples?: number
  /** How many components `stability` counts as leading. Default 10. */
  readonly leading?: number
}

/** Names of {@link MeanOptions}. */
export const MEAN_OPTIONS = ['seed', 'resamples', 'leading'] as const

/** What a column is called. */
type Labelled = { readonly label: string }

/** @internal Running sums of the columns of results, with their options checked. */
export class Sums {
  readonly #native: NativeSummary
  readonly #top: number

  constructor(columns: number, options: MeanOptions) {
    const seed = wholeNumber('seed', options.seed, 0, 2 ** 32 - 1) ?? 0
    const resamples = wholeNumber('resamples', options.resamples, 1, 1_000_000) ?? 1000
    this.#top = wholeNumber('leading', options.leading, 1, 2 ** 32 - 1) ?? 10
    this.#native = native(() => new NativeSummary(columns, seed, resamples))
  }

  add(values: Float32Array, prompts: Uint32Array): Promise<void> {
    return this.#native.add(values, prompts)
  }

  async finish(components: readonly Labelled[]): Promise<ComponentMean[]> {
    return means(await this.#native.finish(this.#top), components)
  }

  /** Rows and prompts so far. */
  seen(): { readonly rows: number; readonly prompts: number } {
    const [rows = 0, prompts = 0] = this.#native.seen()
    return { rows, prompts }
  }

  /** The means of rows that are all there. */
  static of(values: Float32Array, prompts: Uint32Array, components: readonly Labelled[], options: MeanOptions): ComponentMean[] {
    checkKeys('mean', options, MEAN_OPTIONS)
    const sums = new Sums(components.length, options)
    native(() => sums.#native.addNow(values, prompts))
    return means(sums.#native.finishNow(sums.#top), components)
  }
}

function means({ mean, std, low, high, sameSign, stability }: NativeColumns, components: readonly Labelled[]): ComponentMean[] {
  const at = (list: Float64Array, i: number) => list[i] ?? Number.NaN
  return components.map(({ label }, i) => ({
    label,
    mean: at(mean, i),
    std: at(std, i),
    interval: [at(low, i), at(high, i)],
    sameSign: at(sameSign, i),
    stability: at(stability, i),
  }))
}
