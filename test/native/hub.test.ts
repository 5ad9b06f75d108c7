// A repository id that is in the local Hugging Face cache, laid out as huggingface_hub lays it out.
import { copyFileSync, mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, expect, test, vi } from 'vitest'
import { Model } from '../../src/index.js'
import { DEMO_PROMPT, DEMO_TARGET } from '../helpers.js'

const cache = mkdtempSync(join(tmpdir(), 'logit-prism-hub-'))
const commit = 'a'.repeat(40)
afterAll(() => rmSync(cache, { recursive: true }))

test('snapshots are found, their links into blobs followed, and links elsewhere refused', async () => {
  const repository = join(cache, 'models--founders--demo')
  const snapshot = join(repository, 'snapshots', commit)
  for (const folder of ['blobs', 'refs', join('snapshots', commit)]) mkdirSync(join(repository, folder), { recursive: true })
  writeFileSync(join(repository, 'refs/main'), commit)
  for (const file of ['config.json', 'model.safetensors', 'tokenizer.json', 'tokenizer_config.json']) {
    copyFileSync(join('models/demo', file), join(repository, 'blobs', `blob-of-${file}`))
    symlinkSync(`../../blobs/blob-of-${file}`, join(snapshot, file))
  }
  vi.stubEnv('HF_HUB_CACHE', cache)
  await using model = await Model.load('founders/demo')
  await using demo = await Model.demo()
  const [found, known] = [await model.attribute([DEMO_PROMPT], DEMO_TARGET), await demo.attribute([DEMO_PROMPT], DEMO_TARGET)]
  expect(found.values).toEqual(known.values)
  await expect(Model.load('founders/other')).rejects.toMatchObject({ code: 'IO_ERROR', message: expect.stringContaining(cache) })

  rmSync(join(snapshot, 'tokenizer.json'))
  symlinkSync('/etc/hostname', join(snapshot, 'tokenizer.json'))
  await expect(Model.load('founders/demo')).rejects.toMatchObject({ code: 'CHECKPOINT_INVALID' })
})
