// Builds the addon for NVIDIA GPUs: npm run build:cuda. It fetches CUDA's toolkit (toolkit.mjs), compiles the crate with
// its feature `cuda`, and puts the addon beside this file, where the loader looks for it. No GPU is needed for that.
import { spawnSync } from 'node:child_process'
import { copyFileSync, rmSync, symlinkSync } from 'node:fs'
import { join } from 'node:path'
import { buildEnvironment, libraryFolder, root } from './toolkit.mjs'

const TARGET = 'x86_64-unknown-linux-gnu'

if (process.platform !== 'linux' || process.arch !== 'x64') {
  console.error(`logit-prism: GPUs are used on x86-64 Linux only; this is ${process.arch} ${process.platform}`)
  process.exit(1)
}
const env = { ...process.env, ...buildEnvironment() }
console.log('logit-prism: building the addon for NVIDIA GPUs (about 20 CPU minutes the first time, most of them its kernels)')
const args = ['build', '--release', '--target', TARGET, '-p', 'logit-prism-napi', '--features', 'cuda']
const built = spawnSync('cargo', args, { cwd: root, env, stdio: 'inherit' })
if (built.status !== 0) process.exit(built.status ?? 1)
const library = join(root, 'target', TARGET, 'release/liblogit_prism_napi.so')
copyFileSync(library, join(import.meta.dirname, 'logit-prism-cuda.linux-x64-gnu.node'))
// the addon looks for CUDA's libraries there: never the stub, which would hide a driver
const beside = join(import.meta.dirname, 'lib')
rmSync(beside, { force: true, recursive: true })
symlinkSync(libraryFolder, beside)
console.log("built: Model.load(path, { device: 'cuda' }) uses it")
