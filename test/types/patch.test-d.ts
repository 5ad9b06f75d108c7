import { expectTypeOf, test } from 'vitest'
import type { Model, PatchAxis, Patched, PatchMatrix, PatchMethod, PatchOptions, PathOptions } from '../../src/index.js'

test('what is patched, over what, which way', () => {
  expectTypeOf<PatchAxis>().toEqualTypeOf<'layer' | 'head' | 'position'>()
  expectTypeOf<{ at: 'z'; over: ['head', 'position']; direction: 'noising' }>().toExtend<PatchOptions>()
  expectTypeOf<{ position: 'all' }>().not.toExtend<PatchOptions>()
  expectTypeOf<{ at: 'resid_post' }>().not.toExtend<PatchOptions>()
  expectTypeOf<{ positions: number[]; corruptPositions: number[] }>().toExtend<PatchOptions>()
})

test('paths name their receivers', () => {
  expectTypeOf<object>().not.toExtend<PathOptions>()
  expectTypeOf<{ to: ['logits', 'L3H1.q']; from: string[]; each: true; through: 'mlps' }>().toExtend<PathOptions>()
  expectTypeOf<{ to: ['logits']; through: 'heads' }>().not.toExtend<PathOptions>()
})

test('both give causes', () => {
  expectTypeOf<Model['patch']>().returns.resolves.toEqualTypeOf<Patched>()
  expectTypeOf<Model['patchPaths']>().returns.resolves.toEqualTypeOf<Patched>()
  expectTypeOf<Patched['kind']>().toEqualTypeOf<'causal'>()
  expectTypeOf<Patched['method']>().toEqualTypeOf<PatchMethod>()
  expectTypeOf<PatchMatrix['normalised']>().toEqualTypeOf<readonly (readonly number[])[] | undefined>()
})
