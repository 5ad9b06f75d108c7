// The only importer of the addons. The loader of the CPU's lies beside package.json, one level above both src/ and dist/;
// the GPUs' is a package of its own, loaded when somebody asks for it.
import { createRequire } from 'node:module'
import type * as Contract from '../index.d.ts'

/** What an addon exports: the same from the same crate, built without CUDA or with it. */
export type Addon = typeof Contract

const require = createRequire(import.meta.url)

/** The CPU's. */
export const cpuAddon = require('../native.cjs') as Addon
export const { NativeSummary, build, errorCodes, gpu, nearest, verdictNames } = cpuAddon

/** The package of the GPUs' addon, and where `npm run build:cuda` puts it. */
export const CUDA_PACKAGE = '@logit-prism/cuda-linux-x64'
const BUILT_HERE = '../crates/napi/cuda-linux-x64'

/** The GPUs' addon, or `undefined` where it is neither installed nor built; throws what the system's loader says. */
export function cudaAddon(load: (name: string) => unknown = require): Addon | undefined {
  for (const name of [CUDA_PACKAGE, BUILT_HERE]) {
    try {
      return known(load(name) as Addon)
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== 'MODULE_NOT_FOUND') throw error
    }
  }
  return undefined
}

const addons = new Map<unknown, Addon>()

/** Remembers whose classes these are. */
function known(addon: Addon): Addon {
  for (const exported of Object.values(addon)) if (typeof exported === 'function') addons.set(exported, addon)
  return addon
}
known(cpuAddon)

/** The addon that an object is of: what one addon made, the other cannot take. */
export function addonOf(object: object): Addon {
  return addons.get(object.constructor) ?? cpuAddon
}
/** Running sums, as the addon holds them. */
export type NativeSummary = InstanceType<typeof NativeSummary>
export type {
  NativeAblateCall,
  NativeAsked,
  NativeAttributing,
  NativeAttribution,
  NativeCausal,
  NativeCircuit,
  NativeColumns,
  NativeComponent,
  NativeComposition,
  NativeDetected,
  NativeGpu,
  NativeErasure,
  NativeHeadPattern,
  NativeIntervention,
  NativeInterventions,
  NativeLens,
  NativeModel,
  NativePatched,
  NativePatterns,
  NativePositions,
  NativeProbe,
  NativeRun,
  NativeScore,
  NativeSources,
  NativeStack,
  NativeTarget,
  NativeTensor,
  NativeTopTokens,
  NativeWithout,
  NativeWithoutCall,
} from '../index.d.ts'
