// Which device is taken, and what is said where one cannot be, on machines that the test makes up.
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import { type Machine, onDevice, type Placement } from '../../src/device.js'
import { PrismError } from '../../src/index.js'
import { type Addon, CUDA_PACKAGE, cpuAddon, cudaAddon } from '../../src/native.js'
import { readJson, refusal, ROOT } from '../helpers.js'

/** The CPU's addon with another build's word. */
const addon = (build: object): Addon => ({ ...cpuAddon, build: () => ({ ...cpuAddon.build(), cuda: true, ...build }) })
const GPU = { ordinal: 0, name: 'NVIDIA H200', driver: '580.65.06' }

/** A machine with a GPU and the addon, but for what is given. */
function machine(but: Partial<Machine> = {}): Machine {
  return { gpu: (ordinal) => ({ ...GPU, ordinal: ordinal ?? 0 }), cudaAddon: () => addon({}), ...but }
}

function without(reason: string): Machine {
  const gpu = () => {
    throw new PrismError('DEVICE_UNAVAILABLE', reason, { device: 'cuda', reason })
  }
  return machine({ gpu })
}

const NO_LIBRARY = Object.assign(new Error('libcublas.so.13: cannot open shared object file: No such file or directory'), {
  code: 'ERR_DLOPEN_FAILED',
})
const failing = (error: Error) => () => {
  throw error
}

const PROBLEMS: [string, Machine, string][] = [
  ['no driver', without('no NVIDIA driver (libcuda.so.1 was not found)'), 'no NVIDIA driver (libcuda.so.1 was not found)'],
  ['an old driver', without('driver 550.54.15 is older than 580'), 'driver 550.54.15 is older than 580'],
  ['no addon', machine({ cudaAddon: () => undefined }), `package ${CUDA_PACKAGE} is not installed`],
  [
    'no library',
    machine({ cudaAddon: failing(NO_LIBRARY) }),
    'libcublas.so.13 was not found; install the libraries of CUDA 13, or name their folder in LD_LIBRARY_PATH',
  ],
  [
    'an addon that does not load',
    machine({ cudaAddon: failing(new Error('undefined symbol: cuX')) }),
    `package ${CUDA_PACKAGE} does not load: undefined symbol: cuX`,
  ],
  [
    'an addon of another version',
    machine({ cudaAddon: () => addon({ version: '0.0.9' }) }),
    `package ${CUDA_PACKAGE} is version 0.0.9; this is ${cpuAddon.build().version}`,
  ],
  [
    'an addon without CUDA',
    machine({ cudaAddon: () => cpuAddon }),
    `package ${CUDA_PACKAGE} holds an addon that was built without CUDA`,
  ],
]

test.each(PROBLEMS)("%s: 'cuda' is refused and 'auto' is the CPU, both with the reason", async (_, there, reason) => {
  const never = () => Promise.reject(new Error('nothing was to be made'))
  for (const device of ['cuda', 'cuda:0']) {
    const error = await refusal('DEVICE_UNAVAILABLE', () => onDevice(device, undefined, never, there))
    expect(error.details['reason']).toBe(reason)
    expect(error.message).toContain(reason)
  }
  const made = await onDevice('auto', undefined, async (placement) => placement, there)
  expect(made).toMatchObject({ device: 'cpu', dtype: 'f32', reason })
  expect(made.addon).toBe(cpuAddon)
  const error = await refusal('INVALID_ARGUMENT', () => onDevice('auto', 'bf16', never, there))
  expect(error.message, 'no other dtype than was asked for').toContain(reason)
})

test('a GPU that works is taken, by its addon', async () => {
  const made = (device: unknown, dtype?: unknown) => onDevice(device, dtype, async (placement) => placement, machine())
  for (const [device, name] of [
    ['auto', 'cuda:0'],
    ['cuda', 'cuda:0'],
    ['cuda:3', 'cuda:3'],
  ]) {
    // prettier-ignore
    const placement: Placement = await made(device, 'bf16')
    expect(placement).toMatchObject({ device: name, dtype: 'bf16', reason: 'NVIDIA H200, driver 580.65.06' })
    expect(placement.addon.build().cuda).toBe(true)
  }
  expect(await made(undefined)).toMatchObject({ device: 'cpu', reason: 'the default' })
  expect(await made('cpu')).toMatchObject({ device: 'cpu', reason: 'asked for' })
})

test("a GPU that fails when it is opened is refused, and with 'auto' left for the CPU; other errors are not hidden", async () => {
  const failingWith = (code: 'DEVICE_UNAVAILABLE' | 'MEMORY') => async (placement: Placement) => {
    if (placement.device === 'cpu') return placement
    throw new PrismError(code, 'x', { reason: 'it has fallen off the bus' })
  }
  await refusal('DEVICE_UNAVAILABLE', () => onDevice('cuda', undefined, failingWith('DEVICE_UNAVAILABLE'), machine()))
  const made = await onDevice('auto', undefined, failingWith('DEVICE_UNAVAILABLE'), machine())
  expect(made).toMatchObject({ device: 'cpu', reason: 'it has fallen off the bus' })
  await refusal('MEMORY', () => onDevice('auto', undefined, failingWith('MEMORY'), machine()))
})

test.each(['', 'gpu', 'cuda:', 'cuda:-1', 'cuda:1x', 'cuda:12345', 'CPU', 3, null])('no device: %j', async (device) => {
  await refusal('INVALID_ARGUMENT', () => onDevice(device, undefined, async () => 0, machine()))
})

test('the CPU refuses other types, and nobody knows a fourth', async () => {
  for (const device of [undefined, 'cpu'])
    await refusal('INVALID_ARGUMENT', () => onDevice(device, 'f16', async () => 0, machine()))
  await refusal('INVALID_ARGUMENT', () => onDevice('cuda', 'f64', async () => 0, machine()))
})

test('the package is looked for before what was built here, and only what is not there is passed over', () => {
  const missing = Object.assign(new Error('Cannot find module'), { code: 'MODULE_NOT_FOUND' })
  const asked: string[] = []
  const nothing = (name: string) => {
    asked.push(name)
    throw missing
  }
  expect(cudaAddon(nothing)).toBeUndefined()
  expect(asked[0]).toBe(CUDA_PACKAGE)
  expect(asked[1]).toMatch(/crates\/napi\/cuda-linux-x64$/)
  const mine = addon({})
  expect(cudaAddon((name) => (name === CUDA_PACKAGE ? failing(missing)() : mine))).toBe(mine)
  expect(() => cudaAddon(failing(NO_LIBRARY))).toThrow('libcublas')
})

test('the package of the addon is of this version, and its name is that of its folder', () => {
  const { name, version } = readJson<{ name: string; version: string }>(ROOT, 'crates/napi/cuda-linux-x64/package.json')
  expect([name, version]).toEqual([CUDA_PACKAGE, readJson<{ version: string }>(ROOT, 'package.json').version])
  expect(cpuAddon.build()).toEqual({ version, cuda: false })
  expect(readFileSync(join(ROOT, 'Cargo.toml'), 'utf8')).toContain(`version = "${version}"`)
})
