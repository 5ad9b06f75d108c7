import { fileURLToPath } from 'node:url'
import { CALL_OPTIONS, callOf, type CallOptions } from './calls.js'
import { type Dtype, onDevice } from './device.js'
import { invalidArgument } from './errors.js'
import { Loaded } from './loaded.js'
import { checkKeys, oneOf, optionalFlag, wholeNumber } from './options.js'

/** Options of {@link Model.load}. */
export interface LoadOptions extends CallOptions {
  /**
   * Where to compute. Default `'cpu'`; `'cuda'` is `'cuda:0'`, the first NVIDIA GPU; `'auto'` takes a GPU that works, else
   * the CPU. {@link Model.device} and {@link Model.deviceReason} say which it was, and why.
   */
  readonly device?: 'cpu' | 'auto' | 'cuda' | `cuda:${number}`
  /**
   * What a GPU holds weights and multiplies in; the residual stream, norms, softmax and sums are f32 whatever it is.
   * Default `'f32'`. The CPU computes in `'f32'`, whatever is stored, and refuses the others.
   */
  readonly dtype?: Dtype
  /** Threads to compute on. Default: all cores. */
  readonly threads?: number
  /** Bytes that the weights and any one call may take together, of a GPU's memory on a GPU; less, if there is less. */
  readonly memoryLimit?: number
  /** Accept tokenizer patterns that are not on the list of known ones; a hostile one can take exponential time. */
  readonly allowCustomRegex?: boolean
  /** Accept config keys that nothing here knows; they are recorded in `config.unknownKeys`. */
  readonly allowUnknownConfig?: boolean
  /**
   * What the forward pass is made of, for tests and diagnosis: kernels for this machine's CPU (`'fused'`, the default), or
   * a general library's operations (`'plain'`), many times slower. Numbers agree up to rounding. GPUs have `'plain'` only.
   */
  readonly kernels?: 'fused' | 'plain'
}

const LOAD_OPTIONS = [
  'device', 'dtype', 'threads', 'memoryLimit', 'allowCustomRegex', 'allowUnknownConfig', 'kernels',
  ...CALL_OPTIONS,
] as const // prettier-ignore

/** @internal What {@link Model.load} does. */
export async function load(path: string | URL, options: LoadOptions): Promise<Loaded> {
  checkKeys('load', options, LOAD_OPTIONS)
  const directory = path instanceof URL && path.protocol === 'file:' ? fileURLToPath(path) : path
  if (typeof directory !== 'string' || directory === '')
    throw invalidArgument('path', String(path), 'the path of a directory, or its file: URL')
  const kernels = oneOf('kernels', options.kernels, ['fused', 'plain'], 'fused')
  const fixed = {
    allowCustomRegex: optionalFlag('allowCustomRegex', options.allowCustomRegex) ?? false,
    allowUnknownConfig: optionalFlag('allowUnknownConfig', options.allowUnknownConfig) ?? false,
  }
  const threads = wholeNumber('threads', options.threads, 1, 1024)
  const memoryLimit = wholeNumber('memoryLimit', options.memoryLimit, 1, Number.MAX_SAFE_INTEGER)
  const limits = { ...(threads === undefined ? {} : { threads }), ...(memoryLimit === undefined ? {} : { memoryLimit }) }
  return onDevice(options.device, options.dtype, async (placement) => {
    const { addon, device, dtype } = placement
    if (device !== 'cpu' && options.kernels === 'fused')
      throw invalidArgument('kernels', 'fused', "'plain': the fused kernels are the CPU's")
    const where = device === 'cpu' ? { device, kernels } : { device, dtype }
    const wanted = { ...where, ...fixed, ...limits }
    return new Loaded(
      await callOf(addon, options, (cancel, report) => addon.loadModel(directory, wanted, cancel, report)),
      placement,
    )
  })
}
