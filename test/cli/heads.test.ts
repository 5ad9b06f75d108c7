// logit-prism heads, as a user runs it: what is printed against what describeHeads returns.
import { expect, test } from 'vitest'
import { cli, DEMO, DEMO_PROMPT, DEMO_TARGET, open } from '../helpers.js'

const ASK = ['heads', DEMO_PROMPT, '--answer', ' Mary', '--against', ' John']

test('the table: for each head its pattern, sources, tokens, copying and partners', async () => {
  const { status, stdout } = await cli(...ASK, '--top', '3')
  expect(status).toBe(0)
  const text = stdout.replaceAll(/\s+/g, ' ')
  const heads = await (await open(DEMO)).describeHeads([DEMO_PROMPT], DEMO_TARGET, { top: 3 })
  expect([...stdout.matchAll(/^ {2}(L\dH\d) {2}[+−]/gm)].map(([, label]) => label)).toEqual(['L3H1', 'L3H0', 'L1H1'])
  for (const { label, mean, pattern, rows, copying, composition } of heads) {
    const part = text.slice(text.indexOf(` ${label} ${mean < 0 ? '−' : '+'}${Math.abs(mean).toFixed(3)} pattern ${pattern.type}`))
    const [row] = rows
    expect(part).toContain(`from "${row?.sources[0]?.token}" (${row?.sources[0]?.position})`)
    expect(part).toContain(`raises "${row?.raised[0]?.text}" +${row?.raised[0]?.value.toFixed(2)}`)
    if ('refused' in copying) throw new Error(copying.refused)
    expect(part).toContain(`eigenvalues ${copying.eigenvalueShare.toFixed(3)}`)
    const keys = composition?.K
    if (!keys || 'refused' in keys) throw new Error('no composition')
    expect(part).toContain(`K comp. reads ${keys.from[0]?.from} ${keys.from[0]?.score.toFixed(3)} (+`)
  }
  expect(text).toContain('target logit("Mary") − logit("John")')
})

test('--format json as the API', async () => {
  const args = ['--top', '2', '--tokens', '1', '--position', '-1,3', '--format', 'json', '--quiet']
  const { status, stdout, stderr } = await cli(...ASK, ...args)
  expect([status, stderr]).toEqual([0, ''])
  const model = await open(DEMO)
  const heads = await model.describeHeads([DEMO_PROMPT], DEMO_TARGET, { top: 2, k: 1, position: [-1, 3] })
  const printed = JSON.parse(stdout)
  expect(printed.heads).toEqual(JSON.parse(JSON.stringify(heads)))
  expect(printed.prompt.ids).toEqual([...(model.tokenizer?.encode(DEMO_PROMPT) ?? [])])
})

test('--no-composition leaves the partners out', async () => {
  const { stdout } = await cli(...ASK, '--no-composition', '--top', '1')
  expect(stdout).toContain('copies')
  expect(stdout).not.toContain('comp.')
})

test.each<[string, string[], RegExp]>([
  ['no answer', [], /--answer <token>' not specified/],
  ['a format that it has not', ['--answer', ' Mary', '--format', 'csv'], /table, json/],
  ['no head', ['--answer', ' Mary', '--top', '0'], /whole number/],
])('status 2: %s', async (_, args, message) => {
  const { status, stdout, stderr } = await cli('heads', DEMO_PROMPT, ...args)
  expect({ status, stdout }).toEqual({ status: 2, stdout: '' })
  expect(stderr).toMatch(message)
})
