import { fileURLToPath } from 'node:url'
import {
  ATTRIBUTING_OPTIONS,
  type AttributingOptions,
  nativeAsked,
  nativeAttributing,
  type Position,
  PROMPT_OPTIONS,
  type PromptOptions,
} from './asked.js'
import {
  Attention,
  ATTENTION_OPTIONS,
  type AttentionOptions,
  between,
  DETECT_OPTIONS,
  type DetectedHead,
  detectedHead,
  type DetectOptions,
} from './attention.js'
import { Attribution, type Method, warnIncomplete } from './attribution.js'
import { CALL_OPTIONS, type CallOptions, call, callOf, checkCall } from './calls.js'
import { ABLATE_OPTIONS, type AblateOptions, ablatedPositions, Causal, type Erase, warnUnexplained } from './causal.js'
import { type CircuitModel, type CircuitOptions, HeadCircuit } from './circuit.js'
import type { CausalCircuit } from './causal-circuit.js'
import { type Component, frozen } from './components.js'
import { COMPOSITION_OPTIONS, type CompositionOptions, CompositionScores } from './composition.js'
import type { Choice, Dataset } from './data/dataset.js'
import { type Device, type Dtype, onDevice, type Placement } from './device.js'
import { DirectionAttribution, flatDirections } from './directions.js'
import { invalidArgument, native } from './errors.js'
import { evaluate, type EvaluateOptions, type Evaluation } from './evaluate.js'
import { type Faithfulness, faithfulness, type FaithfulnessOptions } from './faithfulness.js'
import { deepFreeze } from './freeze.js'
import { type DescribeOptions, describeHeads, type HeadDescription } from './heads.js'
import type { HookName, ResidualHook } from './hooks.js'
import { type Intervention, nativeInterventions } from './intervention.js'
import { LogitLens } from './lens.js'
import type { NativeAttributing, NativeAttribution, NativeModel } from './native.js'
import type { Origin } from './observed.js'
import { checkKeys, index, oneOf, optionalFlag, wholeNumber } from './options.js'
import {
  type PairOptions,
  Patched,
  PATCH_OPTIONS,
  PATH_OPTIONS,
  type PatchOptions,
  type PathOptions,
  nativePatching,
  nativePaths,
  nativeSpots,
} from './patch.js'
import { nativeSet } from './replacement.js'
import { filePath, Run } from './run.js'
import { AttributionSources } from './sources.js'
import { ahead, AttributionSummary, batched, inStream, type StreamItem, type StreamOptions, type SummaryOptions } from './stream.js'
import { Sums } from './summary.js'
import { copiedDirections, nativeTargets, type Target } from './targets.js'
import { nativePrompt, nativeTokens, type Prompt, type Token, Tokenizer } from './tokens.js'
import { TopTokens } from './top-tokens.js'

/** Options of {@link Model.load}. */
export interface LoadOptions extends CallOptions {
  /**
   * Where to compute. Default `'cpu'`; `'cuda'` is `'cuda:0'`, the first NVIDIA GPU; `'auto'` takes a GPU that works, else
   * the CPU. {@link Model.device} and {@link Model.deviceReason} say which it was, and why.
   */
  readonly device?: 'cpu' | 'auto' | 'cuda' | `cuda:${number}`
  /**
   * What a GPU holds weights and multiplies in; the residual stream, norms, softmax and sums are f32 whatever it is.
   * Default `'f32'`. The CPU computes in `'f32'`, whatever is stored, and refuses the others.
   */
  readonly dtype?: Dtype
  /** Threads to compute on. Default: all cores. */
  readonly threads?: number
  /** Bytes that the weights and any one call may take together, of a GPU's memory on a GPU; less, if there is less. */
  readonly memoryLimit?: number
  /** Accept tokenizer patterns that are not on the list of known ones; a hostile one can take exponential time. */
  readonly allowCustomRegex?: boolean
  /** Accept config keys that nothing here knows; they are recorded in `config.unknownKeys`. */
  readonly allowUnknownConfig?: boolean
  /**
   * What the forward pass is made of, for tests and diagnosis: kernels for this machine's CPU (`'fused'`, the default), or
   * a general library's operations (`'plain'`), many times slower. Numbers agree up to rounding. GPUs have `'plain'` only.
   */
  readonly kernels?: 'fused' | 'plain'
}

/** A norm: (x − mean) / s for `layerNorm`, x / s for `rmsNorm`, times γ, plus β if it has a bias. */
export interface Norm {
  /** Whether it subtracts the mean. */
  readonly kind: 'layerNorm' | 'rmsNorm'
  /** ε, added to the variance or the mean square inside s. */
  readonly eps: number
  /** γ is the stored weight, 1 + weight, or 1. */
  readonly gain: 'weight' | 'onePlusWeight' | 'none'
  /** Whether it adds β. */
  readonly bias: boolean
}

