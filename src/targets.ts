import { invalidArgument } from './errors.js'
import type { NativeTarget } from './native.js'
import { checkKeys } from './options.js'
import { nativeTokens, type Token } from './tokens.js'

/**
 * What is attributed at a row.
 *
 * - `answer`: its logit: of a token, the mean of several, the prompt's own `'next'` token (at positions before the
 *   last), or the token that the model has `'predicted'`. `against` is subtracted: a token, the mean of several, or
 *   `'mean'`, the mean over the vocabulary. A single logit is not invariant to adding a constant to all logits; a
 *   difference, and `against: 'mean'`, are.
 * - `weights`: any weighted set of tokens.
 * - `direction`: a vector of length `dModel` that is no logit (a probe, a steering vector), read raw at the final
 *   residual stream: `attribution(c) = c · v`.
 */
export type Target =
  | { readonly answer: Token | readonly Token[] | 'next' | 'predicted'; readonly against?: Token | readonly Token[] | 'mean' }
  | { readonly weights: readonly (readonly [Token, number])[] }
  | { readonly direction: Float32Array }

/** A target as it was at a row: token ids and weights and the weight of the vocabulary's mean, or a direction. */
export type ResolvedTarget =
  | { readonly tokens: readonly { readonly id: number; readonly weight: number }[]; readonly mean: number }
  | { readonly direction: Float32Array }

/** Targets as the addon takes them: one for all prompts, or one per prompt. */
export function nativeTargets(targets: unknown, prompts: number): NativeTarget[] {
  if (Array.isArray(targets) && targets.length !== prompts) {
    throw invalidArgument('targets', targets, `one target, or a list with one for each of the ${prompts} prompts`)
  }
  if (Array.isArray(targets)) return Array.from(targets, (target, i) => nativeTarget(`targets[${i}]`, target))
  return [nativeTarget('targets', targets)]
}

/** @internal Directions among targets, copied: the addon copies its inputs before it returns to the event loop, and so must we. */
export function copiedDirections(targets: NativeTarget[], prompts: number): (Float32Array | undefined)[] {
  const given = targets.map(({ direction }) => direction?.slice())
  return Array.from({ length: prompts }, (_, i) => given[Math.min(i, given.length - 1)])
}

function nativeTarget(name: string, target: unknown): NativeTarget {
  checkKeys(name, target, ['answer', 'against', 'weights', 'direction'])
  const { answer, against, weights, direction } = target as Record<string, unknown>
  if ([answer, weights, direction].filter((kind) => kind !== undefined).length !== 1) {
    throw invalidArgument(name, target, 'one of answer (with or without against), weights, direction')
  }
  if (against !== undefined && answer === undefined) throw invalidArgument(`${name}.against`, against, 'an answer beside it')
  if (direction !== undefined) {
    if (direction instanceof Float32Array) return { direction }
    throw invalidArgument(`${name}.direction`, direction, 'a Float32Array')
  }
  if (weights !== undefined) return nativeWeights(`${name}.weights`, weights)
  return {
    answer: answer === 'next' || answer === 'predicted' ? answer : nativeTokens(`${name}.answer`, answer),
    ...(against === undefined ? {} : { against: against === 'mean' ? against : nativeTokens(`${name}.against`, against) }),
  }
}

function nativeWeights(name: string, weights: unknown): NativeTarget {
  const isPair = (pair: unknown) => Array.isArray(pair) && pair.length === 2 && typeof pair[1] === 'number'
  if (!Array.isArray(weights) || !Array.from(weights).every(isPair))
    throw invalidArgument(name, weights, 'a list of [token, weight]')
  const pairs = weights as [unknown, number][]
  return {
    tokens: nativeTokens(
      name,
      pairs.map(([token]) => token),
    ),
    weights: pairs.map(([, weight]) => weight),
  }
}

/** @internal Resolved targets as the addon returns them. */
export interface NativeTargets {
  readonly targetTokens: Uint32Array
  readonly targetWeights: Float64Array
  readonly targetOffsets: Uint32Array
  readonly targetMean: Float64Array
}

/** @internal The target of a row. */
export function resolvedTarget(native: NativeTargets, row: number, direction: Float32Array | undefined): ResolvedTarget {
  if (direction) return Object.freeze({ direction })
  const tokens: { id: number; weight: number }[] = []
  for (let i = native.targetOffsets[row] ?? 0; i < (native.targetOffsets[row + 1] ?? 0); i++) {
    tokens.push({ id: native.targetTokens[i] ?? 0, weight: native.targetWeights[i] ?? 0 })
  }
  return Object.freeze({ tokens, mean: native.targetMean[row] ?? 0 })
}
