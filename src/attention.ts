import { nativeAsked } from './asked.js'
import { call, CALL_OPTIONS, type CallOptions } from './calls.js'
import { labels } from './components.js'
import { native, unknownName } from './errors.js'
import type { Loaded } from './loaded.js'
import type { NativeHeadPattern, NativePatterns, NativeScore } from './native.js'
import type { Origin, Provenance } from './observed.js'
import { checkKeys, index } from './options.js'
import { heatmap, type Plot, tokenLabels } from './plot.js'
import { Tensor } from './tensor.js'
import type { Prompt } from './tokens.js'

/** Names for where a head looks. */
export type PatternType = 'previousToken' | 'self' | 'first' | 'column' | 'induction' | 'duplicateToken' | 'uniform'

/** Options of {@link Model.attention}. */
export interface AttentionOptions extends CallOptions {
  /** Labels of heads, `L9H6`; only these are kept. Default: all of them. */
  readonly heads?: readonly string[]
  /** Put a BOS token in front of prompts given as text, or leave it out, whatever the tokenizer does. */
  readonly prependBos?: boolean
}

/** Names of {@link AttentionOptions}. */
export const ATTENTION_OPTIONS = ['heads', 'prependBos', ...CALL_OPTIONS] as const

/** How well a name fits a head. */
export interface PatternScore {
  /**
   * Mean over queries of the attention on the keys that the name predicts; for `uniform` the mean entropy of a row over
   * the logarithm of the number of keys that the mask allows. NaN where no query counted.
   */
  readonly score: number
  /** What a head that looks everywhere alike would get on the same queries. */
  readonly null: number
  /** (score − null) / (1 − null): 1 is always there, 0 is chance; for `uniform` the score. */
  readonly strength: number
  /** How many queries counted: those where the name predicts keys that no other name predicts. */
  readonly queries: number
}

/** Where one head looks. */
export interface HeadPattern {
  /** `L9H6` */
  readonly label: string
  /** From 0. */
  readonly layer: number
  /** Index in the layer, from 0. */
  readonly head: number
  /** How well each name fits. */
  readonly scores: Readonly<Record<PatternType, PatternScore>>
  /** What the best column is of: a token, or a class of tokens (`punctuation`, `separators`). */
  readonly column?: { readonly token: number; readonly text: string } | { readonly class: string }
  /** The name that fits, with a strength of at least 0.4 and 0.1 more than the next; else `'mixed'`. */
  readonly type: PatternType | 'mixed'
  /** By how much the strength of the strongest name but `uniform` exceeds the next one's, or 0. */
  readonly margin: number
}

/**
 * Attention patterns of some heads on some prompts. A pattern says where a head looks (its QK circuit), not what it moves
 * from there (its OV circuit), and not whether that matters.
 */
export class Attention {
  /** What it is worth: it observes. */
  readonly kind = 'observed' as const
  /** Which model, on what. */
  readonly provenance: Provenance
  /** Labels of the heads that were kept. */
  readonly heads: readonly string[]

  readonly #native: NativePatterns
  readonly #ids: readonly Uint32Array[]
  readonly #origin: Origin

  /** @internal */
  constructor(patterns: NativePatterns, origin: Origin) {
    this.provenance = origin.provenance
    this.#native = patterns
    this.#ids = patterns.ids()
    this.#origin = origin
    const flat = patterns.heads()
    this.heads = Object.freeze(Array.from({ length: flat.length / 2 }, (_, i) => `L${flat[2 * i]}H${flat[2 * i + 1]}`))
  }

  /** Number of prompts. */
  get nPrompts(): number {
    return this.#ids.length
  }

  /** The ids of a prompt as they were run, BOS included. */
  ids(prompt: number): Uint32Array {
    return this.#ids[index('prompt', prompt, this.nPrompts)] ?? new Uint32Array()
  }