/** How a model knows positions. */
export type Positions =
  | { readonly kind: 'learned'; readonly offset: number }
  | { readonly kind: 'sinusoidal'; readonly offset: number; readonly zero: number | null }
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
  /** θ: dimension pair i turns by position · θ^(−2i / dim), before scaling. */
  readonly theta: number
  /** Which dimensions are a pair: i and i + dim / 2, or 2 i and 2 i + 1. */
  readonly style: 'halves' | 'pairs'
  /** How the angles were stretched, with the constants of that way. */
  readonly scaling: {
    readonly kind: 'default' | 'linear' | 'dynamic' | 'llama3' | 'yarn' | 'longRope'
    readonly [constant: string]: unknown
  }
}

/** A resolved `config.json`: sizes and what is special, no option left open. */
export interface ModelConfig {
  /** Hugging Face `model_type`. */
  readonly family: string
  /** Blocks. */
  readonly nLayers: number
  /** Query heads per layer. */
  readonly nHeads: number
  /** Key and value heads per layer; query heads share them in groups. */
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
  /** How it knows positions. */
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
  /** The MLP of a block; hidden widths are `dMlp` and, of layers without experts, `dMlpDense`. */
  readonly mlp:
    | { readonly kind: 'plain' | 'gated' }
    | {
        readonly kind: 'experts'
        readonly nExperts: number
        readonly topK: number
        readonly gating: 'softmax' | 'softmaxOfChosen' | 'sigmoid' | 'sigmoidOfChosen'
        /** What else changes choice and gates: a stored number per expert, groups (how many, how many stay), a factor. */
        readonly routing: {
          readonly corrected: boolean
          readonly groups: readonly [number, number] | null
          readonly scale: number
        }
        /** Hidden width of an expert that every token gets, in full or by a gate of its own. */
        readonly shared: number | null
        readonly swiglu: { readonly alpha: number; readonly limit: number } | null
      }
  /** Layers without experts, in a model that has them. */
  readonly denseLayers: readonly number[]
  /** Hidden width of the MLP of `denseLayers`. */
  readonly dMlpDense: number
  /** Of the MLP, by the name that the config has for it. */
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
  /** The id of the BOS token, if there is one. */
  readonly bosToken: number | null
  /** What is special about the model, in words. */
  readonly notes: readonly string[]
  /** Config keys that were accepted without being known. */
  readonly unknownKeys: readonly string[]
}

/** Options of {@link Model.attribute}. */
export interface AttributeOptions extends PromptOptions, AttributingOptions {}

/** Options of {@link Model.run}. */
export interface RunOptions extends PromptOptions {
  /**
   * Hook points to keep, by name; `*` stands for any characters: `'blocks.*.attn.hook_pattern'`. Default: none.
   * {@link Model.hookNames} lists what the model has.
   */
  readonly cache?: readonly (HookName | (string & {}))[]
  /** Which positions are kept of them. Default `'all'`. */
  readonly position?: Position
  /** Which logits are kept, after the model's cap. Default `'last'`. */
  readonly logits?: 'last' | 'all' | 'none'
  /**
   * Values to replace while the model runs: one list for every prompt, or a list of lists, one per prompt. Several at one
   * point are made in their order. What is kept, and the logits, are what came of them. Default: none.
   */
  readonly interventions?: readonly Intervention[] | readonly (readonly Intervention[])[]
}

/** Options of {@link Model.logitLens}: targets, the most likely tokens, or both. */
export interface LensOptions extends PromptOptions {
  /** What is read at every state: one target for all prompts, or one per prompt. */
  readonly targets?: Target | readonly Target[]
  /** The k most likely tokens at every state. */
  readonly top?: number
  /** The final norm of a stream that is not final: computed anew on it (default), or held at its scale of the run. */
  readonly norm?: 'recomputed' | 'frozen'
}

/** Options of {@link Model.attributeSources}. */
export interface SourcesOptions extends PromptOptions {
  /** Labels of heads, `L9H6`. Default: all of them. */
  readonly heads?: readonly string[]
  /** As for {@link Model.attribute}. */
  readonly norm?: 'frozen' | 'none'
  /** As for {@link Model.attribute}. */
  readonly onViolation?: 'throw' | 'warn'
}

/** Options of {@link Model.topTokens}. */
export interface TopTokensOptions extends PromptOptions {
  /** The components. Default `'head'`. */
  readonly unit?: 'layer' | 'head' | 'neuron'
  /** Labels of components of that unit. Default: all of them. */
  readonly components?: readonly string[]
  /** Tokens each way. Default 10. */
  readonly k?: number
  /** Tokens to leave out: a list, or `'special'`: special and reserved tokens, and ids that the tokenizer does not have. */
  readonly mask?: 'special' | readonly Token[]
}

/** Options of {@link Model.attributeDirections}. */
export interface DirectionsOptions extends PromptOptions {
  /** A point of the residual stream. Default: the stream that enters the final norm. */
  readonly at?: ResidualHook
  /** The columns. Default `'head'`. */
  readonly unit?: 'layer' | 'head'
  /** As for {@link Model.attribute}. */
  readonly onViolation?: 'throw' | 'warn'
}

