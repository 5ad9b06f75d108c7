// On a terminal: colours, a bar while it loads, and tables that fit its width. `script` gives the pseudo-terminal.
import { spawnSync } from 'node:child_process'
import { expect, test } from 'vitest'
import { DEMO_PROMPT, run } from '../helpers.js'

const hasScript = spawnSync('script', ['--version'], { encoding: 'utf8' }).stdout?.includes('util-linux') ?? false

/** What a terminal of so many columns gets. */
async function onTerminal(columns: number, command: string, env: Record<string, string> = {}): Promise<string> {
  const line = `stty cols ${columns} rows 50; "${process.execPath}" dist/cli/main.js ${command}`
  const environment: Record<string, string | undefined> = { ...process.env, TERM: 'xterm-256color', ...env }
  for (const name of ['NO_COLOR', 'FORCE_COLOR', 'CI']) if (!(name in env)) delete environment[name]
  const { status, stdout } = await run('script', ['--quiet', '--return', '--command', line, '/dev/null'], { env: environment })
  expect(status).toBe(0)
  return stdout.replaceAll('\r\n', '\n')
}

const ASK = `attribute '${DEMO_PROMPT}' --answer ' Mary' --against ' John'`
const ESCAPE = new RegExp('\u001b\\[[0-9;]*[A-Za-z]', 'g')

/** The lines as they stand on the screen: what a carriage return wrote over is gone. */
function screen(output: string): string[] {
  return output.split('\n').map((line) => line.slice(line.lastIndexOf('\r') + 1).replaceAll(ESCAPE, ''))
}

test.runIf(hasScript)('colours, and a bar while it loads, unless --quiet', async () => {
  const output = await onTerminal(80, ASK)
  expect(output).toContain('\u001b[32m')
  expect(output).toMatch(/loading .*layer \d of 4/)
  expect(screen(output).join('\n')).not.toContain('loading')
  expect(await onTerminal(80, `${ASK} --quiet`)).not.toContain('loading')
})

test.runIf(hasScript)('NO_COLOR is heard', async () => {
  const output = await onTerminal(80, `${ASK} --quiet`, { NO_COLOR: '1' })
  expect(output).not.toContain('\u001b')
  expect(output).toMatch(/L3H1 +\+3\.518/)
})

test.runIf(hasScript)('--format json is JSON on a terminal too', async () => {
  const output = await onTerminal(80, `${ASK} --quiet --format json`)
  expect(JSON.parse(output)).toMatchObject({ certified: true })
})

test.runIf(hasScript).each([60, 80, 100, 120])('tables fit %i columns', async (columns) => {
  for (const command of [
    ASK,
    `${ASK} --norm none`,
    `attribute '${DEMO_PROMPT}' --answer ' Mary' --unit layer --position all`,
    'demo',
  ]) {
    const lines = screen(await onTerminal(columns, `${command} --quiet`))
    expect(lines.length).toBeGreaterThan(10)
    const long = lines.filter((line) => [...line].length > columns && !/^ {4}npx /.test(line))
    expect(long, command).toEqual([])
  }
})
