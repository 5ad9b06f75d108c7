// Does a circuit do the task? Everything else is ablated, and what is left is measured; completeness and minimality of it.
import type { Table } from 'apache-arrow'
import { rowColumns } from './arrow.js'
import { nativeAsked, PROMPT_OPTIONS, type PromptOptions } from './asked.js'
import { BOOTSTRAP_OPTIONS, type BootstrapOptions, type Estimate, estimates } from './bootstrap.js'
import { call } from './calls.js'
import { CausalCircuit, circuitKind, type CircuitKind, circuitKinds } from './causal-circuit.js'
import { columnOf, type Component } from './components.js'
import { invalidArgument } from './errors.js'
import type { Loaded } from './loaded.js'
import type { NativeWithout } from './native.js'
import { checkRows, firstLines, type Origin, Result } from './observed.js'
import { checkKeys, wholeNumber } from './options.js'
import { SplitMix } from './random.js'
import { nativeSet, type ReplacedBy, type ReplaceWith } from './replacement.js'
import { copiedDirections, nativeTargets, type ResolvedTarget, resolvedTarget } from './targets.js'

/** Options of {@link Model.faithfulness}. */
export interface FaithfulnessOptions extends PromptOptions {
  /** What takes the place of everything else, at every position. Default `'zero'`. */
  readonly set?: ReplaceWith
  /**
   * What "everything else" is made of. Default heads and MLPs. What is of another kind stays in place, whether it is in the
   * circuit or not: embeddings, unless they are named here, and attention biases, which are the same whatever is read.
   * `['head']` leaves the MLPs in place too, as Wang et al. do.
   */
  readonly over?: readonly CircuitKind[]
  /** Whether the circuit has all that does the task: what happens when a part K is taken from circuit and model alike. */
  readonly completeness?: CompletenessOptions
  /**
   * Whether every component of the circuit matters: what happens when it is taken away; with an object, from the circuit
   * without these others (K): `{ L3H0: ['L3H1'] }`.
   */
  readonly minimality?: boolean | Readonly<Record<string, readonly string[]>>
}

/** Which parts of a circuit are taken away. */
export interface CompletenessOptions {
  /** Parts by name: a class of heads, as a rule. */
  readonly sets?: readonly (readonly string[])[]
  /** How many parts are drawn besides, every component with probability ½. Default 0. */
  readonly samples?: number
  /** Seed of what is drawn. Default 0. */
  readonly seed?: number
}

/** @internal Names of {@link FaithfulnessOptions} that are not those of every call. */
export const FAITHFULNESS_OPTIONS = ['set', 'over', 'completeness', 'minimality'] as const

/** What is left of the target, in logits, means over the rows, when a part is taken from the circuit and from the whole model. */
export interface Completeness {
  /** K. */
  readonly without: readonly string[]
  /** Whether K was named or drawn. */
  readonly chosen: 'named' | 'drawn'
  /** F(C∖K). */
  readonly circuit: number
  /** F(M∖K). */
  readonly full: number
  /** |F(C∖K) − F(M∖K)|: small for every K if the circuit is complete. */
  readonly difference: number
}

/** What a component matters in the circuit, in logits, means over the rows. */
export interface Minimality {
  /** v. */
  readonly label: string
  /** K. */
  readonly without: readonly string[]
  /** F(C∖K). */
  readonly before: number
  /** F(C∖(K∪{v})). */
  readonly after: number
  /** |after − before|: large for every v, for some K, if the circuit is minimal. */
  readonly change: number
  /** `change` / |F(M)|. */
  readonly share: number
}

/** Figures of {@link Faithfulness.mean}. */
export type FaithfulnessMean = Readonly<Record<'full' | 'circuit' | 'empty' | 'score' | 'ratio', Estimate>>

/** How a circuit was tried. */
export interface FaithfulnessMethod {
  /** What took the place of everything else. */
  readonly set: ReplacedBy
  /** What "everything else" is made of. */
  readonly over: readonly CircuitKind[]
  /** Where: at every position. */
  readonly ablateAt: 'all'
}

/**
 * What is left of the target when everything but a circuit is ablated at every position: F(C), beside F(M) of the whole
 * model and F(∅) with nothing kept. Each is a run of its own, computed in full.
 */
