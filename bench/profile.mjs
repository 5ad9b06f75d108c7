// Where the time goes, on GPT-2 small's shape: npm run bench -- --profile
// Builds and runs crates/core/examples/profile.rs, which tells what each column is: the forward pass written out with a clock
// around each operation, its logits held against those of the call. Needs cargo.
import { strict as assert } from 'node:assert'
import { spawnSync } from 'node:child_process'
import { fileURLToPath } from 'node:url'
import { writeModel } from './peers/model.mjs'
import { machine, ms, print } from './table.mjs'

const [ROUNDS, THREADS] = [5, 2]
const SHAPES = [
  [1, 16],
  [32, 16],
  [8, 128],
  [2, 1024],
]

/** The host's triple, as for the addon: cargo reuses what it has compiled. */
const host = /^host: (.*)$/m.exec(spawnSync('rustc', ['-vV'], { encoding: 'utf8' }).stdout)?.[1]
assert.ok(host, 'no rustc')

function cargo(...args) {
  const { status, stdout } = spawnSync('cargo', args, {
    cwd: fileURLToPath(new URL('..', import.meta.url)),
    stdio: ['ignore', 'pipe', 'inherit'],
    encoding: 'utf8',
    maxBuffer: 2 ** 28,
  })
  assert.equal(status, 0, `cargo ${args.join(' ')}`)
  return stdout
}

/** The path of the built program. */
function build() {
  const args = ['build', '--workspace', '--release', '--target', host, '--example', 'profile', '--message-format', 'json']
  const messages = cargo(...args).trim().split('\n').map((line) => JSON.parse(line)) // prettier-ignore
  const built = messages.find(({ target, executable }) => target?.name === 'profile' && executable)
  assert.ok(built, 'cargo built no profile')
  return built.executable
}

const percent = (share) => `${(100 * share).toFixed(1)} %`

export function profile() {
  const [program, path] = [build(), writeModel()]
  const rows = SHAPES.map(([prompts, tokens]) => {
    const { status, stdout, stderr } = spawnSync(program, [path, prompts, tokens, ROUNDS, THREADS].map(String), {
      encoding: 'utf8',
    })
    assert.equal(status, 0, stderr)
    const { call, forward, shares, gemm } = JSON.parse(stdout)
    const row = {
      'prompts × tokens': `${prompts} × ${tokens}`,
      'the call, ms': ms(call),
      'forward pass with clocks, ms': ms(forward),
    }
    for (const [part, share] of Object.entries(shares)) row[part] = percent(share)
    row['bare gemm, of the call'] = percent(gemm / call)
    return row
  })
  console.log(`GPT-2 small's shape, heads at the last position, f32, ${THREADS} threads, minimum of ${ROUNDS} rounds; ${machine()}`)
  print(rows)
}
