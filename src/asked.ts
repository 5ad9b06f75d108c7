// What every call says, as the addon takes it: prompts, rows, how they are run.
import { CALL_OPTIONS, type CallOptions } from './calls.js'
import { invalidArgument } from './errors.js'
import type { NativeAsked, NativeAttributing, NativePositions } from './native.js'
import { checkKeys, oneOf, optionalFlag, wholeNumber } from './options.js'
import { nativeTargets } from './targets.js'
import { nativePrompt } from './tokens.js'

/** Which positions of the prompts; negative ones count from a prompt's end. A list is for every prompt. */
export type Position = 'last' | 'all' | number | readonly number[] | { readonly perPrompt: readonly (readonly number[])[] }

/** Options of every call over prompts. */
export interface PromptOptions extends CallOptions {
  /** The rows. */
  readonly position?: Position
  /** Put a BOS token in front of prompts given as text, or leave it out, whatever the tokenizer does. */
  readonly prependBos?: boolean
  /** Tokens that are computed together. The numbers do not depend on it; time and memory do. Default 256, on a GPU 32,768. */
  readonly batchTokens?: number
}

/** Names of {@link PromptOptions}. */
export const PROMPT_OPTIONS = ['position', 'prependBos', 'batchTokens', ...CALL_OPTIONS] as const

/** How a result is attributed. */
export interface AttributingOptions {
  /** The columns. Default `'head'`. */
  readonly unit?: 'layer' | 'head' | 'neuron'
  /** With `unit: 'neuron'`: keep of every row the k largest neurons of each sign, and one `rest`. Default: all neurons. */
  readonly top?: number
  /** `'transformerlens'`: value bias and the β of the norm before attention count in `attn_bias`, not in the heads. */
  readonly convention?: 'default' | 'transformerlens'
  /** `'frozen'` (default): the final norm at its scale of the run, exact. `'none'`: without it, uncertified. */
  readonly norm?: 'frozen' | 'none'
  /** What a certificate that fails does: reject with `INCOMPLETE` (default), or a process warning. */
  readonly onViolation?: 'throw' | 'warn'
}

/** Names of {@link AttributingOptions}. */
export const ATTRIBUTING_OPTIONS = ['unit', 'top', 'convention', 'norm', 'onViolation'] as const

export function nativeAsked(prompts: unknown, options: PromptOptions, otherwise: 'last' | 'all' = 'last'): NativeAsked {
  if (!Array.isArray(prompts)) throw invalidArgument('prompts', prompts, 'a list of prompts')
  const prependBos = optionalFlag('prependBos', options.prependBos)
  const batchTokens = wholeNumber('batchTokens', options.batchTokens, 1, 2 ** 32 - 1)
  return {
    prompts: Array.from(prompts, nativePrompt),
    positions: nativePositions(options.position === undefined ? otherwise : options.position),
    ...(prependBos === undefined ? {} : { prependBos }),
    ...(batchTokens === undefined ? {} : { batchTokens }),
  }
}

export function nativeAttributing(targets: unknown, prompts: number, options: AttributingOptions): NativeAttributing {
  const top = wholeNumber('top', options.top, 1, 2 ** 32 - 1)
  return {
    targets: nativeTargets(targets, prompts),
    unit: oneOf('unit', options.unit, ['layer', 'head', 'neuron'], 'head'),
    convention: oneOf('convention', options.convention, ['default', 'transformerlens'], 'default'),
    onViolation: oneOf('onViolation', options.onViolation, ['throw', 'warn'], 'throw'),
    ...(top === undefined ? {} : { top }),
    ...(options.norm === undefined ? {} : { norm: oneOf('norm', options.norm, ['frozen', 'none'], 'frozen') }),
  }
}

/** @internal Positions; `byPrompt`: whether there may be a list for every prompt. */
export function nativePositions(position: unknown, argument = 'position', byPrompt = true): NativePositions {
  const isList = (list: unknown): list is number[] => Array.isArray(list) && Array.from(list).every(Number.isSafeInteger)
  if (position === 'last' || position === 'all') return { name: position }
  if (Number.isSafeInteger(position)) return { of: [position as number] }
  if (isList(position)) return { of: position }
  if (byPrompt && typeof position === 'object' && position !== null && !Array.isArray(position)) {
    checkKeys(argument, position, ['perPrompt'])
    const { perPrompt } = position as { perPrompt?: unknown }
    if (Array.isArray(perPrompt) && Array.from(perPrompt).every(isList)) return { perPrompt }
  }
  const lists = byPrompt ? ', a list of positions, or { perPrompt: a list of lists }' : ', or a list of positions'
  throw invalidArgument(argument, position, `'last', 'all', a position${lists}`)
}
