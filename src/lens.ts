import type { Table } from 'apache-arrow'
import { cycle, rowColumns, tokenColumn } from './arrow.js'
import { nativeAsked, PROMPT_OPTIONS, type PromptOptions } from './asked.js'
import { call } from './calls.js'
import { invalidArgument } from './errors.js'
import type { ResidualHook } from './hooks.js'
import type { Loaded } from './loaded.js'
import type { NativeLens } from './native.js'
import { checkRows, Observed, type Origin } from './observed.js'
import { checkKeys, index, oneOf, wholeNumber } from './options.js'
import { lines, type Plot, tokenTable, visible } from './plot.js'
import { copiedDirections, nativeTargets, type ResolvedTarget, resolvedTarget, type Target } from './targets.js'
import type { Prompt } from './tokens.js'

/** Options of {@link Model.logitLens}: targets, the most likely tokens, or both. */
export interface LensOptions extends PromptOptions {
  /** What is read at every state: one target for all prompts, or one per prompt. */
  readonly targets?: Target | readonly Target[]
  /** The k most likely tokens at every state. */
  readonly top?: number
  /** The final norm of a stream that is not final: computed anew on it (default), or held at its scale of the run. */
  readonly norm?: 'recomputed' | 'frozen'
}

/** A token as a state of the stream predicts it. */
export interface PredictedToken {
  /** Its id. */
  readonly id: number
  /** Its text alone. */
  readonly text: string
  /** After the model's cap, if it has one. */
  readonly logit: number
  /** Of the softmax over logits after the cap. */
  readonly probability: number
}

/** One token of a target as a state of the stream ranks it. */
export interface Standing {
  /** Its id. */
  readonly id: number
  /** Its text alone. */
  readonly text: string
  /** Before a cap. */
  readonly logit: number
  /** How many tokens have a larger logit: 0 is the prediction. */
  readonly rank: number
  /** Of the softmax over logits after the cap. */
  readonly probability: number
}

/** One state of the stream at one row. */
export interface LensState {
  /** Where it lies. */
  readonly at: ResidualHook
  /** The target's value there, in logits before a cap; only with targets. */
  readonly value?: number
  /** Every token of the target there, ids rising; only with targets. */
  readonly tokens?: readonly Standing[]
  /** The most likely tokens there, most likely first; only with `top`. */
  readonly top?: readonly PredictedToken[]
}

/** @internal What was written last at a state: embed, L3 attn, L3 mlp; L3 where the two are parallel. */
export function after(at: ResidualHook, states: readonly ResidualHook[]): string {
  const [, layer = 0, point] = /^blocks\.(\d+)\.hook_resid_(\w+)$/.exec(at) ?? []
  if (point === 'pre') return 'embed'
  if (point === 'mid') return `L${layer} attn`
  return states.some((state) => state.endsWith('mid')) ? `L${layer} mlp` : `L${layer}`
}

/**
 * The logit lens: what the unembedding reads from the stream before and after every sublayer (2 L + 1 states; L + 1
 * where attention and MLP are parallel). The last state is the model's own output, and is checked against it.
 */
export class LogitLens extends Observed implements Iterable<LensState[]> {
  /** What was done with the final norm on streams that are not final. */
  readonly norm: 'recomputed' | 'frozen'
  /** Where each state lies. */
  readonly states: readonly ResidualHook[]
  /** The target's value at every state, before a cap: [rows, states], row-major; empty without targets. */
  readonly values: Float32Array
  /** The forward pass's own value, which the last state agrees with: [rows]; empty without targets. */
  readonly measured: Float32Array
  /** How far the two may be apart: [rows]. */
  readonly tolerance: Float32Array
  /** What each row reads, resolved to ids; empty without targets. */
  readonly targets: readonly ResolvedTarget[]
  /** How many tokens every state lists. */
  readonly k: number

  readonly #native: NativeLens

  /** @internal */
  constructor(
    native: NativeLens,
    norm: 'recomputed' | 'frozen',
    directions: readonly (Float32Array | undefined)[],
    origin: Origin,
  ) {
    super(native, origin)
    const rows = native.rowPrompt
    this.norm = norm
    this.states = Object.freeze(native.states as ResidualHook[])
    this.values = native.values
    this.measured = native.measured
    this.tolerance = native.tolerance
    const hasTargets = native.values.length > 0
    this.targets = Object.freeze(hasTargets ? Array.from(rows, (prompt, i) => resolvedTarget(native, i, directions[prompt])) : [])
    this.k = rows.length === 0 ? 0 : native.topIds.length / (rows.length * native.states.length)
    this.#native = native
    origin.remember(native.targetTokens)
    origin.remember(native.topIds)
  }

