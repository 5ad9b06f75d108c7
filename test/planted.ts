// A checkpoint whose heads are known because they were written by hand: four layers of two heads, nothing trained.
//
// The stream holds one-hot features, each as a pair (+1, −1), so that a layer norm subtracts nothing and divides by the
// same number at every position: the token, the position, and (once L0H0 has written it) the previous token.
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'

/** Tokens: BOS and the unknown one, the full stop and the comma, and words: a, b, c, … */
const TOKENS = ['<bos>', '<unk>', '.', ',', ...Array.from({ length: 24 }, (_, i) => String.fromCodePoint(97 + i))]
export const STOP = 2
const COMMA = 3
const VOCABULARY = TOKENS.length
const CONTEXT = 52

/** What was planted: where each head looks. */
export const PLANTED = {
  L0H0: 'previousToken',
  L0H1: 'column', // full stops and commas; the first token before there is one
  L1H0: 'induction', // by K-composition with L0H0; writes the token that it finds
  L1H1: 'induction', // looks where L1H0 looks, and writes the opposite
  L2H0: 'uniform',
  L2H1: 'duplicateToken', // an earlier occurrence; else the first token
  L3H0: 'self',
  L3H1: 'first',
} as const

const FEATURES = 2 * VOCABULARY + CONTEXT
const D_MODEL = 2 * FEATURES
const D_HEAD = D_MODEL / 2
const token = (id: number) => id
const position = (i: number) => VOCABULARY + i
const previous = (id: number) => VOCABULARY + CONTEXT + id
const tokens = Array.from({ length: VOCABULARY }, (_, id) => id)
const positions = Array.from({ length: CONTEXT }, (_, i) => i)

/** A feature that a head reads into or writes from one of its dimensions. */
type Link = readonly [feature: number, dimension: number, weight: number]

interface Head {
  readonly query?: readonly Link[]
  readonly key?: readonly Link[]
  readonly value?: readonly Link[]
  readonly output?: readonly Link[]
}

/** A query that is always there: the norm makes exactly one position feature of every row, so their sum is constant. */
const always = (dimension: number, weight = 1): Link[] => positions.map((i) => [position(i), dimension, weight])
/** Rests on the first token, where nothing scores more: half of what a match scores. */
const REST = D_HEAD - 1
const rest = { query: always(REST), key: [[position(0), REST, 0.5]] as Link[] }
const same = (of: (id: number) => number): Link[] => tokens.map((id) => [of(id), id, 1])
const induction = { query: [...same(token), ...rest.query], key: [...same(previous), ...rest.key], value: same(token) }

const HEADS: Record<keyof typeof PLANTED, Head> = {
  L0H0: {
    query: positions.slice(1).map((i) => [position(i), i, 1]),
    key: positions.slice(1).map((i) => [position(i - 1), i, 1]),
    value: same(token),
    output: same(previous),
  },
  L0H1: { query: [...always(0), ...rest.query], key: [[token(STOP), 0, 1], [token(COMMA), 0, 1], ...rest.key] },
  L1H0: { ...induction, output: same(token) },
  L1H1: { ...induction, output: tokens.map((id) => [token(id), id, -1]) },
  L2H0: {},
  L2H1: {
    // its own position would match too: what the token gives there, the position takes twice
    query: [...same(token), ...positions.map((i): Link => [position(i), VOCABULARY + i, 1]), ...rest.query],
    key: [...same(token), ...positions.map((i): Link => [position(i), VOCABULARY + i, -2]), ...rest.key],
  },
  L3H0: {
    query: positions.map((i) => [position(i), i, 1]),
    key: positions.map((i) => [position(i), i, 1]),
  },
  L3H1: rest,
}

/** How sharply queries and keys match. */
const SHARPNESS = 16

class Matrix {
  readonly data: Float32Array

  constructor(
    readonly rows: number,
    readonly columns: number,
  ) {
    this.data = new Float32Array(rows * columns)
  }

  add(row: number, column: number, value: number): void {
    this.data[row * this.columns + column] = (this.data[row * this.columns + column] ?? 0) + value
  }
}

/** Stored as GPT-2 has it: x W, heads beside each other, queries, keys and values beside each other. */
function attention(layer: number): { in: Matrix; out: Matrix } {
  const weights = { in: new Matrix(D_MODEL, 3 * D_MODEL), out: new Matrix(D_MODEL, D_MODEL) }
  const heads = Object.entries(HEADS).filter(([label]) => label.startsWith(`L${layer}`))
  heads.forEach(([, head], h) => {
    const read = (links: readonly Link[] | undefined, part: number, scale: number) => {
      for (const [feature, dimension, weight] of links ?? []) {
        const column = part * D_MODEL + h * D_HEAD + dimension
        weights.in.add(2 * feature, column, (scale * weight) / 2)
        weights.in.add(2 * feature + 1, column, (-scale * weight) / 2)
      }
    }
    read(head.query, 0, SHARPNESS)
    read(head.key, 1, 1)
    read(head.value, 2, 1)
    for (const [feature, dimension, weight] of head.output ?? []) {
      // what the norm of this layer divided by is multiplied again: two features before L0H0 has written, three behind it
      const scale = Math.sqrt((layer === 0 ? 4 : 6) / D_MODEL)
      weights.out.add(h * D_HEAD + dimension, 2 * feature, scale * weight)
      weights.out.add(h * D_HEAD + dimension, 2 * feature + 1, -scale * weight)
    }
  })
  return weights
}

