import { expectTypeOf, test } from 'vitest'
import {
  type Attention,
  type AttentionOptions,
  type AttributeOptions,
  type AttributingOptions,
  type Attribution,
  type AttributionRow,
  type AttributionSources,
  type AttributionSummary,
  type Cache,
  type Component,
  type ComponentKind,
  type ComponentMean,
  type DecomposeOptions,
  type Decomposition,
  type DetectedHead,
  type Detection,
  type DetectOptions,
  type DimsOf,
  type DirectionAttribution,
  type DirectionsOptions,
  type HeadPattern,
  type HookName,
  type LensOptions,
  type LensState,
  type LoadOptions,
  type LogitLens,
  type MeanOptions,
  type Method,
  Model,
  type ModelConfig,
  type MovedToken,
  type Observed,
  type PatternScore,
  type PatternType,
  type Plot,
  type PlotChannel,
  type PlotLayer,
  type Position,
  type PredictedToken,
  PrismError,
  type PrismErrorCode,
  type Progress,
  type Prompt,
  type PromptOptions,
  type Provenance,
  type ResidualHook,
  type ResolvedTarget,
  type Run,
  type RunAttributeOptions,
  type RunOptions,
  type Share,
  type Source,
  type SourcesOptions,
  type SourcesRow,
  type Standing,
  type StreamItem,
  type StreamOptions,
  type SummaryOptions,
  type Target,
  type Tensor,
  type Token,
  type Tokenizer,
  type TopTokens,
  type TopTokensOptions,
  toSvg,
} from '../../src/index.js'

test('load: its options, and nothing else', () => {
  expectTypeOf(Model.load).parameters.toEqualTypeOf<[path: string | URL, options?: LoadOptions | undefined]>()
  expectTypeOf(Model.load).returns.resolves.toEqualTypeOf<Model>()
  expectTypeOf(Model.demo).parameters.toEqualTypeOf<[options?: LoadOptions | undefined]>()
  expectTypeOf<keyof LoadOptions>().toEqualTypeOf<
    'device' | 'dtype' | 'threads' | 'memoryLimit' | 'allowCustomRegex' | 'allowUnknownConfig' | 'kernels' | 'signal' | 'onProgress'
  >()
  expectTypeOf<{ device: 'cpu' }>().toExtend<LoadOptions>()
  expectTypeOf<{ device: 'cuda:1' }>().toExtend<LoadOptions>()
  expectTypeOf<{ device: 'tpu' }>().not.toExtend<LoadOptions>()
  expectTypeOf<{ device: undefined }>().not.toExtend<LoadOptions>()
  // @ts-expect-error: misspelt
  void Model.load('x', { devise: 'cpu' })
  // @ts-expect-error: a model is loaded, not constructed
  new Model()
})

test('a model', () => {
  expectTypeOf<Model>().toExtend<AsyncDisposable>()
  expectTypeOf<Model['config']>().toEqualTypeOf<ModelConfig>()
  expectTypeOf<Model['device']>().toEqualTypeOf<'cpu' | `cuda:${number}`>()
  expectTypeOf<Model['deviceReason']>().toEqualTypeOf<string>()
  expectTypeOf<Model['dtype']>().toEqualTypeOf<'f32' | 'bf16' | 'f16'>()
  expectTypeOf<Model['tokenizer']>().toEqualTypeOf<Tokenizer | undefined>()
  expectTypeOf<Model['closed']>().toEqualTypeOf<boolean>()
  expectTypeOf<Model['close']>().returns.toEqualTypeOf<Promise<void>>()
  expectTypeOf<Model['fingerprint']>().toEqualTypeOf<Promise<string>>()
  expectTypeOf<ModelConfig['norm']['kind']>().toEqualTypeOf<'layerNorm' | 'rmsNorm'>()
  const model = {} as Model
  // @ts-expect-error: read only
  model.config = {} as ModelConfig
  // @ts-expect-error: frozen
  model.config.nLayers = 3
  // @ts-expect-error: frozen
  model.config.attentionScale[0] = 1
})

