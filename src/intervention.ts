// Interventions: values that are replaced while the model runs, with everything behind them computed from the new ones.
import { nativePositions } from './asked.js'
import { invalidArgument } from './errors.js'
import type { BlockPoints, OuterPoints } from './hooks.js'
import type { NativeIntervention, NativeInterventions, NativePositions, NativeRun } from './native.js'
import { checkKeys, index, oneOf, wholeNumber } from './options.js'
import { Run } from './run.js'
import { nativePrompt, type Prompt } from './tokens.js'

/**
 * Receivers of path patching: the stream as one head's queries, keys or values read it, or as the MLP does, each before
 * its norm. They can be set, not cached. Where queries and keys are normed over all heads together (OLMo 2), the norm
 * sees what the head makes of it.
 */
export type Receiver = 'attn.hook_q_input' | 'attn.hook_k_input' | 'attn.hook_v_input' | 'hook_mlp_in'

/**
 * The name of a point that can be set: not those that nothing is read on from, a norm's scale, and what a head writes (set
 * `hook_z`, which it is made of).
 */
export type InterventionHook =
  | Exclude<keyof OuterPoints, 'ln_final.hook_scale'>
  | `blocks.${number}.${Exclude<keyof BlockPoints, 'attn.hook_result' | `${string}.hook_scale`> | Receiver}`

/** Where in a prompt; negative ones count from its end. */
export type InterventionPosition = 'last' | 'all' | number | readonly number[]

/**
 * What an intervention sets.
 *
 * - `'zero'`.
 * - `mean`: the mean over a reference: prompts, which are run for it, or a run that cached the point (for a receiver
 *   `hook_resid_pre` or `hook_resid_mid`, the stream that is read there). `axis: 'all'` (default): one value, over all
 *   positions of all prompts, a BOS token's too, or of a run over those that it kept. `'position'`: position by position,
 *   over the prompts; every one must have a value at every position that is set. Scores and patterns take `'position'` only.
 * - `from`: the value in a prompt of another run (of this model, or one of the same shapes) that cached the point, at the same choice of positions in that prompt, or
 *   at those of `position`: one for each that is set, in their order. Prompts of different lengths need named positions.
 * - `add`: the value and this vector: as many numbers as the point has at one position, of the head or neuron if one is
 *   named, else of all of them one after the other.
 * - `scale`: the value times this.
 */
export type InterventionSet =
  | 'zero'
  | { readonly mean: readonly Prompt[] | Run; readonly axis?: 'all' | 'position' }
  | { readonly from: Run; readonly prompt: number; readonly position?: InterventionPosition }
  | { readonly add: Float32Array | readonly number[] }
  | { readonly scale: number }

/**
 * A value to replace while the model runs. Everything behind it is computed from the new value.
 *
 * Scores that the mask hides stay hidden. A pattern that was set is used as it is: its rows need not sum to one, and may
 * look where the mask would not let them.
 */
export interface Intervention {
  /** A hook point, or several: `*` stands for any characters. */
  readonly at: InterventionHook | `${string}*${string}`
  /** One head, at points that have heads: of keys and values the key/value head. Default: all. */
  readonly head?: number
  /** One neuron, at `mlp.hook_pre`, `hook_pre_linear` and `hook_post`. Default: all. */
  readonly neuron?: number
  /** At which positions, of scores and patterns the query's. Default `'all'`. */
  readonly position?: InterventionPosition
  /** What is to stand there. */
  readonly set: InterventionSet
}

/** What was changed in a run. */
export interface AppliedIntervention {
  /** The prompt; every prompt without. */
  readonly prompt?: number
  /** The hook points. */
  readonly at: readonly (InterventionHook & string)[]
  /** One head. */
  readonly head?: number
  /** One neuron. */
  readonly neuron?: number
  /** At which positions. */
  readonly position: 'last' | 'all' | readonly number[]
  /** What was set, in words. */
  readonly set: string
}

/** @internal Interventions as the addon takes them, and the runs that they count. */
export interface NativeChanges {
  readonly changes: NativeInterventions
  readonly runs: NativeRun[]
}

/** @internal One list for every prompt, or a list of lists, one per prompt. */
export function nativeInterventions(given: unknown, prompts: number): NativeChanges {
  const sources = new Sources()
  if (given === undefined) return { changes: { forAll: [], references: [] }, runs: [] }
  if (!Array.isArray(given)) throw invalidArgument('interventions', given, 'a list of interventions, or of lists, one per prompt')
  const list: unknown[] = Array.from(given)
  const nested = list.filter((entry) => Array.isArray(entry)).length
  if (nested > 0 && (nested !== list.length || nested !== prompts)) {
    const found = nested === list.length ? `${nested} lists for ${prompts} prompts` : 'lists and interventions side by side'
    throw invalidArgument('interventions', found, 'one list for every prompt, or a list of lists, one per prompt')
  }
  const all = (entries: unknown[], name: string) => entries.map((entry, i) => sources.intervention(`${name}[${i}]`, entry))
  const lists =
    nested > 0
      ? { perPrompt: list.map((entries, i) => all(Array.from(entries as unknown[]), `interventions[${i}]`)) }
      : { forAll: all(list, 'interventions') }
  return { changes: { ...lists, references: sources.references }, runs: sources.runs.map(Run.nativeOf) }
}

