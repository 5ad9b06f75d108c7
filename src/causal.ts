import type { Table } from 'apache-arrow'
import { componentColumns, rowColumns } from './arrow.js'
import type { Position } from './asked.js'
import { CausalCircuit, type CircuitChoice } from './causal-circuit.js'
import { columnOf, type Component, frozen } from './components.js'
import { invalidArgument } from './errors.js'
import { type NativeCausal, type NativeErasure, verdictNames } from './native.js'
import { firstLines, type Origin, Result } from './observed.js'
import { index } from './options.js'
import type { ReplacedBy } from './replacement.js'
import { type ResolvedTarget, resolvedTarget } from './targets.js'

/**
 * What became of a component's direct effect D when it was replaced, with T the total effect, r = T / D and ε 5 % of the
 * largest |D| in the row:
 *
 * - `silent`: |D|, |T| < ε: nothing at this position; it may act elsewhere
 * - `indirect`: |D| < ε ≤ |T|: it acts through others
 * - `confirmed`: 0.5 ≤ r ≤ 1.5
 * - `amplified`: r > 1.5
 * - `partial`: 0.2 ≤ r < 0.5
 * - `reversed`: r < −0.2
 * - `erased`: taken back, most of it by components that opposed D in the clean run and now oppose less
 * - `repaired`: taken back, most of it by components that rose in its place
 */
export type Verdict = 'silent' | 'indirect' | 'confirmed' | 'amplified' | 'partial' | 'reversed' | 'erased' | 'repaired'

/** How an ablation was made. */
export interface AblationMethod {
  /** What components are. */
  readonly unit: 'layer' | 'head'
  /** What took their place. */
  readonly set: ReplacedBy
  /** Where. */
  readonly ablateAt: 'row' | 'all' | Exclude<Position, 'last' | 'all'>
}

/** What the ablation of one component did at one row, in logits. */
export interface Effect {
  /** Of the component. */
  readonly label: string
  /** D: what of its write reaches the target directly, `(c − c′)·ũ / s`; with zero its attribution. */
  readonly direct: number
  /** T: how much the target falls, everything behind computed again. */
  readonly total: number
  /** T − D. */
  readonly indirect: number
  /** T / D. */
  readonly ratio: number
  /** Through whom: `(c_j − c_j′)·ũ / s` of every other component that changed, largest magnitude first. */
  readonly mediators: readonly { readonly label: string; readonly value: number }[]
  /** Through the final norm, whose scale changes as well. */
  readonly throughNorm: number
  /** What became of the direct effect. */
  readonly verdict: Verdict
  /** direct + Σ mediators + throughNorm − total. */
  readonly residual: number
  /** How large |residual| may be. */
  readonly tolerance: number
}

/** How writes lie along the direction of one component's write c, at one row. */
export interface Erasure {
  /** Of the component. */
  readonly label: string
  /** |c|, in the clean run: a length in the residual stream, as all numbers here. */
  readonly norm: number
  /**
   * `c_j·c / |c|` of every other component, in the order of the model: in the clean run, and after c was replaced. One that is
   * negative in the clean run and near 0 without c removes what c writes.
   */
  readonly writes: readonly { readonly label: string; readonly clean: number; readonly ablated: number }[]
}

/** @internal Runs a prompt of a result once more for one component at one position. */
export type Erase = (ids: Uint32Array, prompt: number, position: number, label: string) => Promise<NativeErasure>

/**
 * Causes: rows (prompt, position) × ablated components. Each was replaced, alone, and everything behind it computed again.
 * `total = direct + Σ mediators + throughNorm` on every one, within its tolerance. With `ablateAt: 'row'` a component is
 * replaced at the row's position only, and a verdict is about its part at this position.
 */
export class Causal extends Result implements Iterable<CausalRow> {
  /** What the numbers are worth. */
  readonly kind = 'causal' as const
  /** How it was made. */
  readonly method: AblationMethod
  /** Every component of the unit: what can be a mediator. */
  readonly components: readonly Component[]
  /** The components that were ablated, in the order of `components`: the columns of `direct`, `total` and `throughNorm`. */
  readonly ablated: readonly Component[]
  /** The target in the clean run, [rows], in logits. */
  readonly measured: Float32Array
  /** Attributions of the clean run, [rows, components]. */
  readonly attributions: Float32Array
  /** D, [rows, ablated], in logits, as all that follows. */
  readonly direct: Float32Array
  /** T, [rows, ablated]. */
  readonly total: Float32Array
  /** N, the final norm's share, [rows, ablated]. */
  readonly throughNorm: Float32Array
  /** M_j, the shares of the other components, [rows, ablated, components]; 0 for the ablated one itself. */
  readonly mediators: Float32Array
  /** D + Σ M + N − T, [rows, ablated]. */
  readonly residual: Float32Array
  /** How large |residual| may be: 1e-5 (1 + Σ |attributions| of both runs), heads one by one, [rows, ablated]. */
  readonly tolerance: Float32Array
  /** Whether every certificate holds. */
  readonly certified: boolean
  /** What each row is about, resolved to ids. */
  readonly targets: readonly ResolvedTarget[]