test('attribute: prompts, targets, options', () => {
  expectTypeOf<Model['attribute']>().parameter(0).toEqualTypeOf<readonly Prompt[]>()
  expectTypeOf<Model['attribute']>().parameter(1).toEqualTypeOf<Target | readonly Target[]>()
  expectTypeOf<Model['attribute']>().parameter(2).toEqualTypeOf<AttributeOptions | undefined>()
  expectTypeOf<Model['attribute']>().returns.toEqualTypeOf<Promise<Attribution>>()
  expectTypeOf<keyof AttributeOptions>().toEqualTypeOf<
    | 'unit' | 'top' | 'convention' | 'position' | 'norm' | 'onViolation' | 'prependBos' | 'batchTokens' | 'signal' | 'onProgress' // prettier-ignore
  >()
  expectTypeOf<AttributeOptions['unit']>().toEqualTypeOf<'layer' | 'head' | 'neuron' | undefined>()
  expectTypeOf<AttributeOptions['convention']>().toEqualTypeOf<'default' | 'transformerlens' | undefined>()
  expectTypeOf<AttributeOptions['top']>().toEqualTypeOf<number | undefined>()
  expectTypeOf<AttributeOptions['norm']>().toEqualTypeOf<'frozen' | 'none' | undefined>()
  expectTypeOf<AttributeOptions['onViolation']>().toEqualTypeOf<'throw' | 'warn' | undefined>()
  expectTypeOf<AttributeOptions['signal']>().toEqualTypeOf<AbortSignal | undefined>()
  expectTypeOf<AttributeOptions['onProgress']>().toEqualTypeOf<((progress: Progress) => void) | undefined>()
  expectTypeOf<Progress>().toEqualTypeOf<{ readonly done: number; readonly total: number }>()
  expectTypeOf<Prompt>().toEqualTypeOf<string | readonly number[] | Uint32Array>()
  expectTypeOf<Float32Array>().not.toExtend<Prompt>()
})

test('targets: exactly one kind', () => {
  expectTypeOf<Token>().toEqualTypeOf<number | string>()
  expectTypeOf<{ answer: string }>().toExtend<Target>()
  expectTypeOf<{ answer: number; against: 'mean' }>().toExtend<Target>()
  expectTypeOf<{ answer: readonly (string | number)[]; against: string[] }>().toExtend<Target>()
  expectTypeOf<{ answer: 'predicted' }>().toExtend<Target>()
  expectTypeOf<{ weights: readonly (readonly [string, number])[] }>().toExtend<Target>()
  expectTypeOf<{ direction: Float32Array }>().toExtend<Target>()
  expectTypeOf<{ against: string }>().not.toExtend<Target>()
  expectTypeOf<{ direction: number[] }>().not.toExtend<Target>()
  expectTypeOf<{ direction: Float64Array }>().not.toExtend<Target>()
  expectTypeOf<{ weights: number[] }>().not.toExtend<Target>()
  expectTypeOf<{ weights: [string, string][] }>().not.toExtend<Target>()
  expectTypeOf<{ answer: null }>().not.toExtend<Target>()
  // @ts-expect-error: misspelt
  const misspelt: Target = { answer: ' Mary', againts: ' John' }
  void misspelt
})

test('positions', () => {
  expectTypeOf<'last' | 'all' | -1 | readonly number[]>().toExtend<Position>()
  expectTypeOf<{ perPrompt: number[][] }>().toExtend<Position>()
  expectTypeOf<'first'>().not.toExtend<Position>()
  expectTypeOf<{ perPrompt: number[] }>().not.toExtend<Position>()
  expectTypeOf<null>().not.toExtend<Position>()
})

test('a result: typed arrays, labelled', () => {
  for (const name of ['values', 'constant', 'total', 'measured', 'residual', 'tolerance'] as const) {
    expectTypeOf<Attribution[typeof name]>().toEqualTypeOf<Float32Array>()
  }
  expectTypeOf<Attribution['rows']>().toEqualTypeOf<{ readonly prompt: Uint32Array; readonly position: Uint32Array }>()
  expectTypeOf<Attribution['components']>().toEqualTypeOf<readonly Component[]>()
  expectTypeOf<ComponentKind>().toEqualTypeOf<
    'embed' | 'pos_embed' | 'head' | 'attn_bias' | 'attn' | 'mlp' | 'neuron' | 'mlp_bias' | 'rest' // prettier-ignore
  >()
  expectTypeOf<Component['expert']>().toEqualTypeOf<number | 'shared' | undefined>()
  expectTypeOf<Component['kind']>().toEqualTypeOf<ComponentKind>()
  expectTypeOf<Component['layer']>().toEqualTypeOf<number | undefined>()
  expectTypeOf<Attribution['certified']>().toEqualTypeOf<boolean>()
  expectTypeOf<Attribution['targets']>().toEqualTypeOf<readonly ResolvedTarget[]>()
  expectTypeOf<Attribution['ids']>().toEqualTypeOf<(prompt: number) => Uint32Array>()
  expectTypeOf<Attribution['row']>().toEqualTypeOf<(i: number) => AttributionRow>()
  expectTypeOf<Attribution['mean']>().toEqualTypeOf<(options?: MeanOptions) => ComponentMean[]>()
  expectTypeOf<ComponentMean['interval']>().toEqualTypeOf<readonly [low: number, high: number]>()
})