export class Faithfulness extends Result {
  /** What the numbers are worth. */
  readonly kind = 'causal' as const
  /** The circuit that was tried. */
  readonly tried: CausalCircuit
  /** How. */
  readonly method: FaithfulnessMethod
  /** What each row is about, resolved to ids. */
  readonly targets: readonly ResolvedTarget[]
  /** F(M), the target as the model computes it, [rows], in logits. */
  readonly full: Float64Array
  /** F(C), [rows]. */
  readonly circuit: Float64Array
  /** F(∅), [rows]. */
  readonly empty: Float64Array
  /** (F(C) − F(∅)) / (F(M) − F(∅)), [rows]: 1 where the circuit does all, 0 where it does nothing; not finite where F(M) is F(∅). */
  readonly score: Float64Array
  /** F(C) / F(M), [rows]. */
  readonly ratio: Float64Array
  /** For every part that was taken away; empty unless asked for. */
  readonly completeness: readonly Completeness[]
  /** For every component of the circuit; empty unless asked for. */
  readonly minimality: readonly Minimality[]

  /** @internal */
  constructor(native: NativeWithout, asked: Trial, directions: readonly (Float32Array | undefined)[], origin: Origin) {
    super(native, origin)
    const n = native.rowPrompt.length
    const left = (set: number) => Float64Array.from({ length: n }, (_, i) => native.left[i * asked.sets.length + set] ?? Number.NaN)
    const mean = (list: Float64Array) => list.reduce((sum, value) => sum + value, 0) / n
    this.tried = asked.circuit
    this.method = Object.freeze({ set: asked.words, over: asked.over, ablateAt: 'all' })
    this.targets = Object.freeze(Array.from(native.rowPrompt, (prompt, i) => resolvedTarget(native, i, directions[prompt])))
    this.full = native.measured
    this.circuit = left(asked.kept)
    this.empty = left(asked.empty)
    const each = (of: (f: number, c: number, e: number) => number) =>
      this.full.map((f, i) => of(f, this.circuit[i] ?? Number.NaN, this.empty[i] ?? Number.NaN))
    this.score = each(normalised)
    this.ratio = each((f, c) => c / f)
    const f = (set: number) => mean(left(set))
    this.completeness = Object.freeze(
      asked.completeness.map(({ part, chosen, circuit, full }) => {
        const [c, m] = [f(circuit), f(full)]
        return Object.freeze({ without: part, chosen, circuit: c, full: m, difference: Math.abs(c - m) })
      }),
    )
    this.minimality = Object.freeze(
      asked.minimality.map(({ label, part, before, after }) => {
        const [b, a] = [f(before), f(after)]
        const change = Math.abs(a - b)
        return Object.freeze({ label, without: part, before: b, after: a, change, share: change / Math.abs(mean(this.full)) })
      }),
    )
  }

  /**
   * Over all rows: the means of F(M), F(C) and F(∅), and from these means the score and the ratio, each with a bootstrap
   * interval. (The mean of the rows' own scores is another number, which single rows with a small F(M) can rule.)
   */
  mean(options: BootstrapOptions = {}): FaithfulnessMean {
    checkKeys('mean', options, BOOTSTRAP_OPTIONS)
    checkRows(this.rows.prompt.length)
    return estimates(
      [this.full, this.circuit, this.empty],
      this.rows.prompt,
      {
        full: ([f = Number.NaN]) => f,
        circuit: ([, c = Number.NaN]) => c,
        empty: ([, , e = Number.NaN]) => e,
        score: ([f = Number.NaN, c = Number.NaN, e = Number.NaN]) => normalised(f, c, e),
        ratio: ([f = Number.NaN, c = Number.NaN]) => c / f,
      },
      options,
    )
  }

  /** A tidy Arrow table, a line per row: `prompt`, `position`, `full`, `circuit`, `empty`, `score`, `ratio`. */
  toArrow(): Promise<Table> {
    const { full, circuit, empty, score, ratio } = this
    const numbers = Object.fromEntries(
      Object.entries({ full, circuit, empty, score, ratio }).map(([name, of]) => [name, { numbers: of }]),
    )
    const { set, over, ablateAt } = this.method
    const metadata = { kind: this.kind, circuit: JSON.stringify(this.tried), set, over: JSON.stringify(over), ablateAt }
    return this.table({ ...rowColumns(this.rows, 1), ...numbers }, metadata)
  }

  /** Everything, with typed arrays as lists. */
  toJSON(): Record<string, unknown> {
    const { kind, method, provenance, tried, completeness, minimality, prompts } = this
    const rows = Array.from(this.full, (full, i) => {
      const target = this.targets[i] as ResolvedTarget
      const plain = 'direction' in target ? { direction: [...target.direction] } : target
      const [circuit, empty, score, ratio] = [this.circuit, this.empty, this.score, this.ratio].map((list) => list[i])
      return { ...this.rowOf(i), target: plain, full, circuit, empty, score, ratio }
    })
    const mean = rows.length === 0 ? undefined : this.mean()
    return { kind, method, provenance, circuit: tried, mean, completeness, minimality, prompts, rows }
  }

