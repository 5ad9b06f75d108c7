import { fileURLToPath } from 'node:url'
import { Attribution, type Component } from './attribution.js'
import { CALL_OPTIONS, type CallOptions, call } from './calls.js'
import { invalidArgument, native, PrismError } from './errors.js'
import { loadModel, type NativeCall, type NativeModel, type NativeObservation, type NativePositions } from './native.js'
import { checkKeys, oneOf, optionalFlag, wholeNumber } from './options.js'
import { nativeTargets, type Target } from './targets.js'
import { nativePrompt, type Prompt, Tokenizer } from './tokens.js'

/** Options of {@link Model.load}. */
export interface LoadOptions extends CallOptions {
  /** Where to compute. Default `'cpu'`; `'auto'` takes the best device that works. */
  readonly device?: 'cpu' | 'auto' | 'cuda' | `cuda:${number}`
  /** What to compute in. The CPU computes in `'f32'`, whatever is stored. */
  readonly dtype?: 'f32' | 'bf16' | 'f16'
  /** Threads to compute on. Default: all cores. */
  readonly threads?: number
  /** Bytes that the weights and any one call may take together; less, if the machine has less. */
  readonly memoryLimit?: number
  /** Accept tokenizer patterns that are not on the list of known ones; a hostile one can take exponential time. */
  readonly allowCustomRegex?: boolean
  /** Accept config keys that nothing here knows; they are recorded in `config.unknownKeys`. */
  readonly allowUnknownConfig?: boolean
  /**
   * What the forward pass is made of, for tests and diagnosis: kernels for this machine's CPU (`'fused'`, the default), or
   * a general library's operations (`'plain'`), many times slower. Numbers agree up to rounding.
   */
  readonly kernels?: 'fused' | 'plain'
}

/** A norm: (x − mean) / s for `layerNorm`, x / s for `rmsNorm`, times γ, plus β if it has a bias. */
export interface Norm {
  readonly kind: 'layerNorm' | 'rmsNorm'
  readonly eps: number
  /** γ is the stored weight, 1 + weight, or 1. */
  readonly gain: 'weight' | 'onePlusWeight' | 'none'
  readonly bias: boolean
}

/** How a model knows positions. */
export type Positions =
  | { readonly kind: 'learned'; readonly offset: number }
  | { readonly kind: 'rotary'; readonly layers: readonly (Rotary | null)[] }
  | {
      readonly kind: 'alibi'
      readonly slopes: readonly number[]
      readonly zeroAt: 'first' | 'last'
      readonly scale: number
      readonly bf16: boolean
    }

/** Rotary positions of one layer; `null` in their place: a layer without positions. */
export interface Rotary {
  /** The first `dim` numbers of a head turn. */
  readonly dim: number
  readonly theta: number
  readonly style: 'halves' | 'pairs'
  readonly scaling: {
    readonly kind: 'default' | 'linear' | 'dynamic' | 'llama3' | 'yarn' | 'longRope'
    readonly [constant: string]: unknown
  }
}

