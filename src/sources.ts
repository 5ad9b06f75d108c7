import type { Table } from 'apache-arrow'
import { tokenColumn } from './arrow.js'
import { nativeAsked, nativeAttributing, PROMPT_OPTIONS, type PromptOptions } from './asked.js'
import { attributed, type Attribution } from './attribution.js'
import { call } from './calls.js'
import { labels } from './components.js'
import type { Loaded } from './loaded.js'
import type { NativeSources } from './native.js'
import { firstLines, Observed, offsetsOf, type Origin } from './observed.js'
import { checkKeys, index } from './options.js'
import { heatmap, type Plot, tokenLabels } from './plot.js'
import { copiedDirections, type Target } from './targets.js'
import { Tensor } from './tensor.js'
import type { Prompt } from './tokens.js'

/** Options of {@link Model.attributeSources}. */
export interface SourcesOptions extends PromptOptions {
  /** Labels of heads, `L9H6`. Default: all of them. */
  readonly heads?: readonly string[]
  /** As for {@link Model.attribute}. */
  readonly norm?: 'frozen' | 'none'
  /** As for {@link Model.attribute}. */
  readonly onViolation?: 'throw' | 'warn'
}

/** One source position of a head at a row. */
export interface Source {
  /** Label of the head. */
  readonly head: string
  /** Where it moved from. */
  readonly position: number
  /** The token there. */
  readonly token: string
  /** In logits. */
  readonly value: number
}

/** Heads by source position at one row. */
export interface SourcesRow {
  /** Which prompt of the call. */
  readonly prompt: number
  /** Position in the prompt: from where the heads look. */
  readonly position: number
  /** Labels of the heads. */
  readonly heads: readonly string[]
  /** The texts of the prompt's tokens. */
  readonly tokens: readonly string[]
  /** In logits, [head, key_pos]: what each head moved from each position. Rows sum to the heads' attributions. */
  readonly matrix: Tensor<['head', 'key_pos']>
  /** The k sources of largest magnitude, largest first. */
  byMagnitude(k: number): Source[]
}

/**
 * Heads split by where they look: what head h moved from source position j adds to the target, `A[q,j] (v_j W_O[h])·ũ / s`.
 * Over the positions it sums to the head's attribution. A pattern alone says where a head looks, not what it moves.
 */
export class AttributionSources extends Observed implements Iterable<SourcesRow> {
  /** The whole attribution by heads, with its certificates. */
  readonly attribution: Attribution
  /** Labels of the heads. */
  readonly heads: readonly string[]

  readonly #values: Float32Array
  readonly #offsets: Uint32Array

  /** @internal */
  constructor(native: NativeSources, attribution: Attribution, origin: Origin) {
    super(native.attribution, origin)
    this.attribution = attribution
    const pairs = Array.from({ length: native.heads.length / 2 }, (_, i) => native.heads.subarray(2 * i, 2 * i + 2))
    this.heads = Object.freeze(pairs.map(([layer, head]) => `L${layer}H${head}`))
    this.#values = native.values
    this.#offsets = offsetsOf(Array.from(this.rows.prompt, (prompt) => this.ids(prompt).length * this.heads.length))
  }

  /** One row. */
  row(i: number): SourcesRow {
    const { prompt, position } = this.rowOf(i)
    const tokens = this.tokens(prompt)
    const heads = this.heads
    const data = this.#values.subarray(this.#offsets[i], this.#offsets[i + 1])
    const matrix = new Tensor(data, [heads.length, tokens.length] as const, ['head', 'key_pos'] as ['head', 'key_pos'])
    const byMagnitude = (k: number) => {
      index('k', k, Number.MAX_SAFE_INTEGER)
      const source = (value: number, at: number) => {
        const from = at % tokens.length
        return { head: heads[Math.floor(at / tokens.length)] ?? '', position: from, token: tokens[from] ?? '', value }
      }
      return Array.from(data, source)
        .sort((a, b) => Math.abs(b.value) - Math.abs(a.value))
        .slice(0, k)
    }
    return { prompt, position, heads, tokens, matrix, byMagnitude }
  }

