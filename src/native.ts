// The only importer of the addon. The loader lies beside package.json, one level above both src/ and dist/.
import { createRequire } from 'node:module'
import type * as Addon from '../index.d.ts'

const addon = createRequire(import.meta.url)('../native.cjs') as typeof Addon

export const { CancelHandle, NativeSummary, chunkTokens, errorCodes, loadModel, nearest, verdictNames } = addon
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
} from '../index.d.ts'
