// panic = "unwind" holds for an addon built with the release profile: a panic ends its model, never the process.
import { execFileSync, spawnSync } from 'node:child_process'
import { copyFileSync, mkdtempSync, rmSync } from 'node:fs'
import { createRequire } from 'node:module'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import type * as Addon from '../../index.d.ts'

function buildPanicking(directory: string): string {
  const host = /^host: (.*)$/m.exec(execFileSync('rustc', ['-vV'], { encoding: 'utf8' }))?.[1] ?? ''
  const args = ['build', '--release', '--target', host, '-p', 'logit-prism-napi', '--features', 'test-panic']
  const built = spawnSync('cargo', [...args, '--message-format', 'json'], { encoding: 'utf8', maxBuffer: 2 ** 28 })
  expect(built.status, built.stderr).toBe(0)
  const library = /"filenames":\["([^"]*logit_prism_napi\.(?:so|dylib))"/.exec(built.stdout)?.[1] ?? ''
  const addon = join(directory, 'panicking.node')
  copyFileSync(library, addon)
  return addon
}

test('a panic poisons its model and nothing else', { timeout: 300_000 }, async () => {
  const directory = mkdtempSync(join(tmpdir(), 'logit-prism-panic-'))
  try {
    const addon = createRequire(import.meta.url)(buildPanicking(directory)) as typeof Addon
    const load = () => addon.loadModel('models/demo', {}, new addon.CancelHandle())
    const call: Addon.NativeCall = {
      asked: { prompts: [Uint32Array.of(0, 5)], positions: { name: 'last' } },
      attributing: { targets: [{ answer: [7] }], unit: 'head', convention: 'default', onViolation: 'throw' },
    }
    const [broken, healthy] = [await load(), await load()]
    await broken.attribute(call, new addon.CancelHandle())
    const panicking = broken as typeof broken & { panic(): Promise<void> }
    await expect(panicking.panic()).rejects.toMatchObject({
      code: 'POISONED',
      message: expect.stringContaining('asked for by a test'),
    })
    await expect(broken.attribute(call, new addon.CancelHandle())).rejects.toMatchObject({ code: 'POISONED' })
    expect((await healthy.attribute(call, new addon.CancelHandle())).violations).toBe(0)
    await broken.close()
  } finally {
    rmSync(directory, { recursive: true, force: true })
  }
})
