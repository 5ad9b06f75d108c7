import { fileURLToPath } from 'node:url'
import { ATTRIBUTING_OPTIONS, type AttributingOptions, nativeAttributing } from './asked.js'
import { attributed, type Attribution } from './attribution.js'
import { call, type CallOptions } from './calls.js'
import { type DecomposeOptions, Decomposition } from './decomposition.js'
import { invalidArgument, native } from './errors.js'
import { deepFreeze } from './freeze.js'
import type { DimsOf, HookName } from './hooks.js'
import type { AppliedIntervention } from './intervention.js'
import type { Loaded } from './loaded.js'
import type { Model } from './model.js'
import type { NativeRun, NativeTensor } from './native.js'
import { offsetsOf, type Origin } from './observed.js'
import { checkKeys, index, oneOf } from './options.js'
import { copiedDirections, type Target } from './targets.js'
import { type Dim, Tensor } from './tensor.js'

/** Options of {@link Run.attribute}. */
export interface RunAttributeOptions extends AttributingOptions, Pick<CallOptions, 'signal'> {}

const RUN_ATTRIBUTE_OPTIONS = [...ATTRIBUTING_OPTIONS, 'signal'] as const

/** What a run kept of its hook points. It lies outside the JavaScript heap until the run is closed. */
export class Cache {
  readonly #native: NativeRun

  /** @internal */
  constructor(run: NativeRun) {
    this.#native = run
  }

