import { ablate, type AblateOptions } from './ablate.js'
import { attention, type Attention, type AttentionOptions } from './attention.js'
import { attribute, type AttributeOptions, type Attribution } from './attribution.js'
import type { Causal } from './causal.js'
import type { CausalCircuit } from './causal-circuit.js'
import { type CircuitOptions, HeadCircuit } from './circuit.js'
import type { Component } from './components.js'
import { type CompositionOptions, compositionScores, type CompositionScores } from './composition.js'
import type { ModelConfig } from './config.js'
import type { Choice, Dataset } from './data/dataset.js'
import { type DetectedHead, detectHeads, type DetectOptions } from './detect.js'
import type { Device, Dtype } from './device.js'
import { attributeDirections, type DirectionAttribution, type DirectionsOptions } from './directions.js'
import { native } from './errors.js'
import { evaluate, type EvaluateOptions, type Evaluation } from './evaluate.js'
import { type Faithfulness, faithfulness, type FaithfulnessOptions } from './faithfulness.js'
import { loadRun, run, type RunOptions } from './forward.js'
import { describeHeads, type DescribeOptions, type HeadDescription } from './heads.js'
import type { HookName } from './hooks.js'
import { type LensOptions, logitLens, type LogitLens } from './lens.js'
import { load, type LoadOptions } from './load.js'
import type { Loaded } from './loaded.js'
import { checkKeys, index, oneOf, wholeNumber } from './options.js'
import { patch, type PatchOptions, patchPaths, type PathOptions } from './patch.js'
import type { Patched } from './patched.js'
import type { Run } from './run.js'
import { attributeSources, type AttributionSources, type SourcesOptions } from './sources.js'
import {
  attributeStream,
  attributeSummary,
  type AttributionSummary,
  type StreamItem,
  type StreamOptions,
  type SummaryOptions,
} from './stream.js'
import type { Target } from './targets.js'
import type { Prompt, Tokenizer } from './tokens.js'
import { topTokens, type TopTokens, type TopTokensOptions } from './top-tokens.js'

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

  readonly #loaded: Loaded

  private constructor(loaded: Loaded) {
    this.#loaded = loaded
    this.config = loaded.config
    this.tokenizer = loaded.tokenizer
    this.device = loaded.placement.device
    this.dtype = loaded.placement.dtype
    this.deviceReason = loaded.placement.reason
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
    return new Model(await load(path, options))
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
  attribute(prompts: readonly Prompt[], targets: Target | readonly Target[], options: AttributeOptions = {}): Promise<Attribution> {
    return attribute(this.#loaded, prompts, targets, options)
  }

  /**
   * Attributes prompts as they come, in micro-batches, and yields a result for each; memory does not grow with the stream.
   * The next batch is computed while one is looked at; leaving the loop early stops it.
   *
   * @param items prompts with their targets: a list, a generator, or an async iterable
   * @param options as for {@link attribute}; `batchPrompts`: prompts per result, 256 by default
   * @throws {PrismError} as {@link attribute}; `details.firstPrompt` tells the batch
   */
  attributeStream(
    items: Iterable<StreamItem> | AsyncIterable<StreamItem>,
    options: StreamOptions = {},
  ): AsyncGenerator<Attribution, void, undefined> {
    return attributeStream(this.#loaded, items, options)
  }

  /**
   * Attributes prompts as they come and reduces them as {@link Attribution.mean} does: memory of the summary only.
   *
   * @param options as for {@link attributeStream}, with `seed`, `resamples` and `leading` for the interval and stability
   * @throws {PrismError} as {@link attributeStream}; `INVALID_ARGUMENT` for an empty stream, or `top`, whose columns differ
   */
  attributeSummary(
    items: Iterable<StreamItem> | AsyncIterable<StreamItem>,
    options: SummaryOptions = {},
  ): Promise<AttributionSummary> {
    return attributeSummary(this.#loaded, items, options)
  }

  /**
   * Attributes, and splits heads by the position that they moved from.
   *
   * @throws {PrismError} as {@link attribute}; `INVALID_ARGUMENT` for labels that name no head
   */
  attributeSources(
    prompts: readonly Prompt[],
    targets: Target | readonly Target[],
    options: SourcesOptions = {},
  ): Promise<AttributionSources> {
    return attributeSources(this.#loaded, prompts, targets, options)
  }

  /**
   * Many directions at once, each read raw at a point of the residual stream: values [rows, directions, components].
   *
   * @param directions vectors of length dModel: a list, or one Float32Array that holds them one after the other
   * @throws {PrismError} `UNKNOWN_HOOK`, `INVALID_ARGUMENT`, `INCOMPLETE`, and those of tokenising and of the forward pass
   */
  attributeDirections(
    prompts: readonly Prompt[],
    directions: Float32Array | readonly Float32Array[],
    options: DirectionsOptions = {},
  ): Promise<DirectionAttribution> {
    return attributeDirections(this.#loaded, prompts, directions, options)
  }

  /**
   * For every component the tokens of the whole vocabulary that it raises and lowers most.
   *
   * @throws {PrismError} as {@link attribute}; `INVALID_ARGUMENT` for labels that name no component
   */
  topTokens(prompts: readonly Prompt[], options: TopTokensOptions = {}): Promise<TopTokens> {
    return topTokens(this.#loaded, prompts, options)
  }

  /**
   * The logit lens: targets, or the most likely tokens, read from the stream before and after every sublayer.
   *
   * @throws {PrismError} as {@link attribute}
   */
  logitLens(prompts: readonly Prompt[], options: LensOptions): Promise<LogitLens> {
    return logitLens(this.#loaded, prompts, options)
  }

  /**
   * Runs prompts and keeps hook points and logits.
   *
   * @throws {PrismError} `UNKNOWN_HOOK` with the reason or the nearest names, `MEMORY` before anything is run, and those
   * of tokenising and of the forward pass; of interventions `INVALID_ARGUMENT`, `POSITION_RANGE`, and `NOT_CACHED` with
   * the points that a run would have had to keep
   */
  run(prompts: readonly Prompt[], options: RunOptions = {}): Promise<Run> {
    return run(this.#loaded, prompts, options)
  }

  /** @internal Reads a saved run. */
  loadRun(path: string | URL): Promise<Run> {
    return loadRun(this.#loaded, path)
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
  ablate(prompts: readonly Prompt[], targets: Target | readonly Target[], options: AblateOptions = {}): Promise<Causal> {
    return ablate(this.#loaded, prompts, targets, options)
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
    return faithfulness(this.#loaded, prompts, targets, circuit, options)
  }

  /**
   * Activation patching: values of one run of every pair (`clean[i]`, `corrupt[i]`) stand in the other, one place at a time,
   * and everything behind is computed again. Tokens of targets are resolved behind the clean prompt.
   *
   * @throws {PrismError} as {@link attribute}; `INVALID_ARGUMENT` for pairs of different lengths without named positions
   */
  patch(
    clean: readonly Prompt[],
    corrupt: readonly Prompt[],
    targets: Target | readonly Target[],
    options: PatchOptions = {},
  ): Promise<Patched> {
    return patch(this.#loaded, clean, corrupt, targets, options)
  }

  /**
   * Path patching: what senders write in the corrupted run reaches the receivers of the clean run, along the direct path; the
   * receivers read `x + Σ (corrupted write − clean write)`, their norm computed anew, and everything behind them is computed
   * again. Nothing between senders and receivers moves, or with `through: 'mlps'` only the MLPs there do (Wang et al. 2022).
   *
   * @throws {PrismError} as {@link patch}; `INVALID_ARGUMENT` for receivers that do not read what a sender writes
   */
  patchPaths(
    clean: readonly Prompt[],
    corrupt: readonly Prompt[],
    targets: Target | readonly Target[],
    options: PathOptions,
  ): Promise<Patched> {
    return patchPaths(this.#loaded, clean, corrupt, targets, options)
  }

  /**
   * Runs prompts and keeps the attention patterns of heads.
   *
   * @throws {PrismError} `MEMORY` before anything is run, `INVALID_ARGUMENT` for labels that name no head, and those of
   * tokenising and of the forward pass
   */
  attention(prompts: readonly Prompt[], options: AttentionOptions = {}): Promise<Attention> {
    return attention(this.#loaded, prompts, options)
  }

  /**
   * Tests heads on random tokens: for induction and duplicate-token heads on sequences that repeat against sequences that
   * do not, for previous-token heads against other distances. The sequences are seeded and hold no special token.
   *
   * @throws {PrismError} `INVALID_ARGUMENT` for sequences that context or vocabulary do not allow, `MEMORY`, `ABORTED`, …
   */
  detectHeads(options: DetectOptions = {}): Promise<DetectedHead[]> {
    return detectHeads(this.#loaded, options)
  }

  /**
   * The circuits of a head from its weights alone: what it moves (`.ov`) and where it looks (`.qk()`).
   *
   * @throws {PrismError} `INVALID_ARGUMENT`, `UNKNOWN_OPTION`
   */
  circuit(layer: number, head: number, options: CircuitOptions = {}): HeadCircuit {
    const { nLayers, nHeads } = this.config
    return new HeadCircuit(this.#loaded, index('layer', layer, nLayers), index('head', head, nHeads), options)
  }

  /**
   * How much of what earlier heads can write lies where later heads read, for all pairs of heads, from weights alone.
   *
   * @param kind what of the later head is fed: its queries, keys or values
   * @throws {PrismError} `CONFIG_UNSUPPORTED` for models that clip values and, for `'Q'` and `'K'`, with norms of queries and
   * keys; `INVALID_ARGUMENT`, `UNKNOWN_OPTION`, `MEMORY`, `ABORTED`
   */
  compositionScores(kind: 'Q' | 'K' | 'V', options: CompositionOptions = {}): Promise<CompositionScores> {
    return compositionScores(this.#loaded, kind, options)
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
    return native(() => this.#loaded.native.hookNames()) as HookName[]
  }

  /** The hook points that a run must keep so that {@link Run.attribute} and {@link Run.decompose} can read it. */
  attributionHooks(options: Pick<AttributeOptions, 'unit' | 'convention'> = {}): HookName[] {
    checkKeys('attributionHooks', options, ['unit', 'convention'])
    const unit = oneOf('unit', options.unit, ['layer', 'head', 'neuron'], 'head')
    const convention = oneOf('convention', options.convention, ['default', 'transformerlens'], 'default')
    return native(() => this.#loaded.native.attributionHooks(unit, convention)) as HookName[]
  }

  /** Peak bytes of the forward pass over `tokens` tokens of one prompt, besides the weights; each thread of a CPU takes as much. */
  forwardBytes(tokens: number): number {
    return native(() => this.#loaded.native.forwardBytes(wholeNumber('tokens', tokens, 1, 2 ** 32 - 1) ?? 1))
  }

  /** Tokens that are computed together by default, on this device: `batchTokens` of a call says otherwise. */
  get batchTokens(): number {
    return native(() => this.#loaded.native.chunkTokens())
  }

  /** SHA-256 over config and weights as they lie on disk, in hex; computed the first time it is asked for. */
  get fingerprint(): Promise<string> {
    return this.#loaded.fingerprint
  }

  /** What the columns of a result are. */
  components(unit: 'layer' | 'head' | 'neuron' = 'head'): readonly Component[] {
    return this.#loaded.components(oneOf('unit', unit, ['layer', 'head', 'neuron'], 'head'))
  }

  /** Numbers of the weights. */
  get parameters(): number {
    return native(() => this.#loaded.native.parameters())
  }

  /** Bytes of the weights as they are held. */
  get weightBytes(): number {
    return native(() => this.#loaded.native.weightBytes())
  }

  /** Whether {@link close} was called. */
  get closed(): boolean {
    return this.#loaded.closed
  }

  /** Frees the model once the calls under way have settled. Idempotent; calls made afterwards reject with `CLOSED`. */
  close(): Promise<void> {
    return this.#loaded.close()
  }

  /** @internal The text of a token, or its id. */
  tokenText(id: number): string {
    return this.#loaded.tokenText(id)
  }

  /** @internal The tokens that no text is made of. */
  specialTokens(): Uint32Array {
    return this.#loaded.specialTokens()
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
