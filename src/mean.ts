// Means over the rows of a result, with an interval that treats the rows of one prompt as one draw.

/** One component over all rows of a result, in logits. */
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
}

/** How the interval is made. */
export interface MeanOptions {
  /** Seed of the resampling; the same seed gives the same interval. Default 0. */
  readonly seed?: number
  /** How often the prompts are drawn anew. Default 1,000. */
  readonly resamples?: number
}

/** Rows × columns, row-major, and the cluster (0, 1, …) of every row. */
export interface Clustered {
  readonly values: Float32Array
  readonly clusters: Uint32Array
  readonly labels: readonly string[]
}

/** Mean, deviation, interval and sign of every column. */
export function componentMeans({ values, clusters, labels }: Clustered, seed: number, resamples: number): ComponentMean[] {
  const columns = labels.length
  const rows = clusters.length
  const sums = clusterSums(values, clusters, columns)
  const means = columnMeans(sums)
  const intervals = bootstrap(sums, seed, resamples)
  return labels.map((label, c) => {
    const mean = means[c] ?? 0
    let squares = 0
    let same = 0
    for (let r = 0; r < rows; r++) {
      const value = values[r * columns + c] ?? 0
      squares += (value - mean) ** 2
      if (Math.sign(value) === Math.sign(mean)) same++
    }
    const std = rows > 1 ? Math.sqrt(squares / (rows - 1)) : 0
    return { label, mean, std, interval: intervals[c] ?? [mean, mean], sameSign: same / rows }
  })
}

/** Sums [clusters, columns] and numbers of rows [clusters]. */
interface ClusterSums {
  readonly sums: Float64Array
  readonly counts: Float64Array
  readonly columns: number
}

function clusterSums(values: Float32Array, clusters: Uint32Array, columns: number): ClusterSums {
  const index = new Map<number, number>()
  for (const cluster of clusters) if (!index.has(cluster)) index.set(cluster, index.size)
  const sums = new Float64Array(index.size * columns)
  const counts = new Float64Array(index.size)
  clusters.forEach((cluster, r) => {
    const k = index.get(cluster) ?? 0
    counts[k] = (counts[k] ?? 0) + 1
    for (let c = 0; c < columns; c++) sums[k * columns + c] = (sums[k * columns + c] ?? 0) + (values[r * columns + c] ?? 0)
  })
  return { sums, counts, columns }
}

/** The mean of every column over drawn clusters; every cluster once if none are drawn. */
function columnMeans({ sums, counts, columns }: ClusterSums, drawn?: Uint32Array): Float64Array {
  const means = new Float64Array(columns)
  let rows = 0
  for (let i = 0; i < counts.length; i++) {
    const k = drawn ? (drawn[i] ?? 0) : i
    rows += counts[k] ?? 0
    for (let c = 0; c < columns; c++) means[c] = (means[c] ?? 0) + (sums[k * columns + c] ?? 0)
  }
  return means.map((sum) => sum / rows)
}

function bootstrap(clusters: ClusterSums, seed: number, resamples: number): [number, number][] {
  const n = clusters.counts.length
  const random = mulberry32(seed)
  const drawn = new Uint32Array(n)
  const draws = Array.from({ length: clusters.columns }, () => new Float64Array(resamples))
  for (let b = 0; b < resamples; b++) {
    for (let i = 0; i < n; i++) drawn[i] = Math.floor(random() * n)
    columnMeans(clusters, drawn).forEach((mean, c) => draws[c]?.fill(mean, b, b + 1))
  }
  return draws.map((means) => {
    means.sort()
    return [quantile(means, 0.025), quantile(means, 0.975)]
  })
}

/** Linear interpolation between the order statistics (type 7 of Hyndman and Fan 1996). */
function quantile(sorted: Float64Array, q: number): number {
  const at = (sorted.length - 1) * q
  const low = sorted[Math.floor(at)] ?? Number.NaN
  const high = sorted[Math.ceil(at)] ?? low
  return low + (high - low) * (at - Math.floor(at))
}

/** Tommy Ettinger's mulberry32: 32 bits of state, uniform in [0, 1). */
function mulberry32(seed: number): () => number {
  let state = seed >>> 0
  return () => {
    state = (state + 0x6d2b79f5) >>> 0
    let t = state
    t = Math.imul(t ^ (t >>> 15), t | 1)
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61)
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32
  }
}
