import { expectTypeOf, test } from 'vitest'
import {
  type AblateOptions,
  type AblationMethod,
  type Attribution,
  type Causal,
  type CausalRow,
  type Component,
  type Effect,
  type Erasure,
  type Model,
  type Observed,
  type ReplaceWith,
  type ResolvedTarget,
  type Result,
  type Verdict,
} from '../../src/index.js'

test('what is observed is not a cause, and says so', () => {
  expectTypeOf<Attribution>().toExtend<Observed>()
  expectTypeOf<Causal>().toExtend<Result>()
  expectTypeOf<Causal>().not.toExtend<Observed>()
  expectTypeOf<Attribution>().not.toExtend<Causal>()
  expectTypeOf<Causal['kind']>().toEqualTypeOf<'causal'>()
  expectTypeOf<Observed['kind']>().toEqualTypeOf<'observed'>()
})

test('ablate', () => {
  expectTypeOf<Model['ablate']>().returns.resolves.toEqualTypeOf<Causal>()
  expectTypeOf<AblateOptions['unit']>().toEqualTypeOf<'layer' | 'head' | undefined>()
  expectTypeOf<AblateOptions['set']>().toEqualTypeOf<ReplaceWith | undefined>()
  expectTypeOf<'last'>().not.toExtend<AblateOptions['ablateAt']>()
  expectTypeOf<'row' | 'all' | 3 | number[] | { perPrompt: number[][] }>().toExtend<AblateOptions['ablateAt']>()
  expectTypeOf<Causal['method']>().toEqualTypeOf<AblationMethod>()
  expectTypeOf<Causal['total']>().toEqualTypeOf<Float32Array>()
  expectTypeOf<Causal['ablated']>().toEqualTypeOf<readonly Component[]>()
  expectTypeOf<CausalRow['get']>().returns.toEqualTypeOf<Effect>()
  expectTypeOf<CausalRow['byTotal']>().returns.toEqualTypeOf<Effect[]>()
  expectTypeOf<CausalRow['target']>().toEqualTypeOf<ResolvedTarget>()
  expectTypeOf<Causal['erasure']>().returns.resolves.toEqualTypeOf<Erasure>()
  expectTypeOf<Effect['verdict']>().toEqualTypeOf<Verdict>()
  expectTypeOf<Effect['mediators']>().toEqualTypeOf<readonly { readonly label: string; readonly value: number }[]>()
})