  [Symbol.for('nodejs.util.inspect.custom')](): string {
    const n = this.full.length
    const line = (i: number) => {
      const [c, f, s] = [this.circuit, this.full, this.score].map((list) => (list[i] ?? Number.NaN).toFixed(3))
      return `prompt ${this.rows.prompt[i]}, position ${this.rows.position[i]}: ${c} of ${f}, score ${s}`
    }
    const size = this.tried.components.length
    const circuit = `${n} ${n === 1 ? 'row' : 'rows'}, a circuit of ${size} ${size === 1 ? 'component' : 'components'}`
    const [f, c, e] = [this.full, this.circuit, this.empty].map((list) => list.reduce((sum, x) => sum + x, 0) / n)
    const means = (full = Number.NaN, kept = Number.NaN, empty = Number.NaN) =>
      `  mean: ${kept.toFixed(3)} of ${full.toFixed(3)}, nothing kept ${empty.toFixed(3)}, score ${normalised(full, kept, empty).toFixed(3)}`
    const head = `Faithfulness: ${circuit}, everything else replaced by ${REPLACED_BY[this.method.set]}`
    return [head, ...(n > 1 ? [means(f, c, e)] : []), ...firstLines(n, line)].join('\n')
  }
}

const REPLACED_BY: Readonly<Record<ReplacedBy, string>> = {
  zero: 'zero',
  mean: 'its mean',
  'mean at the same position': 'its mean at the same position',
  from: 'its value in other prompts',
}

function normalised(full: number, circuit: number, empty: number): number {
  return (circuit - empty) / (full - empty)
}

/** What is run: sets of components to take away, as columns by head. */
interface Trial {
  readonly circuit: CausalCircuit
  readonly words: ReplacedBy
  readonly over: readonly CircuitKind[]
  readonly sets: readonly (readonly number[])[]
  /** Which set leaves the circuit. */
  readonly kept: number
  /** Which set leaves nothing. */
  readonly empty: number
  /** Which sets the two sides of each part are. */
  readonly completeness: readonly {
    readonly part: readonly string[]
    readonly chosen: 'named' | 'drawn'
    readonly circuit: number
    readonly full: number
  }[]
  readonly minimality: readonly {
    readonly label: string
    readonly part: readonly string[]
    readonly before: number
    readonly after: number
  }[]
}

/** @internal {@link Model.faithfulness}. */
export async function faithfulness(
  model: Loaded,
  prompts: unknown,
  targets: unknown,
  circuit: CausalCircuit,
  options: FaithfulnessOptions,
): Promise<Faithfulness> {
  checkKeys('faithfulness', options, [...FAITHFULNESS_OPTIONS, ...PROMPT_OPTIONS])
  if (!(circuit instanceof CausalCircuit)) throw invalidArgument('circuit', circuit, 'what causal.circuit(…) returned')
  // copied: a circuit of another Model of the same weights is looked at before the addon copies
  const asked = structuredClone(nativeAsked(prompts, options))
  const list = structuredClone(nativeTargets(targets, asked.prompts.length))
  const directions = copiedDirections(list, asked.prompts.length)
  const { words, ...set } = structuredClone(nativeSet(options.set))
  const over = circuitKinds('over', options.over, ['head', 'mlp'])
  const trial = new Sets(model.components('head'), circuit, over).trial(words, options)
  if (!(await circuit.isOf(model.origin)))
    throw invalidArgument('circuit', 'one of another model', 'a circuit that was found in this model')
  const sets = Uint32Array.from(trial.sets.flat())
  const ends = trial.sets.map((_, i) => trial.sets.slice(0, i + 1).reduce((sum, { length }) => sum + length, 0))
  const request = { asked, targets: list, ...set, sets, setOffsets: Uint32Array.from([0, ...ends]) }
  const found = await call(model.native, options, (cancel, report) => model.native.without(request, cancel, report))
  return new Faithfulness(found, trial, directions, model.origin)
}

/** Sets of components to take away, each once. */
class Sets {
  readonly #components: readonly Component[]
  readonly #circuit: CausalCircuit
  readonly #over: readonly CircuitKind[]
  /** What can be taken away, and what of it is in the circuit: columns. */
  readonly #all: readonly number[]
  readonly #kept: ReadonlySet<number>
  readonly #sets: number[][] = []
  readonly #numbers = new Map<string, number>()

