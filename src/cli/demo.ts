// logit-prism demo: a tour on the bundled model, from the prediction to the heads behind it.
import type { Attribution } from '../attribution.js'
import type { Model } from '../model.js'
import { type CommonOptions, modelLine, openModel, tokenText } from './session.js'
import { attributionTable, percent } from './table.js'
import { type Terminal, terminal } from './terminal.js'
import { quoted, wrap } from './text.js'

const PROMPT = 'When Mary and John went to the store, John gave a drink to'
const TARGET = { answer: ' Mary', against: ' John' }

export async function runDemo(options: CommonOptions, signal: AbortSignal): Promise<void> {
  await using model = await openModel(options, signal)
  const screen = terminal(process.stdout)
  const result = await model.attribute([PROMPT], TARGET, { signal })
  const best =
    result
      .row(0)
      .byMagnitude(result.components.length)
      .find(({ label }) => /^L\d+H\d+$/.test(label))?.label ?? ''
  const { layer = 0, index: head = 0 } = result.components.find(({ label }) => label === best) ?? {}
  const point = `blocks.${layer}.attn.hook_pattern` as const
  using run = await model.run([PROMPT], { cache: [point], position: 'last', signal })
  const pattern = run.cache.get(point, 0).slice(head) // [query_pos, key_pos], of the last query alone

  const lines = ['']
  const say = (text: string, indent = '  ') => {
    lines.push(
      ...wrap(text, Math.min(screen.columns, 100) - indent.length - 2).map((line, i) => `${i === 0 ? '  ' : indent}${line}`),
    )
  }
  say(`model   ${modelLine(model, undefined)}`, '          ')
  say(`prompt  ${PROMPT} …`, '          ')
  say(`says    ${predictions(model, run.logits(0).data, 3)}`, '          ')
  lines.push('')
  say(
    'Which components decide " Mary" over " John"? Each adds its number to the difference of the two logits; share is its size among the sizes of all:',
  )
  lines.push('', ...attributionTable(result.row(0), 8, result.certified, screen), '')
  say(`Where ${best}, the head that adds most, looks from the last token:`)
  lines.push('', ...looks(model, result, pattern.data, screen), '')
  for (const paragraph of MEANING) lines.push(...wrap(paragraph, Math.min(screen.columns, 100) - 4).map((line) => `  ${line}`), '')
  lines.push('  Next, ask the same of a fact, layer by layer:', '', `    ${screen.cyan(NEXT)}`, '')
  process.stdout.write(`${lines.join('\n')}\n`)
}

const MEANING = [
  'What this says: the components and the constant add up to the difference that the forward pass computed, and the certificate proves that. ' +
    'What it does not say: that a head is the cause. Attribution observes. A later component can erase what a head wrote, and a head that only feeds another shows next to nothing here; only an ablation or a patch can tell.',
  'This model is a positive control: L3H0 and L3H1 were trained to attend to the name that is not repeated and to write it, so a correct tool must find them. See the card of the model, models/demo/README.md in the package.',
]

const NEXT = 'npx logit-prism attribute "The Eiffel Tower is in the city of" --answer " Paris" --against " London" --unit layer'

/** The likeliest tokens: softmax over the logits of the last position. */
function predictions(model: Model, logits: Float32Array, k: number): string {
  const largest = logits.reduce((a, b) => Math.max(a, b), Number.NEGATIVE_INFINITY)
  const total = logits.reduce((sum, logit) => sum + Math.exp(logit - largest), 0)
  const ranked = Array.from(logits, (logit, id) => ({ id, p: Math.exp(logit - largest) / total })).sort((a, b) => b.p - a.p)
  return ranked
    .slice(0, k)
    .map(({ id, p }) => `${quoted(tokenText(model, id))} ${percent(p).trim()}`)
    .join(', ')
}

function looks(model: Model, result: Attribution, weights: Float32Array, screen: Terminal): string[] {
  const ids = result.ids(0)
  const ranked = Array.from(weights, (weight, position) => ({ weight, position })).sort((a, b) => b.weight - a.weight)
  return ranked.slice(0, 3).map(({ weight, position }) => {
    const token = quoted(tokenText(model, ids[position] ?? 0)).padEnd(10)
    return `    ${token} position ${String(position).padStart(2)}  ${percent(weight)}  ${screen.cyan('█'.repeat(Math.round(weight * Math.max(8, Math.min(30, screen.columns - 46)))))}`.trimEnd()
  })
}
