// Tests of heads on random tokens.
import { call, CALL_OPTIONS, type CallOptions } from './calls.js'
import { labels } from './components.js'
import { invalidArgument } from './errors.js'
import type { Loaded } from './loaded.js'
import type { NativeDetected } from './native.js'
import { checkKeys, wholeNumber } from './options.js'

/** One test of a head on random tokens. */
export interface Detection {
  /** Mean attention on the keys in question. */
  readonly score: number
  /** The same where there is nothing to detect. */
  readonly null: number
  /** Chance of such a difference (one-sided Welch test over sequences, times the number of heads). */
  readonly p: number
  /** `p` below the level and `score − null` at or above the threshold. */
  readonly detected: boolean
}

/** The tests of one head. */
export interface DetectedHead {
  /** `L9H6` */
  readonly label: string
  /** From 0. */
  readonly layer: number
  /** Index in the layer, from 0. */
  readonly head: number
  /** From the second occurrence of a token to the token behind its first: the prefix-matching score of Olsson et al. 2022. */
  readonly induction: Detection
  /** From the second occurrence of a token to its first. */
  readonly duplicateToken: Detection
  /** To the token before, on sequences that do not repeat. */
  readonly previousToken: Detection
}

/** Options of {@link Model.detectHeads}. */
export interface DetectOptions extends CallOptions {
  /** Labels of heads. Default: all of them. */
  readonly heads?: readonly string[]
  /** Sequences that repeat, and as many that do not. Default 20. */
  readonly sequences?: number
  /** Random tokens of a sequence before it repeats. Default 25, or what context and vocabulary allow. */
  readonly length?: number
  /** Seed of the tokens. Default 0. */
  readonly seed?: number
  /** The level of the tests. Default 0.01. */
  readonly level?: number
  /** How much more attention than by chance a head needs, besides. Default 0.2. */
  readonly threshold?: number
}

const DETECT_OPTIONS = ['heads', 'sequences', 'length', 'seed', 'level', 'threshold', ...CALL_OPTIONS] as const

/** @internal {@link Model.detectHeads}. */
export async function detectHeads(model: Loaded, options: DetectOptions): Promise<DetectedHead[]> {
  checkKeys('detectHeads', options, DETECT_OPTIONS)
  const { nContext, dVocab, bosToken } = model.config
  const heads = labels('heads', options.heads)
  const special = new Set(model.specialTokens())
  if (bosToken !== null) special.add(bosToken)
  const longest = Math.max(2, Math.min(25, Math.floor((nContext - 1) / 2), Math.floor((dVocab - special.size) / 2)))
  const request = {
    sequences: wholeNumber('sequences', options.sequences, 2, 100_000) ?? 20,
    length: wholeNumber('length', options.length, 2, nContext) ?? longest,
    seed: wholeNumber('seed', options.seed, 0, 2 ** 32 - 1) ?? 0,
    ...(heads === undefined ? {} : { heads }),
  }
  const level = between('level', options.level, 0, 1, 0.01)
  const threshold = between('threshold', options.threshold, 0, 1, 0.2)
  const found = await call(model.native, options, (cancel, report) => model.native.detectHeads(request, cancel, report))
  return found.map((head) => detectedHead(head, level, threshold))
}

/** Tests as the addon returns them, judged. */
function detectedHead(found: NativeDetected, level: number, threshold: number): DetectedHead {
  const { layer, head } = found
  const judged = ({ score: value, null: chance, p }: { score: number; null: number; p: number }): Detection => {
    return { score: value, null: chance, p, detected: p < level && value - chance >= threshold }
  }
  return {
    label: `L${layer}H${head}`,
    layer,
    head,
    induction: judged(found.induction),
    duplicateToken: judged(found.duplicateToken),
    previousToken: judged(found.previousToken),
  }
}

/** A number between two others, or the default. */
function between(argument: string, value: unknown, from: number, to: number, otherwise: number): number {
  if (value === undefined) return otherwise
  if (typeof value === 'number' && value >= from && value <= to) return value
  throw invalidArgument(argument, value, `a number from ${from} to ${to}`)
}
