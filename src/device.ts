// Where a model computes, and why there.
import { invalidArgument, native, PrismError } from './errors.js'
import { type Addon, build, CUDA_PACKAGE, cpuAddon, cudaAddon, gpu, type NativeGpu } from './native.js'
import { oneOf } from './options.js'

/** What weights are held and multiplied in. */
export type Dtype = 'f32' | 'bf16' | 'f16'

/** A device that a model really runs on. */
export type Device = 'cpu' | `cuda:${number}`

/** @internal A device, why it was taken, and the addon that computes on it. */
export interface Placement {
  readonly addon: Addon
  readonly device: Device
  readonly dtype: Dtype
  /** In words. */
  readonly reason: string
}

/** @internal What there is to compute on. */
export interface Machine {
  /** The GPU of this ordinal, or the first that will do; throws `DEVICE_UNAVAILABLE`. */
  readonly gpu: (ordinal: number | undefined) => NativeGpu
  /** The addon for GPUs, if it is installed; throws what the system's loader says. */
  readonly cudaAddon: () => Addon | undefined
}

const HERE: Machine = { gpu: (ordinal) => native(() => gpu(ordinal)), cudaAddon: () => cudaAddon() }

/**
 * @internal Makes something on the device that is asked for; with `'auto'` on a GPU, and on the CPU where there is none
 * that works.
 *
 * @throws {PrismError} `DEVICE_UNAVAILABLE` with the reason, `INVALID_ARGUMENT`
 */
export async function onDevice<T>(
  device: unknown,
  dtype: unknown,
  make: (placement: Placement) => Promise<T>,
  machine: Machine = HERE,
): Promise<T> {
  const type = oneOf('dtype', dtype, ['f32', 'bf16', 'f16'], 'f32')
  if (device === undefined) return make(onCpu(type, 'the default'))
  if (device === 'cpu') return make(onCpu(type, 'asked for'))
  if (device !== 'auto') return make(onGpu(ordinalOf(device), type, machine))
  try {
    return await make(onGpu(undefined, type, machine))
  } catch (error) {
    if (!(error instanceof PrismError) || error.code !== 'DEVICE_UNAVAILABLE') throw error
    return make(onCpu(type, String(error.details['reason'])))
  }
}

function onCpu(dtype: Dtype, reason: string): Placement {
  if (dtype !== 'f32') {
    const found = reason === 'the default' || reason === 'asked for' ? '' : ` and there is no GPU: ${reason}`
    throw invalidArgument('dtype', dtype, `'f32': the CPU computes in f32, whatever is stored${found}`)
  }
  return { addon: cpuAddon, device: 'cpu', dtype, reason }
}

function onGpu(ordinal: number | undefined, dtype: Dtype, machine: Machine): Placement {
  const found = machine.gpu(ordinal)
  const device = `cuda:${found.ordinal}` as const
  const driver = found.driver === undefined || found.driver === null ? '' : `, driver ${found.driver}`
  return { addon: addonFor(device, machine), device, dtype, reason: `${found.name}${driver}` }
}

/** The addon for GPUs, once it is known to be there, to load, and to be of this version. */
function addonFor(device: Device, machine: Machine): Addon {
  let addon: Addon | undefined
  try {
    addon = machine.cudaAddon()
  } catch (error) {
    throw unavailable(device, loadProblem(error), error)
  }
  if (addon === undefined) throw unavailable(device, `package ${CUDA_PACKAGE} is not installed`)
  const [found, own] = [addon.build(), build()]
  if (found.version !== own.version) {
    throw unavailable(device, `package ${CUDA_PACKAGE} is version ${found.version}; this is ${own.version}`)
  }
  if (!found.cuda) throw unavailable(device, `package ${CUDA_PACKAGE} holds an addon that was built without CUDA`)
  return addon
}

/** What the system's loader says, in words that help. */
function loadProblem(error: unknown): string {
  const said = error instanceof Error ? error.message : String(error)
  const [, missing] = /(lib\S+\.so\S*): cannot open shared object file/.exec(said) ?? []
  if (missing === undefined) return `package ${CUDA_PACKAGE} does not load: ${said}`
  return `${missing} was not found; install the libraries of CUDA 13, or name their folder in LD_LIBRARY_PATH`
}

function unavailable(device: string, reason: string, cause?: unknown): PrismError {
  const options = cause === undefined ? undefined : { cause }
  return new PrismError('DEVICE_UNAVAILABLE', `device ${device} is not available: ${reason}`, { device, reason }, options)
}

/** N of `cuda:N`; 0 for `cuda`. */
function ordinalOf(device: unknown): number {
  const [, ordinal = '0'] = (typeof device === 'string' && /^cuda(?::(\d{1,4}))?$/.exec(device)) || []
  if (typeof device === 'string' && (device === 'cuda' || device === `cuda:${ordinal}`)) return Number(ordinal)
  throw invalidArgument('device', device, "'cpu', 'auto', 'cuda' or 'cuda:N'")
}