  readonly #verdicts: Uint32Array
  readonly #erase: Erase

  /** @internal */
  constructor(
    native: NativeCausal,
    directions: readonly (Float32Array | undefined)[],
    method: AblationMethod,
    origin: Origin,
    erase: Erase,
  ) {
    super(native, origin)
    this.#erase = erase
    const n = native.rowPrompt.length * native.ablated.length
    const part = (i: number) => native.numbers.subarray(i * n, (i + 1) * n)
    this.method = Object.freeze(method)
    this.components = frozen(native.components)
    this.ablated = Object.freeze(Array.from(native.ablated, (column) => this.components[column] as Component))
    this.measured = native.measured
    this.attributions = native.attributions
    this.direct = part(0)
    this.total = part(1)
    this.throughNorm = part(2)
    this.residual = part(3)
    this.tolerance = part(4)
    this.mediators = native.mediators
    this.certified = native.violations === 0
    this.targets = Object.freeze(Array.from(native.rowPrompt, (prompt, i) => resolvedTarget(native, i, directions[prompt])))
    this.#verdicts = native.verdicts
  }

  /** One row. */
  row(i: number): CausalRow {
    return new CausalRow(this, this.rowIndex(i))
  }

  /** Row by row. */
  *[Symbol.iterator](): Iterator<CausalRow> {
    for (let i = 0; i < this.rows.prompt.length; i++) yield this.row(i)
  }

