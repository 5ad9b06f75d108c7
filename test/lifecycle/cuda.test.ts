// The addon for GPUs before a driver that finds none, or one that answers and cannot compute: it loads, says so, and
// computes on the CPU as the other addon does. It is built by `npm run build:cuda`.
import { existsSync } from 'node:fs'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import { type Ended, node, ROOT } from '../helpers.js'

const ADDON = join(ROOT, 'crates/napi/cuda-linux-x64/logit-prism-cuda.linux-x64-gnu.node')
const STUB = join(ROOT, 'target/cuda-toolkit/stub')
const ready = existsSync(ADDON) && existsSync(STUB) && !existsSync('/proc/driver/nvidia/version')
const NEEDS = ready ? '' : ' (not run: it needs the addon of npm run build:cuda, and a machine without a driver)'

/** Runs a script that has the package and the addon, before the stub of a driver. */
async function before(says: Record<string, string>, script: string): Promise<Ended> {
  const head = `
    import { createRequire } from 'node:module'
    import { Model } from ${JSON.stringify(join(ROOT, 'dist/index.js'))}
    const addon = () => createRequire(import.meta.url)(${JSON.stringify(ADDON)})
    const fails = (work) => work().then(() => 'no error', ({ code, details }) => [code, JSON.parse(details).reason])
    const say = (value) => console.log(JSON.stringify(value))
    const DEMO = ${JSON.stringify(join(ROOT, 'models/demo'))}`
  const path = [STUB, process.env['LD_LIBRARY_PATH'] ?? ''].filter((part) => part !== '').join(':')
  const env = { ...process.env, ...says, LD_LIBRARY_PATH: path }
  return node(['--input-type=module', '--eval', `${head}\n${script}`], { env })
}

test.skipIf(!ready)(`it loads, and a model on a GPU is refused with the reason${NEEDS}`, async () => {
  const load = "fails(() => addon().loadModel(DEMO, { device: 'cuda:0' }, new (addon().CancelHandle)()))"
  const { stdout, stderr } = await before({}, `say(addon().build().cuda); say(await ${load})`)
  expect(stdout.split('\n').slice(0, 2), stderr).toEqual(['true', '["DEVICE_UNAVAILABLE","the NVIDIA driver finds no GPU"]'])
})

test.skipIf(!ready)(`a GPU that answers and does not start is refused, and left for the CPU with 'auto'${NEEDS}`, async () => {
  const says = { FAKE_DEVICES: '1', FAKE_NAME: 'NVIDIA H200', FAKE_CAPABILITY: '90' }
  const script = `
    await Model.load(DEMO, { device: 'cuda', dtype: 'bf16' }).catch(({ code, details }) => say([code, details.device, details.reason]))
    const model = await Model.load(DEMO, { device: 'auto' })
    const result = await model.attribute(['Mary'], { answer: 'predicted' })
    say([model.device, model.deviceReason, result.certified])
    await model.close()`
  const { stdout, stderr } = await before(says, script)
  const [refused, auto] = stdout.trim().split('\n').map((line) => JSON.parse(line) as unknown[]) // prettier-ignore
  const reason = expect.stringMatching(/^CUDA does not start on it: .*CUDA_ERROR_NO_DEVICE/)
  expect(refused, stderr).toEqual(['DEVICE_UNAVAILABLE', 'cuda:0', reason])
  expect(auto).toEqual(['cpu', reason, true])
})

test.skipIf(!ready)(`beside the CPU's addon it computes the same numbers on the CPU${NEEDS}`, async () => {
  const script = `
    const call = {
      asked: { prompts: [Uint32Array.of(0, 5, 9)], positions: { name: 'last' } },
      attributing: { targets: [{ answer: [7], against: [8] }], unit: 'head', convention: 'default', onViolation: 'throw' },
    }
    const other = addon()
    const model = await other.loadModel(DEMO, {}, new other.CancelHandle())
    const theirs = await model.attribute(call, new other.CancelHandle())
    const mine = await Model.load(DEMO)
    const ours = await mine.attribute([[0, 5, 9]], { answer: 7, against: 8 })
    const theirValues = theirs.values
    say(ours.values.length > 0 && ours.values.every((value, i) => value === theirValues[i]))
    await mine.close()`
  const { stdout, stderr } = await before({}, script)
  expect(stdout.trim(), stderr).toBe('true')
})