  /** Row by row. */
  *[Symbol.iterator](): Iterator<SourcesRow> {
    for (let i = 0; i < this.rows.prompt.length; i++) yield this.row(i)
  }

  /** A tidy Arrow table: `prompt`, `position`, `head`, `source`, `token` (the text there), `value`. */
  toArrow(): Promise<Table> {
    const n = this.#values.length
    const list = () => new Uint32Array(n)
    const [head, source, token, prompt, position] = [list(), list(), list(), list(), list()]
    this.#offsets.subarray(0, -1).forEach((start, row) => {
      const ids = this.ids(this.rows.prompt[row] ?? 0)
      for (let i = start; i < (this.#offsets[row + 1] ?? start); i++) {
        head[i] = Math.floor((i - start) / ids.length)
        source[i] = (i - start) % ids.length
        token[i] = ids[(i - start) % ids.length] ?? 0
        prompt[i] = this.rows.prompt[row] ?? 0
        position[i] = this.rows.position[row] ?? 0
      }
    })
    const columns = {
      prompt: { numbers: prompt },
      position: { numbers: position },
      head: { texts: this.heads, at: head },
      source: { numbers: source },
      token: tokenColumn(token, this.origin),
      value: { numbers: this.#values },
    }
    return this.table(columns, { ...this.attribution.method, certified: String(this.attribution.certified) })
  }

  /** A picture of one row as a Vega-Lite spec: heads by source position. */
  plot(options: { readonly row?: number } = {}): Plot {
    checkKeys('plot', options, ['row'])
    const { prompt, position, heads, tokens, matrix } = this.row(options.row ?? 0)
    const xs = tokenLabels(tokens.slice(0, position + 1))
    const cells = heads.flatMap((y, h) => xs.map((x, k) => ({ x, y, value: matrix.at(h, k) })))
    return heatmap({
      title: 'What heads moved, by source position',
      subtitle: `prompt ${prompt}, position ${position}`,
      cells,
      xs,
      ys: heads,
      xTitle: 'from',
      yTitle: 'head',
      legend: 'logits',
      scale: 'diverging',
    })
  }

  /** Everything, with typed arrays as lists. */
  toJSON(): Record<string, unknown> {
    const { kind, provenance, heads, prompts } = this
    const rows = Array.from(this, ({ prompt, position, matrix }) => ({ prompt, position, matrix }))
    return { kind, provenance, method: this.attribution.method, certified: this.attribution.certified, heads, prompts, rows }
  }

  [Symbol.for('nodejs.util.inspect.custom')](): string {
    const n = this.rows.prompt.length
    const line = (i: number) => {
      const { prompt, position, byMagnitude } = this.row(i)
      const strongest = byMagnitude(3).map(({ head, token, value }) => `${head} from ${JSON.stringify(token)} ${value.toFixed(3)}`)
      return `prompt ${prompt}, position ${position}: ${strongest.join(', ')}, …`
    }
    return [`AttributionSources: ${n} rows, ${this.heads.length} heads`, ...firstLines(n, line)].join('\n')
  }
}

/** @internal {@link Model.attributeSources}. */
export async function attributeSources(
  model: Loaded,
  prompts: readonly Prompt[],
  targets: Target | readonly Target[],
  options: SourcesOptions,
): Promise<AttributionSources> {
  checkKeys('attributeSources', options, ['heads', 'norm', 'onViolation', ...PROMPT_OPTIONS])
  const asked = nativeAsked(prompts, options)
  const attributing = nativeAttributing(targets, asked.prompts.length, options)
  const directions = copiedDirections(attributing.targets, asked.prompts.length)
  const heads = labels('heads', options.heads)
  const request = { asked, attributing, ...(heads === undefined ? {} : { heads }) }
  const components = model.components('head')
  const sources = await call(model.native, options, (cancel, report) => model.native.sources(request, cancel, report))
  const attribution = attributed(sources.attribution, components, directions, attributing, model.origin)
  return new AttributionSources(sources, attribution, model.origin)
}
