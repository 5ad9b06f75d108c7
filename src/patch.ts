// Patching: values of one run of a pair stand in the other, and everything behind them is computed again.
import { nativeAsked, nativePositions, type Position, PROMPT_OPTIONS, type PromptOptions } from './asked.js'
import { call } from './calls.js'
import { frozen, labels } from './components.js'
import { invalidArgument } from './errors.js'
import { deepFreeze } from './freeze.js'
import type { Loaded } from './loaded.js'
import type { NativePositions } from './native.js'
import { checkKeys, oneOf, optionalFlag } from './options.js'
import { Patched } from './patched.js'
import { copiedDirections, nativeTargets, type Target } from './targets.js'
import { nativePrompt, type Prompt } from './tokens.js'

/** What is patched of a layer: the stream before its block, what attention or the MLP adds to it, what heads mix. */
export type PatchPoint = 'resid_pre' | 'attn_out' | 'mlp_out' | 'z'

/** What is patched one at a time. Layers always are. */
export type PatchAxis = 'layer' | 'head' | 'position'

/** Options of both ways of patching. */
export interface PairOptions extends Omit<PromptOptions, 'position'> {
  /** Where the target is read: one position of every prompt; negative ones count from each prompt's end. Default `'last'`. */
  readonly position?: 'last' | number | { readonly perPrompt: readonly (readonly number[])[] }
  /** What is patched: positions of the clean prompts. Default `'all'`, which needs corrupted prompts of the same length. */
  readonly positions?: Position
  /** The positions of the corrupted prompts that belong to `positions`, in their order. Default: the same choice. */
  readonly corruptPositions?: Position
}

/** Options of {@link Model.patch}. */
export interface PatchOptions extends PairOptions {
  /** What is patched. Default `'resid_pre'`; over heads `'z'`, the only one that has them. */
  readonly at?: PatchPoint
  /** The axes. Default `['layer', 'position']`; `['head']`: every head at all positions; `['head', 'position']`. */
  readonly over?: readonly PatchAxis[]
  /** `'denoising'` (default): clean values into the corrupted run. `'noising'`: corrupted values into the clean run. */
  readonly direction?: 'denoising' | 'noising'
}

/** Options of {@link Model.patchPaths}. */
export interface PathOptions extends PairOptions {
  /** Senders: `embed`, `L9H6`, `L9 attn`, `L9 mlp`. Default: every head, MLP and embedding that all receivers read. */
  readonly from?: readonly string[]
  /** Receivers: `logits`, `L10H7.q`, `.k`, `.v` (these count key/value heads), `L10 mlp`. */
  readonly to: readonly string[]
  /** One sender at a time; else all together. Default `false`. */
  readonly each?: boolean
  /** `'mlps'`: MLPs between senders and receivers are computed again. Default: nothing between them moves. */
  readonly through?: 'mlps'
}

const PAIR_OPTIONS = ['positions', 'corruptPositions'] as const
const PATCH_OPTIONS = ['at', 'over', 'direction', ...PAIR_OPTIONS] as const
const PATH_OPTIONS = ['from', 'to', 'each', 'through', ...PAIR_OPTIONS] as const

/** @internal {@link Model.patch}. */
export async function patch(
  model: Loaded,
  clean: readonly Prompt[],
  corrupt: readonly Prompt[],
  targets: Target | readonly Target[],
  options: PatchOptions,
): Promise<Patched> {
  checkKeys('patch', options, [...PATCH_OPTIONS, ...PROMPT_OPTIONS])
  const { over, direction, ...patching } = nativePatching(options)
  const { pairs, directions } = nativePairs(clean, corrupt, targets, options)
  const request = { pairs, ...patching, noising: direction === 'noising' }
  const patched = await call(model.native, options, (cancel, report) => model.native.patch(request, cancel, report))
  const method = { change: 'patch', at: patching.at, over, direction } as const
  return new Patched(patched, { ...model.config, senders: [] }, directions, deepFreeze(method), model.origin)
}

/** @internal {@link Model.patchPaths}. */
export async function patchPaths(
  model: Loaded,
  clean: readonly Prompt[],
  corrupt: readonly Prompt[],
  targets: Target | readonly Target[],
  options: PathOptions,
): Promise<Patched> {
  checkKeys('patchPaths', options, [...PATH_OPTIONS, ...PROMPT_OPTIONS])
  const way = nativePaths(options)
  const { pairs, directions } = nativePairs(clean, corrupt, targets, options)
  const from = labels('from', options.from)
  const to = labels('to', options.to) ?? []
  const request = { pairs, ...(from === undefined ? {} : { from }), to, ...way }
  const paths = await call(model.native, options, (cancel, report) => model.native.patchPaths(request, cancel, report))
  const senders = frozen(paths.senders)
  const through = way.throughMlps ? 'mlps' : 'nothing'
  const names = senders.map(({ label }) => label)
  const method = { change: 'path', from: names, to: paths.receivers, each: way.each, through } as const
  return new Patched(paths.patched, { ...model.config, senders }, directions, deepFreeze(method), model.origin)
}

/** Pairs of prompts as the addon takes them. */
function nativePairs(clean: unknown, corrupt: unknown, targets: unknown, options: PairOptions) {
  const asked = nativeAsked(clean, options)
  if (!Array.isArray(corrupt)) throw invalidArgument('corrupt', corrupt, 'a list of prompts')
  const list = nativeTargets(targets, asked.prompts.length)
  const directions = copiedDirections(list, asked.prompts.length)
  return { pairs: { asked, corrupt: Array.from(corrupt, nativePrompt), targets: list, ...nativeSpots(options) }, directions }
}

/** What is patched, as the addon takes it. */
function nativePatching({ at, over, direction }: PatchOptions) {
  const axes = ['layer', 'head', 'position'] as const
  const list = over === undefined ? (['layer', 'position'] as const) : over
  const known = Array.isArray(list) && list.length > 0 && list.every((axis) => axes.includes(axis as PatchAxis))
  if (!known || new Set(list).size !== list.length) {
    throw invalidArgument('over', over, "a list of 'layer', 'head', 'position', each at most once")
  }
  const has = (axis: PatchAxis) => list.includes(axis)
  if (!has('layer') && !has('head'))
    throw invalidArgument('over', over, "'layer' or 'head' among them: layers are never put together")
  const point = oneOf('at', at, ['resid_pre', 'attn_out', 'mlp_out', 'z'], has('head') ? 'z' : 'resid_pre')
  if (has('head') && point !== 'z') throw invalidArgument('at', at, "'z' over heads")
  return {
    at: point,
    byHead: has('head'),
    byPosition: has('position'),
    over: axes.filter((axis) => has(axis) || axis === 'layer'),
    direction: oneOf('direction', direction, ['denoising', 'noising'], 'denoising'),
  }
}

/** Which way paths go, as the addon takes it. */
function nativePaths({ each, through }: PathOptions) {
  if (through !== undefined) oneOf('through', through, ['mlps'], 'mlps')
  return { each: optionalFlag('each', each) ?? false, throughMlps: through === 'mlps' }
}

/** The positions that are patched. */
function nativeSpots(options: PairOptions): { positions: NativePositions; corruptPositions?: NativePositions } {
  const { positions = 'all', corruptPositions } = options
  return {
    positions: nativePositions(positions, 'positions'),
    ...(corruptPositions === undefined ? {} : { corruptPositions: nativePositions(corruptPositions, 'corruptPositions') }),
  }
}
