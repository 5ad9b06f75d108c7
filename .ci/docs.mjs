// The reference of the API as pages, in docs/ (ignored); fails where anything public is undocumented: npm run docs
import { spawnSync } from 'node:child_process'
import { existsSync } from 'node:fs'
import { join } from 'node:path'

const root = join(import.meta.dirname, '..')
const tools = join(import.meta.dirname, 'tools')
// the package's own TypeScript is native and has no interface that TypeDoc could call: it has one of its own
const typedoc = join(tools, 'node_modules/typedoc/bin/typedoc')
if (!existsSync(typedoc)) run('npm', ['install', '--prefix', tools, '--no-package-lock', '--no-audit', '--no-fund'])

function run(command, args) {
  return spawnSync(command, args, { cwd: root, stdio: 'inherit' }).status ?? 1
}

process.exit(run(process.execPath, [typedoc, '--options', join(import.meta.dirname, 'typedoc.json'), ...process.argv.slice(2)]))