test('hook names are those of the table, of any layer', () => {
  expectTypeOf<'blocks.3.attn.hook_z'>().toExtend<HookName>()
  expectTypeOf<'blocks.11.ln1_post.hook_scale' | 'hook_embed' | 'ln_final.hook_normalized'>().toExtend<HookName>()
  expectTypeOf<'blocks.3.attn.hook_zz'>().not.toExtend<HookName>()
  expectTypeOf<'blocks.x.attn.hook_z'>().not.toExtend<HookName>()
  expectTypeOf<'attn.hook_z' | 'blocks.3' | 'embed'>().not.toExtend<HookName>()
  expectTypeOf<'blocks.0.hook_resid_mid'>().toExtend<ResidualHook>()
  expectTypeOf<'blocks.0.hook_attn_out' | 'hook_embed'>().not.toExtend<ResidualHook>()
  expectTypeOf<ResidualHook>().toExtend<HookName>()
})

test('what the cache returns has the axes of its name', () => {
  const run = {} as Run
  const z = () => run.cache.get('blocks.3.attn.hook_z', 0)
  expectTypeOf(z).returns.toEqualTypeOf<Tensor<['pos', 'head', 'd_head']>>()
  const pattern = () => run.cache.get('blocks.0.attn.hook_pattern', 0)
  expectTypeOf(pattern).returns.toEqualTypeOf<Tensor<['head', 'query_pos', 'key_pos']>>()
  expectTypeOf<DimsOf<'hook_pos_embed'>>().toEqualTypeOf<['pos', 'd_model']>()
  expectTypeOf<DimsOf<`blocks.${number}.attn.hook_k`>>().toEqualTypeOf<['pos', 'kv_head', 'd_head']>()
  expectTypeOf<DimsOf<'blocks.2.mlp.hook_router_weights'>>().toEqualTypeOf<['pos', 'expert']>()
  expectTypeOf<Cache['names']>().toEqualTypeOf<HookName[]>()
  // @ts-expect-error: no such point
  const misspelt = () => run.cache.get('blocks.3.attn.hook_zed', 0)
  // @ts-expect-error: which prompt
  const promptless = () => run.cache.get('blocks.3.attn.hook_z')
  void misspelt
  void promptless
})

test('a tensor: as many indices as axes, one axis less in a slice', () => {
  expectTypeOf<Tensor<['pos', 'head', 'd_head']>['shape']>().toEqualTypeOf<readonly [number, number, number]>()
  expectTypeOf<Tensor<['pos', 'head', 'd_head']>['at']>().parameters.toEqualTypeOf<[number, number, number]>()
  expectTypeOf<Tensor<['pos', 'head', 'd_head']>['slice']>().returns.toEqualTypeOf<Tensor<['head', 'd_head']>>()
  expectTypeOf<Tensor<['pos']>['data']>().toEqualTypeOf<Float32Array>()
})

test('runs', () => {
  expectTypeOf<Model['run']>().parameters.toEqualTypeOf<[prompts: readonly Prompt[], options?: RunOptions | undefined]>()
  expectTypeOf<Model['run']>().returns.resolves.toEqualTypeOf<Run>()
  expectTypeOf<Run>().toExtend<Disposable>()
  expectTypeOf<Run['logits']>().returns.toEqualTypeOf<Tensor<['pos', 'd_vocab']>>()
  expectTypeOf<keyof RunOptions>().toEqualTypeOf<'cache' | 'logits' | 'interventions' | keyof PromptOptions>()
  expectTypeOf<{ cache: ['blocks.*.attn.hook_pattern'] }>().toExtend<RunOptions>()
  expectTypeOf<{ cache: 'hook_embed' }>().not.toExtend<RunOptions>()
  expectTypeOf<{ logits: 'some' }>().not.toExtend<RunOptions>()
  expectTypeOf<keyof RunAttributeOptions>().toEqualTypeOf<keyof AttributingOptions | 'signal'>()
  expectTypeOf<keyof DecomposeOptions>().toEqualTypeOf<'unit' | 'signal'>()
  expectTypeOf<Run['attribute']>().returns.resolves.toEqualTypeOf<Attribution>()
  expectTypeOf<Run['decompose']>().returns.resolves.toEqualTypeOf<Decomposition>()
  expectTypeOf<Run['save']>().parameters.toEqualTypeOf<[path: string | URL]>()
  // @ts-expect-error: a run is made by a model
  const made = () => new Run()
  void made
})

