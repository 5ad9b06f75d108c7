// The only importer of the addon. The loader lies beside package.json, one level above both src/ and dist/.
import { createRequire } from 'node:module'
import type * as Addon from '../index.d.ts'

const addon = createRequire(import.meta.url)('../native.cjs') as typeof Addon

export const { CancelHandle, chunkTokens, errorCodes, loadModel, nearest } = addon
export type {
  NativeAttribution,
  NativeCall,
  NativeComponent,
  NativeLoadOptions,
  NativeModel,
  NativeObservation,
  NativePositions,
  NativeTarget,
} from '../index.d.ts'