/** A resolved `config.json`: sizes and what is special, no option left open. */
export interface ModelConfig {
  /** Hugging Face `model_type`. */
  readonly family: string
  readonly nLayers: number
  /** Query heads per layer. */
  readonly nHeads: number
  readonly nKeyValueHeads: number
  /** Width of the residual stream. */
  readonly dModel: number
  /** Width of one head. */
  readonly dHead: number
  /** Hidden width of the MLP. */
  readonly dMlp: number
  /** Tokens of the vocabulary. */
  readonly dVocab: number
  /** Longest prompt, in tokens. */
  readonly nContext: number
  /** What the token embedding is multiplied with. */
  readonly embedScale: number
  readonly positions: Positions
  /** The norms of the residual stream. */
  readonly norm: Norm
  /** Whether attention and MLP of a block read the same stream and are added together. */
  readonly parallel: boolean
  /** A norm of queries and keys, before the rotation or after it. */
  readonly qkNorm: {
    readonly norm: Norm
    readonly span: 'head' | 'headOwnGain' | 'headSplitGain' | 'allHeads'
    readonly afterRotary: boolean
  } | null
  /** Queries, keys and values are cut to ± this. */
  readonly clipQkv: number | null
  /** What scores are multiplied with, per layer. */
  readonly attentionScale: readonly number[]
  /** Scores go through cap · tanh(score / cap). */
  readonly scoreCap: number | null
  /** Per layer: a query sees its own position and the window − 1 before it; `null`: all before it. */
  readonly windows: readonly (number | null)[]
  /** Whether heads have a learned score that takes part in the softmax and moves no value. */
  readonly attentionSinks: boolean
  readonly mlp:
    | { readonly kind: 'plain' | 'gated' }
    | {
        readonly kind: 'experts'
        readonly nExperts: number
        readonly topK: number
        readonly gating: 'softmax' | 'softmaxOfChosen'
        /** Hidden width of an expert that every token gets, with a gate of its own. */
        readonly shared: number | null
        readonly swiglu: { readonly alpha: number; readonly limit: number } | null
      }
  /** Layers without experts, in a model that has them. */
  readonly denseLayers: readonly number[]
  /** Hidden width of the MLP of `denseLayers`. */
  readonly dMlpDense: number
  readonly activation: string
  /** Which linear layers have a bias. */
  readonly biases: Readonly<Record<'qkv' | 'attnOut' | 'mlp' | 'router' | 'unembed', boolean>>
  /** What attention and MLP write is multiplied with this. */
  readonly residualMultiplier: number
  /** κ: what logits are multiplied with. */
  readonly logitScale: number
  /** Logits go through cap · tanh(logit / cap). */
  readonly logitCap: number | null
  /** Whether the unembedding is the transposed token embedding. */
  readonly tiedEmbeddings: boolean
  readonly bosToken: number | null
  /** What is special about the model, in words. */
  readonly notes: readonly string[]
  /** Config keys that were accepted without being known. */
  readonly unknownKeys: readonly string[]
}

/** Which positions of the prompts; negative ones count from a prompt's end. A list is for every prompt. */
export type Position = 'last' | 'all' | number | readonly number[] | { readonly perPrompt: readonly (readonly number[])[] }

/** Options of {@link Model.attribute}. */
export interface AttributeOptions extends CallOptions {
  /** The columns. Default `'head'`. */
  readonly unit?: 'layer' | 'head'
  /** The rows. Default `'last'`. */
  readonly position?: Position
  /** `'frozen'` (default): the final norm at its scale of the run, exact. `'none'`: without it, uncertified. */
  readonly norm?: 'frozen' | 'none'
  /** What a certificate that fails does: reject with `INCOMPLETE` (default), or a process warning. */
  readonly onViolation?: 'throw' | 'warn'
  /** Put a BOS token in front of prompts given as text, or leave it out, whatever the tokenizer does. */
  readonly prependBos?: boolean
  /** Tokens that are computed together. The numbers do not depend on it; time and memory do. Default 256. */
  readonly batchTokens?: number
}

const LOAD_OPTIONS = [
  'device', 'dtype', 'threads', 'memoryLimit', 'allowCustomRegex', 'allowUnknownConfig', 'kernels',
  ...CALL_OPTIONS,
] as const // prettier-ignore
const ATTRIBUTE_OPTIONS = [
  'unit', 'position', 'norm', 'onViolation', 'prependBos', 'batchTokens', ...CALL_OPTIONS,
] as const // prettier-ignore

/** A loaded model. Close it when done, or let `await using` do it: the weights live outside the JavaScript heap. */
export class Model implements AsyncDisposable {
  /** The resolved config, frozen. */
  readonly config: ModelConfig
  /** What it really runs on. */
  readonly device = 'cpu' as const
  /** The checkpoint's tokenizer, if it has one. */
  readonly tokenizer: Tokenizer | undefined

  readonly #native: NativeModel
  #fingerprint: Promise<string> | undefined
  #closing: Promise<void> | undefined

  private constructor(model: NativeModel) {
    this.#native = model
    this.config = deepFreeze(JSON.parse(model.config()) as ModelConfig)
    this.tokenizer = model.hasTokenizer() ? new Tokenizer(model) : undefined
  }