  /** The states of one row, from the embedding up. */
  row(i: number): LensState[] {
    const row = this.rowIndex(i)
    return this.states.map((at, state) => ({
      at,
      ...(this.targets.length > 0
        ? { value: this.values[row * this.states.length + state] ?? Number.NaN, tokens: this.#standings(row, state) }
        : {}),
      ...(this.k > 0 ? { top: this.#predicted(row, state) } : {}),
    }))
  }

  /** Row by row. */
  *[Symbol.iterator](): Iterator<LensState[]> {
    for (let i = 0; i < this.rows.prompt.length; i++) yield this.row(i)
  }

  /**
   * A tidy Arrow table: with targets `prompt`, `position`, `state`, `value`; without, the most likely tokens: `prompt`,
   * `position`, `state`, `rank`, `token`, `text`, `logit`, `probability`.
   */
  toArrow(): Promise<Table> {
    const [rows, n, k] = [this.rows.prompt.length, this.states.length, this.k]
    if (this.targets.length > 0 || k === 0) {
      const state = { texts: this.states, at: cycle(n, rows) }
      const columns = { ...rowColumns(this.rows, n), state, value: { numbers: this.values } }
      return this.table(columns, { norm: this.norm, measured: JSON.stringify([...this.measured]) })
    }
    const { topIds, topLogits, topProbabilities } = this.#native
    const columns = {
      ...rowColumns(this.rows, n * k),
      state: { texts: this.states, at: cycle(n * k, rows).map((i) => Math.floor(i / k)) },
      rank: { numbers: cycle(k, rows * n) },
      token: { numbers: topIds },
      text: tokenColumn(topIds, this.origin),
      logit: { numbers: topLogits },
      probability: { numbers: topProbabilities },
    }
    return this.table(columns, { norm: this.norm })
  }

  /**
   * A picture as a Vega-Lite spec: with targets their value by depth, a line per row; else the likeliest token and its
   * probability at every state, a column per row.
   */
  plot(): Plot {
    checkRows(this.rows.prompt.length)
    const names = this.states.map((at) => after(at, this.states))
    const row = (i: number) =>
      `${this.rows.prompt[i]}:${this.rows.position[i]} ${visible(this.tokens(this.rows.prompt[i] ?? 0)[this.rows.position[i] ?? 0] ?? '')}`
    const rows = Array.from(this.rows.prompt, (_, i) => row(i))
    const title = `Logit lens, norm ${this.norm}`
    if (this.targets.length > 0) {
      const points = rows.flatMap((series, r) =>
        names.map((state, s) => ({ state, series, value: this.values[r * names.length + s] ?? Number.NaN })),
      )
      return lines(title, 'the target before a cap', points, names, 'logits')
    }
    const cells = rows.flatMap((x, r) =>
      this.row(r).map(({ top }, s) => {
        return { x, y: names[s] ?? '', text: visible(top?.[0]?.text ?? ''), value: top?.[0]?.probability ?? Number.NaN }
      }),
    )
    return tokenTable(title, 'the likeliest token of every state', cells, rows, names)
  }

  /** Everything, with typed arrays as lists. */
  toJSON(): Record<string, unknown> {
    const { kind, norm, provenance, states, prompts } = this
    const rows = Array.from(this, (state, i) => ({ ...this.rowOf(i), states: state }))
    return { kind, norm, provenance, states, prompts, rows }
  }

  [Symbol.for('nodejs.util.inspect.custom')](): string {
    const shown = [`LogitLens: ${this.rows.prompt.length} rows × ${this.states.length} states, norm ${this.norm}`]
    const states = this.rows.prompt.length === 0 ? [] : this.row(0)
    for (const { at, value, top } of states.slice(-10)) {
      const words = top?.slice(0, 3).map(({ text }) => JSON.stringify(text))
      shown.push([`  ${at.padEnd(28)}`, value?.toFixed(3).padStart(9), words?.join(' ')].filter(Boolean).join('  '))
    }
    return shown.join('\n')
  }

  #standings(row: number, state: number): Standing[] {
    const { targetOffsets, targetTokens, tokenLogits, tokenRanks, tokenLogProbabilities } = this.#native
    const standings: Standing[] = []
    for (let t = targetOffsets[row] ?? 0; t < (targetOffsets[row + 1] ?? 0); t++) {
      const id = targetTokens[t] ?? 0
      const at = t * this.states.length + state
      const probability = Math.exp(tokenLogProbabilities[at] ?? Number.NaN)
      const logit = tokenLogits[at] ?? Number.NaN
      standings.push({ id, text: this.origin.tokenText(id), logit, rank: tokenRanks[at] ?? 0, probability })
    }
    return standings
  }

  #predicted(row: number, state: number): PredictedToken[] {
    const { topIds, topLogits, topProbabilities } = this.#native
    return Array.from({ length: this.k }, (_, i) => {
      const at = (row * this.states.length + state) * this.k + i
      const id = topIds[at] ?? 0
      const text = this.origin.tokenText(id)
      return { id, text, logit: topLogits[at] ?? Number.NaN, probability: topProbabilities[at] ?? Number.NaN }
    })
  }

  /**
   * The natural logarithm of a target token's probability at every state of a row: exact where the probability is too
   * small to be told from 0.
   */
  logProbabilities(i: number, token: number): Float32Array {
    const row = this.rowIndex(i)
    const { targetOffsets, targetTokens, tokenLogProbabilities } = this.#native
    const from = targetOffsets[row] ?? 0
    const at = targetTokens.subarray(from, targetOffsets[row + 1]).indexOf(index('token', token, 2 ** 32))
    if (at < 0) throw invalidArgument('token', token, 'a token of the row’s target')
    const n = this.states.length
    return tokenLogProbabilities.subarray((from + at) * n, (from + at + 1) * n)
  }
}

/** @internal {@link Model.logitLens}. */
export async function logitLens(model: Loaded, prompts: readonly Prompt[], options: LensOptions): Promise<LogitLens> {
  checkKeys('logitLens', options, ['targets', 'top', 'norm', ...PROMPT_OPTIONS])
  const asked = nativeAsked(prompts, options)
  const targets = options.targets === undefined ? [] : nativeTargets(options.targets, asked.prompts.length)
  const directions = copiedDirections(targets, asked.prompts.length)
  const norm = oneOf('norm', options.norm, ['recomputed', 'frozen'], 'recomputed')
  const top = wholeNumber('top', options.top, 1, model.config.dVocab) ?? 0
  const lens = await call(model.native, options, (cancel, report) =>
    model.native.lens({ asked, targets, norm, top }, cancel, report),
  )
  return new LogitLens(lens, norm, directions, model.origin)
}
