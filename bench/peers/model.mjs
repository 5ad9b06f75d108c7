// A checkpoint of GPT-2 small's shape with random weights, the same every time, written once.
import { closeSync, existsSync, mkdirSync, openSync, renameSync, writeFileSync, writeSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'

export const D_VOCAB = 50257
const [D_MODEL, N_CONTEXT] = [768, 1024]
const SEED = 7

/** Uniform numbers in 0..1 (mulberry32). */
export function random(seed) {
  let state = seed | 0
  return () => {
    state = (state + 0x6d2b79f5) | 0
    let t = Math.imul(state ^ (state >>> 15), 1 | state)
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t
    return ((t ^ (t >>> 14)) >>> 0) / 4294967296
  }
}

/** Every tensor: name, shape, mean, and how far it spreads around it. */
function* tensors(layers) {
  const d = D_MODEL
  const norm = (name) => [
    [`${name}.weight`, [d], 1, 0.2],
    [`${name}.bias`, [d], 0, 0.1],
  ]
  const linear = (name, from, to) => [
    [`${name}.weight`, [from, to], 0, 0.06],
    [`${name}.bias`, [to], 0, 0.1],
  ]
  yield ['wte.weight', [D_VOCAB, d], 0, 0.06]
  yield ['wpe.weight', [N_CONTEXT, d], 0, 0.03]
  for (let l = 0; l < layers; l++) {
    yield* norm(`h.${l}.ln_1`)
    yield* linear(`h.${l}.attn.c_attn`, d, 3 * d)
    yield* linear(`h.${l}.attn.c_proj`, d, d)
    yield* norm(`h.${l}.ln_2`)
    yield* linear(`h.${l}.mlp.c_fc`, d, 4 * d)
    yield* linear(`h.${l}.mlp.c_proj`, 4 * d, d)
  }
  yield* norm('ln_f')
}

/** The directory of the checkpoint; with another number of layers it is GPT-2 small's shape but for that. */
export function writeModel({ layers = 12 } = {}) {
  const directory = join(tmpdir(), `logit-prism-bench-${SEED}${layers === 12 ? '' : `-${layers}-layers`}`)
  if (existsSync(directory)) return directory
  const unfinished = `${directory}-${process.pid}`
  mkdirSync(unfinished)
  const config = {
    model_type: 'gpt2', n_layer: layers, n_embd: D_MODEL, n_head: 12, n_positions: N_CONTEXT, vocab_size: D_VOCAB,
    layer_norm_epsilon: 1e-5, activation_function: 'gelu_new', bos_token_id: 0, eos_token_id: 0,
  } // prettier-ignore
  writeFileSync(join(unfinished, 'config.json'), JSON.stringify(config))

  const header = {}
  let bytes = 0
  for (const [name, shape] of tensors(layers)) {
    const size = 4 * shape.reduce((a, b) => a * b)
    header[name] = { dtype: 'F32', shape, data_offsets: [bytes, bytes + size] }
    bytes += size
  }
  const text = Buffer.from(JSON.stringify(header))
  const length = Buffer.alloc(8)
  length.writeBigUInt64LE(BigInt(text.length))
  const file = openSync(join(unfinished, 'model.safetensors'), 'w')
  writeSync(file, length)
  writeSync(file, text)
  const next = random(SEED)
  for (const [, shape, mean, spread] of tensors(layers)) {
    const numbers = Float32Array.from({ length: shape.reduce((a, b) => a * b) }, () => mean + spread * (next() - 0.5))
    writeSync(file, numbers)
  }
  closeSync(file)
  renameSync(unfinished, directory)
  return directory
}
