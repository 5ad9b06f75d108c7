// A circuit: the components that are to do a task between them, found by their total effects or named.
import { createHash } from 'node:crypto'
import type { AblationMethod, Causal } from './causal.js'
import { columnOf, type Component, type ComponentKind } from './components.js'
import { invalidArgument } from './errors.js'
import type { Origin } from './observed.js'
import { checkKeys } from './options.js'

/** What a circuit is made of. What is of another kind is always left in place; an attention bias always is. */
export type CircuitKind = 'head' | 'mlp' | 'embed' | 'pos_embed'

/** @internal */
export const CIRCUIT_KINDS: readonly CircuitKind[] = ['head', 'mlp', 'embed', 'pos_embed']

/** Options of {@link Causal.circuit}: a share to keep, or components by name. */
export type CircuitChoice =
  | {
      /** The share of the effect, above 0 and up to 1. */
      readonly keep: number
      /** What may be chosen. Default heads and MLPs; attention as a whole counts as its heads. */
      readonly over?: readonly CircuitKind[]
    }
  | {
      /** Labels of the components. */
      readonly components: readonly string[]
    }

/** How a circuit came about. */
export type CircuitOrigin =
  | {
      readonly by: 'total effect'
      /** The share that was asked for. */
      readonly keep: number
      /** The share that it has. */
      readonly share: number
      /** Σ of the positive mean total effects of all that could be chosen, in logits: what shares are of. */
      readonly effect: number
      /** What could be chosen. */
      readonly over: readonly CircuitKind[]
      /** Of how many components. */
      readonly of: number
    }
  | { readonly by: 'name' }

/** A component of a circuit and what its ablation did. */
export type CircuitComponent = Component & {
  /** Its total effect, mean over the rows, in logits; absent where it was named and had not been ablated. */
  readonly total?: number
}

/**
 * Components that are to do a task between them. Only {@link Causal.circuit} makes one: what it claims goes back to an
 * ablation. Whether they do is for `model.faithfulness` to say.
 */
export class CausalCircuit {
  /** What stands behind it: components that were ablated. */
  readonly kind = 'causal' as const
  /** In the order of the model. */
  readonly components: readonly CircuitComponent[]
  /** What components are. */
  readonly unit: 'layer' | 'head'
  /** Whether it was found, and how, or named. */
  readonly found: CircuitOrigin
  /** The ablation that it goes back to. */
  readonly method: AblationMethod
  /** What was ablated for: how many rows of how many prompts, and SHA-256 over their ids, positions and resolved targets. */
  readonly task: { readonly prompts: number; readonly rows: number; readonly sha256: string }

  readonly #origin: Origin

  private constructor(causal: Causal, components: readonly CircuitComponent[], found: CircuitOrigin, origin: Origin) {
    this.components = Object.freeze(components.map((component) => Object.freeze(component)))
    this.unit = causal.method.unit
    this.found = Object.freeze(found)
    this.method = causal.method
    this.task = Object.freeze({ prompts: causal.nPrompts, rows: causal.rows.prompt.length, sha256: taskOf(causal) })
    this.#origin = origin
  }

  /** @internal */
  static of(causal: Causal, choice: unknown, origin: Origin): CausalCircuit {
    checkKeys('circuit', choice, ['keep', 'over', 'components'])
    const { keep, over, components } = choice as { keep?: unknown; over?: unknown; components?: unknown }
    if ((keep === undefined) === (components === undefined) || (components !== undefined && over !== undefined)) {
      throw invalidArgument('circuit', choice, '{ keep, over }, or { components }')
    }
    if (components === undefined) {
      const { chosen, found } = byEffect(causal, keep, circuitKinds('over', over, ['head', 'mlp']))
      return new CausalCircuit(causal, chosen, found, origin)
    }
    return new CausalCircuit(causal, named(causal, components), { by: 'name' }, origin)
  }

  /** The labels of its components. */
  get labels(): string[] {
    return this.components.map(({ label }) => label)
  }

  /** SHA-256 of config and weights of the model that it was found in; `undefined` where that was closed before. */
  fingerprint(): Promise<string | undefined> {
    return this.#origin.fingerprint()
  }

