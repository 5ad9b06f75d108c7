import { expectTypeOf, test } from 'vitest'
import type {
  Attribution,
  Causal,
  CausalCircuit,
  CircuitChoice,
  CircuitKind,
  Completeness,
  Faithfulness,
  FaithfulnessMean,
  FaithfulnessOptions,
  Minimality,
  Model,
  Observed,
  ReplaceWith,
  Result,
  Run,
} from '../../src/index.js'

test('what claims a cause exists only on Causal', () => {
  expectTypeOf<Causal>().toHaveProperty('circuit')
  expectTypeOf<Causal>().toHaveProperty('total')
  expectTypeOf<Attribution>().not.toHaveProperty('circuit')
  expectTypeOf<Observed>().not.toHaveProperty('circuit')
  expectTypeOf<Observed>().not.toHaveProperty('verdict')
  expectTypeOf<Run>().not.toHaveProperty('circuit')
  expectTypeOf<Faithfulness>().toExtend<Result>()
  expectTypeOf<Faithfulness>().not.toExtend<Observed>()
  expectTypeOf<Faithfulness['kind']>().toEqualTypeOf<'causal'>()
  expectTypeOf<CausalCircuit['kind']>().toEqualTypeOf<'causal'>()
})

test('only circuit() makes a circuit, and faithfulness takes nothing else', () => {
  expectTypeOf<Causal['circuit']>().returns.toEqualTypeOf<CausalCircuit>()
  expectTypeOf<Model['faithfulness']>().parameter(2).toEqualTypeOf<CausalCircuit>()
  expectTypeOf<Model['faithfulness']>().returns.resolves.toEqualTypeOf<Faithfulness>()
  expectTypeOf<string[]>().not.toExtend<CausalCircuit>()
  // everything that can be seen of one is not one: it has a private part
  expectTypeOf<{ [K in keyof CausalCircuit]: CausalCircuit[K] }>().not.toExtend<CausalCircuit>()
  // @ts-expect-error its constructor is private
  expectTypeOf<ConstructorParameters<typeof CausalCircuit>>().toEqualTypeOf<never>()
})

test('options', () => {
  expectTypeOf<{ keep: 0.9 }>().toExtend<CircuitChoice>()
  expectTypeOf<{ components: string[] }>().toExtend<CircuitChoice>()
  expectTypeOf<{ share: 0.9 }>().not.toExtend<CircuitChoice>()
  expectTypeOf<CircuitKind>().toEqualTypeOf<'head' | 'mlp' | 'embed' | 'pos_embed'>()
  expectTypeOf<FaithfulnessOptions['set']>().toEqualTypeOf<ReplaceWith | undefined>()
  expectTypeOf<FaithfulnessOptions['minimality']>().toEqualTypeOf<
    boolean | Readonly<Record<string, readonly string[]>> | undefined
  >()
})

test('results', () => {
  expectTypeOf<Faithfulness['score']>().toEqualTypeOf<Float64Array>()
  expectTypeOf<Faithfulness['completeness']>().toEqualTypeOf<readonly Completeness[]>()
  expectTypeOf<Faithfulness['minimality']>().toEqualTypeOf<readonly Minimality[]>()
  expectTypeOf<keyof FaithfulnessMean>().toEqualTypeOf<'full' | 'circuit' | 'empty' | 'score' | 'ratio'>()
})
