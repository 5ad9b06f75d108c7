// Prompts that come one after the other: cut into batches, and what remains of them when only a summary is wanted.
import type { Table } from 'apache-arrow'
import { arrowTable, componentColumns, cycle } from './arrow.js'
import type { AttributingOptions, PromptOptions } from './asked.js'
import { attribute, ATTRIBUTE_OPTIONS, type Attribution, type Method } from './attribution.js'
import { aborted, checkCall, type Progress } from './calls.js'
import type { Component } from './components.js'
import { invalidArgument, PrismError } from './errors.js'
import type { Loaded } from './loaded.js'
import type { Origin, Provenance } from './observed.js'
import { checkKeys, index, wholeNumber } from './options.js'
import { bars, type Plot } from './plot.js'
import { type ComponentMean, type MeanOptions, Sums } from './summary.js'
import type { Target } from './targets.js'
import type { Prompt } from './tokens.js'

/** One prompt of a stream and what is attributed in it. */
export interface StreamItem {
  /** Text or token ids. */
  readonly prompt: Prompt
  /** What is attributed in it. */
  readonly target: Target
}

/** Options of `attributeStream`. */
export interface StreamOptions extends PromptOptions, AttributingOptions {
  /** Prompts per result. Default 256. */
  readonly batchPrompts?: number
}

/** Options of `attributeSummary`. */
export interface SummaryOptions extends StreamOptions, MeanOptions {}

/** Consecutive items, `size` at a time, and the number of the first. */
async function* batched(items: Iterable<StreamItem> | AsyncIterable<StreamItem>, size: number): AsyncGenerator<Batch> {
  const isIterable = typeof items === 'object' && items !== null && (Symbol.iterator in items || Symbol.asyncIterator in items)
  if (!isIterable) throw invalidArgument('items', items, 'an iterable of { prompt, target }')
  let batch: StreamItem[] = []
  let first = 0
  for await (const item of items) {
    if (typeof item !== 'object' || item === null || !('prompt' in item) || !('target' in item)) {
      throw invalidArgument(`item ${first + batch.length}`, item, '{ prompt, target }')
    }
    batch.push(item)
    if (batch.length < size) continue
    yield { batch, first }
    first += batch.length
    batch = []
  }
  if (batch.length > 0) yield { batch, first }
}

/** A batch of a stream. */
interface Batch {
  readonly batch: StreamItem[]
  readonly first: number
}

/**
 * The results of batches in order. The next batch is taken and computed while a result is waited for and looked
 * at, never more than that one. What a batch or the iterable fails with comes after the results before it.
 */
async function* ahead<T>(
  batches: AsyncGenerator<Batch>,
  start: (batch: StreamItem[], first: number) => Promise<T>,
  stop: AbortController,
  signal: AbortSignal | undefined,
  onProgress?: (progress: Progress) => void,
): AsyncGenerator<T, void, undefined> {
  let read = 0
  const next = async () => {
    const { done, value } = await unlessAborted(batches.next(), signal)
    if (done) return undefined
    const end = value.first + value.batch.length
    read = end
    const result = start(value.batch, value.first)
    result.catch(() => {}) // it is awaited when its turn comes
    return { result, end }
  }
  try {
    let turn = await next()
    while (turn) {
      const following = next()
      following.catch(() => {})
      const result = await turn.result
      const failed: unknown = onProgress?.({ done: turn.end, total: read })
      if (failed instanceof Promise) await failed // an async callback that fails must not end the process
      yield result
      turn = await following
    }
  } finally {
    stop.abort()
    // a source that is waited for ends when it has answered; nobody waits for that
    void batches.return(undefined).catch(() => {})
  }
}

/** What a promise gives, unless the signal comes first: a source may take for ever. */
async function unlessAborted<T>(promise: Promise<T>, signal: AbortSignal | undefined): Promise<T> {
  if (!signal) return promise
  promise.catch(() => {})
  let stop = () => {}
  const aborting = new Promise<never>((_, reject) => {
    stop = () => reject(aborted(signal))
    if (signal.aborted) stop()
    else signal.addEventListener('abort', stop, { once: true })
  })
  try {
    return await Promise.race([aborting, promise])
  } finally {
    signal.removeEventListener('abort', stop)
  }
}

/** @internal An error of a batch, which counts prompts from its first. */
export function inStream(error: unknown, firstPrompt: number): unknown {
  if (!(error instanceof PrismError)) return error
  const where = firstPrompt === 0 ? '' : ` (in the batch that begins with prompt ${firstPrompt} of the stream)`
  const message = `${error.message}${where}`
  return new PrismError(error.code, message, { ...error.details, firstPrompt }, { cause: error.cause })
}

/** @internal {@link Model.attributeStream}. */
export async function* attributeStream(
  model: Loaded,
  items: Iterable<StreamItem> | AsyncIterable<StreamItem>,
  options: StreamOptions,
): AsyncGenerator<Attribution, void, undefined> {
  checkKeys('attributeStream', options, [...ATTRIBUTE_OPTIONS, 'batchPrompts'])
  const { batchPrompts, onProgress, signal, ...rest } = options
  checkCall(options)
  const size = wholeNumber('batchPrompts', batchPrompts, 1, 2 ** 24) ?? 256
  const stop = new AbortController()
  const either = signal ? AbortSignal.any([signal, stop.signal]) : stop.signal
  const start = async (batch: StreamItem[], first: number) => {
    const [prompts, targets] = [batch.map(({ prompt }) => prompt), batch.map(({ target }) => target)]
    try {
      return await attribute(model, prompts, targets, { ...rest, signal: either }, first)
    } catch (error) {
      throw inStream(error, first)
    }
  }
  yield* ahead(batched(items, size), start, stop, options.signal, onProgress)
}

