import { expectTypeOf, test } from 'vitest'
import type { CompositionScores, Complex, HeadCircuit, Model, OvCircuit, QkCircuit, Tensor } from '../../src/index.js'

test('circuits: dims and what a circuit can say', () => {
  expectTypeOf<Model['circuit']>().returns.toEqualTypeOf<HeadCircuit>()
  expectTypeOf<HeadCircuit['ov']>().toEqualTypeOf<OvCircuit>()
  expectTypeOf<HeadCircuit['qk']>().returns.toEqualTypeOf<QkCircuit>()
  expectTypeOf<OvCircuit['matrix']>().returns.resolves.toEqualTypeOf<Tensor<readonly ['d_model', 'd_model']>>()
  expectTypeOf<QkCircuit['singularVectors']>().returns.resolves.toHaveProperty('left')
  expectTypeOf<OvCircuit['eigenvalues']>().returns.resolves.toEqualTypeOf<Complex[]>()
  // only what is moved can be copied
  expectTypeOf<OvCircuit>().toHaveProperty('copyingScore')
  expectTypeOf<QkCircuit>().not.toHaveProperty('copyingScore')
  expectTypeOf<QkCircuit['kind']>().toEqualTypeOf<'weights'>()
  const model = {} as Model
  // @ts-expect-error: misspelt
  model.circuit(0, 0).qk({ offsets: 1 })
  // @ts-expect-error: an average is two offsets
  model.circuit(0, 0).qk({ average: [1] })
})

test('composition', () => {
  expectTypeOf<Model['compositionScores']>().parameter(0).toEqualTypeOf<'Q' | 'K' | 'V'>()
  expectTypeOf<Model['compositionScores']>().returns.resolves.toEqualTypeOf<CompositionScores>()
  expectTypeOf<CompositionScores['values']>().toEqualTypeOf<Float32Array>()
})