  /** The texts of a prompt's tokens. */
  tokens(prompt: number): string[] {
    return Array.from(this.ids(prompt), (id) => this.#origin.tokenText(id))
  }

  /**
   * A copy of the pattern of one head on one prompt: rows are queries and sum to 1 (to less with attention sinks).
   *
   * @throws {PrismError} `INVALID_ARGUMENT` where the head was not kept
   */
  pattern(layer: number, head: number, prompt: number): Tensor<['query_pos', 'key_pos']> {
    const label = `L${layer}H${head}`
    const at = this.heads.indexOf(label)
    if (at < 0) throw unknownName('INVALID_ARGUMENT', 'head', label, [...this.heads])
    const n = this.ids(prompt).length
    return new Tensor(
      native(() => this.#native.pattern(at, prompt)),
      [n, n],
      ['query_pos', 'key_pos'],
    )
  }

  /**
   * Names for where every head looks, each with a score and with what chance would give. Prompts in which tokens repeat
   * are needed for `induction` and `duplicateToken`; a few of 20 tokens or more make the scores steady. For a statement
   * with a level see {@link Model.detectHeads}.
   *
   * @throws {PrismError} `CLOSED` where the model is closed
   */
  async classify(options: Readonly<Record<string, never>> = {}): Promise<HeadPattern[]> {
    checkKeys('classify', options, [])
    const found = await call(this.#native, {}, () => this.#native.classify())
    return found.map((head) => this.#headPattern(head))
  }

  /** A picture of one head on one prompt as a Vega-Lite spec: queries down, keys across. */
  plot(layer: number, head: number, prompt: number): Plot {
    const pattern = this.pattern(layer, head, prompt)
    const tokens = tokenLabels(this.tokens(prompt))
    const cells = tokens.flatMap((y, q) => tokens.slice(0, q + 1).map((x, k) => ({ x, y, value: pattern.at(q, k) })))
    return heatmap({
      title: `Attention of L${layer}H${head}`,
      subtitle: `prompt ${prompt}, ${tokens.length} tokens`,
      cells,
      xs: tokens,
      ys: tokens,
      xTitle: 'key: looked at',
      yTitle: 'query: looks',
      legend: 'attention',
      scale: 'sequential',
    })
  }

  /** Ids, tokens and patterns as lists (row-major, [query_pos, key_pos]), by head. */
  toJSON(): Record<string, unknown> {
    const { kind, provenance, heads } = this
    const prompts = Array.from({ length: this.nPrompts }, (_, p) => ({
      ids: [...this.ids(p)],
      tokens: this.tokens(p),
      patterns: Object.fromEntries(heads.map((label, i) => [label, [...native(() => this.#native.pattern(i, p))]])),
    }))
    return { kind, provenance, heads, prompts }
  }

  [Symbol.for('nodejs.util.inspect.custom')](): string {
    const shown = this.heads.slice(0, 8).join(', ')
    return `Attention: ${this.nPrompts} prompts, ${this.heads.length} heads (${shown}${this.heads.length > 8 ? ', …' : ''})`
  }

  #headPattern(found: NativeHeadPattern): HeadPattern {
    const { layer, head, margin, columnToken, columnClass } = found
    const scores = {
      previousToken: score(found.previousToken),
      self: score(found.own),
      first: score(found.first),
      column: score(found.column),
      induction: score(found.induction),
      duplicateToken: score(found.duplicateToken),
      uniform: score(found.uniform),
    }
    const ofToken = columnToken === undefined ? {} : { column: { token: columnToken, text: this.#origin.tokenText(columnToken) } }
    const column = columnClass === undefined ? ofToken : { column: { class: columnClass } }
    const type = (found.best as PatternType | undefined) ?? 'mixed'
    return { label: `L${layer}H${head}`, layer, head, scores, ...column, type, margin }
  }
}

function score({ score: value, null: chance, strength, queries }: NativeScore): PatternScore {
  return { score: value, null: chance, strength, queries }
}

/** @internal {@link Model.attention}. */
export async function attention(model: Loaded, prompts: readonly Prompt[], options: AttentionOptions): Promise<Attention> {
  checkKeys('attention', options, ATTENTION_OPTIONS)
  const { prompts: list, prependBos } = nativeAsked(
    prompts,
    options.prependBos === undefined ? {} : { prependBos: options.prependBos },
  )
  const heads = labels('heads', options.heads)
  const patterns = await call(model.native, options, (cancel, report) =>
    model.native.attention(list, heads, prependBos, cancel, report),
  )
  return new Attention(patterns, model.origin)
}