  /**
   * Loads a checkpoint in Hugging Face format: a directory with `config.json`, `model.safetensors` (or an index and its
   * shards) and, for prompts given as text, `tokenizer.json`; or a repository id that is already in the local Hugging
   * Face cache. Nothing is fetched.
   *
   * @throws {PrismError} `IO_ERROR`, `CONFIG_…`, `CHECKPOINT_…`, `TENSOR_…`, `TOKENIZER_INVALID`, `PICKLE_REFUSED`,
   * `DEVICE_UNAVAILABLE`, `MEMORY`, `ABORTED`, `UNKNOWN_OPTION`, `INVALID_ARGUMENT`
   */
  static async load(path: string | URL, options: LoadOptions = {}): Promise<Model> {
    checkKeys('load', options, LOAD_OPTIONS)
    const directory = path instanceof URL && path.protocol === 'file:' ? fileURLToPath(path) : path
    if (typeof directory !== 'string' || directory === '')
      throw invalidArgument('path', String(path), 'the path of a directory, or its file: URL')
    checkDevice(options.device, options.dtype)
    const fixed = {
      kernels: oneOf('kernels', options.kernels, ['fused', 'plain'], 'fused'),
      allowCustomRegex: optionalFlag('allowCustomRegex', options.allowCustomRegex) ?? false,
      allowUnknownConfig: optionalFlag('allowUnknownConfig', options.allowUnknownConfig) ?? false,
    }
    const threads = wholeNumber('threads', options.threads, 1, 1024)
    const memoryLimit = wholeNumber('memoryLimit', options.memoryLimit, 1, Number.MAX_SAFE_INTEGER)
    const limits = { ...(threads === undefined ? {} : { threads }), ...(memoryLimit === undefined ? {} : { memoryLimit }) }
    const model = await call(options, (cancel, report) => loadModel(directory, { ...fixed, ...limits }, cancel, report))
    return new Model(model)
  }

  /** Loads the bundled demo model: four layers, a toy language, and a circuit that was planted in it. */
  static demo(options: LoadOptions = {}): Promise<Model> {
    return Model.load(new URL('../models/demo', import.meta.url), options)
  }

