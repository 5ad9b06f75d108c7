// What takes the place of a component that is ablated.
import { invalidArgument } from './errors.js'
import type { NativeAblateCall } from './native.js'
import { checkKeys } from './options.js'
import { nativePrompt, type Prompt } from './tokens.js'

/**
 * What takes a component's place: zero; the mean over reference prompts, over all their positions (`axis: 'all'`, the
 * default) or at the same position (`'position'`); or its value in another prompt, one for each, at the same position.
 */
export type ReplaceWith =
  'zero' | { readonly mean: readonly Prompt[]; readonly axis?: 'all' | 'position' } | { readonly from: readonly Prompt[] }

/** The same in words. */
export type ReplacedBy = 'zero' | 'mean' | 'mean at the same position' | 'from'

/** @internal What takes a component's place, as the addon takes it, and in words. */
export function nativeSet(set: unknown): Pick<NativeAblateCall, 'set' | 'reference'> & { readonly words: ReplacedBy } {
  if (set === undefined || set === 'zero') return { set: 'zero', words: 'zero' }
  const expected = "'zero', { mean: prompts, axis }, or { from: prompts }"
  if (typeof set !== 'object' || set === null || Array.isArray(set)) throw invalidArgument('set', set, expected)
  checkKeys('set', set, ['mean', 'axis', 'from'])
  const { mean, axis, from } = set as Record<string, unknown>
  if ((mean === undefined) === (from === undefined) || (from !== undefined && axis !== undefined)) {
    throw invalidArgument('set', set, expected)
  }
  if (from !== undefined) return { set: 'from', reference: promptList('set.from', from), words: 'from' }
  if (axis !== undefined && axis !== 'all' && axis !== 'position') throw invalidArgument('set.axis', axis, "'all' or 'position'")
  const reference = promptList('set.mean', mean)
  if (axis === 'position') return { set: 'meanByPosition', reference, words: 'mean at the same position' }
  return { set: 'mean', reference, words: 'mean' }
}

function promptList(argument: string, list: unknown): (string | Uint32Array)[] {
  if (!Array.isArray(list) || list.length === 0) throw invalidArgument(argument, list, 'a list of prompts')
  return Array.from(list, nativePrompt)
}
