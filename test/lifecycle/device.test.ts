// Devices as a user asks for them, before drivers of every kind: a library that says what the test wants, where the
// system's loader finds it first.
import { execFileSync } from 'node:child_process'
import { existsSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { node, ROOT } from '../helpers.js'

const onLinux = process.platform === 'linux' && process.arch === 'x64'
const hasDriver = existsSync('/proc/driver/nvidia/version')
const built = existsSync(join(ROOT, 'crates/napi/cuda-linux-x64/logit-prism-cuda.linux-x64-gnu.node'))
const CLI = join(ROOT, 'dist/cli/main.js')
const NOT_INSTALLED = 'package @logit-prism/cuda-linux-x64 is not installed'

/** The folder of the made-up driver. */
let driver = ''
beforeAll(async () => {
  if (!onLinux) return
  driver = mkdtempSync(join(tmpdir(), 'logit-prism-driver-'))
  const { stubSource } = (await import(join(ROOT, 'crates/napi/cuda-linux-x64/stub.mjs'))) as { stubSource: () => string }
  writeFileSync(join(driver, 'cuda.c'), stubSource())
  const library = ['-shared', '-fPIC', '-Wl,-soname,libcuda.so.1', '-o', join(driver, 'libcuda.so.1'), join(driver, 'cuda.c')]
  execFileSync(process.env['CC'] ?? 'cc', library)
})
afterAll(() => rmSync(driver, { recursive: true, force: true }))

/** `logit-prism info --device D`, before a driver that says this. */
async function info(device: string, says: Record<string, string> = {}, folder = driver) {
  const path = [folder, process.env['LD_LIBRARY_PATH'] ?? ''].filter((part) => part !== '').join(':')
  const env = { ...process.env, ...says, LD_LIBRARY_PATH: path }
  return node([CLI, 'info', '--device', device, '--format', 'json', '--quiet'], { env })
}

// on a machine with a real driver its version is read from the system, whatever the library says
describe.skipIf(!onLinux || hasDriver)('on a machine without a GPU', () => {
  test.each<[string, string, Record<string, string>, string]>([
    ['a driver of CUDA 12', 'cuda', { FAKE_DRIVER: '12040' }, 'the driver knows CUDA 12.4; CUDA 13 needs driver 580 or newer'],
    ['a driver without a GPU', 'cuda', {}, 'the NVIDIA driver finds no GPU'],
    [
      'an old GPU',
      'cuda:0',
      { FAKE_DEVICES: '1', FAKE_CAPABILITY: '75', FAKE_NAME: 'Tesla T4' },
      'Tesla T4 has compute capability 7.5; 8.0 is the least',
    ],
    ['an ordinal too many', 'cuda:2', { FAKE_DEVICES: '2' }, 'the GPUs are cuda:0 to cuda:1'],
  ])("%s: refused, and 'auto' says why it is the CPU", async (_, device, says, reason) => {
    const refused = await info(device, says)
    const name = device === 'cuda' ? 'cuda:0' : device
    expect(refused.stderr).toBe(`error DEVICE_UNAVAILABLE: device ${name} is not available: ${reason}\n`)
    expect([refused.status, refused.stdout]).toEqual([1, ''])
    if (device === 'cuda:2') return // 'auto' names no ordinal
    const auto = await info('auto', says)
    expect(auto.status, auto.stderr).toBe(0)
    expect(JSON.parse(auto.stdout)).toMatchObject({ device: 'cpu', deviceReason: reason })
  })

  test('no driver', async () => {
    const { status, stderr } = await info('cuda:1', {}, '')
    expect([status, stderr]).toEqual([
      1,
      'error DEVICE_UNAVAILABLE: device cuda:1 is not available: no NVIDIA driver (libcuda.so.1 was not found)\n',
    ])
  })

  test.skipIf(built)('a GPU without the addon', async () => {
    const says = { FAKE_DEVICES: '1', FAKE_NAME: 'NVIDIA H200' }
    expect((await info('cuda', says)).stderr).toContain(NOT_INSTALLED)
    expect(JSON.parse((await info('auto', says)).stdout)).toMatchObject({ device: 'cpu', deviceReason: NOT_INSTALLED })
  })
})

test.skipIf(!onLinux)('a device that is none is wrong usage', async () => {
  const { status, stderr } = await info('gpu')
  expect(status).toBe(2)
  expect(stderr).toContain("It is 'cpu', 'cuda', 'cuda:N' or 'auto'.")
})
