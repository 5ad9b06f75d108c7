// Linters and formatters, as CI runs them: npm run lint
import { spawnSync } from 'node:child_process'
import { existsSync } from 'node:fs'
import { join } from 'node:path'

const root = join(import.meta.dirname, '..')
const tools = join(import.meta.dirname, 'tools')
const host = /^host: (.*)$/m.exec(spawnSync('rustc', ['-vV'], { encoding: 'utf8' }).stdout)[1]
if (!existsSync(join(tools, 'node_modules/oxlint')))
  run('npm', ['install', '--prefix', tools, '--no-package-lock', '--no-audit', '--no-fund'])

const checks = [
  ['cargo', ['fmt', '--check']],
  ['cargo', ['clippy', '--workspace', '--lib', '--tests', '--release', '--target', host, '--', '-D', 'warnings']],
  [
    process.execPath,
    [
      join(root, 'node_modules/prettier/bin/prettier.cjs'),
      '--check',
      'src',
      'test',
      'bench',
      '.ci',
      'crates/napi/build.mjs',
      'crates/napi/cuda-linux-x64',
    ],
  ],
  [join(tools, 'node_modules/.bin/oxlint'), ['--deny-warnings', 'src', 'test', 'bench', '.ci', 'crates/napi']],
]

function run(command, args) {
  console.log(`$ ${[command, ...args].join(' ').replaceAll(`${root}/`, '')}`)
  return spawnSync(command, args, { cwd: root, stdio: 'inherit' }).status === 0
}

const failed = checks.filter(([command, args]) => !run(command, args)).length
console.log(failed === 0 ? 'lint: all checks passed' : `lint: ${failed} of ${checks.length} checks failed`)
process.exit(failed === 0 ? 0 : 1)