/** Runs and reference prompts that sets name, each once. */
class Sources {
  readonly runs: Run[] = []
  readonly references: (string | Uint32Array)[][] = []
  readonly #lists: unknown[] = []

  intervention(name: string, given: unknown): NativeIntervention {
    checkKeys(name, given, ['at', 'head', 'neuron', 'position', 'set'])
    const { at, head, neuron, position, set } = given as Record<string, unknown>
    if (typeof at !== 'string') throw invalidArgument(`${name}.at`, at, 'the name of a hook point')
    return {
      at,
      positions: place(`${name}.position`, position === undefined ? 'all' : position),
      ...(head === undefined ? {} : { head: index32(`${name}.head`, head) }),
      ...(neuron === undefined ? {} : { neuron: index32(`${name}.neuron`, neuron) }),
      ...this.#set(`${name}.set`, set),
    }
  }

  #set(name: string, set: unknown): Pick<NativeIntervention, 'set'> & Partial<NativeIntervention> {
    if (set === 'zero') return { set }
    const expected = "'zero', or one of mean, from, add, scale"
    if (typeof set !== 'object' || set === null || Array.isArray(set)) throw invalidArgument(name, set, expected)
    checkKeys(name, set, ['mean', 'axis', 'from', 'prompt', 'position', 'add', 'scale'])
    const given = set as Record<string, unknown>
    const kinds = (['mean', 'from', 'add', 'scale'] as const).filter((kind) => given[kind] !== undefined)
    const [kind] = kinds
    if (kind === undefined || kinds.length > 1) throw invalidArgument(name, set, expected)
    const besides = { mean: ['axis'], from: ['prompt', 'position'], add: [], scale: [] }[kind]
    checkKeys(name, set, [kind, ...besides])
    switch (kind) {
      case 'scale':
        if (typeof given.scale !== 'number') throw invalidArgument(`${name}.scale`, given.scale, 'a number')
        return { set: kind, scale: given.scale }
      case 'add':
        return { set: kind, add: vector(`${name}.add`, given.add) }
      case 'mean':
        return {
          set: kind,
          axis: oneOf(`${name}.axis`, given.axis, ['all', 'position'], 'all'),
          ...this.#reference(name, given.mean),
        }
      case 'from': {
        if (!(given.from instanceof Run)) throw invalidArgument(`${name}.from`, given.from, 'a Run')
        const prompt = index(`${name}.prompt`, given.prompt, given.from.nPrompts)
        const fromPositions = given.position === undefined ? {} : { fromPositions: place(`${name}.position`, given.position) }
        return { set: kind, run: this.#run(given.from), prompt, ...fromPositions }
      }
    }
  }

  #reference(name: string, mean: unknown): Pick<NativeIntervention, 'run' | 'reference'> {
    if (mean instanceof Run) return { run: this.#run(mean) }
    if (!Array.isArray(mean) || mean.length === 0) throw invalidArgument(`${name}.mean`, mean, 'a list of prompts, or a Run')
    // one list that several interventions name is run once
    const known = this.#lists.indexOf(mean)
    if (known >= 0) return { reference: known }
    this.#lists.push(mean)
    return { reference: this.references.push(Array.from(mean, nativePrompt)) - 1 }
  }

  #run(run: Run): number {
    const known = this.runs.indexOf(run)
    return known >= 0 ? known : this.runs.push(run) - 1
  }
}

function index32(name: string, value: unknown): number {
  return wholeNumber(name, value, 0, 2 ** 32 - 1) ?? 0
}

function place(name: string, position: unknown): NativePositions {
  const positions = nativePositions(position, name, false)
  if (positions.of?.length === 0) throw invalidArgument(name, position, 'at least one position')
  return positions
}

function vector(name: string, add: unknown): Float32Array {
  const list: unknown[] | undefined = Array.isArray(add) ? Array.from(add) : undefined
  const found = add instanceof Float32Array ? add : list?.every((x) => typeof x === 'number') ? Float32Array.from(list) : undefined
  if (found === undefined) throw invalidArgument(name, add, 'a vector: a Float32Array, or a list of numbers')
  const bad = found.findIndex((x) => !Number.isFinite(x))
  if (bad >= 0) throw invalidArgument(name, `${found[bad]} at ${bad}`, 'finite numbers')
  return found
}
