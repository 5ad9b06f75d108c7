// What README shows is what happens: its examples run, its quoted output is the program's.
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, test, vi } from 'vitest'
import { cli, node, ROOT } from '../helpers.js'
import { printed } from './sections.js'

const README = new URL('../../README.md', import.meta.url)
const readme = () => readFileSync(README, 'utf8')

/** The text between two markers; with UPDATE_README=1 it is first set to what is expected. */
function block(name: string, expected: string): string {
  const pattern = new RegExp(`(<!-- ${name} -->\n)([^]*?)(<!-- /${name} -->)`)
  if (process.env.UPDATE_README) {
    writeFileSync(
      README,
      readme().replace(pattern, (_, open: string, __, close: string) => `${open}${expected}${close}`),
    )
  }
  return pattern.exec(readme())?.[2] ?? ''
}

const NUMBER = /[+−-]?\d+(?:\.\d+)?(?:e[+-]?\d+)?/g

/** The same words, and the same numbers but for what another processor rounds otherwise. */
function expectSame(found: string, expected: string): void {
  expect(found.replaceAll(NUMBER, '#')).toBe(expected.replaceAll(NUMBER, '#'))
  const numbers = (text: string) => Array.from(text.match(NUMBER) ?? [], (digits) => Number(digits.replace('−', '-')))
  const wanted = numbers(expected)
  numbers(found).forEach((value, i) => expect(Math.abs(value - (wanted[i] ?? Number.NaN))).toBeLessThanOrEqual(1.1e-3))
}

test('the quoted demo is what the demo prints', async () => {
  const { status, stdout } = await cli('demo')
  expect(status).toBe(0)
  const expected = `\n\`\`\`text\n${stdout.replace(/^\n/, '').trimEnd()}\n\`\`\`\n\n`
  expect(block('demo', expected)).toBe(expected)
})

/** The sections of the tour, in order: name → source. */
const sources = new Map(
  readFileSync(new URL('./tour.ts', import.meta.url), 'utf8')
    .split(/^section\('/m)
    .slice(1)
    .map((part): [string, string] => [part.slice(0, part.indexOf("'")), part.slice(part.indexOf('\n') + 1)]),
)

describe('the examples, run as one program from the first to the last', () => {
  const directory = mkdtempSync(join(tmpdir(), 'logit-prism-readme-'))
  beforeAll(async () => {
    process.chdir(directory) // some write files
    await import('./tour.js').finally(() => vi.restoreAllMocks())
    process.chdir(ROOT)
  })
  afterAll(() => rmSync(directory, { recursive: true }))

  test.each([...sources.keys()])('%s: source and output', (name) => {
    const output = (printed.get(name) ?? '').trimEnd()
    const expected = `\n\`\`\`ts\n${sources.get(name)}\`\`\`\n\n${output && `\`\`\`text\n${output}\n\`\`\`\n\n`}`
    const quoted = block(name, expected)
    expect(quoted.split('```text')[0]).toBe(expected.split('```text')[0])
    expectSame(quoted, expected)
  })

  test('README has no other', () => {
    const fences = readme().match(/^```ts$/gm) ?? []
    expect(fences).toHaveLength(sources.size)
    const order = [...readme().matchAll(/^<!-- ([^/].*?) -->\n\n```ts$/gm)].map(([, name]) => name)
    expect(order).toEqual([...sources.keys()])
  })
})

describe('the commands', () => {
  const lines = [...readme().matchAll(/^ {4}npx logit-prism (.*?)(?: +#.*)?$/gm)].map(([, line = '']) => line)
  test('there are some', () => expect(lines.length).toBeGreaterThan(5))

  test.each([...new Set(lines)])('logit-prism %s', async (line) => {
    const directory = mkdtempSync(join(tmpdir(), 'logit-prism-readme-'))
    const args = [...line.matchAll(/"([^"]*)"|(\S+)/g)].map(([, quoted, plain]) => quoted ?? plain ?? '')
    const { status, stderr } = await node(
      [join(ROOT, 'dist/cli/main.js'), ...args.map((arg) => (arg === 'DIR' ? join(ROOT, 'models/demo') : arg))],
      {
        cwd: directory,
      },
    )
    rmSync(directory, { recursive: true })
    expect([status, stderr.replace(/^(no --model|on \S+:).*\n/gm, '')]).toEqual([0, ''])
  })
})
