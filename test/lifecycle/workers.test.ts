import { expect, test } from 'vitest'
import { node } from '../helpers.js'

const script = (how: string) => node(['test/lifecycle/scripts/workers.mjs', how])

test('ten workers, terminated in the middle of a run: the process lives and can load', async () => {
  expect(await script('terminate')).toEqual({ status: 0, signal: null, stdout: 'terminated\n3.518\n', stderr: '' })
})

test('ten workers, terminated while they load: the process lives and can load', async () => {
  expect(await script('terminate-early')).toEqual({ status: 0, signal: null, stdout: 'terminated\n3.518\n', stderr: '' })
})

test.each(['close', 'open'])('only workers load the addon, one after another (model left %s)', async (end) => {
  expect(await script(`sequential-${end}`)).toEqual({ status: 0, signal: null, stdout: '3.518 0\n'.repeat(6), stderr: '' })
})

test('workers and the main thread at the same time', async () => {
  expect(await script('parallel')).toEqual({ status: 0, signal: null, stdout: '3.518 3.518 3.518 3.518\n', stderr: '' })
})

test('a saved run is read in other threads', async () => {
  expect(await script('saved')).toEqual({ status: 0, signal: null, stdout: '3.518 true; 3.518 true\n', stderr: '' })
})
