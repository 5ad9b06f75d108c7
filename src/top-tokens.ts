import type { Table } from 'apache-arrow'
import { componentColumns, tokenColumn } from './arrow.js'
import { nativeAsked, PROMPT_OPTIONS, type PromptOptions } from './asked.js'
import { call } from './calls.js'
import { columnOf, type Component, frozen, labels } from './components.js'
import type { Loaded } from './loaded.js'
import type { NativeTopTokens } from './native.js'
import { Observed, type Origin } from './observed.js'
import { checkKeys, oneOf, wholeNumber } from './options.js'
import type { Prompt, Token } from './tokens.js'

/** Options of {@link Model.topTokens}. */
export interface TopTokensOptions extends PromptOptions {
  /** The components. Default `'head'`. */
  readonly unit?: 'layer' | 'head' | 'neuron'
  /** Labels of components of that unit. Default: all of them. */
  readonly components?: readonly string[]
  /** Tokens each way. Default 10. */
  readonly k?: number
  /** Tokens to leave out: a list, or `'special'`: special and reserved tokens, and ids that the tokenizer does not have. */
  readonly mask?: 'special' | readonly Token[]
}

/** A token that a component raises or lowers. */
export interface MovedToken {
  /** Its id. */
  readonly id: number
  /** Its text alone. */
  readonly text: string
  /** What the component adds to its logit, less what it adds to the mean of all logits. */
  readonly value: number
}

/** What one component does to the vocabulary at a row. */
export interface ComponentTokens {
  /** What writes. */
  readonly component: Component
  /** Raised most, largest first. */
  readonly raised: readonly MovedToken[]
  /** Lowered most, most negative first. */
  readonly lowered: readonly MovedToken[]
}

/**
 * For every component the tokens of the whole vocabulary that it raises and lowers most, the final norm held at its scale
 * of the run. Values are against the mean over the vocabulary: what moves all logits alike does not count.
 */
export class TopTokens extends Observed implements Iterable<ComponentTokens[]> {
  readonly components: readonly Component[]
  /** Tokens each way. */
  readonly k: number
  readonly #native: NativeTopTokens

  /** @internal */
  constructor(native: NativeTopTokens, k: number, origin: Origin) {
    super(native, origin)
    this.components = frozen(native.components)
    this.k = k
    this.#native = native
    origin.remember(native.tokens)
  }

  /** Every component at one row. */
  row(i: number): ComponentTokens[] {
    const row = this.rowIndex(i)
    return this.components.map((component, c) => this.#of(row, component, c))
  }

  /** One component at one row, by its label. */
  get(i: number, label: string): ComponentTokens {
    const row = this.rowIndex(i)
    const c = columnOf(this.components, label)
    return this.#of(row, this.components[c] as Component, c)
  }

  /** Row by row. */
  *[Symbol.iterator](): Iterator<ComponentTokens[]> {
    for (let i = 0; i < this.rows.prompt.length; i++) yield this.row(i)
  }

  /** A tidy Arrow table: `prompt`, `position`, `component`, `kind`, `layer`, `index`, `direction`, `rank`, `token`, `text`, `value`. */
  toArrow(): Promise<Table> {
    const per = 2 * this.k
    const n = this.#native.values.length
    const lines = (of: (row: number, c: number, j: number) => number) =>
      Uint32Array.from({ length: n }, (_, i) =>
        of(Math.floor(i / per / this.components.length), Math.floor(i / per) % this.components.length, i % per),
      )
    const columns = {
      prompt: { numbers: lines((row) => this.rows.prompt[row] ?? 0) },
      position: { numbers: lines((row) => this.rows.position[row] ?? 0) },
      ...componentColumns(
        this.components,
        lines((_, c) => c),
      ),
      direction: { texts: ['raised', 'lowered'], at: lines((_, __, j) => (j < this.k ? 0 : 1)) },
      rank: { numbers: lines((_, __, j) => j % this.k) },
      token: { numbers: this.#native.tokens },
      text: tokenColumn(this.#native.tokens, this.origin),
      value: { numbers: this.#native.values },
    }
    return this.table(columns, { norm: 'frozen', against: 'mean' })
  }

  /** Everything, with typed arrays as lists. */
  toJSON(): Record<string, unknown> {
    const { kind, provenance, components, k, prompts } = this
    const rows = Array.from(this, (of, i) => ({
      ...this.rowOf(i),
      components: of.map(({ component, raised, lowered }) => ({ label: component.label, raised, lowered })),
    }))
    return { kind, provenance, k, components, prompts, rows }
  }

  [Symbol.for('nodejs.util.inspect.custom')](): string {
    const n = this.rows.prompt.length
    const words = (tokens: readonly MovedToken[]) =>
      tokens
        .slice(0, 3)
        .map(({ text }) => JSON.stringify(text))
        .join(' ')
    const line = ({ component, raised, lowered }: ComponentTokens) =>
      `  ${component.label.padEnd(14)} + ${words(raised)}   − ${words(lowered)}`
    const first = n > 0 ? this.components.slice(0, 10).map((component, c) => line(this.#of(0, component, c))) : []
    return [`TopTokens: ${n} rows × ${this.components.length} components, ${this.k} each way`, ...first].join('\n')
  }

  #of(row: number, component: Component, c: number): ComponentTokens {
    const { tokens, values } = this.#native
    const from = (row * this.components.length + c) * 2 * this.k
    const list = (start: number) =>
      Array.from({ length: this.k }, (_, i) => {
        const id = tokens[start + i] ?? 0
        return { id, text: this.origin.tokenText(id), value: values[start + i] ?? Number.NaN }
      })
    return { component, raised: list(from), lowered: list(from + this.k) }
  }
}

/** @internal {@link Model.topTokens}. */
export async function topTokens(model: Loaded, prompts: readonly Prompt[], options: TopTokensOptions): Promise<TopTokens> {
  checkKeys('topTokens', options, ['unit', 'components', 'k', 'mask', ...PROMPT_OPTIONS])
  const asked = nativeAsked(prompts, options)
  const unit = oneOf('unit', options.unit, ['layer', 'head', 'neuron'], 'head')
  const k = wholeNumber('k', options.k, 1, model.config.dVocab) ?? Math.min(10, model.config.dVocab)
  const components = labels('components', options.components)
  const masked = model.masked(options.mask)
  const request = { asked, unit, k, masked, ...(components === undefined ? {} : { components }) }
  const tokens = await call(model.native, options, (cancel, report) => model.native.topTokens(request, cancel, report))
  return new TopTokens(tokens, k, model.origin)
}