  /** @internal The verdict of an ablated component at a row. */
  verdict(row: number, column: number): Verdict {
    return verdicts()[this.#verdicts[row * this.ablated.length + column] ?? 0] ?? 'silent'
  }

  /**
   * Every ablated component over all rows: means of direct and total effect and of the norm's share, and how often each
   * verdict was given. In the order of `ablated`.
   */
  mean(): { label: string; direct: number; total: number; throughNorm: number; verdicts: Partial<Record<Verdict, number>> }[] {
    const [rows, n] = [this.rows.prompt.length, this.ablated.length]
    if (rows === 0) throw invalidArgument('result', 'without rows', 'at least one row')
    return this.ablated.map(({ label }, column) => {
      const mean = (list: Float32Array) => {
        let sum = 0
        for (let row = 0; row < rows; row++) sum += list[row * n + column] ?? Number.NaN
        return sum / rows
      }
      const counts: Partial<Record<Verdict, number>> = {}
      for (let row = 0; row < rows; row++) {
        const verdict = this.verdict(row, column)
        counts[verdict] = (counts[verdict] ?? 0) + 1
      }
      return {
        label,
        direct: mean(this.direct),
        total: mean(this.total),
        throughNorm: mean(this.throughNorm),
        verdicts: counts,
      }
    })
  }

  /**
   * A circuit: with `keep`, the smallest set of components whose effects make up that share of the effect. The effect of a
   * component is its total effect, mean over the rows; the share is of the sum of all positive ones, so a component that
   * works against the target is never chosen. Largest first; of equal ones the earlier in the model. Effects overlap where
   * components back each other up or feed each other: the share is of their sum, not of the logit difference, which
   * `model.faithfulness` measures. Heads that only feed others have an effect at all positions: `ablateAt: 'all'`.
   *
   * With `components`, the set that you name, recorded as named.
   *
   * @throws {PrismError} `INVALID_ARGUMENT` where no effect is positive, or with the nearest labels
   */
  circuit(choice: CircuitChoice): CausalCircuit {
    return CausalCircuit.of(this, choice, this.origin)
  }

  /**
   * Writer and eraser: how the writes of all other components lie along what one component writes at a row, in the clean
   * run and after it was replaced as in this result. Runs the row's prompt once more, so the model must be open.
   *
   * @throws {PrismError} `INVALID_ARGUMENT` with the nearest labels, `CLOSED`
   */
  async erasure(row: number, label: string): Promise<Erasure> {
    const { prompt, position } = this.rowOf(row)
    columnOf(this.components, label)
    const { norm, clean, ablated } = await this.#erase(this.ids(prompt), prompt, position, label)
    const writes = this.components.map((component, j) => {
      return { label: component.label, clean: clean[j] ?? Number.NaN, ablated: ablated[j] ?? Number.NaN }
    })
    return { label, norm, writes: writes.filter((write) => write.label !== label) }
  }

  /**
   * A tidy Arrow table, a line per row and ablated component: `prompt`, `position`, `component`, `kind`, `layer`, `index`,
   * `direct`, `total`, `throughNorm`, `verdict`, `residual`, `tolerance`.
   */
  toArrow(): Promise<Table> {
    const [rows, n] = [this.rows.prompt.length, this.ablated.length]
    const names = verdicts()
    const columns = {
      ...rowColumns(this.rows, n),
      ...componentColumns(
        this.ablated,
        Uint32Array.from({ length: rows * n }, (_, i) => i % n),
      ),
      direct: { numbers: this.direct },
      total: { numbers: this.total },
      throughNorm: { numbers: this.throughNorm },
      verdict: { texts: names, at: this.#verdicts },
      residual: { numbers: this.residual },
      tolerance: { numbers: this.tolerance },
    }
    const { unit, set, ablateAt } = this.method
    const method = { unit, set, ablateAt: typeof ablateAt === 'string' ? ablateAt : JSON.stringify(ablateAt) }
    return this.table(columns, { kind: this.kind, ...method, certified: String(this.certified) })
  }

  /** Everything, with typed arrays as lists. */
  toJSON(): Record<string, unknown> {
    const rows = Array.from(this, (row) => row.toJSON())
    const { kind, method, provenance, certified, components, prompts } = this
    return { kind, method, provenance, certified, components, prompts, rows }
  }

  [Symbol.for('nodejs.util.inspect.custom')](): string {
    const n = this.rows.prompt.length
    const where = { row: 'at the row', all: 'at every position' }[this.method.ablateAt as string] ?? 'at named positions'
    const word = this.certified ? 'certified' : 'not certified'
    const [rows, components] = [n === 1 ? 'row' : 'rows', this.ablated.length === 1 ? 'component' : 'components']
    const head = `Causal: ${n} ${rows} × ${this.ablated.length} ${components} by ${this.method.unit}, replaced ${where}, ${word}`
    return [head, ...firstLines(n, (i) => this.row(i).inLine())].join('\n')
  }
}

/** One row of a {@link Causal}. */
export class CausalRow {
  /** Which prompt of the call. */
  readonly prompt: number
  /** Position in the prompt. */
  readonly position: number
  /** The target in the clean run, in logits. */
  readonly measured: number
  /** What the row is about, resolved to ids. */
  readonly target: ResolvedTarget

  readonly #result: Causal
  readonly #row: number

  /** @internal */
  constructor(result: Causal, row: number) {
    this.#result = result
    this.#row = row
    this.prompt = result.rows.prompt[row] ?? Number.NaN
    this.position = result.rows.position[row] ?? Number.NaN
    this.measured = result.measured[row] ?? Number.NaN
    this.target = result.targets[row] as ResolvedTarget
  }

  /**
   * What the ablation of a component did, by its label.
   *
   * @throws {PrismError} `INVALID_ARGUMENT` with the nearest labels of what was ablated
   */
  get(label: string): Effect {
    return this.#effect(columnOf(this.#result.ablated, label))
  }

  /** The k components with the largest |total|, largest first. */
  byTotal(k = 10): Effect[] {
    index('k', k, Number.MAX_SAFE_INTEGER)
    const total = (column: number) => Math.abs(this.#at(this.#result.total, column))
    const columns = Array.from(this.#result.ablated, (_, column) => column)
    return columns
      .sort((a, b) => total(b) - total(a))
      .slice(0, k)
      .map((column) => this.#effect(column))
  }

  /** Everything, with typed arrays as lists; mediators of every ablated component in the order of `components`. */
  toJSON(): Record<string, unknown> {
    const { prompt, position, measured, target } = this
    const { ablated, components, mediators } = this.#result
    const n = components.length
    const effects = ablated.map((_, column) => {
      const at = (this.#row * ablated.length + column) * n
      return Object.assign(this.#effect(column), { mediators: [...mediators.subarray(at, at + n)] })
    })
    const plain = 'direction' in target ? { direction: [...target.direction] } : target
    return { prompt, position, target: plain, measured, effects }
  }

  /** @internal One line for people. */
  inLine(): string {
    const strongest = this.byTotal(3).map(({ label, total, verdict }) => `${label} ${total.toFixed(3)} (${verdict})`)
    return `prompt ${this.prompt}, position ${this.position}: ${this.measured.toFixed(3)}; ${strongest.join(', ')}, …`
  }

  [Symbol.for('nodejs.util.inspect.custom')](): string {
    return `CausalRow: ${this.inLine()}`
  }

  #at(list: Float32Array, column: number): number {
    return list[this.#row * this.#result.ablated.length + column] ?? Number.NaN
  }

  #effect(column: number): Effect {
    const { ablated, components, mediators, direct, total, throughNorm, residual, tolerance } = this.#result
    const [D, T] = [this.#at(direct, column), this.#at(total, column)]
    const n = components.length
    const at = (this.#row * ablated.length + column) * n
    const changed = Array.from(mediators.subarray(at, at + n), (value, j) => ({ label: components[j]?.label ?? '', value }))
    return {
      label: ablated[column]?.label ?? '',
      direct: D,
      total: T,
      indirect: T - D,
      ratio: T / D,
      mediators: changed.filter(({ value }) => value !== 0).sort((a, b) => Math.abs(b.value) - Math.abs(a.value)),
      throughNorm: this.#at(throughNorm, column),
      verdict: this.#result.verdict(this.#row, column),
      residual: this.#at(residual, column),
      tolerance: this.#at(tolerance, column),
    }
  }
}

let names: readonly Verdict[] | undefined

function verdicts(): readonly Verdict[] {
  names ??= Object.freeze(verdictNames() as Verdict[])
  return names
}
