// Builds the addon: logit-prism.<platform>.node, its loader native.cjs, and the contract index.d.ts.
//   node crates/napi/build.mjs [--check]     --check: recompile the napi crate, so that index.d.ts is surely current
import { spawnSync } from 'node:child_process'
import { readFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'

const root = join(dirname(fileURLToPath(import.meta.url)), '../..')
const wanted = /^rust-version = "([\d.]+)"/m.exec(readFileSync(join(root, 'Cargo.toml'), 'utf8'))?.[1]

function stop(problem) {
  console.error(`\nlogit-prism: ${problem}\n  Building from source needs Rust ${wanted} or newer and a C compiler.`)
  console.error('  Rust: https://rustup.rs (or your distribution, if it is new enough); then run the same command again.\n')
  process.exit(1)
}

function olderThan(version, other) {
  const [a, b] = [version, other].map((text) => text.split('.').map(Number))
  const differs = b.findIndex((part, i) => (a[i] ?? 0) !== part)
  return differs >= 0 && (a[differs] ?? 0) < b[differs]
}

const cargo = spawnSync('cargo', ['--version'], { encoding: 'utf8', cwd: root })
if (cargo.error || cargo.status !== 0) stop('cargo was not found')
const found = /(\d+\.\d+\.\d+)/.exec(cargo.stdout)?.[1] ?? '0'
if (olderThan(found, wanted)) stop(`cargo ${found} is too old`)
const compiler = process.env.CC ?? 'cc'
if (spawnSync(compiler, ['--version']).error) stop(`no C compiler was found (looked for ${compiler})`)

console.log('logit-prism: building the native addon (minutes the first time, seconds afterwards)')
const args = ['build', '--manifest-path', 'crates/napi/Cargo.toml', '--output-dir', '.', '--platform', '--release']
args.push('--js', 'native.cjs', '--dts', 'index.d.ts')
if (process.argv.includes('--check')) args.push('--no-dts-cache')
const napi = join(root, 'node_modules/@napi-rs/cli/cli.mjs')
const built = spawnSync(process.execPath, [napi, ...args], { cwd: root, stdio: 'inherit' })
process.exit(built.status ?? 1)