test('the other calls: options and results', () => {
  expectTypeOf<keyof LensOptions>().toEqualTypeOf<'targets' | 'top' | 'norm' | keyof PromptOptions>()
  expectTypeOf<keyof SourcesOptions>().toEqualTypeOf<'heads' | 'norm' | 'onViolation' | keyof PromptOptions>()
  expectTypeOf<keyof TopTokensOptions>().toEqualTypeOf<'unit' | 'components' | 'k' | 'mask' | keyof PromptOptions>()
  expectTypeOf<keyof DirectionsOptions>().toEqualTypeOf<'at' | 'unit' | 'onViolation' | keyof PromptOptions>()
  expectTypeOf<DirectionsOptions['at']>().toEqualTypeOf<ResidualHook | undefined>()
  expectTypeOf<TopTokensOptions['mask']>().toEqualTypeOf<'special' | readonly Token[] | undefined>()
  expectTypeOf<LensOptions['norm']>().toEqualTypeOf<'recomputed' | 'frozen' | undefined>()
  expectTypeOf<keyof StreamOptions>().toEqualTypeOf<keyof AttributeOptions | 'batchPrompts'>()
  expectTypeOf<keyof SummaryOptions>().toEqualTypeOf<keyof StreamOptions | 'seed' | 'resamples' | 'leading'>()
  expectTypeOf<Model['logitLens']>().returns.resolves.toEqualTypeOf<LogitLens>()
  expectTypeOf<Model['attributeSources']>().returns.resolves.toEqualTypeOf<AttributionSources>()
  expectTypeOf<Model['topTokens']>().returns.resolves.toEqualTypeOf<TopTokens>()
  expectTypeOf<Model['attributeDirections']>().returns.resolves.toEqualTypeOf<DirectionAttribution>()
  expectTypeOf<Model['attributeDirections']>().parameter(1).toEqualTypeOf<Float32Array | readonly Float32Array[]>()
  expectTypeOf<Model['attributeStream']>().returns.toEqualTypeOf<AsyncGenerator<Attribution, void, undefined>>()
  expectTypeOf<Model['attributeStream']>().parameter(0).toEqualTypeOf<Iterable<StreamItem> | AsyncIterable<StreamItem>>()
  expectTypeOf<Model['attributeSummary']>().returns.resolves.toEqualTypeOf<AttributionSummary>()
})

test('every result is observed, and a sequence of its rows', () => {
  expectTypeOf<
    Attribution | AttributionSources | LogitLens | TopTokens | DirectionAttribution | Decomposition
  >().toExtend<Observed>()
  expectTypeOf<Observed['kind'] | AttributionSummary['kind']>().toEqualTypeOf<'observed'>()
  expectTypeOf<Attribution>().toExtend<Iterable<AttributionRow>>()
  expectTypeOf<AttributionSources>().toExtend<Iterable<SourcesRow>>()
  expectTypeOf<LogitLens>().toExtend<Iterable<LensState[]>>()
  expectTypeOf<SourcesRow['matrix']>().toEqualTypeOf<Tensor<['head', 'key_pos']>>()
  expectTypeOf<ReturnType<SourcesRow['byMagnitude']>>().toEqualTypeOf<Source[]>()
  expectTypeOf<LensState['tokens']>().toEqualTypeOf<readonly Standing[] | undefined>()
  expectTypeOf<LensState['top']>().toEqualTypeOf<readonly PredictedToken[] | undefined>()
  expectTypeOf<ReturnType<TopTokens['get']>['raised']>().toEqualTypeOf<readonly MovedToken[]>()
  expectTypeOf<ReturnType<Decomposition['row']>>().toEqualTypeOf<Tensor<['component', 'd_model']>>()
  expectTypeOf<Attribution['provenance']>().toEqualTypeOf<Provenance>()
  expectTypeOf<Attribution['method']>().toEqualTypeOf<Method>()
})