  constructor(components: readonly Component[], circuit: CausalCircuit, over: readonly CircuitKind[]) {
    this.#components = components
    this.#circuit = circuit
    this.#over = over
    const may = ({ kind }: Component) => over.includes(circuitKind(kind) as CircuitKind)
    this.#all = components.flatMap((component, column) => (may(component) ? [column] : []))
    this.#kept = new Set(this.#columns(circuit.labels))
  }

  trial(words: ReplacedBy, { completeness, minimality }: FaithfulnessOptions): Trial {
    const all = new Set(this.#all)
    const [kept, empty] = [this.#left(this.#kept), this.#left(new Set())]
    const complete = this.#parts(completeness).map(({ part, chosen }) => {
      const columns = new Set(this.#columns(part))
      const [circuit, full] = [this.#left(this.#kept, columns), this.#left(all, columns)]
      return { part: Object.freeze([...part]), chosen, circuit, full }
    })
    const minimal = this.#members(minimality).map(({ label, part }) => {
      const columns = this.#columns(part)
      const before = this.#left(this.#kept, new Set(columns))
      const after = this.#left(this.#kept, new Set([...columns, ...this.#columns([label])]))
      return { label, part: Object.freeze([...part]), before, after }
    })
    const tried = { circuit: this.#circuit, words, over: this.#over, sets: this.#sets }
    return { ...tried, kept, empty, completeness: complete, minimality: minimal }
  }

  /** The number of the set that leaves of what can be taken away these components, less others. */
  #left(kept: ReadonlySet<number>, less: ReadonlySet<number> = new Set()): number {
    const gone = this.#all.filter((column) => !kept.has(column) || less.has(column))
    const name = gone.join(',')
    const number = this.#numbers.get(name) ?? this.#sets.push(gone) - 1
    this.#numbers.set(name, number)
    return number
  }

  /** The columns of labels, attention as a whole by its heads; without what stays in place. */
  #columns(labels: readonly string[]): number[] {
    const heads = (label: string) =>
      this.#components.flatMap(({ kind, layer }, column) => (kind === 'head' && `L${layer} attn` === label ? [column] : []))
    const columns = labels.flatMap((label) => (label.endsWith(' attn') ? heads(label) : [columnOf(this.#components, label)]))
    return columns.filter((column) => this.#all.includes(column))
  }

  /** The labels of the circuit that can be taken away. */
  #labels(): string[] {
    return this.#circuit.labels.filter((label) => this.#columns([label]).length > 0)
  }

  #checked(argument: string, labels: unknown): string[] {
    const known = this.#labels()
    const isMember = (label: unknown): label is string => known.includes(label as string)
    if (Array.isArray(labels) && Array.from(labels).every(isMember)) return [...new Set(labels as string[])]
    throw invalidArgument(argument, labels, `a list of components of the circuit: ${known.join(', ')}`)
  }

  #parts(options: unknown): { part: string[]; chosen: 'named' | 'drawn' }[] {
    if (options === undefined) return []
    checkKeys('completeness', options, ['sets', 'samples', 'seed'])
    const { sets = [], samples, seed } = options as Record<string, unknown>
    if (!Array.isArray(sets)) throw invalidArgument('completeness.sets', sets, 'a list of lists of components')
    const random = new SplitMix(wholeNumber('completeness.seed', seed, 0, 2 ** 32 - 1) ?? 0)
    const named = sets.map((set, i) => ({ part: this.#checked(`completeness.sets[${i}]`, set), chosen: 'named' as const }))
    const drawn = Array.from({ length: wholeNumber('completeness.samples', samples, 0, 100_000) ?? 0 }, () => {
      return { part: this.#labels().filter(() => random.below(2) === 1), chosen: 'drawn' as const }
    })
    return [...named, ...drawn]
  }

  #members(minimality: unknown): { label: string; part: string[] }[] {
    if (minimality === undefined || minimality === false) return []
    if (minimality === true) return this.#labels().map((label) => ({ label, part: [] }))
    checkKeys('minimality', minimality, this.#labels())
    const given = minimality as Record<string, unknown>
    return this.#labels().map((label) => {
      const part = this.#checked(`minimality.${label}`, given[label] ?? [])
      if (part.includes(label)) throw invalidArgument(`minimality.${label}`, part, 'other components than itself')
      return { label, part }
    })
  }
}
