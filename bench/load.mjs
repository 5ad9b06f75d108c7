// Loading a model of GPT-2-small's shape (124 million numbers, seed fixed) from a warm disk cache: time, and the largest
// growth of resident memory, each load in a process of its own: node bench/load.mjs [threads]
// What was loaded is checked first: the logits must be the same for every storage type that holds the same numbers.
import { strict as assert } from 'node:assert'
import { spawnSync } from 'node:child_process'
import { closeSync, mkdirSync, mkdtempSync, openSync, readFileSync, rmSync, writeFileSync, writeSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { Model } from '../dist/index.js'

const [D, V, CONTEXT, LAYERS, M] = [768, 50257, 1024, 12, 3072]
const LOADS = 5

/** Names and shapes, as GPT-2 stores them and as Llama does: [in, out] in one matrix, [out, in] in three. */
const SHAPES = {
  gpt2: [
    ['wte.weight', [V, D]],
    ['wpe.weight', [CONTEXT, D]],
    ['ln_f.weight', [D]],
    ['ln_f.bias', [D]],
    ...layers((l) => [
      ...['ln_1', 'ln_2'].flatMap((norm) => ['weight', 'bias'].map((end) => [`h.${l}.${norm}.${end}`, [D]])),
      ...[
        ['attn.c_attn', D, 3 * D],
        ['attn.c_proj', D, D],
        ['mlp.c_fc', D, M],
        ['mlp.c_proj', M, D],
      ].flatMap(([name, n, m]) => [
        [`h.${l}.${name}.weight`, [n, m]],
        [`h.${l}.${name}.bias`, [m]],
      ]),
    ]),
  ],
  llama: [
    ['model.embed_tokens.weight', [V, D]],
    ['model.norm.weight', [D]],
    ...layers((l) => [
      ...['input_layernorm', 'post_attention_layernorm'].map((norm) => [`model.layers.${l}.${norm}.weight`, [D]]),
      ...['q', 'k', 'v', 'o'].map((part) => [`model.layers.${l}.self_attn.${part}_proj.weight`, [D, D]]),
      [`model.layers.${l}.mlp.gate_proj.weight`, [2048, D]],
      [`model.layers.${l}.mlp.up_proj.weight`, [2048, D]],
      [`model.layers.${l}.mlp.down_proj.weight`, [D, 2048]],
    ]),
  ],
}
const CONFIGS = {
  gpt2: { model_type: 'gpt2' },
  llama: {
    model_type: 'llama',
    hidden_size: D,
    intermediate_size: 2048,
    num_hidden_layers: LAYERS,
    num_attention_heads: 12,
    num_key_value_heads: 12,
    vocab_size: V,
    tie_word_embeddings: true,
  },
}

function layers(of) {
  return Array.from({ length: LAYERS }, (_, l) => of(l)).flat()
}

/** Numbers that bf16 holds, by xorshift: ± 2^-6 (1 + k/128), about 0.02. */
function numbers(n, dtype, state) {
  const out = dtype === 'F32' ? new Uint32Array(n) : new Uint16Array(n)
  const shift = dtype === 'F32' ? 16 : 0
  for (let i = 0; i < n; i++) {
    state.x ^= state.x << 13
    state.x ^= state.x >>> 17
    state.x ^= state.x << 5
    out[i] = (((state.x & 1) << 15) | (121 << 7) | ((state.x >>> 8) & 127)) << shift
  }
  return out
}

function write(directory, family, dtype) {
  mkdirSync(directory)
  writeFileSync(join(directory, 'config.json'), JSON.stringify(CONFIGS[family]))
  const header = {}
  let end = 0
  for (const [name, shape] of SHAPES[family]) {
    const bytes = shape.reduce((a, b) => a * b) * (dtype === 'F32' ? 4 : 2)
    header[name] = { dtype, shape, data_offsets: [end, (end += bytes)] }
  }
  const json = Buffer.from(JSON.stringify(header))
  const length = Buffer.alloc(8)
  length.writeBigUInt64LE(BigInt(json.length))
  const file = openSync(join(directory, 'model.safetensors'), 'w')
  writeSync(file, Buffer.concat([length, json]))
  const state = { x: 20261123 }
  for (const [, shape] of SHAPES[family])
    writeSync(
      file,
      numbers(
        shape.reduce((a, b) => a * b),
        dtype,
        state,
      ),
    )
  closeSync(file)
}

/** In a process of its own: one load. */
async function load(directory, threads) {
  const status = (key) => 1024 * Number(new RegExp(`${key}:\\s+(\\d+)`).exec(readFileSync('/proc/self/status', 'utf8'))[1])
  const before = status('VmRSS')
  const start = performance.now()
  const model = await Model.load(directory, { threads })
  const seconds = (performance.now() - start) / 1000
  const peak = status('VmHWM') - before
  const { values } = await model.attribute([new Uint32Array([1, 22, 333, 4444])], { answer: 5, against: 6 })
  console.log(JSON.stringify({ seconds, peak, weights: model.weightBytes, values: [...values] }))
  await model.close()
}

function measure(root, threads) {
  const rows = []
  for (const family of ['gpt2', 'llama']) {
    let expected
    for (const dtype of ['F32', 'BF16']) {
      const directory = join(root, `${family}-${dtype}`)
      write(directory, family, dtype)
      const loads = Array.from({ length: LOADS }, () => {
        const child = spawnSync(process.execPath, [import.meta.filename, '--child', directory, String(threads)], {
          encoding: 'utf8',
        })
        assert.equal(child.status, 0, child.stderr)
        return JSON.parse(child.stdout)
      })
      rmSync(directory, { recursive: true })
      for (const { values } of loads) assert.deepEqual(values, (expected ??= values))
      const seconds = loads.map((l) => l.seconds).sort((a, b) => a - b)
      rows.push({
        task: `load ${family}, ${dtype}, ${Math.round(loads[0].weights / 1e6)} MB in f32, cpu`,
        'min s': seconds[0].toFixed(2),
        'median s': seconds[LOADS >> 1].toFixed(2),
        'beside the weights, MB': Math.max(...loads.map((l) => (l.peak - l.weights) / 1e6)).toFixed(0),
      })
    }
  }
  return rows
}

if (process.argv[2] === '--child') {
  await load(process.argv[3], Number(process.argv[4]))
} else {
  const threads = Number(process.argv[2] ?? 2)
  const root = mkdtempSync(join(tmpdir(), 'logit-prism-load-'))
  try {
    const rows = measure(root, threads)
    console.log(`${threads} threads, Node ${process.version}; every type gave the same numbers first`)
    console.table(rows)
  } finally {
    rmSync(root, { recursive: true })
  }
}
