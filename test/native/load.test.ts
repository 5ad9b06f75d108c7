// What loading gives, and every refusal of it that a directory can provoke.
import { renameSync, rmSync, symlinkSync, truncateSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { pathToFileURL } from 'node:url'
import { expect, test } from 'vitest'
import { Model, type PrismErrorCode } from '../../src/index.js'
import { DEMO, editTensor, fixture, open, refusal, spoiled, temporary } from '../helpers.js'

test('the config, resolved', async () => {
  const { config } = await open(fixture('gpt2'))
  const { attentionScale, ...rest } = config
  expect(attentionScale).toHaveLength(3)
  for (const scale of attentionScale) expect(scale).toBeCloseTo(1 / Math.sqrt(8), 12)
  expect(rest).toEqual({
    family: 'gpt2',
    nLayers: 3,
    nHeads: 4,
    nKeyValueHeads: 4,
    dModel: 32,
    dHead: 8,
    dMlp: 128, // n_inner null: 4 · d_model
    dVocab: 101,
    nContext: 64,
    embedScale: 1,
    norm: { kind: 'layerNorm', eps: 1e-5, gain: 'weight', bias: true },
    positions: { kind: 'learned', offset: 0 },
    parallel: false,
    qkNorm: null,
    clipQkv: null,
    scoreCap: null,
    windows: [null, null, null],
    attentionSinks: false,
    mlp: { kind: 'plain' },
    denseLayers: [],
    dMlpDense: 128,
    biases: { qkv: true, attnOut: true, mlp: true, router: false, unembed: false },
    residualMultiplier: 1,
    logitScale: 1,
    logitCap: null,
    activation: 'gelu_new',
    tiedEmbeddings: true,
    bosToken: 1,
    notes: [],
    unknownKeys: [],
  })
})

test('what is particular is in the config, and in words', async () => {
  const { config: scaled } = await open(fixture('gpt2_scaled'))
  const root = Math.sqrt(scaled.dHead)
  expect([scaled.nHeads, scaled.dHead, scaled.norm.eps]).toEqual([5, 7, 1e-3])
  ;[1, 2, 3].forEach((divisor, l) => expect(scaled.attentionScale[l]).toBeCloseTo(1 / root / divisor, 9))
  const { config: unscaled } = await open(fixture('gpt2_unscaled'))
  expect(unscaled.attentionScale).toEqual([1, 1])
  expect(unscaled.activation).toBe('gelu')
  const { config: untied } = await open(fixture('gpt2_untied'))
  expect([untied.tiedEmbeddings, untied.dMlp]).toEqual([false, 40])
  expect(scaled.notes).toHaveLength(1)
})

test('the config is frozen, all the way down', async () => {
  const { config } = await open(fixture('gpt2'))
  for (const part of [config, config.norm, config.positions, config.attentionScale, config.notes, config.unknownKeys]) {
    expect(Object.isFrozen(part)).toBe(true)
  }
})

test('device, weights and fingerprint', async () => {
  const model = await open(DEMO)
  expect([model.device, model.deviceReason]).toEqual(['cpu', 'the default'])
  expect(model.weightBytes).toBe(4 * 239_488)
  const fingerprint = await model.fingerprint
  expect(fingerprint).toMatch(/^[0-9a-f]{64}$/)
  const again = await open(DEMO)
  expect(await again.fingerprint).toBe(fingerprint)
  const copy = spoiled('demo')
  expect(await (await open(copy)).fingerprint, 'the place does not matter').toBe(fingerprint)
  editTensor(copy, 'transformer.h.3.mlp.c_proj.bias', (value, i) => (i === 0 ? value + 1 : value))
  expect(await (await open(copy)).fingerprint, 'one number does').not.toBe(fingerprint)
})

test("'auto' is a device that works, and results say which and why", async () => {
  const model = await open(DEMO, { device: 'auto' })
  expect(model.device).toMatch(/^(cpu|cuda:\d+)$/)
  expect(model.deviceReason).not.toBe('')
  const { provenance } = await model.attribute(['Mary'], { answer: 'predicted' })
  expect(provenance).toMatchObject({ device: model.device, deviceReason: model.deviceReason, dtype: 'f32' })
})

test('a directory as a URL, and as a relative path', async () => {
  expect((await open(fixture('gpt2'))).config.dModel).toBe(32)
  const byUrl = await Model.load(pathToFileURL(fixture('gpt2')))
  expect(byUrl.config.dModel).toBe(32)
  await byUrl.close()
})

test.each<[string, PrismErrorCode, (directory: string) => unknown, object]>([
  ['a directory that is not there', 'IO_ERROR', (directory) => rmSync(directory, { recursive: true }), {}],
  ['no config', 'CHECKPOINT_MISSING', (directory) => rmSync(join(directory, 'config.json')), { missing: 'config.json' }],
  ['no weights', 'CHECKPOINT_MISSING', (directory) => rmSync(join(directory, 'model.safetensors')), {}],
  ['a config that is no JSON', 'CONFIG_INVALID', (directory) => writeFileSync(join(directory, 'config.json'), '{"a":'), {}],
  ['weights that end early', 'CHECKPOINT_INVALID', (directory) => truncateSync(join(directory, 'model.safetensors'), 5000), {}],
  ['weights that are text', 'CHECKPOINT_INVALID', (directory) => writeFileSync(join(directory, 'model.safetensors'), 'hello'), {}],
  ['a tokenizer that is no JSON', 'TOKENIZER_INVALID', (directory) => writeFileSync(join(directory, 'tokenizer.json'), '['), {}],
  [
    'pickled weights alone',
    'PICKLE_REFUSED',
    (directory) => renameSync(join(directory, 'model.safetensors'), join(directory, 'pytorch_model.bin')),
    {},
  ],
  [
    'a git-LFS pointer in the place of the weights',
    'CHECKPOINT_INVALID',
    (directory) => writeFileSync(join(directory, 'model.safetensors'), 'version https://git-lfs.github.com/spec/v1\n'),
    { found: expect.stringContaining('git-LFS') },
  ],
  [
    'GGUF alone',
    'CHECKPOINT_INVALID',
    (directory) => renameSync(join(directory, 'model.safetensors'), join(directory, 'model.gguf')),
    { found: 'GGUF weights' },
  ],
  [
    'an adapter',
    'CHECKPOINT_INVALID',
    (directory) => writeFileSync(join(directory, 'adapter_config.json'), '{}'),
    { expected: expect.stringContaining('merge_and_unload') },
  ],
  [
    'a file of AutoAWQ beside the weights',
    'CONFIG_UNSUPPORTED',
    (directory) => writeFileSync(join(directory, 'quant_config.json'), '{"w_bit": 4}'),
    { key: 'w_bit', value: '4' },
  ],
  [
    'weights that lie elsewhere',
    'CHECKPOINT_INVALID',
    (directory) => {
      rmSync(join(directory, 'model.safetensors'))
      symlinkSync(join(fixture('gpt2'), 'model.safetensors'), join(directory, 'model.safetensors'))
    },
    {},
  ],
])('refused: %s', async (_, code, spoil, details) => {
  const directory = spoiled('gpt2')
  spoil(directory)
  const error = await refusal(code, () => Model.load(directory))
  expect(error.details).toMatchObject(details)
  expect(error.message.length).toBeGreaterThan(20)
})

test.each<[string, PrismErrorCode, Record<string, unknown>]>([
  ['another family', 'CONFIG_UNSUPPORTED', { model_type: 'mamba' }],
  ['quantised weights', 'CONFIG_UNSUPPORTED', { quantization_config: { quant_method: 'gptq', bits: 4 } }],
  ['weights that bitsandbytes quantises, in the old spelling', 'CONFIG_UNSUPPORTED', { load_in_8bit: true }],
  ['an unknown activation', 'CONFIG_UNSUPPORTED', { activation_function: 'step' }],
  ['a key that nothing here knows', 'CONFIG_UNSUPPORTED', { rotary_magic: 3 }],
  ['heads that do not divide the width', 'CONFIG_INVALID', { n_head: 5 }],
  ['no layers', 'CONFIG_INVALID', { n_layer: 0 }],
  ['more layers than the weights have', 'TENSOR_MISSING', { n_layer: 4 }],
  ['fewer layers than the weights have', 'TENSOR_UNEXPECTED', { n_layer: 2 }],
  ['another vocabulary than the weights have', 'TENSOR_SHAPE', { vocab_size: 102 }],
])('refused: a config with %s', async (_, code, config) => {
  await refusal(code, () => Model.load(spoiled('gpt2', config)))
})

test('an unknown key of the config is recorded where it is allowed', async () => {
  const model = await open(spoiled('gpt2', { rotary_magic: 3 }), { allowUnknownConfig: true })
  expect(model.config.unknownKeys).toEqual(['rotary_magic'])
})

test('a file is no directory', async () => {
  const path = join(temporary(), 'model')
  writeFileSync(path, 'x')
  await refusal('IO_ERROR', () => Model.load(path))
})

test('too little memory for the weights is refused with both figures', async () => {
  const error = await refusal('MEMORY', () => Model.load(DEMO, { memoryLimit: 900_000 }))
  expect(error.details).toMatchObject({ needed: 4 * 239_488, available: 900_000 })
})
