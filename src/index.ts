export type { AblateOptions } from './ablate.js'
export type { AttributingOptions, Position, PromptOptions } from './asked.js'
export { Attention, type AttentionOptions, type HeadPattern, type PatternScore, type PatternType } from './attention.js'
export { type AttributeOptions, Attribution, AttributionRow, type Method } from './attribution.js'
export type { BootstrapOptions, Estimate } from './bootstrap.js'
export type { CallOptions, Progress } from './calls.js'
export { type AblationMethod, Causal, CausalRow, type Effect, type Erasure, type Verdict } from './causal.js'
export { CausalCircuit, type CircuitChoice, type CircuitComponent, type CircuitKind, type CircuitOrigin } from './causal-circuit.js'
export {
  Circuit,
  type CircuitOptions,
  type Complex,
  type CopyingOptions,
  type CopyingScore,
  HeadCircuit,
  OvCircuit,
  QkCircuit,
  type QkOptions,
  type SingularVectors,
  type TokenRow,
  type TokenRowOptions,
  type TokenValue,
} from './circuit.js'
export type { Component, ComponentKind, Share } from './components.js'
export { type ComposedPair, type CompositionOptions, CompositionScores } from './composition.js'
export type { ModelConfig, Norm, Positions, Rotary } from './config.js'
export { type Choice, type DataItem, type DataOptions, Dataset, type IdChoice, type LeftOut } from './data/dataset.js'
export { type Fact, facts } from './data/facts.js'
export { greaterThan, type GreaterThanOptions } from './data/greater-than.js'
export { induction, type InductionOptions } from './data/induction.js'
export { ioi, type IoiCorruption, type IoiOptions } from './data/ioi.js'
export { Decomposition, type DecomposeOptions } from './decomposition.js'
export type { DetectedHead, Detection, DetectOptions } from './detect.js'
export type { Device, Dtype } from './device.js'
export { DirectionAttribution, type DirectionsOptions, type DirectionsRow } from './directions.js'
export { PrismError, type PrismErrorCode } from './errors.js'
export { type EvaluatedItem, type EvaluateOptions, Evaluation, type MeanFigure } from './evaluate.js'
export {
  type Completeness,
  type CompletenessOptions,
  Faithfulness,
  type FaithfulnessMean,
  type FaithfulnessMethod,
  type FaithfulnessOptions,
  type Minimality,
} from './faithfulness.js'
export type { RunOptions } from './forward.js'
export type { DescribeOptions, HeadAtRow, HeadDescription, Partners } from './heads.js'
export type { BlockPoints, DimsOf, HookName, OuterPoints, ResidualHook } from './hooks.js'
export type {
  AppliedIntervention,
  Intervention,
  InterventionHook,
  InterventionPosition,
  InterventionSet,
  Receiver,
} from './intervention.js'
export { type LensOptions, type LensState, LogitLens, type PredictedToken, type Standing } from './lens.js'
export type { LoadOptions } from './load.js'
export { Model } from './model.js'
export { Observed, type Provenance, Result } from './observed.js'
export type { PairOptions, PatchAxis, PatchOptions, PatchPoint, PathOptions } from './patch.js'
export { type Patch, Patched, type PatchMatrix, type PatchMethod } from './patched.js'
export { type Plot, type PlotChannel, type PlotLayer, toSvg } from './plot.js'
export type { ReplacedBy, ReplaceWith } from './replacement.js'
export { Cache, Run, type RunAttributeOptions } from './run.js'
export { AttributionSources, type Source, type SourcesOptions, type SourcesRow } from './sources.js'
export { AttributionSummary, type StreamItem, type StreamOptions, type SummaryOptions } from './stream.js'
export type { ComponentMean, MeanOptions } from './summary.js'
export type { ResolvedTarget, Target } from './targets.js'
export { type Dim, Tensor } from './tensor.js'
export type { Prompt, Token, Tokenizer } from './tokens.js'
export { type ComponentTokens, type MovedToken, TopTokens, type TopTokensOptions } from './top-tokens.js'
