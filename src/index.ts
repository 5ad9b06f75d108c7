export { Attribution, AttributionRow, type Component, type ComponentKind, type Share } from './attribution.js'
export type { CallOptions, Progress } from './calls.js'
export { PrismError, type PrismErrorCode } from './errors.js'
export type { ComponentMean, MeanOptions } from './mean.js'
export {
  type AttributeOptions,
  type LoadOptions,
  Model,
  type ModelConfig,
  type Norm,
  type Position,
  type Positions,
  type Rotary,
} from './model.js'
export type { ResolvedTarget, Target } from './targets.js'
export type { Prompt, Token, Tokenizer } from './tokens.js'
