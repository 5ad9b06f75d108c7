// Ablation: components are replaced, one at a time, and everything behind them is computed again.
import { nativeAsked, nativePositions, type Position, PROMPT_OPTIONS, type PromptOptions } from './asked.js'
import { call } from './calls.js'
import { Causal, type Erase } from './causal.js'
import { labels } from './components.js'
import { invalidArgument } from './errors.js'
import type { Loaded } from './loaded.js'
import type { NativePositions } from './native.js'
import { checkKeys, oneOf } from './options.js'
import { nativeSet, type ReplaceWith } from './replacement.js'
import { copiedDirections, nativeTargets, type Target } from './targets.js'
import type { Prompt } from './tokens.js'

/** Options of {@link Model.ablate}. */
export interface AblateOptions extends PromptOptions {
  /** What components are. Default `'head'`. */
  readonly unit?: 'layer' | 'head'
  /** What takes a component's place. Default `'zero'`. */
  readonly set?: ReplaceWith
  /**
   * Where: at each row's own position (`'row'`, the default), at every position, or at these of every prompt. A component
   * that does nothing at its row may matter elsewhere: a head that other heads read from is silent at the row.
   */
  readonly ablateAt?: 'row' | 'all' | Exclude<Position, 'last' | 'all'>
  /** Labels of components of that unit. Default: all of them. */
  readonly components?: readonly string[]
  /** What a certificate that fails does: reject with `INCOMPLETE` (default), or a process warning. */
  readonly onViolation?: 'throw' | 'warn'
}

const ABLATE_OPTIONS = ['unit', 'set', 'ablateAt', 'components', 'onViolation'] as const

/** @internal {@link Model.ablate}. */
export async function ablate(
  model: Loaded,
  prompts: readonly Prompt[],
  targets: Target | readonly Target[],
  options: AblateOptions,
): Promise<Causal> {
  checkKeys('ablate', options, [...ABLATE_OPTIONS, ...PROMPT_OPTIONS])
  const asked = nativeAsked(prompts, options)
  const list = nativeTargets(targets, asked.prompts.length)
  const directions = copiedDirections(list, asked.prompts.length)
  const unit = oneOf('unit', options.unit, ['layer', 'head'], 'head')
  const { words, ...set } = nativeSet(options.set)
  const components = labels('components', options.components)
  const { ablateAt = 'row' } = options
  const where = ablateAt === 'row' ? undefined : ablatedPositions(ablateAt)
  const request = {
    asked,
    targets: list,
    unit,
    ...set,
    ...(components === undefined ? {} : { components }),
    ...(where === undefined ? {} : { at: where }),
    onViolation: oneOf('onViolation', options.onViolation, ['throw', 'warn'], 'throw'),
  }
  const method = { unit, set: words, ablateAt: structuredClone(ablateAt) }
  const causal = await call(model.native, options, (cancel, report) => model.native.ablate(request, cancel, report))
  if (causal.violations > 0) warnUnexplained(causal.violations)
  const erase: Erase = (ids, prompt, position, label) => {
    const encoded = (text: string) =>
      model.tokenizer?.encode(text, asked.prependBos === undefined ? {} : { prependBos: asked.prependBos }) ?? text
    const references = set.set === 'from' ? set.reference?.slice(prompt, prompt + 1) : set.reference
    const reference = references?.map((given) => (typeof given === 'string' ? encoded(given) : given))
    const at = where?.perPrompt ? { of: where.perPrompt[prompt] ?? [] } : where
    const one = {
      ...request,
      asked: { prompts: [ids], positions: { of: [position] } },
      components: [label],
      ...(reference === undefined ? {} : { reference }),
      ...(at === undefined ? {} : { at }),
    }
    return call(model.native, {}, (cancel) => model.native.erasure(one, cancel))
  }
  return new Causal(causal, directions, method, model.origin, erase)
}

/** The positions of a change that is not at each row's own. */
function ablatedPositions(at: unknown): NativePositions {
  if (at !== 'last') return nativePositions(at, 'ablateAt')
  throw invalidArgument('ablateAt', at, "'row', 'all', a position, a list of positions, or { perPrompt: a list of lists }")
}

/** The warning of certificates that do not hold. */
function warnUnexplained(numbers: number): void {
  const message = `${numbers} total effect${numbers === 1 ? '' : 's'} did not add up within the tolerance; see result.residual`
  process.emitWarning(message, { type: 'PrismWarning', code: 'INCOMPLETE' })
}