const LOAD_OPTIONS = [
  'device', 'dtype', 'threads', 'memoryLimit', 'allowCustomRegex', 'allowUnknownConfig', 'kernels',
  ...CALL_OPTIONS,
] as const // prettier-ignore
const ATTRIBUTE_OPTIONS = [...ATTRIBUTING_OPTIONS, ...PROMPT_OPTIONS] as const

/** A loaded model. Close it when done, or let `await using` do it: the weights live outside the JavaScript heap. */
export class Model implements AsyncDisposable {
  /** The resolved config, frozen. */
  readonly config: ModelConfig
  /** What it really runs on. */
  readonly device: Device
  /** What weights are held and multiplied in; all else is f32. */
  readonly dtype: Dtype
  /** Why it runs there, in words: what was found, or what is missing. */
  readonly deviceReason: string
  /** The checkpoint's tokenizer, if it has one. */
  readonly tokenizer: Tokenizer | undefined

  readonly #native: NativeModel
  readonly #origin: Origin
  readonly #texts = new Map<number, string>()
  readonly #columns = new Map<'layer' | 'head' | 'neuron', readonly Component[]>()
  #fingerprint: Promise<string> | undefined
  #closing: Promise<void> | undefined

  private constructor(model: NativeModel, { device, dtype, reason }: Placement) {
    this.#native = model
    this.device = device
    this.dtype = dtype
    this.deviceReason = reason
    this.config = deepFreeze(JSON.parse(model.config()) as ModelConfig)
    this.tokenizer = model.hasTokenizer() ? new Tokenizer(model) : undefined
    const { family, unknownKeys: unknownConfig } = this.config
    this.#origin = {
      provenance: Object.freeze({ family, device, deviceReason: reason, dtype, unknownConfig }),
      tokenText: (id) => this.tokenText(id),
      remember: (ids) => ids.forEach((id) => this.tokenText(id)),
      fingerprint: () => this.fingerprint.catch(() => undefined),
    }
  }

  /** @internal A token's text, remembered; its id where the tokenizer has none: weights are often padded to more tokens. */
  tokenText(id: number): string {
    const known = this.#texts.get(id)
    if (known !== undefined) return known
    if (!this.tokenizer || this.closed || this.tokenizer.idToToken(id) === undefined) return `#${id}`
    const text = this.tokenizer.decode([id])
    this.#texts.set(id, text)
    return text
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
    const kernels = oneOf('kernels', options.kernels, ['fused', 'plain'], 'fused')
    const fixed = {
      allowCustomRegex: optionalFlag('allowCustomRegex', options.allowCustomRegex) ?? false,
      allowUnknownConfig: optionalFlag('allowUnknownConfig', options.allowUnknownConfig) ?? false,
    }
    const threads = wholeNumber('threads', options.threads, 1, 1024)
    const memoryLimit = wholeNumber('memoryLimit', options.memoryLimit, 1, Number.MAX_SAFE_INTEGER)
    const limits = { ...(threads === undefined ? {} : { threads }), ...(memoryLimit === undefined ? {} : { memoryLimit }) }
    return onDevice(options.device, options.dtype, async (placement) => {
      const { addon, device, dtype } = placement
      if (device !== 'cpu' && options.kernels === 'fused')
        throw invalidArgument('kernels', 'fused', "'plain': the fused kernels are the CPU's")
      const where = device === 'cpu' ? { device, kernels } : { device, dtype }
      const load = { ...where, ...fixed, ...limits }
      return new Model(
        await callOf(addon, options, (cancel, report) => addon.loadModel(directory, load, cancel, report)),
        placement,
      )
    })
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
    return this.#attribute(prompts, targets, options, 0)
  }

  async #attribute(prompts: unknown, targets: unknown, options: AttributeOptions, firstPrompt: number): Promise<Attribution> {
    const asked = nativeAsked(prompts, options)
    const attributing = nativeAttributing(targets, asked.prompts.length, options)
    const directions = copiedDirections(attributing.targets, asked.prompts.length)
    // with `top` the result says which columns were kept: a large model has millions of neurons
    const all = attributing.top === undefined ? this.#components(attributing.unit) : []
    const result = await call(this.#native, options, (cancel, report) =>
      this.#native.attribute({ asked, attributing }, cancel, report),
    )
    return this.#attribution(result, result.components ? frozen(result.components) : all, directions, attributing, firstPrompt)
  }

  #attribution(
    result: NativeAttribution,
    components: readonly Component[],
    directions: (Float32Array | undefined)[],
    attributing: NativeAttributing,
    firstPrompt = 0,
  ): Attribution {
    const { unit, convention, norm = 'frozen' } = attributing as Method
    if (result.violations > 0 && norm !== 'none') warnIncomplete(result.violations)
    return new Attribution(result, components, directions, { unit, norm, convention }, this.#origin, firstPrompt)
  }

  /**
   * Attributes prompts as they come, in micro-batches, and yields a result for each; memory does not grow with the stream.
   * The next batch is computed while one is looked at; leaving the loop early stops it.
   *
   * @param items prompts with their targets: a list, a generator, or an async iterable
   * @param options as for {@link attribute}; `batchPrompts`: prompts per result, 256 by default
   * @throws {PrismError} as {@link attribute}; `details.firstPrompt` tells the batch
   */
  async *attributeStream(
    items: Iterable<StreamItem> | AsyncIterable<StreamItem>,
    options: StreamOptions = {},
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
        return await this.#attribute(prompts, targets, { ...rest, signal: either }, first)
      } catch (error) {
        throw inStream(error, first)
      }
    }
    yield* ahead(batched(items, size), start, stop, options.signal, onProgress)
  }

  /**
   * Attributes prompts as they come and reduces them as {@link Attribution.mean} does: memory of the summary only.
   *
   * @param options as for {@link attributeStream}, with `seed`, `resamples` and `leading` for the interval and stability
   * @throws {PrismError} as {@link attributeStream}; `INVALID_ARGUMENT` for an empty stream, or `top`, whose columns differ
   */
  async attributeSummary(
    items: Iterable<StreamItem> | AsyncIterable<StreamItem>,
    options: SummaryOptions = {},
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
    for await (const result of this.attributeStream(items, rest)) {
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
      origin: this.#origin,
      components,
      certified,
      worst,
    })
  }

  /**
   * Runs prompts and keeps hook points and logits.
   *
   * @throws {PrismError} `UNKNOWN_HOOK` with the reason or the nearest names, `MEMORY` before anything is run, and those
   * of tokenising and of the forward pass; of interventions `INVALID_ARGUMENT`, `POSITION_RANGE`, and `NOT_CACHED` with
   * the points that a run would have had to keep
   */
  async run(prompts: readonly Prompt[], options: RunOptions = {}): Promise<Run> {
    checkKeys('run', options, ['cache', 'logits', 'interventions', ...PROMPT_OPTIONS])
    const cache: unknown = options.cache === undefined ? [] : options.cache
    const isNames = (list: unknown): list is string[] => Array.isArray(list) && list.every((name) => typeof name === 'string')
    if (!isNames(cache)) throw invalidArgument('cache', cache, 'a list of names')
    const asked = nativeAsked(prompts, options, 'all')
    const request = { asked, points: [...cache], logits: oneOf('logits', options.logits, ['last', 'all', 'none'], 'last') }
    const { changes, runs } = nativeInterventions(options.interventions, asked.prompts.length)
    const run = await call(this.#native, options, (cancel, report) => this.#native.run(request, changes, runs, cancel, report))
    return new Run(run, this.#origin, (unit) => this.#components(unit))
  }

  /**
   * The causal check: replaces every component, one at a time, computes everything behind it again, and tells how much the
   * target falls, how much of that was direct, and who took over. By default a component is replaced at the row's own
   * position: what is said of it is about its part at this position.
   *
   * @param prompts texts or token ids, of any lengths
   * @param targets one target for all prompts, or one per prompt; `'predicted'` is what the clean run predicts
   * @throws {PrismError} as {@link attribute}; `INVALID_ARGUMENT` for labels that name no component, and for references
   * that are too short
   */
  async ablate(prompts: readonly Prompt[], targets: Target | readonly Target[], options: AblateOptions = {}): Promise<Causal> {
    checkKeys('ablate', options, [...ABLATE_OPTIONS, ...PROMPT_OPTIONS])
    const asked = nativeAsked(prompts, options)
    const list = nativeTargets(targets, asked.prompts.length)
    const directions = copiedDirections(list, asked.prompts.length)
    const unit = oneOf('unit', options.unit, ['layer', 'head'], 'head')
    const { words, ...set } = nativeSet(options.set)
    const components = labels('components', options.components)
    const { ablateAt = 'row' } = options
    const where = ablateAt === 'row' ? undefined : ablatedPositions(ablateAt)
    const request = {
      asked,
      targets: list,
      unit,
      ...set,
      ...(components === undefined ? {} : { components }),
      ...(where === undefined ? {} : { at: where }),
      onViolation: oneOf('onViolation', options.onViolation, ['throw', 'warn'], 'throw'),
    }
    const method = { unit, set: words, ablateAt: structuredClone(ablateAt) }
    const causal = await call(this.#native, options, (cancel, report) => this.#native.ablate(request, cancel, report))
    if (causal.violations > 0) warnUnexplained(causal.violations)
    const erase: Erase = (ids, prompt, position, label) => {
      const encoded = (text: string) =>
        this.tokenizer?.encode(text, asked.prependBos === undefined ? {} : { prependBos: asked.prependBos }) ?? text
      const references = set.set === 'from' ? set.reference?.slice(prompt, prompt + 1) : set.reference
      const reference = references?.map((given) => (typeof given === 'string' ? encoded(given) : given))
      const at = where?.perPrompt ? { of: where.perPrompt[prompt] ?? [] } : where
      const one = {
        ...request,
        asked: { prompts: [ids], positions: { of: [position] } },
        components: [label],
        ...(reference === undefined ? {} : { reference }),
        ...(at === undefined ? {} : { at }),
      }
      return call(this.#native, {}, (cancel) => this.#native.erasure(one, cancel))
    }
    return new Causal(causal, directions, method, this.#origin, erase)
  }

  /**
   * Whether a circuit does a task: everything else is ablated, at every position (heads at `hook_z`, MLPs before a norm behind
   * them; embeddings stay unless `over` names them), and what is left of the target is measured. On demand completeness and
   * minimality, as Wang et al. 2022, section 4, define them (arXiv:2211.00593). Every set of components is a run of its own.
   *
   * @param prompts texts or token ids, of any lengths: those of the ablation, or others
   * @param targets one target for all prompts, or one per prompt; `'predicted'` is what the clean run predicts
   * @param circuit what {@link Causal.circuit} returned
   * @throws {PrismError} as {@link attribute}; `INVALID_ARGUMENT` for a circuit of another model, parts that are not of the
   * circuit, and references that are too short
   */
  faithfulness(
    prompts: readonly Prompt[],
    targets: Target | readonly Target[],
    circuit: CausalCircuit,
    options: FaithfulnessOptions = {},
  ): Promise<Faithfulness> {
    const model = { native: this.#native, origin: this.#origin, components: this.#components('head') }
    return faithfulness(model, prompts, targets, circuit, options)
  }

  /**
   * Activation patching: values of one run of every pair (`clean[i]`, `corrupt[i]`) stand in the other, one place at a time,
   * and everything behind is computed again. Tokens of targets are resolved behind the clean prompt.
   *
   * @throws {PrismError} as {@link attribute}; `INVALID_ARGUMENT` for pairs of different lengths without named positions
   */
  async patch(
    clean: readonly Prompt[],
    corrupt: readonly Prompt[],
    targets: Target | readonly Target[],
    options: PatchOptions = {},
  ): Promise<Patched> {
    checkKeys('patch', options, [...PATCH_OPTIONS, ...PROMPT_OPTIONS])
    const { over, direction, ...patching } = nativePatching(options)
    const { pairs, directions } = this.#pairs(clean, corrupt, targets, options)
    const request = { pairs, ...patching, noising: direction === 'noising' }
    const patched = await call(this.#native, options, (cancel, report) => this.#native.patch(request, cancel, report))
    const method = { change: 'patch', at: patching.at, over, direction } as const
    return new Patched(patched, { ...this.config, senders: [] }, directions, deepFreeze(method), this.#origin)
  }

  /**
   * Path patching: what senders write in the corrupted run reaches the receivers of the clean run, along the direct path; the
   * receivers read `x + Σ (corrupted write − clean write)`, their norm computed anew, and everything behind them is computed
   * again. Nothing between senders and receivers moves, or with `through: 'mlps'` only the MLPs there do (Wang et al. 2022).
   *
   * @throws {PrismError} as {@link patch}; `INVALID_ARGUMENT` for receivers that do not read what a sender writes
   */
  async patchPaths(
    clean: readonly Prompt[],
    corrupt: readonly Prompt[],
    targets: Target | readonly Target[],
    options: PathOptions,
  ): Promise<Patched> {
    checkKeys('patchPaths', options, [...PATH_OPTIONS, ...PROMPT_OPTIONS])
    const way = nativePaths(options)
    const { pairs, directions } = this.#pairs(clean, corrupt, targets, options)
    const from = labels('from', options.from)
    const to = labels('to', options.to) ?? []
    const request = { pairs, ...(from === undefined ? {} : { from }), to, ...way }
    const paths = await call(this.#native, options, (cancel, report) => this.#native.patchPaths(request, cancel, report))
    const senders = frozen(paths.senders)
    const through = way.throughMlps ? 'mlps' : 'nothing'
    const names = senders.map(({ label }) => label)
    const method = { change: 'path', from: names, to: paths.receivers, each: way.each, through } as const
    return new Patched(paths.patched, { ...this.config, senders }, directions, deepFreeze(method), this.#origin)
  }

  /** Pairs of prompts as the addon takes them. */
  #pairs(clean: unknown, corrupt: unknown, targets: unknown, options: PairOptions) {
    const asked = nativeAsked(clean, options)
    if (!Array.isArray(corrupt)) throw invalidArgument('corrupt', corrupt, 'a list of prompts')
    const list = nativeTargets(targets, asked.prompts.length)
    const directions = copiedDirections(list, asked.prompts.length)
    return { pairs: { asked, corrupt: Array.from(corrupt, nativePrompt), targets: list, ...nativeSpots(options) }, directions }
  }

  /** @internal Reads a saved run. */
  async loadRun(path: string | URL): Promise<Run> {
    const file = filePath(path)
    const run = await call(this.#native, {}, () => this.#native.loadRun(file))
    return new Run(run, this.#origin, (unit) => this.#components(unit))
  }

  /**
   * The logit lens: targets, or the most likely tokens, read from the stream before and after every sublayer.
   *
   * @throws {PrismError} as {@link attribute}
   */
  async logitLens(prompts: readonly Prompt[], options: LensOptions): Promise<LogitLens> {
    checkKeys('logitLens', options, ['targets', 'top', 'norm', ...PROMPT_OPTIONS])
    const asked = nativeAsked(prompts, options)
    const targets = options.targets === undefined ? [] : nativeTargets(options.targets, asked.prompts.length)
    const directions = copiedDirections(targets, asked.prompts.length)
    const norm = oneOf('norm', options.norm, ['recomputed', 'frozen'], 'recomputed')
    const top = wholeNumber('top', options.top, 1, this.config.dVocab) ?? 0
    const lens = await call(this.#native, options, (cancel, report) =>
      this.#native.lens({ asked, targets, norm, top }, cancel, report),
    )
    return new LogitLens(lens, norm, directions, this.#origin)
  }

  /**
   * Attributes, and splits heads by the position that they moved from.
   *
   * @throws {PrismError} as {@link attribute}; `INVALID_ARGUMENT` for labels that name no head
   */
  async attributeSources(
    prompts: readonly Prompt[],
    targets: Target | readonly Target[],
    options: SourcesOptions = {},
  ): Promise<AttributionSources> {
    checkKeys('attributeSources', options, ['heads', 'norm', 'onViolation', ...PROMPT_OPTIONS])
    const asked = nativeAsked(prompts, options)
    const attributing = nativeAttributing(targets, asked.prompts.length, options)
    const directions = copiedDirections(attributing.targets, asked.prompts.length)
    const heads = labels('heads', options.heads)
    const request = { asked, attributing, ...(heads === undefined ? {} : { heads }) }
    const components = this.#components('head')
    const sources = await call(this.#native, options, (cancel, report) => this.#native.sources(request, cancel, report))
    const attribution = this.#attribution(sources.attribution, components, directions, attributing)
    return new AttributionSources(sources, attribution, this.#origin)
  }

  /**
   * For every component the tokens of the whole vocabulary that it raises and lowers most.
   *
   * @throws {PrismError} as {@link attribute}; `INVALID_ARGUMENT` for labels that name no component
   */
  async topTokens(prompts: readonly Prompt[], options: TopTokensOptions = {}): Promise<TopTokens> {
    checkKeys('topTokens', options, ['unit', 'components', 'k', 'mask', ...PROMPT_OPTIONS])
    const asked = nativeAsked(prompts, options)
    const unit = oneOf('unit', options.unit, ['layer', 'head', 'neuron'], 'head')
    const k = wholeNumber('k', options.k, 1, this.config.dVocab) ?? Math.min(10, this.config.dVocab)
    const components = labels('components', options.components)
    const masked = this.#masked(options.mask)
    const request = { asked, unit, k, masked, ...(components === undefined ? {} : { components }) }
    const tokens = await call(this.#native, options, (cancel, report) => this.#native.topTokens(request, cancel, report))
    return new TopTokens(tokens, k, this.#origin)
  }

  #masked(mask: unknown): Uint32Array {
    if (mask === undefined) return new Uint32Array()
    if (mask === 'special') return this.specialTokens()
    if (!Array.isArray(mask)) throw invalidArgument('mask', mask, "'special', or a list of tokens")
    return this.#tokenIds('mask', mask)
  }

  /** @internal The tokens that no text is made of: special and reserved ones, and ids that the tokenizer does not have. */
  specialTokens(): Uint32Array {
    return native(() => this.#native.specialTokens())
  }

  /** The ids of tokens outside of any prompt: each text must be one token alone. */
  #tokenIds(argument: string, tokens: readonly unknown[]): Uint32Array {
    return Uint32Array.from(nativeTokens(argument, tokens), (token) => {
      if (typeof token === 'number') return token
      const ids = this.tokenizer?.encode(token, { prependBos: false })
      if (ids?.length === 1) return ids[0] ?? 0
      throw invalidArgument(argument, token, 'one token alone')
    })
  }

  /**
   * The circuits of a head from its weights alone: what it moves (`.ov`) and where it looks (`.qk()`).
   *
   * @throws {PrismError} `INVALID_ARGUMENT`, `UNKNOWN_OPTION`
   */
  circuit(layer: number, head: number, options: CircuitOptions = {}): HeadCircuit {
    const { nLayers, nHeads, dModel, dHead, dVocab } = this.config
    const model: CircuitModel = {
      native: this.#native,
      origin: this.#origin,
      dModel,
      dHead,
      dVocab,
      tokenIds: (argument, tokens) => this.#tokenIds(argument, tokens),
      masked: (mask) => this.#masked(mask),
    }
    return new HeadCircuit(model, index('layer', layer, nLayers), index('head', head, nHeads), options)
  }

  /**
   * How much of what earlier heads can write lies where later heads read, for all pairs of heads, from weights alone.
   *
   * @param kind what of the later head is fed: its queries, keys or values
   * @throws {PrismError} `CONFIG_UNSUPPORTED` for models that clip values and, for `'Q'` and `'K'`, with norms of queries and
   * keys; `INVALID_ARGUMENT`, `UNKNOWN_OPTION`, `MEMORY`, `ABORTED`
   */
  async compositionScores(kind: 'Q' | 'K' | 'V', options: CompositionOptions = {}): Promise<CompositionScores> {
    checkKeys('compositionScores', options, COMPOSITION_OPTIONS)
    if (kind === undefined) throw invalidArgument('kind', kind, "'Q' or 'K' or 'V'")
    const request = {
      kind: oneOf('kind', kind, ['Q', 'K', 'V'], 'K'),
      foldNorms: optionalFlag('foldNorms', options.foldNorms) ?? true,
      baseline: wholeNumber('baseline', options.baseline, 2, 100_000) ?? 50,
      seed: wholeNumber('seed', options.seed, 0, 2 ** 32 - 1) ?? 0,
    }
    const scores = await call(this.#native, options, (cancel, report) => this.#native.composition(request, cancel, report))
    return new CompositionScores(scores, request.kind, request.baseline, this.#origin)
  }

  /**
   * Many directions at once, each read raw at a point of the residual stream: values [rows, directions, components].
   *
   * @param directions vectors of length dModel: a list, or one Float32Array that holds them one after the other
   * @throws {PrismError} `UNKNOWN_HOOK`, `INVALID_ARGUMENT`, `INCOMPLETE`, and those of tokenising and of the forward pass
   */
  async attributeDirections(
    prompts: readonly Prompt[],
    directions: Float32Array | readonly Float32Array[],
    options: DirectionsOptions = {},
  ): Promise<DirectionAttribution> {
    checkKeys('attributeDirections', options, ['at', 'unit', 'onViolation', ...PROMPT_OPTIONS])
    const asked = nativeAsked(prompts, options)
    const { dModel, nLayers } = this.config
    const flat = flatDirections(directions)
    if (!flat || flat.length === 0 || flat.length % dModel !== 0) {
      throw invalidArgument('directions', directions, `a list of Float32Arrays of ${dModel} numbers, or one that holds them all`)
    }
    const at = options.at ?? (`blocks.${nLayers - 1}.hook_resid_post` as const)
    if (typeof at !== 'string') throw invalidArgument('at', at, 'the name of a hook point')
    const unit = oneOf('unit', options.unit, ['layer', 'head'], 'head')
    const onViolation = oneOf('onViolation', options.onViolation, ['throw', 'warn'], 'throw')
    const request = { asked, directions: flat, at, unit, onViolation }
    const probe = await call(this.#native, options, (cancel, report) => this.#native.probe(request, cancel, report))
    if (probe.violations > 0) warnIncomplete(probe.violations)
    return new DirectionAttribution(probe, at, flat.length / dModel, this.#origin)
  }

  /**
   * Runs prompts and keeps the attention patterns of heads.
   *
   * @throws {PrismError} `MEMORY` before anything is run, `INVALID_ARGUMENT` for labels that name no head, and those of
   * tokenising and of the forward pass
   */
  async attention(prompts: readonly Prompt[], options: AttentionOptions = {}): Promise<Attention> {
    checkKeys('attention', options, ATTENTION_OPTIONS)
    const { prompts: list, prependBos } = nativeAsked(
      prompts,
      options.prependBos === undefined ? {} : { prependBos: options.prependBos },
    )
    const heads = labels('heads', options.heads)
    const patterns = await call(this.#native, options, (cancel, report) =>
      this.#native.attention(list, heads, prependBos, cancel, report),
    )
    return new Attention(patterns, this.#origin)
  }

  /**
   * Tests heads on random tokens: for induction and duplicate-token heads on sequences that repeat against sequences that
   * do not, for previous-token heads against other distances. The sequences are seeded and hold no special token.
   *
   * @throws {PrismError} `INVALID_ARGUMENT` for sequences that context or vocabulary do not allow, `MEMORY`, `ABORTED`, …
   */
  async detectHeads(options: DetectOptions = {}): Promise<DetectedHead[]> {
    checkKeys('detectHeads', options, DETECT_OPTIONS)
    const { nContext, dVocab, bosToken } = this.config
    const heads = labels('heads', options.heads)
    const special = new Set(this.specialTokens())
    if (bosToken !== null) special.add(bosToken)
    const longest = Math.max(2, Math.min(25, Math.floor((nContext - 1) / 2), Math.floor((dVocab - special.size) / 2)))
    const request = {
      sequences: wholeNumber('sequences', options.sequences, 2, 100_000) ?? 20,
      length: wholeNumber('length', options.length, 2, nContext) ?? longest,
      seed: wholeNumber('seed', options.seed, 0, 2 ** 32 - 1) ?? 0,
      ...(heads === undefined ? {} : { heads }),
    }
    const level = between('level', options.level, 0, 1, 0.01)
    const threshold = between('threshold', options.threshold, 0, 1, 0.2)
    const found = await call(this.#native, options, (cancel, report) => this.#native.detectHeads(request, cancel, report))
    return found.map((head) => detectedHead(head, level, threshold))
  }

  /**
   * The heads that attribution ranks highest, in both their halves: where they look and what they move, row by row, whether
   * they copy, and with which heads they compose. It observes: only an ablation shows that a head matters.
   *
   * @throws {PrismError} as {@link attribute}
   */
  describeHeads(
    prompts: readonly Prompt[],
    targets: Target | readonly Target[],
    options: DescribeOptions = {},
  ): Promise<HeadDescription[]> {
    return describeHeads(this, prompts, targets, options)
  }

  /**
   * How well the model answers a data set: whether the answer's logit is above its rival's and above all others, the
   * difference of the two, and probabilities, item by item and in the mean. It runs the prompts in batches and keeps no
   * logits; with `corrupted: true` it asks the twins the same.
   *
   * @throws {PrismError} those of the forward pass, `UNKNOWN_OPTION`, `INVALID_ARGUMENT`
   */
  evaluate(dataset: Dataset, options?: EvaluateOptions): Promise<Evaluation>
  /**
   * The same of your own prompts.
   *
   * @param choices one answer and its rival for all, or one per prompt
   * @throws {PrismError} `NOT_ONE_TOKEN`, `TOKEN_RANGE`, and those of tokenising and of the forward pass
   */
  evaluate(prompts: readonly Prompt[], choices: Choice | readonly Choice[], options?: EvaluateOptions): Promise<Evaluation>
  evaluate(
    what: Dataset | readonly Prompt[],
    second: EvaluateOptions | Choice | readonly Choice[] = {},
    third: EvaluateOptions = {},
  ): Promise<Evaluation> {
    return evaluate(this, what, second, third)
  }

  /** The hook points that this model has, in the order of the forward pass. */
  get hookNames(): HookName[] {
    return native(() => this.#native.hookNames()) as HookName[]
  }

  /** The hook points that a run must keep so that {@link Run.attribute} and {@link Run.decompose} can read it. */
  attributionHooks(options: Pick<AttributeOptions, 'unit' | 'convention'> = {}): HookName[] {
    checkKeys('attributionHooks', options, ['unit', 'convention'])
    const unit = oneOf('unit', options.unit, ['layer', 'head', 'neuron'], 'head')
    const convention = oneOf('convention', options.convention, ['default', 'transformerlens'], 'default')
    return native(() => this.#native.attributionHooks(unit, convention)) as HookName[]
  }

  /** Peak bytes of the forward pass over `tokens` tokens of one prompt, besides the weights; each thread of a CPU takes as much. */
  forwardBytes(tokens: number): number {
    return native(() => this.#native.forwardBytes(wholeNumber('tokens', tokens, 1, 2 ** 32 - 1) ?? 1))
  }

  /** Tokens that are computed together by default, on this device: `batchTokens` of a call says otherwise. */
  get batchTokens(): number {
    return native(() => this.#native.chunkTokens())
  }

  /** SHA-256 over config and weights as they lie on disk, in hex; computed the first time it is asked for. */
  get fingerprint(): Promise<string> {
    this.#fingerprint ??= call(this.#native, {}, () => this.#native.fingerprint())
    return this.#fingerprint
  }

  /** What the columns of a result are. */
  components(unit: 'layer' | 'head' | 'neuron' = 'head'): readonly Component[] {
    return this.#components(oneOf('unit', unit, ['layer', 'head', 'neuron'], 'head'))
  }

  /** One list for all results: there may be hundreds of thousands of neurons. */
  #components(unit: 'layer' | 'head' | 'neuron'): readonly Component[] {
    const components = this.#columns.get(unit) ?? frozen(native(() => this.#native.components(unit)))
    this.#columns.set(unit, components)
    return components
  }

  /** Numbers of the weights. */
  get parameters(): number {
    return native(() => this.#native.parameters())
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

  /** Closes it. */
  [Symbol.asyncDispose](): Promise<void> {
    return this.close()
  }

  [Symbol.for('nodejs.util.inspect.custom')](): string {
    const { family, nLayers, nHeads, dModel, dVocab } = this.config
    const sizes = `${nLayers} layers × ${nHeads} heads, dModel ${dModel}, dVocab ${dVocab}`
    return `Model: ${family}, ${sizes}, on ${this.device}${this.closed ? ', closed' : ''}`
  }
}

function labels(argument: string, list: unknown): string[] | undefined {
  if (list === undefined) return undefined
  if (Array.isArray(list) && list.length > 0 && list.every((label) => typeof label === 'string')) return [...list]
  throw invalidArgument(argument, list, 'a list of labels')
}
