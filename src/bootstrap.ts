// Intervals of figures that are no plain means, such as the ratio of two: prompts are drawn anew, with all their rows.
import { wholeNumber } from './options.js'
import { SplitMix } from './random.js'

/** Options of an interval. */
export interface BootstrapOptions {
  /** Seed of the resampling; the same seed gives the same interval. Default 0. */
  readonly seed?: number
  /** How often the prompts are drawn anew. Default 1,000. */
  readonly resamples?: number
}

/** Names of {@link BootstrapOptions}. */
export const BOOTSTRAP_OPTIONS = ['seed', 'resamples'] as const

/** A figure over rows. */
export interface Estimate {
  readonly value: number
  /** 95 % bootstrap interval; prompts are drawn, with all their rows. */
  readonly interval: readonly [low: number, high: number]
}

/** @internal The mean over rows of every list, in the order of the lists. */
export type Means = readonly number[]

/**
 * @internal Figures made of the means of some lists over the same rows; `prompts`: whose each row is.
 */
export function estimates<N extends string>(
  lists: readonly Float64Array[],
  prompts: Uint32Array,
  figures: Readonly<Record<N, (means: Means) => number>>,
  options: BootstrapOptions,
): Readonly<Record<N, Estimate>> {
  const random = new SplitMix(wholeNumber('seed', options.seed, 0, 2 ** 32 - 1) ?? 0)
  const resamples = wholeNumber('resamples', options.resamples, 1, 1_000_000) ?? 1000
  const clusters = byPrompt(lists, prompts)
  const names = Object.keys(figures) as N[]
  const whole = meansOf(clusters, lists.length)
  const drawn = names.map(() => new Float64Array(resamples))
  for (let i = 0; i < resamples; i++) {
    const means = meansOf(
      clusters.map(() => random.pick(clusters)),
      lists.length,
    )
    names.forEach((name, j) => drawn[j]?.fill(figures[name](means), i, i + 1))
  }
  const estimate = (name: N, values: Float64Array): [N, Estimate] => {
    const sorted = values.sort()
    const interval = [quantile(sorted, 0.025), quantile(sorted, 0.975)] as const
    return [name, Object.freeze({ value: figures[name](whole), interval })]
  }
  return Object.freeze(Object.fromEntries(names.map((name, j) => estimate(name, drawn[j] ?? new Float64Array())))) as Readonly<
    Record<N, Estimate>
  >
}

/** A prompt's rows: how many, and the sum of each list over them. */
interface Cluster {
  rows: number
  readonly sums: Float64Array
}

function byPrompt(lists: readonly Float64Array[], prompts: Uint32Array): Cluster[] {
  const clusters = new Map<number, Cluster>()
  prompts.forEach((prompt, row) => {
    const cluster = clusters.get(prompt) ?? { rows: 0, sums: new Float64Array(lists.length) }
    cluster.rows++
    lists.forEach((list, j) => (cluster.sums[j] = (cluster.sums[j] ?? 0) + (list[row] ?? Number.NaN)))
    clusters.set(prompt, cluster)
  })
  return [...clusters.values()]
}

function meansOf(clusters: readonly Cluster[], n: number): number[] {
  const rows = clusters.reduce((sum, cluster) => sum + cluster.rows, 0)
  return Array.from({ length: n }, (_, j) => clusters.reduce((sum, { sums }) => sum + (sums[j] ?? Number.NaN), 0) / rows)
}

/** Of sorted numbers, between neighbours by proportion. */
function quantile(sorted: Float64Array, q: number): number {
  const at = q * (sorted.length - 1)
  const [low, high] = [sorted[Math.floor(at)] ?? Number.NaN, sorted[Math.ceil(at)] ?? Number.NaN]
  return low + (at - Math.floor(at)) * (high - low)
}
