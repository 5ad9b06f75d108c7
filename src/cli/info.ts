// logit-prism info: what a model is, and what it decomposes into.
import type { Component } from '../components.js'
import type { ModelConfig } from '../config.js'
import type { Model } from '../model.js'
import { type CommonOptions, emit, openModel } from './session.js'
import { terminal } from './terminal.js'
import { wrap } from './text.js'

interface Options extends CommonOptions {
  readonly format: 'table' | 'json'
  readonly out?: string
}

export async function runInfo(options: Options, signal: AbortSignal): Promise<void> {
  await using model = await openModel(options, signal)
  const info = await describe(model, options.model ?? 'demo')
  const text = options.format === 'json' ? `${JSON.stringify(info, null, 2)}\n` : table(info)
  await emit(text, options.out)
}

/** How many components, and of which kinds. */
function summary(components: readonly Component[]) {
  return { count: components.length, of: [...new Set(components.map(({ kind }) => kind))] }
}

type Info = Awaited<ReturnType<typeof describe>>

async function describe(model: Model, path: string) {
  const { config } = model
  const tokens = Math.min(model.batchTokens, Math.max(256, config.nContext))
  return {
    model: path,
    device: model.device,
    deviceReason: model.deviceReason,
    config,
    parameters: model.parameters,
    dtype: model.dtype,
    weightBytes: model.weightBytes,
    forwardTokens: tokens,
    forwardBytes: model.forwardBytes(tokens),
    tokenizer: model.tokenizer !== undefined,
    components: {
      head: summary(model.components('head')),
      layer: summary(model.components('layer')),
    },
    fingerprint: await model.fingerprint,
  }
}

function table(info: Info): string {
  const { dim, bold, columns } = terminal(process.stdout)
  const { config: c } = info
  const number = (n: number) => n.toLocaleString('en')
  const heads = c.nKeyValueHeads === c.nHeads ? `${c.nHeads} heads` : `${c.nHeads} heads on ${c.nKeyValueHeads} key-value heads`
  const mebibytes = (bytes: number) => `${(bytes / 2 ** 20).toFixed(1)} MiB`
  const scale =
    new Set(c.attentionScale).size === 1 ? `scores × ${Number(c.attentionScale[0]?.toPrecision(6))}` : 'scores scaled by layer'
  const notes = [...c.notes, ...c.unknownKeys.map((key) => `accepted without being known: ${key}`)]
  const perThread = info.device === 'cpu' ? 'per thread ' : ''
  const lines: [string, string][] = [
    ['model', bold(info.model)],
    ['family', c.family],
    ['size', `${number(info.parameters)} parameters in ${info.dtype}`],
    ['device', `${info.device}: ${info.deviceReason}`],
    [
      'memory',
      `${mebibytes(info.weightBytes)}, and about ${mebibytes(info.forwardBytes)} ${perThread}for ${info.forwardTokens} tokens`,
    ],
    ['layers', `${c.nLayers}, d_model ${c.dModel}`],
    ['attention', `${heads} of d_head ${c.dHead}, ${scale}`],
    ['mlp', `${mlpText(c)}, ${c.activation}`],
    ['norm', `${c.norm.kind === 'layerNorm' ? 'layer norm' : 'RMS norm'}, ε ${c.norm.eps}`],
    ['positions', `${positionsText(c)}, up to ${number(c.nContext)}`],
    ['tokens', `${number(c.dVocab)}, unembedding ${c.tiedEmbeddings ? 'tied to the embedding' : 'of its own'}`],
    ['tokenizer', info.tokenizer ? 'yes' : 'none: prompts are token ids'],
    ['special', notes.length > 0 ? notes.join('; ') : 'nothing'],
    ['unit head', `${info.components.head.count} components: ${info.components.head.of.join(', ')}`],
    ['unit layer', `${info.components.layer.count} components: ${info.components.layer.of.join(', ')}`],
    ['fingerprint', info.fingerprint],
  ]
  const text = lines.flatMap(([name, value]) => {
    return wrap(value, columns - 17).map((part, i) => `  ${dim((i === 0 ? name : '').padEnd(11))}  ${part}`)
  })
  return `\n${text.join('\n')}\n\n`
}

function mlpText({ mlp, dMlp }: ModelConfig): string {
  if (mlp.kind === 'experts') return `${mlp.topK} of ${mlp.nExperts} experts of d_mlp ${dMlp}`
  return `${mlp.kind}, d_mlp ${dMlp}`
}

function positionsText({ positions }: ModelConfig): string {
  if (positions.kind !== 'rotary') return positions.kind === 'alibi' ? 'ALiBi' : 'learned'
  const rotary = positions.layers.find((layer) => layer !== null)
  return `rotary of ${rotary?.dim} per head, θ ${rotary?.theta}`
}
