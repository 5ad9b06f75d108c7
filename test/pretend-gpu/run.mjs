// Runs the core's tests on a GPU that is none: candle's placeholder for CUDA computes on the host, under CUDA's rules
// (backend.rs), so that a tensor on the wrong device, a kernel that does not exist or one of no threads fails without a
// GPU. Every test that would run on a GPU runs there.
//   node test/pretend-gpu/run.mjs [arguments of cargo test]     such as: --test ablate
import { spawnSync } from 'node:child_process'
import { copyFileSync, cpSync, existsSync, mkdirSync, readFileSync, readdirSync, rmSync, symlinkSync, writeFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'

const here = dirname(fileURLToPath(import.meta.url))
const root = join(here, '../..')
const place = join(root, 'target/pretend-gpu')
const TARGET = 'x86_64-unknown-linux-gnu'

/** Where cargo keeps the sources of a crate, in the version of Cargo.lock. */
function sources(name, version) {
  const registry = join(process.env.CARGO_HOME ?? join(process.env.HOME, '.cargo'), 'registry/src')
  const at = readdirSync(registry)
    .map((index) => join(registry, index, `${name}-${version}`))
    .find(existsSync)
  if (!at) throw new Error(`${name} ${version} is not among cargo's sources`)
  return at
}

/** Writes a file unless it says so already: cargo builds what is newer. */
function write(path, text) {
  if (!existsSync(path) || readFileSync(path, 'utf8') !== text) writeFileSync(path, text)
}

const lock = readFileSync(join(root, 'Cargo.lock'), 'utf8')
const version = /name = "candle-core"\nversion = "([^"]+)"/.exec(lock)[1]
const candle = join(place, `candle-core-${version}`)
mkdirSync(place, { recursive: true })
if (!existsSync(candle)) {
  // for its kernels' sources, which a build without the feature `cuda` does not need
  spawnSync('cargo', ['fetch', '--locked'], { cwd: root, stdio: 'inherit' })
  cpSync(sources('candle-core', version), candle, { recursive: true })
  const kernels = sources('candle-kernels', version)
  mkdirSync(join(candle, 'src/kernels'))
  for (const file of readdirSync(join(kernels, 'src')).filter((name) => name.endsWith('.cu'))) {
    copyFileSync(join(kernels, 'src', file), join(candle, 'src/kernels', file))
  }
}
write(join(candle, 'src/dummy_cuda_backend.rs'), readFileSync(join(here, 'backend.rs'), 'utf8'))

// the workspace as it is, but for candle
for (const folder of ['crates', 'models', 'test']) {
  rmSync(join(place, folder), { force: true })
  symlinkSync(join(root, folder), join(place, folder))
}
const patch = `\n[patch.crates-io]\ncandle-core = { path = "candle-core-${version}" }\n`
write(join(place, 'Cargo.toml'), readFileSync(join(root, 'Cargo.toml'), 'utf8') + patch)
if (!existsSync(join(place, 'Cargo.lock'))) copyFileSync(join(root, 'Cargo.lock'), join(place, 'Cargo.lock'))

const args = ['test', '-p', 'logit-prism-core', '--release', '--target', TARGET, '--features', 'pretend-gpu']
const env = { ...process.env, CARGO_TARGET_DIR: join(root, 'target') }
const tested = spawnSync('cargo', [...args, ...process.argv.slice(2)], { cwd: place, env, stdio: 'inherit' })
process.exit(tested.status ?? 1)
