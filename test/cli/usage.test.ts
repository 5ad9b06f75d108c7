// Exit status, errors on stderr, and what a pipe gets.
import { mkdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import { cli, DEMO_PROMPT, fixture, node, open, readJson, ROOT, run, temporary } from '../helpers.js'

const ASK = ['attribute', DEMO_PROMPT, '--answer', ' Mary']

test.each<[string, string, string[]]>([
  ['a directory that is not there', 'IO_ERROR', [...ASK, '--model', '/nonexistent']],
  ['a directory without a model', 'CHECKPOINT_MISSING', [...ASK, '--model', join(ROOT, 'src')]],
  ['a wrong token', 'NOT_ONE_TOKEN', ['attribute', DEMO_PROMPT, '--answer', ' xylophone']],
  ['an answer of two tokens', 'NOT_ONE_TOKEN', ['attribute', DEMO_PROMPT, '--answer', ' Mary John']],
  ['an empty prompt', 'PROMPT_EMPTY', ['attribute', '', '--answer', ' Mary']],
  ['a prompt longer than the context', 'PROMPT_TOO_LONG', ['attribute', Array(70).fill('Mary').join(' '), '--answer', ' Mary']],
  ['a position out of range', 'POSITION_RANGE', [...ASK, '--position', '15']],
  ['a negative position out of range', 'POSITION_RANGE', [...ASK, '--position', '-16']],
  ['the same position twice', 'POSITION_RANGE', [...ASK, '--position', '1,1']],
  ['the next token at the last position', 'POSITION_RANGE', ['attribute', DEMO_PROMPT, '--answer', ':next']],
  ['ids with --bos', 'INVALID_ARGUMENT', ['attribute', '1,2', '--ids', '--answer', '1', '--bos']],
  ['an id behind the vocabulary', 'TOKEN_RANGE', ['attribute', '1,342', '--ids', '--answer', '1']],
  ['text for a model without a tokenizer', 'TOKENIZER_MISSING', [...ASK, '--model', fixture('gpt2')]],
  ['sources of a head that is not there', 'INVALID_ARGUMENT', [...ASK, '--sources', 'L9H6']],
  ['sources of what is no head', 'INVALID_ARGUMENT', [...ASK, '--sources', 'L3 mlp']],
  ['sources of the same head twice', 'INVALID_ARGUMENT', [...ASK, '--sources', 'L3H1,L3H1']],
  ['sources of nothing', 'INVALID_ARGUMENT', [...ASK, '--sources', '']],
  ['the lens of a wrong token', 'NOT_ONE_TOKEN', ['lens', DEMO_PROMPT, '--answer', ' xylophone']],
  ['the lens of an empty prompt', 'PROMPT_EMPTY', ['lens', '']],
  ['the lens behind the prompt', 'POSITION_RANGE', ['lens', DEMO_PROMPT, '--position', '15']],
  ['info of nothing', 'IO_ERROR', ['info', '--model', '/nonexistent']],
])('status 1 and a code: %s', async (_, code, args) => {
  const { status, stdout, stderr } = await cli(...args, '--quiet')
  expect({ status, stdout }).toEqual({ status: 1, stdout: '' })
  expect(stderr).toMatch(new RegExp(`^error ${code}: \\S.*\\n$`))
})

test.each<[string, string[], RegExp]>([
  ['an unknown option, with the nearest', [...ASK, '--positon', '1'], /--positon[^]*--position/],
  ['a misspelt option that must be there', ['attribute', DEMO_PROMPT, '--answr', ' Mary'], /--answr[^]*--answer/],
  ['an unknown option of demo', ['demo', '--quite'], /--quite[^]*--quiet/],
  ['no prompt', ['attribute', '--answer', ' Mary'], /missing required argument 'prompt'/],
  ['no answer', ['attribute', DEMO_PROMPT], /required option '--answer/],
  ['an option without its argument', ['attribute', DEMO_PROMPT, '--answer'], /argument missing/],
  ['a choice that is none', [...ASK, '--unit', 'expert'], /layer, head, neuron/],
  ['a format that is none', [...ASK, '--format', 'xml'], /table, json, csv, arrow/],
  ['a convention that is none', [...ASK, '--convention', 'captum'], /default, transformerlens/],
  ['sources of another convention', [...ASK, '--sources', 'L3H1', '--convention', 'transformerlens'], /leave --convention out/],
  ['tokens of another convention', [...ASK, '--tokens', '--convention', 'transformerlens'], /leave --convention out/],
  ['two tables in one file', [...ASK, '--tokens', '--sources', 'L3H1', '--format', 'csv'], /not both/],
  ['a norm that is none', [...ASK, '--norm', 'full'], /frozen, none/],
  ['a number that is none', [...ASK, '--top', 'many'], /whole number/],
  ['zero threads', [...ASK, '--threads', '0'], /whole number/],
  ['a position that is none', [...ASK, '--position', 'first'], /--position is 'last'/],
  ['a position that is a fraction', [...ASK, '--position', '1.5'], /--position is 'last'/],
  ['ids that are none', ['attribute', '1,x', '--ids', '--answer', '1'], /token id, not 'x'/],
  ['a token that is no id', ['attribute', '1,2', '--ids', '--answer', ' Mary'], /token id, not ' Mary'/],
  ['an unknown command, with the nearest', ['atribute', DEMO_PROMPT], /atribute[^]*attribute/],
  ['one argument too many', ['attribute', 'When', 'Mary', '--answer', ' a'], /too many arguments/],
  ['nothing', [], /Usage:/],
])('status 2: %s', async (_, args, message) => {
  const { status, stdout, stderr } = await cli(...args)
  expect({ status, stdout }).toEqual({ status: 2, stdout: '' })
  expect(stderr).toMatch(message)
})

test('--help and --version are no error', async () => {
  const { version } = readJson<{ version: string }>(ROOT, 'package.json')
  expect(await cli('--version')).toEqual({ status: 0, signal: null, stdout: `${version}\n`, stderr: '' })
  for (const args of [['--help'], ['attribute', '--help'], ['lens', '--help'], ['info', '--help'], ['demo', '--help']]) {
    const { status, stdout, stderr } = await cli(...args)
    expect([status, stderr]).toEqual([0, ''])
    expect(stdout).toContain('Usage: logit-prism')
    for (const line of stdout.split('\n')) if (!line.includes('"When Mary')) expect(line.length, line).toBeLessThanOrEqual(80)
  }
})

test('a reader that closes early is no error', async () => {
  const command = `"${process.execPath}" dist/cli/main.js demo | true; exit "\${PIPESTATUS[0]}"`
  expect(await run('bash', ['-c', command])).toMatchObject({ status: 0, signal: null, stderr: '' })
})

/** A checkpoint that is busy for seconds: 6,000 tokens through 48 layers of 8 heads. */
function slowCheckpoint(): string {
  const directory = join(temporary(), 'slow')
  mkdirSync(directory)
  const [layers, d, vocabulary, context, inner] = [48, 128, 16, 6000, 512]
  const tensors: [string, number[]][] = [
    ['wte.weight', [vocabulary, d]],
    ['wpe.weight', [context, d]],
    ['ln_f.weight', [d]],
    ['ln_f.bias', [d]],
  ]
  for (let l = 0; l < layers; l++) {
    const shapes: Record<string, number[]> = {
      'ln_1.weight': [d], 'ln_1.bias': [d], 'ln_2.weight': [d], 'ln_2.bias': [d],
      'attn.c_attn.weight': [d, 3 * d], 'attn.c_attn.bias': [3 * d], 'attn.c_proj.weight': [d, d], 'attn.c_proj.bias': [d],
      'mlp.c_fc.weight': [d, inner], 'mlp.c_fc.bias': [inner], 'mlp.c_proj.weight': [inner, d], 'mlp.c_proj.bias': [d],
    } // prettier-ignore
    for (const [name, shape] of Object.entries(shapes)) tensors.push([`h.${l}.${name}`, shape])
  }
  let end = 0
  const header = tensors.map(([name, shape]) => {
    const start = end
    end += 4 * shape.reduce((a, b) => a * b, 1)
    return [name, { dtype: 'F32', shape, data_offsets: [start, end] }]
  })
  const json = Buffer.from(JSON.stringify(Object.fromEntries(header)))
  const length = Buffer.alloc(8)
  length.writeBigUInt64LE(BigInt(json.length))
  const data = Buffer.from(Float32Array.from({ length: end / 4 }, (_, i) => ((i % 97) - 48) / 480).buffer)
  writeFileSync(join(directory, 'model.safetensors'), Buffer.concat([length, json, data]))
  const config = { n_layer: layers, n_head: 8, n_embd: d, n_positions: context, vocab_size: vocabulary, n_inner: inner }
  writeFileSync(
    join(directory, 'config.json'),
    JSON.stringify({ ...readJson<object>(fixture('gpt2_wide'), 'config.json'), ...config }),
  )
  return directory
}

test('SIGINT in the middle of a run: status 130, and soon', async () => {
  const directory = slowCheckpoint()
  const prompt = Array.from({ length: 6000 }, (_, i) => i % 16).join(',')
  const args = ['dist/cli/main.js', 'attribute', prompt, '--ids', '--answer', '1', '--model', directory]
  let sent = 0
  const ended = await node(args, {}, (kill) => {
    setTimeout(() => {
      sent = performance.now()
      kill('SIGINT')
    }, 700)
  })
  expect(performance.now() - sent).toBeLessThan(3000)
  expect(ended).toEqual({ status: 130, signal: null, stdout: '', stderr: '' })
})

test('a closed model is left behind by no command: info', async () => {
  const { status, stdout } = await cli('info', '--format', 'json', '--quiet')
  expect(status).toBe(0)
  const model = await open(join(ROOT, 'models/demo'))
  expect(JSON.parse(stdout)).toMatchObject({
    model: 'demo',
    parameters: 239_488, // models/demo/README.md
    config: model.config,
    components: { head: { count: 26 }, layer: { count: 10 } },
    fingerprint: await model.fingerprint,
  })
})