test('a row', () => {
  expectTypeOf<AttributionRow['value']>().toEqualTypeOf<(label: string) => number>()
  expectTypeOf<AttributionRow['top']>().toEqualTypeOf<(k?: number) => Share[]>()
  expectTypeOf<AttributionRow['values']>().toEqualTypeOf<Float32Array>()
  expectTypeOf<AttributionRow['measured']>().toEqualTypeOf<number>()
  expectTypeOf<Share>().toEqualTypeOf<{ readonly label: string; readonly value: number; readonly share: number }>()
})

test('a resolved target is tokens or a direction', () => {
  const target = {} as ResolvedTarget
  if ('direction' in target) expectTypeOf(target.direction).toEqualTypeOf<Float32Array>()
  else expectTypeOf(target.mean).toEqualTypeOf<number>()
})

test('errors', () => {
  expectTypeOf<PrismError>().toExtend<Error>()
  expectTypeOf<PrismError['code']>().toEqualTypeOf<PrismErrorCode>()
  expectTypeOf<PrismError['details']>().toEqualTypeOf<Readonly<Record<string, unknown>>>()
  expectTypeOf<'NOT_ONE_TOKEN'>().toExtend<PrismErrorCode>()
  expectTypeOf<'SOMETHING'>().not.toExtend<PrismErrorCode>()
})

test('attention: patterns have their axes, names are a closed list', () => {
  expectTypeOf<Model['attention']>().parameters.toEqualTypeOf<
    [prompts: readonly Prompt[], options?: AttentionOptions | undefined]
  >()
  expectTypeOf<Model['attention']>().returns.resolves.toEqualTypeOf<Attention>()
  expectTypeOf<keyof AttentionOptions>().toEqualTypeOf<'heads' | 'prependBos' | 'signal' | 'onProgress'>()
  expectTypeOf<ReturnType<Attention['pattern']>>().toEqualTypeOf<Tensor<['query_pos', 'key_pos']>>()
  expectTypeOf<Attention['classify']>().returns.resolves.toEqualTypeOf<HeadPattern[]>()
  expectTypeOf<PatternType>().toEqualTypeOf<
    'previousToken' | 'self' | 'first' | 'column' | 'induction' | 'duplicateToken' | 'uniform' // prettier-ignore
  >()
  expectTypeOf<HeadPattern['type']>().toEqualTypeOf<PatternType | 'mixed'>()
  expectTypeOf<HeadPattern['scores']>().toEqualTypeOf<Readonly<Record<PatternType, PatternScore>>>()
  expectTypeOf<Attention['kind']>().toEqualTypeOf<'observed'>()
  const pattern = {} as ReturnType<Attention['pattern']>
  expectTypeOf(pattern.slice(0)).toEqualTypeOf<Tensor<['key_pos']>>()
  // @ts-expect-error: two indices
  pattern.at(0)
})

test('detected heads', () => {
  expectTypeOf<Model['detectHeads']>().parameters.toEqualTypeOf<[options?: DetectOptions | undefined]>()
  expectTypeOf<Model['detectHeads']>().returns.resolves.toEqualTypeOf<DetectedHead[]>()
  expectTypeOf<keyof DetectOptions>().toEqualTypeOf<
    'heads' | 'sequences' | 'length' | 'seed' | 'level' | 'threshold' | 'signal' | 'onProgress'
  >()
  expectTypeOf<DetectedHead['induction']>().toEqualTypeOf<Detection>()
  expectTypeOf<DetectedHead['previousToken']['detected']>().toEqualTypeOf<boolean>()
  // @ts-expect-error: misspelt
  void ({} as Model).detectHeads({ sequence: 3 })
})

test('pictures are plain data', () => {
  for (const of of [{} as Attribution, {} as AttributionSources, {} as LogitLens, {} as AttributionSummary]) {
    expectTypeOf(of.plot).returns.toEqualTypeOf<Plot>()
  }
  expectTypeOf<Attention['plot']>().toEqualTypeOf<(layer: number, head: number, prompt: number) => Plot>()
  expectTypeOf(toSvg).toEqualTypeOf<(plot: Plot) => Promise<string>>()
  expectTypeOf<PlotLayer['encoding']>().toEqualTypeOf<Readonly<Record<string, PlotChannel>>>()
  // @ts-expect-error: misspelt
  void ({} as Attribution).plot({ kind: 'bars' })
})
