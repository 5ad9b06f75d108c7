// A forward pass that is kept, and what is changed in it.
import { nativeAsked, type Position, PROMPT_OPTIONS, type PromptOptions } from './asked.js'
import { call } from './calls.js'
import { invalidArgument } from './errors.js'
import type { HookName } from './hooks.js'
import { type Intervention, nativeInterventions } from './intervention.js'
import type { Loaded } from './loaded.js'
import { checkKeys, oneOf } from './options.js'
import { filePath, Run } from './run.js'
import type { Prompt } from './tokens.js'

/** Options of {@link Model.run}. */
export interface RunOptions extends PromptOptions {
  /**
   * Hook points to keep, by name; `*` stands for any characters: `'blocks.*.attn.hook_pattern'`. Default: none.
   * {@link Model.hookNames} lists what the model has.
   */
  readonly cache?: readonly (HookName | (string & {}))[]
  /** Which positions are kept of them. Default `'all'`. */
  readonly position?: Position
  /** Which logits are kept, after the model's cap. Default `'last'`. */
  readonly logits?: 'last' | 'all' | 'none'
  /**
   * Values to replace while the model runs: one list for every prompt, or a list of lists, one per prompt. Several at one
   * point are made in their order. What is kept, and the logits, are what came of them. Default: none.
   */
  readonly interventions?: readonly Intervention[] | readonly (readonly Intervention[])[]
}

/** @internal {@link Model.run}. */
export async function run(model: Loaded, prompts: readonly Prompt[], options: RunOptions): Promise<Run> {
  checkKeys('run', options, ['cache', 'logits', 'interventions', ...PROMPT_OPTIONS])
  const cache: unknown = options.cache === undefined ? [] : options.cache
  const isNames = (list: unknown): list is string[] => Array.isArray(list) && list.every((name) => typeof name === 'string')
  if (!isNames(cache)) throw invalidArgument('cache', cache, 'a list of names')
  const asked = nativeAsked(prompts, options, 'all')
  const request = { asked, points: [...cache], logits: oneOf('logits', options.logits, ['last', 'all', 'none'], 'last') }
  const { changes, runs } = nativeInterventions(options.interventions, asked.prompts.length)
  const kept = await call(model.native, options, (cancel, report) => model.native.run(request, changes, runs, cancel, report))
  return new Run(kept, model)
}

/** @internal {@link Run.load}. */
export async function loadRun(model: Loaded, path: string | URL): Promise<Run> {
  const file = filePath(path)
  const kept = await call(model.native, {}, () => model.native.loadRun(file))
  return new Run(kept, model)
}