  /**
   * Direct logit attribution: how much every component of the residual stream adds to a logit, or to a difference of
   * logits, at the wanted positions of the prompts.
   *
   * @param prompts texts or token ids, of any lengths; nothing is padded
   * @param targets one target for all prompts, or one per prompt
   * @throws {PrismError} `PROMPT_…`, `TOKEN_RANGE`, `TOKENIZER_…`, `NOT_ONE_TOKEN`, `POSITION_RANGE`, `INCOMPLETE`,
   * `NOT_FINITE`, `MEMORY`, `ABORTED`, `CLOSED`, `POISONED`, `UNKNOWN_OPTION`, `INVALID_ARGUMENT`
   */
  async attribute(
    prompts: readonly Prompt[],
    targets: Target | readonly Target[],
    options: AttributeOptions = {},
  ): Promise<Attribution> {
    checkKeys('attribute', options, ATTRIBUTE_OPTIONS)
    const request = nativeCall(prompts, targets, options)
    const components = native(() => this.#native.components(request.unit))
    // the addon copies its inputs before this returns to the event loop, and so must we
    const given = request.targets.map(({ direction }) => direction?.slice())
    const directions = request.prompts.map((_, i) => given[Math.min(i, given.length - 1)])
    const result = await call(options, (cancel, report) => this.#native.attribute(request, cancel, report))
    if (result.violations > 0 && request.norm !== 'none') warnIncomplete(result.violations)
    return new Attribution(result, components, directions, request.norm !== 'none')
  }

  /**
   * One prompt's last logits and its values at some hook points.
   * @internal
   */
  observe(prompt: Prompt, points: string[]): Promise<NativeObservation> {
    return call({}, (cancel) => this.#native.observe(nativePrompt(prompt, 0), points, undefined, cancel))
  }

  /** Peak bytes of the forward pass over `tokens` tokens of one prompt, besides the weights; each thread takes as much. */
  forwardBytes(tokens: number): number {
    return native(() => this.#native.forwardBytes(wholeNumber('tokens', tokens, 1, 2 ** 32 - 1) ?? 1))
  }

  /** SHA-256 over config and weights as they lie on disk, in hex; computed the first time it is asked for. */
  get fingerprint(): Promise<string> {
    this.#fingerprint ??= call({}, () => this.#native.fingerprint())
    return this.#fingerprint
  }

  /** What the columns of a result are. */
  components(unit: 'layer' | 'head' = 'head'): Component[] {
    return native(() => this.#native.components(oneOf('unit', unit, ['layer', 'head'], 'head'))) as Component[]
  }

  /** Bytes of the weights as they are held. */
  get weightBytes(): number {
    return native(() => this.#native.weightBytes())
  }

  /** Whether {@link close} was called. */
  get closed(): boolean {
    return this.#closing !== undefined
  }

  /** Frees the model once the calls under way have settled. Idempotent; calls made afterwards reject with `CLOSED`. */
  close(): Promise<void> {
    this.#closing ??= this.#native.close()
    return this.#closing
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close()
  }
}

function nativeCall(prompts: unknown, targets: unknown, options: AttributeOptions): NativeCall {
  if (!Array.isArray(prompts)) throw invalidArgument('prompts', prompts, 'a list of prompts')
  const prependBos = optionalFlag('prependBos', options.prependBos)
  const batchTokens = wholeNumber('batchTokens', options.batchTokens, 1, 2 ** 32 - 1)
  return {
    prompts: Array.from(prompts, nativePrompt),
    targets: nativeTargets(targets, prompts.length),
    positions: nativePositions(options.position === undefined ? 'last' : options.position),
    unit: oneOf('unit', options.unit, ['layer', 'head'], 'head'),
    onViolation: oneOf('onViolation', options.onViolation, ['throw', 'warn'], 'throw'),
    ...(options.norm === undefined ? {} : { norm: oneOf('norm', options.norm, ['frozen', 'none'], 'frozen') }),
    ...(prependBos === undefined ? {} : { prependBos }),
    ...(batchTokens === undefined ? {} : { batchTokens }),
  }
}

function nativePositions(position: unknown): NativePositions {
  const isList = (list: unknown): list is number[] => Array.isArray(list) && Array.from(list).every(Number.isSafeInteger)
  if (position === 'last' || position === 'all') return { name: position }
  if (Number.isSafeInteger(position)) return { of: [position as number] }
  if (isList(position)) return { of: position }
  if (typeof position === 'object' && position !== null && !Array.isArray(position)) {
    checkKeys('position', position, ['perPrompt'])
    const { perPrompt } = position as { perPrompt?: unknown }
    if (Array.isArray(perPrompt) && Array.from(perPrompt).every(isList)) return { perPrompt }
  }
  throw invalidArgument('position', position, "'last', 'all', a position, a list of positions, or { perPrompt: a list of lists }")
}

function checkDevice(device: unknown, dtype: unknown): void {
  if (typeof device === 'string' && /^cuda(:\d+)?$/.test(device)) {
    const reason = 'this version computes on the CPU only'
    throw new PrismError('DEVICE_UNAVAILABLE', `device ${device} is not available: ${reason}`, { device, reason })
  }
  oneOf('device', device, ['cpu', 'auto', 'cuda'], 'cpu')
  if (oneOf('dtype', dtype, ['f32', 'bf16', 'f16'], 'f32') !== 'f32') {
    throw invalidArgument('dtype', dtype, "'f32': the CPU computes in f32, whatever is stored")
  }
}

function warnIncomplete(rows: number): void {
  const message = `${rows} row${rows === 1 ? '' : 's'} of the attribution did not add up within the tolerance; see result.residual`
  process.emitWarning(message, { type: 'PrismWarning', code: 'INCOMPLETE' })
}

function deepFreeze<T extends object>(value: T): T {
  for (const inner of Object.values(value)) if (typeof inner === 'object' && inner !== null) deepFreeze(inner)
  return Object.freeze(value)
}
