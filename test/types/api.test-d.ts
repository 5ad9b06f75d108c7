import { expectTypeOf, test } from 'vitest'
import {
  type Attribution,
  type AttributeOptions,
  type AttributionRow,
  type Component,
  type ComponentKind,
  type ComponentMean,
  type LoadOptions,
  type MeanOptions,
  Model,
  type ModelConfig,
  type Position,
  PrismError,
  type PrismErrorCode,
  type Progress,
  type Prompt,
  type ResolvedTarget,
  type Share,
  type Target,
  type Token,
  type Tokenizer,
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
  expectTypeOf<Model['device']>().toEqualTypeOf<'cpu'>()
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
    'unit' | 'position' | 'norm' | 'onViolation' | 'prependBos' | 'batchTokens' | 'signal' | 'onProgress'
  >()
  expectTypeOf<AttributeOptions['unit']>().toEqualTypeOf<'layer' | 'head' | undefined>()
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
  expectTypeOf<ComponentKind>().toEqualTypeOf<'embed' | 'pos_embed' | 'head' | 'attn_bias' | 'attn' | 'mlp'>()
  expectTypeOf<Component['kind']>().toEqualTypeOf<ComponentKind>()
  expectTypeOf<Component['layer']>().toEqualTypeOf<number | undefined>()
  expectTypeOf<Attribution['certified']>().toEqualTypeOf<boolean>()
  expectTypeOf<Attribution['targets']>().toEqualTypeOf<readonly ResolvedTarget[]>()
  expectTypeOf<Attribution['ids']>().toEqualTypeOf<(prompt: number) => Uint32Array>()
  expectTypeOf<Attribution['row']>().toEqualTypeOf<(i: number) => AttributionRow>()
  expectTypeOf<Attribution['mean']>().toEqualTypeOf<(options?: MeanOptions) => ComponentMean[]>()
  expectTypeOf<ComponentMean['interval']>().toEqualTypeOf<readonly [low: number, high: number]>()
})

test('a row', () => {
  expectTypeOf<AttributionRow['value']>().toEqualTypeOf<(label: string) => number>()
  expectTypeOf<AttributionRow['top']>().toEqualTypeOf<(k: number) => Share[]>()
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
