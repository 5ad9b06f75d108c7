// What README shows is what happens: its example runs, its quoted output is the program's.
import { spawnSync } from 'node:child_process'
import { readFileSync, writeFileSync } from 'node:fs'
import { expect, test, vi } from 'vitest'
import type { ComponentMean, Share } from '../../src/index.js'

const README = new URL('../../README.md', import.meta.url)
const EXAMPLE = new URL('./example.ts', import.meta.url)

/** The text between two markers; with UPDATE_README=1 it is first set to what is expected. */
function block(name: string, expected: string): string {
  const pattern = new RegExp(`(<!-- ${name} -->\n)([^]*?)(<!-- /${name} -->)`)
  if (process.env.UPDATE_README) {
    const readme = readFileSync(README, 'utf8')
    writeFileSync(
      README,
      readme.replace(pattern, (_, open: string, __, close: string) => `${open}${expected}${close}`),
    )
  }
  return pattern.exec(readFileSync(README, 'utf8'))?.[2] ?? ''
}

test('the quoted demo is what the demo prints', () => {
  const demo = spawnSync(process.execPath, ['dist/cli/main.js', 'demo'], { encoding: 'utf8' })
  expect(demo.status).toBe(0)
  const expected = `\n\`\`\`text\n${demo.stdout.replace(/^\n/, '').trimEnd()}\n\`\`\`\n\n`
  expect(block('demo', expected)).toBe(expected)
})

test('the example is the file that runs here', () => {
  const expected = `\n\`\`\`ts\n${readFileSync(EXAMPLE, 'utf8')}\`\`\`\n\n`
  expect(block('example', expected)).toBe(expected)
})

test('the example prints the numbers of its comments', async () => {
  const logged: unknown[][] = []
  const log = vi.spyOn(console, 'log').mockImplementation((...values: unknown[]) => void logged.push(values))
  await import('./example.js')
  log.mockRestore()
  const [top, [mlp], [certified, total, measured], [mean]] = logged as [
    [Share[]],
    [number],
    [boolean, number, number],
    [ComponentMean],
  ]
  expect(top[0].map(({ label, value }) => `${label} ${value.toFixed(3)}`)).toEqual(['L3H1 3.518', 'L3H0 3.022'])
  expect(mlp).toBeCloseTo(-0.423, 3)
  expect([certified, total.toFixed(3), measured.toFixed(3)]).toEqual([true, '6.291', '6.291'])
  expect(mean.interval[0]).toBeLessThanOrEqual(mean.mean)
})