/** @internal {@link Model.attributeSummary}. */
export async function attributeSummary(
  model: Loaded,
  items: Iterable<StreamItem> | AsyncIterable<StreamItem>,
  options: SummaryOptions,
): Promise<AttributionSummary> {
  checkKeys('attributeSummary', options, [...ATTRIBUTE_OPTIONS, 'batchPrompts', 'seed', 'resamples', 'leading'])
  const { seed, resamples, leading, ...rest } = options
  if (rest.top !== undefined) throw invalidArgument('top', rest.top, 'all neurons: a summary has the same columns throughout')
  const mean = {
    ...(seed === undefined ? {} : { seed }),
    ...(resamples === undefined ? {} : { resamples }),
    ...(leading === undefined ? {} : { leading }),
  }
  let sums: Sums | undefined
  let last: Attribution | undefined
  let worst = 0
  let certified = true
  for await (const result of attributeStream(model, items, rest)) {
    sums ??= new Sums(result.components.length, mean)
    await sums.add(result.values, result.rows.prompt)
    result.residual.forEach((residual, i) => (worst = Math.max(worst, Math.abs(residual) / (result.tolerance[i] ?? 0))))
    certified &&= result.certified
    last = result
  }
  if (!sums || !last) throw invalidArgument('items', 'an empty stream', 'at least one prompt')
  const { method, components } = last
  return new AttributionSummary(await sums.finish(components), {
    ...sums.seen(),
    method,
    origin: model.origin,
    components,
    certified,
    worst,
  })
}

/** A stream of attributions, reduced to one line per component. It observes; it does not prove a cause. */
export class AttributionSummary implements Iterable<ComponentMean> {
  /** What it is worth: it observes. */
  readonly kind = 'observed' as const
  /** How it was made. */
  readonly method: Method
  /** Which model, on what. */
  readonly provenance: Provenance
  /** How many prompts went into it. */
  readonly prompts: number
  /** How many rows. */
  readonly rows: number
  /** What each line is of. */
  readonly components: readonly Component[]
  /** One line per component, in the order of `components`. */
  readonly means: readonly ComponentMean[]
  /** Whether the certificate of every row held. */
  readonly certified: boolean
  /** The largest share of its tolerance that any row used. */
  readonly worstResidual: number

  readonly #origin: Origin

  /** @internal */
  constructor(
    means: readonly ComponentMean[],
    about: {
      readonly method: Method
      readonly origin: Origin
      readonly components: readonly Component[]
      readonly prompts: number
      readonly rows: number
      readonly certified: boolean
      readonly worst: number
    },
  ) {
    this.means = Object.freeze(means)
    this.method = about.method
    this.#origin = about.origin
    this.provenance = about.origin.provenance
    this.components = about.components
    this.prompts = about.prompts
    this.rows = about.rows
    this.certified = about.certified
    this.worstResidual = about.worst
  }

  /** The k components of largest |mean|, largest first. */
  byMagnitude(k: number): ComponentMean[] {
    index('k', k, Number.MAX_SAFE_INTEGER)
    return [...this.means].sort((a, b) => Math.abs(b.mean) - Math.abs(a.mean)).slice(0, k)
  }

  /** One by one, in order. */
  [Symbol.iterator](): Iterator<ComponentMean> {
    return this.means[Symbol.iterator]()
  }

  /**
   * A tidy Arrow table, a line per component: `component`, `kind`, `layer`, `index`, `mean`, `std`, `low`, `high`,
   * `sameSign`, `stability`.
   */
  toArrow(): Promise<Table> {
    const numbers = (of: (mean: ComponentMean) => number) => ({ numbers: Float64Array.from(this.means, of) })
    const columns = {
      ...componentColumns(this.components, cycle(this.components.length, 1)),
      mean: numbers(({ mean }) => mean),
      std: numbers(({ std }) => std),
      low: numbers(({ interval: [low] }) => low),
      high: numbers(({ interval: [, high] }) => high),
      sameSign: numbers(({ sameSign }) => sameSign),
      stability: numbers(({ stability }) => stability),
    }
    const { prompts, rows, certified, worstResidual } = this
    const about = Object.entries({ prompts, rows, certified, worstResidual }).map(([key, value]) => [key, String(value)])
    return arrowTable(columns, this.#origin, { ...this.method, ...Object.fromEntries(about) })
  }

  /** A picture as a Vega-Lite spec: the `top` components (default 15) of largest |mean| as bars, with their 95 % intervals. */
  plot(options: { readonly top?: number } = {}): Plot {
    checkKeys('plot', options, ['top'])
    const top = wholeNumber('top', options.top, 1, 2 ** 31) ?? 15
    const values = this.byMagnitude(top).map(({ label, mean, interval: [low, high] }) => ({ label, value: mean, low, high }))
    const subtitle = `mean over ${this.rows} rows of ${this.prompts} prompts, with 95 % intervals`
    return bars(`Direct logit attribution by ${this.method.unit}`, subtitle, values, 'logits')
  }

  /** Everything, as plain data. */
  toJSON(): Record<string, unknown> {
    const { kind, method, provenance, prompts, rows, components, means, certified, worstResidual } = this
    return { kind, method, provenance, prompts, rows, certified, worstResidual, components, means }
  }

  [Symbol.for('nodejs.util.inspect.custom')](): string {
    const line = ({ label, mean, interval: [low, high] }: ComponentMean) =>
      `  ${label.padEnd(14)} ${mean.toFixed(4).padStart(9)}  [${low.toFixed(4)}, ${high.toFixed(4)}]`
    const word = this.certified ? 'certified' : 'not certified'
    return [`AttributionSummary: ${this.prompts} prompts, ${this.rows} rows, ${word}`, ...this.byMagnitude(10).map(line)].join('\n')
  }
}
