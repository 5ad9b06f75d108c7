// The test command: cargo's tests, then vitest's. Prints one closing line with both counts.
//   node test/run.mjs [--full]     --full: mutation testing besides, which takes an hour
import { spawnSync } from 'node:child_process'
import { existsSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'

const root = join(import.meta.dirname, '..')
const counts = { passed: 0, failed: 0 }

function run(command, args, options = {}) {
  console.log(`\n$ ${[command, ...args].join(' ')}`)
  return spawnSync(command, args, { cwd: root, stdio: 'inherit', ...options })
}

/** The triple that the napi CLI builds for: with the same one, cargo reuses what it has compiled. */
function hostTarget() {
  return /^host: (.*)$/m.exec(spawnSync('rustc', ['-vV'], { encoding: 'utf8' }).stdout)[1]
}

function cargoTests() {
  const args = ['test', '--workspace', '--release', '--target', hostTarget()]
  const { status, stdout } = run('cargo', args, { stdio: ['inherit', 'pipe', 'inherit'], encoding: 'utf8', maxBuffer: 2 ** 28 })
  process.stdout.write(stdout)
  for (const [, passed, failed] of stdout.matchAll(/^test result: .*? (\d+) passed; (\d+) failed/gm)) {
    counts.passed += Number(passed)
    counts.failed += Number(failed)
  }
  if (status !== 0 && counts.failed === 0) counts.failed++ // it did not compile
}

function vitestTests() {
  const report = join(tmpdir(), `logit-prism-vitest-${process.pid}.json`)
  const vitest = join(root, 'node_modules/vitest/vitest.mjs')
  const { status } = run(process.execPath, [vitest, 'run', '--reporter=default', '--reporter=json', `--outputFile.json=${report}`])
  const { numPassedTests = 0, numFailedTests = 0 } = existsSync(report) ? JSON.parse(readFileSync(report, 'utf8')) : {}
  rmSync(report, { force: true })
  counts.passed += numPassedTests
  counts.failed += numFailedTests
  if (status !== 0 && numFailedTests === 0) counts.failed++ // a file that did not load, or a type error
}

function mutants() {
  const { status } = run('cargo', ['mutants', '--version'])
  if (status !== 0) {
    console.error('mutation testing needs cargo-mutants: cargo install cargo-mutants --locked')
    counts.failed++
    return
  }
  // settings: .cargo/mutants.toml
  const done = run('cargo', ['mutants', '--no-shuffle'])
  counts[done.status === 0 ? 'passed' : 'failed']++
}

cargoTests()
vitestTests()
if (process.argv.includes('--full')) mutants()
console.log(`\n${counts.passed} passed, ${counts.failed} failed`)
process.exit(counts.failed === 0 ? 0 : 1)