function embedding(rows: number, feature: (row: number) => number): Matrix {
  const matrix = new Matrix(rows, D_MODEL)
  for (let row = 0; row < rows; row++) {
    matrix.add(row, 2 * feature(row), 1)
    matrix.add(row, 2 * feature(row) + 1, -1)
  }
  return matrix
}

/** Every tensor by its name, its shape with it. */
function weights(): Map<string, { shape: number[]; data: Float32Array }> {
  const all = new Map<string, { shape: number[]; data: Float32Array }>()
  const matrix = (name: string, { rows, columns, data }: Matrix) => all.set(name, { shape: [rows, columns], data })
  const vector = (name: string, length: number, value = 0) =>
    all.set(name, { shape: [length], data: new Float32Array(length).fill(value) })
  matrix('wte.weight', embedding(VOCABULARY, token))
  matrix('wpe.weight', embedding(CONTEXT, position))
  for (let layer = 0; layer < 4; layer++) {
    const { in: read, out } = attention(layer)
    for (const norm of ['ln_1', 'ln_2']) {
      vector(`h.${layer}.${norm}.weight`, D_MODEL, 1)
      vector(`h.${layer}.${norm}.bias`, D_MODEL)
    }
    matrix(`h.${layer}.attn.c_attn.weight`, read)
    vector(`h.${layer}.attn.c_attn.bias`, 3 * D_MODEL)
    matrix(`h.${layer}.attn.c_proj.weight`, out)
    vector(`h.${layer}.attn.c_proj.bias`, D_MODEL)
    matrix(`h.${layer}.mlp.c_fc.weight`, new Matrix(D_MODEL, 1))
    vector(`h.${layer}.mlp.c_fc.bias`, 1)
    matrix(`h.${layer}.mlp.c_proj.weight`, new Matrix(1, D_MODEL))
    vector(`h.${layer}.mlp.c_proj.bias`, D_MODEL)
  }
  vector('ln_f.weight', D_MODEL, 1)
  vector('ln_f.bias', D_MODEL)
  return all
}

/** One word, one token; BOS in front. */
function tokenizer(): object {
  const special = (id: number) => ({
    id,
    content: TOKENS[id],
    single_word: false,
    lstrip: false,
    rstrip: false,
    normalized: false,
    special: true,
  })
  const bos = { SpecialToken: { id: '<bos>', type_id: 0 } }
  return {
    version: '1.0',
    added_tokens: [special(0), special(1)],
    pre_tokenizer: { type: 'Whitespace' },
    post_processor: {
      type: 'TemplateProcessing',
      single: [bos, { Sequence: { id: 'A', type_id: 0 } }],
      pair: [bos, { Sequence: { id: 'A', type_id: 0 } }],
      special_tokens: { '<bos>': { id: '<bos>', ids: [0], tokens: ['<bos>'] } },
    },
    model: { type: 'WordLevel', vocab: Object.fromEntries(TOKENS.map((text, id) => [text, id])), unk_token: '<unk>' },
  }
}

/** Writes the checkpoint into a directory: a GPT-2 whose MLPs write nothing. */
export function plantHeads(directory: string): void {
  const config = {
    model_type: 'gpt2',
    activation_function: 'relu',
    vocab_size: VOCABULARY,
    n_positions: CONTEXT,
    n_embd: D_MODEL,
    n_layer: 4,
    n_head: 2,
    n_inner: 1,
    layer_norm_epsilon: 1e-12,
    tie_word_embeddings: true,
    bos_token_id: 0,
    eos_token_id: 0,
  }
  const names = { tokenizer_class: 'PreTrainedTokenizerFast', bos_token: '<bos>', eos_token: '<bos>', unk_token: '<unk>' }
  writeFileSync(join(directory, 'config.json'), JSON.stringify(config))
  writeFileSync(join(directory, 'tokenizer.json'), JSON.stringify(tokenizer()))
  writeFileSync(join(directory, 'tokenizer_config.json'), JSON.stringify(names))
  let end = 0
  const tensors = weights()
  const header = Array.from(tensors, ([name, { shape, data }]) => {
    const from = end
    end += data.byteLength
    return [`transformer.${name}`, { dtype: 'F32', shape, data_offsets: [from, end] }]
  })
  const text = Buffer.from(JSON.stringify(Object.fromEntries(header)))
  const length = Buffer.alloc(8)
  length.writeBigUInt64LE(BigInt(text.length))
  const parts = Array.from(tensors.values(), ({ data }) => new Uint8Array(data.buffer))
  writeFileSync(join(directory, 'model.safetensors'), Buffer.concat([length, text, ...parts]))
}
