// The two halves of a head side by side: where it looks (QK) and what it moves (OV), for the heads that attribution ranks
// highest.
import type { PromptOptions } from './asked.js'
import { PROMPT_OPTIONS } from './asked.js'
import type { HeadPattern } from './attention.js'
import type { CopyingScore } from './circuit.js'
import type { ComposedPair, CompositionScores } from './composition.js'
import { PrismError } from './errors.js'
import type { Model } from './model.js'
import { checkKeys, optionalFlag, wholeNumber } from './options.js'
import type { Source, SourcesRow } from './sources.js'
import type { Target } from './targets.js'
import type { Prompt } from './tokens.js'
import type { MovedToken } from './top-tokens.js'

/** Options of {@link Model.describeHeads}. */
export interface DescribeOptions extends PromptOptions {
  /** How many heads, of largest mean |attribution|. Default 5. */
  readonly top?: number
  /** Tokens and sources listed of each. Default 3. */
  readonly k?: number
  /** Whether to compute composition scores with every other head, which takes the longest on large models. Default true. */
  readonly composition?: boolean
}

/** Names of {@link DescribeOptions}. */
export const DESCRIBE_OPTIONS = ['top', 'k', 'composition', ...PROMPT_OPTIONS] as const

/** What a head did at one row. */
export interface HeadAtRow {
  readonly prompt: number
  readonly position: number
  /** Its attribution, in logits. */
  readonly value: number
  /** Where it looked from there, most first: the weights of its attention. */
  readonly looks: readonly { readonly position: number; readonly token: string; readonly weight: number }[]
  /** What it moved from where, largest magnitude first: the part of `value` that each position gave. */
  readonly sources: readonly Source[]
  /** The tokens whose logits it raised most there, and lowered most, against the mean over the vocabulary. */
  readonly raised: readonly MovedToken[]
  readonly lowered: readonly MovedToken[]
}

/** One kind of composition of a head with others. */
export interface Partners {
  /** Earlier heads that write where it reads, by score. */
  readonly from: readonly ComposedPair[]
  /** Later heads that read where it writes. */
  readonly to: readonly ComposedPair[]
}

/** A head that attribution ranks highly, in both its halves. It observes: only an ablation shows that the head matters. */
export interface HeadDescription {
  /** `L9H6` */
  readonly label: string
  readonly layer: number
  readonly head: number
  /** Mean attribution over the rows, in logits. */
  readonly mean: number
  /** Where it looks, over all positions of these prompts. */
  readonly pattern: HeadPattern
  /** What it did, row by row. */
  readonly rows: readonly HeadAtRow[]
  /** Whether it writes what it reads, from its weights; or why its weights alone do not say. */
  readonly copying: CopyingScore | { readonly refused: string }
  /** With which heads it composes, from their weights, by queries, keys and values; or why there are no such numbers. */
  readonly composition?: Readonly<Record<'Q' | 'K' | 'V', Partners | { readonly refused: string }>>
}

/** @internal */
export async function describeHeads(
  model: Model,
  prompts: readonly Prompt[],
  targets: Target | readonly Target[],
  options: DescribeOptions,
): Promise<HeadDescription[]> {
  checkKeys('describeHeads', options, DESCRIBE_OPTIONS)
  const { top: _, k: __, composition: ___, ...asked } = options
  const top = wholeNumber('top', options.top, 1, 2 ** 31) ?? 5
  const k = wholeNumber('k', options.k, 1, model.config.dVocab) ?? Math.min(3, model.config.dVocab)
  const { signal, prependBos } = asked
  const stoppable = signal === undefined ? {} : { signal }

  const attribution = await model.attribute(prompts, targets, asked)
  const means = new Map(attribution.mean({ resamples: 1 }).map(({ label, mean }) => [label, mean]))
  const heads = attribution.components
    .filter(({ kind }) => kind === 'head')
    .sort((a, b) => Math.abs(means.get(b.label) ?? 0) - Math.abs(means.get(a.label) ?? 0))
    .slice(0, top)
  const labels = heads.map(({ label }) => label)
  const bos = prependBos === undefined ? {} : { prependBos }
  const attention = await model.attention(prompts, { heads: labels, ...bos, ...stoppable })
  const patterns = await attention.classify()
  const sources = await model.attributeSources(prompts, targets, { ...asked, heads: labels })
  const tokens = await model.topTokens(prompts, { ...asked, components: labels, k, mask: 'special' })
  const compositions =
    (optionalFlag('composition', options.composition) ?? true) ? await allCompositions(model, stoppable) : undefined

  const descriptions: HeadDescription[] = []
  for (const { label, layer = 0, index: head = 0 } of heads) {
    const pattern = patterns.find((each) => each.label === label)
    if (!pattern) throw new PrismError('INTERNAL', `no pattern of ${label}`, {})
    const rows = Array.from(attribution, (row, i) => {
      const { raised, lowered } = tokens.get(i, label)
      const { prompt, position } = row
      const looks = seen(attention.pattern(layer, head, prompt).slice(position).data, attention.tokens(prompt), k)
      const moved = strongest(sources.row(i), label, k)
      return { prompt, position, value: row.value(label), looks, sources: moved, raised, lowered }
    })
    const copying = await orRefused(() => model.circuit(layer, head).ov.copyingScore(stoppable))
    const composition = compositions && {
      Q: partners(compositions.Q, label, k),
      K: partners(compositions.K, label, k),
      V: partners(compositions.V, label, k),
    }
    const mean = means.get(label) ?? Number.NaN
    descriptions.push({ label, layer, head, mean, pattern, rows, copying, ...(composition ? { composition } : {}) })
  }
  return descriptions
}

type Refusable<T> = T | { readonly refused: string }

async function allCompositions(
  model: Model,
  options: { signal?: AbortSignal },
): Promise<Record<'Q' | 'K' | 'V', Refusable<CompositionScores>>> {
  const of = (kind: 'Q' | 'K' | 'V') => orRefused(() => model.compositionScores(kind, options))
  return { Q: await of('Q'), K: await of('K'), V: await of('V') }
}

/** What a call returns, or why a model's weights alone do not give it. */
async function orRefused<T>(compute: () => Promise<T>): Promise<Refusable<T>> {
  try {
    return await compute()
  } catch (error) {
    if (error instanceof PrismError && error.code === 'CONFIG_UNSUPPORTED') return { refused: error.message }
    throw error
  }
}

function partners(scores: Refusable<CompositionScores>, label: string, k: number): Refusable<Partners> {
  if ('refused' in scores) return scores
  const pairs = scores.top(2 ** 31)
  return { from: pairs.filter(({ to }) => to === label).slice(0, k), to: pairs.filter(({ from }) => from === label).slice(0, k) }
}

/** The positions that get most of a row of attention. */
function seen(weights: Float32Array, tokens: readonly string[], k: number): HeadAtRow['looks'] {
  const all = Array.from(weights, (weight, position) => ({ position, token: tokens[position] ?? '', weight }))
  return all.sort((a, b) => b.weight - a.weight).slice(0, k)
}

/** The sources of one head, largest magnitude first. */
function strongest(row: SourcesRow, label: string, k: number): Source[] {
  const h = row.heads.indexOf(label)
  const of = (position: number): Source => {
    return { head: label, position, token: row.tokens[position] ?? '', value: row.matrix.at(h, position) }
  }
  return row.tokens
    .map((_, position) => of(position))
    .sort((a, b) => Math.abs(b.value) - Math.abs(a.value))
    .slice(0, k)
}