  /** @internal Whether it was found in a model. */
  async isOf(origin: Origin): Promise<boolean> {
    if (origin === this.#origin) return true
    const [here, there] = await Promise.all([this.#origin.fingerprint(), origin.fingerprint()])
    return here !== undefined && here === there
  }

  /** Everything, as plain data. */
  toJSON(): Record<string, unknown> {
    const { kind, unit, components, found, method, task } = this
    return { kind, unit, components, found, method, task, provenance: this.#origin.provenance }
  }

  [Symbol.for('nodejs.util.inspect.custom')](): string {
    const { found } = this
    const how = found.by === 'name' ? 'named' : `${(100 * found.share).toFixed(1)} % of the effect, by total effect`
    return `CausalCircuit: ${this.components.length} components, ${how}: ${this.labels.join(', ')}`
  }
}

/** @internal Kinds of components, each once. */
export function circuitKinds(argument: string, kinds: unknown, otherwise: readonly CircuitKind[]): readonly CircuitKind[] {
  if (kinds === undefined) return Object.freeze([...otherwise])
  const known = (kind: unknown) => CIRCUIT_KINDS.includes(kind as CircuitKind)
  if (Array.isArray(kinds) && kinds.length > 0 && Array.from(kinds).every(known)) {
    return Object.freeze(CIRCUIT_KINDS.filter((kind) => kinds.includes(kind)))
  }
  throw invalidArgument(argument, kinds, `a list of ${CIRCUIT_KINDS.map((kind) => `'${kind}'`).join(', ')}`)
}

/** @internal What a component counts as: attention as a whole as its heads; nothing for what is always left in place. */
export function circuitKind(kind: ComponentKind): CircuitKind | undefined {
  return kind === 'attn' ? 'head' : CIRCUIT_KINDS.find((known) => known === kind)
}

/**
 * The fewest components whose mean total effects make up the share, of the sum of all positive ones: the largest, one after
 * the other; of equal ones the earlier in the model.
 */
function byEffect(causal: Causal, keep: unknown, over: readonly CircuitKind[]) {
  if (typeof keep !== 'number' || !(keep > 0 && keep <= 1)) throw invalidArgument('keep', keep, 'a number above 0 and up to 1')
  const may = ({ kind }: Component) => over.includes(circuitKind(kind) as CircuitKind)
  const candidates = effects(causal).filter(may)
  const positive = candidates.filter(({ total }) => total > 0).sort((a, b) => b.total - a.total)
  const effect = positive.reduce((sum, { total }) => sum + total, 0)
  if (positive.length === 0) throw invalidArgument('circuit', 'no component with a positive mean total effect', 'at least one')
  const chosen = new Set<string>()
  let kept = 0
  for (const { label, total } of positive) {
    if (keep < 1 && kept >= keep * effect) break
    chosen.add(label)
    kept += total
  }
  const found = { by: 'total effect', keep, share: kept / effect, effect, over, of: candidates.length } as const
  return { chosen: candidates.filter(({ label }) => chosen.has(label)), found }
}

/** Everything that was ablated with its mean total effect, in the order of the model. */
function effects(causal: Causal): (Component & { readonly total: number })[] {
  const means = causal.mean()
  return causal.ablated.map((component, i) => ({ ...component, total: means[i]?.total ?? Number.NaN }))
}

function named(causal: Causal, labels: unknown): CircuitComponent[] {
  const isText = (label: unknown): label is string => typeof label === 'string'
  if (!Array.isArray(labels) || !Array.from(labels).every(isText)) {
    throw invalidArgument('components', labels, 'a list of labels of components')
  }
  const columns = [...new Set(labels.map((label) => columnOf(causal.components, label)))].sort((a, b) => a - b)
  const totals = new Map(effects(causal).map((component) => [component.label, component]))
  return columns.map((column) => {
    const component = causal.components[column] as Component
    if (circuitKind(component.kind) === undefined) {
      throw invalidArgument('components', component.label, 'heads, MLPs and embeddings: an attention bias is always in place')
    }
    return totals.get(component.label) ?? component
  })
}

function taskOf(causal: Causal): string {
  const rows = Array.from(causal.targets, (target, i) => {
    const plain = 'direction' in target ? { direction: [...target.direction] } : { tokens: target.tokens, mean: target.mean }
    return [causal.rows.prompt[i], causal.rows.position[i], plain]
  })
  const ids = Array.from({ length: causal.nPrompts }, (_, i) => [...causal.ids(i)])
  return createHash('sha256').update(JSON.stringify({ ids, rows })).digest('hex')
}
