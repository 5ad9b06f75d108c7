import { expectTypeOf, test } from 'vitest'
import type {
  AppliedIntervention,
  HookName,
  Intervention,
  InterventionHook,
  InterventionPosition,
  InterventionSet,
  Model,
  Prompt,
  Provenance,
  Receiver,
  Run,
  RunOptions,
} from '../../src/index.js'

test('what can be set: points that are read on from, and the receivers of path patching', () => {
  expectTypeOf<'blocks.3.attn.hook_z'>().toExtend<InterventionHook>()
  expectTypeOf<'blocks.3.attn.hook_q_input' | 'blocks.0.hook_mlp_in'>().toExtend<InterventionHook>()
  expectTypeOf<`blocks.1.${Receiver}`>().not.toExtend<HookName>()
  expectTypeOf<'blocks.3.ln1.hook_scale'>().not.toExtend<InterventionHook>()
  expectTypeOf<'blocks.3.attn.hook_result'>().not.toExtend<InterventionHook>()
  expectTypeOf<'ln_final.hook_scale'>().not.toExtend<InterventionHook>()
  expectTypeOf<'blocks.*.attn.hook_z'>().toExtend<Intervention['at']>()
  expectTypeOf<'blocks.3.attn.hook_zz'>().not.toExtend<Intervention['at']>()
})

test('what is set: one of five', () => {
  expectTypeOf<'zero'>().toExtend<InterventionSet>()
  expectTypeOf<{ scale: number }>().toExtend<InterventionSet>()
  expectTypeOf<{ add: number[] } | { add: Float32Array }>().toExtend<InterventionSet>()
  expectTypeOf<{ mean: Prompt[] } | { mean: Run; axis: 'position' }>().toExtend<InterventionSet>()
  expectTypeOf<{ from: Run; prompt: number; position: number[] }>().toExtend<InterventionSet>()
  expectTypeOf<{ from: Run }>().not.toExtend<InterventionSet>()
  expectTypeOf<{ scale: string }>().not.toExtend<InterventionSet>()
  expectTypeOf<'mean'>().not.toExtend<InterventionSet>()
  expectTypeOf<{ perPrompt: number[][] }>().not.toExtend<InterventionPosition>()
})

test('one list for all prompts or one per prompt; what was done is told', () => {
  expectTypeOf<RunOptions['interventions']>().toEqualTypeOf<
    readonly Intervention[] | readonly (readonly Intervention[])[] | undefined
  >()
  expectTypeOf<Model['run']>().returns.resolves.toEqualTypeOf<Run>()
  expectTypeOf<Run['interventions']>().toEqualTypeOf<readonly AppliedIntervention[]>()
  expectTypeOf<Provenance['interventions']>().toEqualTypeOf<readonly AppliedIntervention[] | undefined>()
  expectTypeOf<AppliedIntervention['position']>().toEqualTypeOf<'last' | 'all' | readonly number[]>()
})