  /** Exactly what was kept, in the order of the forward pass. */
  get names(): HookName[] {
    return native(() => this.#native.names()) as HookName[]
  }

  /**
   * A copy of one point of one prompt, at its kept positions.
   *
   * @throws {PrismError} `NOT_CACHED`, `UNKNOWN_HOOK`, `INVALID_ARGUMENT`, `CLOSED`
   */
  get<H extends HookName>(name: H, prompt: number): Tensor<DimsOf<H>> {
    const i = index('prompt', prompt, 2 ** 32)
    return tensor(native(() => this.#native.tensor(String(name), i)))
  }

  [Symbol.for('nodejs.util.inspect.custom')](): string {
    const names = this.#names()
    if (!names) return 'Cache: closed'
    const shown = names.length > 2 ? `${names[0]} … ${names.at(-1)}` : names.join(', ')
    return `Cache: ${names.length} hook points${names.length > 0 ? `, ${shown}` : ''}`
  }

  #names(): readonly string[] | undefined {
    try {
      return this.names
    } catch {
      return undefined // closed
    }
  }
}

/** @internal What of a model its runs hold: not the weights. */
type RunModel = Pick<Loaded, 'origin' | 'components'>

/**
 * A forward pass that was kept: logits, hook points, and what can be computed from them without running the model again.
 * Close it when done (`using`, or `close()`): it holds memory outside the JavaScript heap.
 */
export class Run {
  /** Hook points. */
  readonly cache: Cache
  /** Which logits were kept, after the model's cap. */
  readonly logitsKept: 'last' | 'all' | 'none'
  /** What was changed in it, frozen; empty where nothing was. What the cache and the logits hold is what came of it. */
  readonly interventions: readonly AppliedIntervention[]

  readonly #native: NativeRun
  readonly #ids: readonly Uint32Array[]
  readonly #positions: readonly Uint32Array[]
  readonly #origin: Origin
  readonly #model: RunModel
  #closed = false

  /** @internal */
  constructor(run: NativeRun, model: RunModel) {
    this.#native = run
    this.interventions = deepFreeze(JSON.parse(native(() => run.interventions())) as AppliedIntervention[])
    this.#origin = changed(model.origin, this.interventions)
    this.#model = model
    this.cache = new Cache(run)
    this.#ids = native(() => run.ids())
    for (const ids of this.#ids) this.#origin.remember(ids)
    this.#positions = native(() => run.positions())
    this.logitsKept = native(() => run.logitsKept()) as 'last' | 'all' | 'none'
  }

  /**
   * Reads a run that was saved with {@link save} for the same model.
   *
   * @throws {PrismError} `IO_ERROR`, `CHECKPOINT_INVALID` where the file is none, or of another model, `MEMORY`, `CLOSED`
   */
  static load(model: Model, path: string | URL): Promise<Run> {
    return model.loadRun(path)
  }

  /** @internal What the addon holds of a run. */
  static nativeOf(run: Run): NativeRun {
    return run.#native
  }

  /** Number of prompts. */
  get nPrompts(): number {
    return this.#ids.length
  }

  /** The ids of a prompt as they were run, BOS included. */
  ids(prompt: number): Uint32Array {
    return this.#ids[index('prompt', prompt, this.nPrompts)] ?? new Uint32Array()
  }

  /** The positions of a prompt that were kept, rising: the first axis of what the cache returns. */
  positions(prompt: number): Uint32Array {
    return this.#positions[index('prompt', prompt, this.nPrompts)] ?? new Uint32Array()
  }

  /** The texts of a prompt's tokens. */
  tokens(prompt: number): string[] {
    return Array.from(this.ids(prompt), (id) => this.#origin.tokenText(id))
  }

  /**
   * A copy of the logits of one prompt, after the model's cap: one row for `logits: 'last'`, one per position for `'all'`.
   *
   * @throws {PrismError} `NOT_CACHED`, `INVALID_ARGUMENT`, `CLOSED`
   */
  logits(prompt: number): Tensor<['pos', 'd_vocab']> {
    const i = index('prompt', prompt, this.nPrompts)
    return tensor(native(() => this.#native.logits(i)))
  }

  /**
   * Direct logit attribution at the kept positions, as {@link Model.attribute}, without running the model again. It needs
   * the points that {@link Model.attributionHooks} names. A token given as text is encoded alone, as behind a prompt given
   * as ids.
   *
   * Behind interventions the certificate holds as ever where the stream is still the sum of what components wrote. Where
   * it is not at an attributed position (the stream itself was set, what attention adds as a whole, neurons' sum, the
   * final norm), it is refused with the point and the reason.
   *
   * @throws {PrismError} `NOT_CACHED` with the missing points, `INVALID_ARGUMENT` behind such an intervention, and those
   * of {@link Model.attribute}
   */
  async attribute(targets: Target | readonly Target[], options: RunAttributeOptions = {}): Promise<Attribution> {
    checkKeys('attribute', options, RUN_ATTRIBUTE_OPTIONS)
    const request = nativeAttributing(targets, this.nPrompts, options)
    const directions = copiedDirections(request.targets, this.nPrompts)
    const all = options.top === undefined ? this.#model.components(request.unit) : []
    const result = await call(this.#native, options, (cancel) => this.#native.attribute(request, cancel))
    return attributed(result, all, directions, request, this.#origin)
  }

  /**
   * The residual stack itself: the vector that every component wrote at the kept positions. They sum to the stream that
   * enters the final norm. It needs the points of {@link attribute}.
   *
   * @throws {PrismError} `NOT_CACHED` with the missing points, `INVALID_ARGUMENT` behind an intervention after which they
   * do not, `MEMORY`, `ABORTED`, `CLOSED`
   */
  async decompose(options: DecomposeOptions = {}): Promise<Decomposition> {
    checkKeys('decompose', options, ['unit', 'signal'])
    const unit = oneOf('unit', options.unit, ['layer', 'head', 'neuron'], 'head')
    const components = this.#model.components(unit)
    const stack = await call(this.#native, options, (cancel) => this.#native.decompose(unit, cancel))
    const idOffsets = offsetsOf(this.#ids.map(({ length }) => length))
    const ids = new Uint32Array(idOffsets.at(-1) ?? 0)
    this.#ids.forEach((list, i) => ids.set(list, idOffsets[i]))
    const rows = { ids, idOffsets }
    return new Decomposition(stack, rows, components, this.#origin)
  }

  /**
   * Writes the run as a safetensors file: for prompt `i` the tensors `i/ids`, `i/positions`, `i/<hook point>`, `i/logits`,
   * and what they belong to as metadata. The file appears whole or not at all.
   *
   * @throws {PrismError} `IO_ERROR`, `INVALID_ARGUMENT`, `CLOSED`
   */
  async save(path: string | URL): Promise<void> {
    const file = filePath(path)
    await call(this.#native, {}, () => this.#native.save(file))
  }

  /** Whether {@link close} was called. */
  get closed(): boolean {
    return this.#closed
  }

  /** Frees what was kept. Idempotent; later reads throw `CLOSED`. */
  close(): void {
    this.#closed = true
    this.#native.close()
  }

  /** Closes it. */
  [Symbol.dispose](): void {
    this.close()
  }

  [Symbol.for('nodejs.util.inspect.custom')](): string {
    const prompts = this.nPrompts === 1 ? '1 prompt' : `${this.nPrompts} prompts`
    if (this.#closed) return `Run: ${prompts}, closed`
    const changes = this.interventions.length === 0 ? '' : `, ${this.interventions.length} interventions`
    return `Run: ${prompts}, ${this.cache.names.length} hook points, logits: ${this.logitsKept}${changes}`
  }
}

/** What is computed from a run in which something was changed says so. */
function changed(origin: Origin, interventions: readonly AppliedIntervention[]): Origin {
  if (interventions.length === 0) return origin
  return { ...origin, provenance: Object.freeze({ ...origin.provenance, interventions }) }
}

/** @internal A path of the file system. */
export function filePath(path: unknown): string {
  if (path instanceof URL && path.protocol === 'file:') return fileURLToPath(path)
  if (typeof path === 'string' && path !== '') return path
  throw invalidArgument('path', String(path), 'the path of a file, or its file: URL')
}

function tensor<D extends readonly Dim[]>({ data, shape, dims }: NativeTensor): Tensor<D> {
  return new Tensor(data, shape as never, dims as unknown as D)
}
