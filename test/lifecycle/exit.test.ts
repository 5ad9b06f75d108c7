import { expect, test } from 'vitest'
import { fixture, node, ROOT } from '../helpers.js'

const script = (...args: string[]) => node(['test/lifecycle/scripts/exits.mjs', ...args])

test.each([
  ['after close', 'close', '3.518\n'],
  ['without close', 'open', '3.518\n'],
  ['once a call that still runs is done', 'running', '3.518\ndone\n'],
])('the process ends by itself %s', async (_, how, stdout) => {
  expect(await script(how)).toEqual({ status: 0, signal: null, stdout, stderr: '' })
})

test.each([1, 2, 3])('process.exit in the middle of a run is clean (%i)', async () => {
  expect(await script('exit')).toEqual({ status: 7, signal: null, stdout: '3.518\n', stderr: '' })
})

test('process.exit with many calls waiting is clean', async () => {
  expect(await script('exit-many')).toEqual({ status: 7, signal: null, stdout: '3.518\n', stderr: '' })
})

test('an error that nobody catches ends the process in the middle of a run', async () => {
  const { status, signal, stderr } = await script('throw')
  expect([status, signal]).toEqual([1, null])
  expect(stderr).toContain('Error: mine')
})

test.each(['SIGTERM', 'SIGINT', 'SIGHUP'] as const)('the addon leaves %s as it is', async (name) => {
  const code = `
    import { BIG, Model, TARGET } from './test/lifecycle/scripts/common.mjs'
    const model = await Model.demo()
    void model.attribute([...BIG, ...BIG, ...BIG], TARGET)
    setTimeout(() => process.kill(process.pid, '${name}'), 50)`
  expect(await node(['--input-type=module', '-e', code])).toMatchObject({ status: null, signal: name })
})

test('a load that fails leaves nothing that holds the process', async () => {
  const code = `
    import { Model } from './dist/index.js'
    const codes = []
    for (const path of ['/nonexistent', '${fixture('')}']) await Model.load(path).catch((error) => codes.push(error.code))
    console.log(codes.join(' '))`
  const ended = await node(['--input-type=module', '-e', code], { cwd: ROOT })
  expect(ended).toEqual({ status: 0, signal: null, stdout: 'IO_ERROR CHECKPOINT_MISSING\n', stderr: '' })
})
