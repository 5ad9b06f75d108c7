// On a terminal: colours, a bar while it loads, and tables that fit its width. `script` gives the pseudo-terminal.
import { spawnSync } from 'node:child_process'
import { readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import { width } from '../../src/cli/text.js'
import { DEMO_PROMPT, run, spoiled } from '../helpers.js'

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
const LONG = Array.from({ length: 60 }, (_, i) => 2 + (i % 23)).join(',')
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

test.runIf(hasScript)('a pattern in half blocks: two queries in a line, each in its colour', async () => {
  const output = await onTerminal(80, `attention '${DEMO_PROMPT}' --head L3H1 --quiet`)
  // the last query of an odd number stands alone: all its attention on the token Mary, the brightest of the colours
  const line = output.split('\n').find((each) => each.includes('14 "to"')) ?? ''
  const cells = [...line.matchAll(/\u001b\[([\d;]+)m▀▀/g)].map(([, codes]) => codes)
  expect(cells).toHaveLength(15)
  expect(cells[2]).toBe('38;5;230')
  expect(new Set(cells.filter((_, k) => k !== 2))).toEqual(new Set(['38;5;234']))
  const two = output.split('\n').find((each) => /2 "Mary" +3 "and"/.test(each)) ?? ''
  expect([...two.matchAll(/\u001b\[38;5;\d+;48;5;\d+m▀▀/g)]).toHaveLength(3)
  expect([...two.matchAll(/\u001b\[38;5;\d+m▄▄/g)]).toHaveLength(1)
  const plain = await onTerminal(80, `attention '${DEMO_PROMPT}' --head L3H1 --quiet`, { NO_COLOR: '1' })
  expect(plain).not.toContain('\u001b')
  expect(plain).toMatch(/14 "to" +██$/m)
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

test.runIf(hasScript)('--format arrow is refused before anything is computed', async () => {
  const line = `"${process.execPath}" dist/cli/main.js ${ASK} --format arrow`
  const { status, stdout } = await run('script', ['--quiet', '--return', '--command', line, '/dev/null'])
  expect(status).toBe(2)
  expect(stdout).toContain('binary')
})

test.runIf(hasScript)('tokens of two cells and escape sequences: tables stay in their columns, nothing acts', async () => {
  const directory = spoiled('demo')
  const path = join(directory, 'tokenizer.json')
  const names: Record<string, string> = { Mary: '玛丽👍', John: 'a\u001b[2J\u202e\nb', to: '\u0301到' }
  const text = readFileSync(path, 'utf8')
  const tokenizer = JSON.parse(text) as { model: { vocab: Record<string, number> } }
  tokenizer.model.vocab = Object.fromEntries(Object.entries(tokenizer.model.vocab).map(([name, id]) => [names[name] ?? name, id]))
  writeFileSync(path, JSON.stringify(tokenizer))
  const question = `'0,104,79,321' --ids --answer 104 --against 79 --model ${directory} --quiet`
  for (const command of [`attribute ${question} --sources L3H1 --tokens`, `lens ${question}`]) {
    const output = await onTerminal(60, command)
    expect(output).not.toMatch(/\u001b\[2J|\u202e/)
    expect(output).toContain('\\u{1b}[2J\\u{202e}\\nb')
    expect(output).toContain('玛丽👍')
    const lines = screen(output).filter((line) => !line.includes(directory.slice(-6)))
    expect(lines.filter((line) => width(line) > 60)).toEqual([])
    const tables = lines.filter((line) => /^ +\d+ {2}"|^ {2}\S+( attn| mlp)? +[+−]/.test(line))
    expect(tables.length).toBeGreaterThan(8)
  }
})

test.runIf(hasScript).each([60, 80, 100, 120])('tables fit %i columns', async (columns) => {
  for (const command of [
    ASK,
    `${ASK} --norm none`,
    `attribute '${DEMO_PROMPT}' --answer ' Mary' --unit layer --position all`,
    `${ASK} --unit neuron --sources L3H1,L2H0 --tokens --position all`,
    `lens '${DEMO_PROMPT}' --answer ' Mary' --against :mean --position all`,
    `lens '${DEMO_PROMPT}'`,
    `attention '${DEMO_PROMPT}'`,
    `attention '${LONG}' --ids --head L1H1 --head L0H2`,
    `patch '${DEMO_PROMPT}' --answer ' Mary' --against ' John' --corrupt '${DEMO_PROMPT.replace('John gave', 'Mary gave')}'`,
    `patch '${DEMO_PROMPT}' --answer ' Mary' --corrupt '${DEMO_PROMPT.replace('John gave', 'Mary gave')}' --over head,position --noising`,
    'dataset ioi --evaluate --n 20',
    'dataset induction --evaluate --n 3',
    'demo',
  ]) {
    const lines = screen(await onTerminal(columns, `${command} --quiet`))
    expect(lines.length).toBeGreaterThan(10)
    const long = lines.filter((line) => [...line].length > columns && !/^ {4}npx /.test(line))
    expect(long, command).toEqual([])
  }
})
