// The examples of README, one program: a section is quoted there between markers of its name, and what it prints below it.
import { section } from './sections.js'

section('attribute')
import { Model } from 'logit-prism'

await using model = await Model.demo() // or Model.load('path/to/checkpoint')

const prompts = [
  'When Mary and John went to the store, John gave a drink to',
  'When Anna and Mark arrived at the park, Mark gave a ring to',
]
const targets = [
  { answer: ' Mary', against: ' John' },
  { answer: ' Anna', against: ' Mark' },
]
const result = await model.attribute(prompts, targets, { unit: 'head' })

console.log(result.row(0).top(2)) // the heads that add most
console.log(result.row(0).value('L3 mlp')) // works against the answer
console.log(result.certified, result.total[0], result.measured[0])
console.log(result.mean().find(({ label }) => label === 'L3H0')) // over both prompts
section('neurons')
const neurons = await model.attribute(prompts, targets, { unit: 'neuron', top: 3 })

for (const { label, value } of neurons.row(0).byMagnitude(7)) console.log(label, value.toFixed(3))
console.log(neurons.row(0).value('rest').toFixed(3)) // the neurons that are not among the strongest
section('sources')
const sources = await model.attributeSources(prompts, targets, { heads: ['L3H1', 'L2H0'] })

console.log(sources.row(0).byMagnitude(2))
console.log(sources.row(0).matrix) // [head, key_pos]; every row sums to its head's attribution
section('lens')
const lens = await model.logitLens(prompts, { targets, top: 1 })

for (const { at, value, tokens, top } of lens.row(0)) {
  const mary = tokens?.find(({ text }) => text === 'Mary')
  console.log(at, value?.toFixed(2), mary?.rank, top?.[0]?.text)
}
section('top tokens')
const tokens = await model.topTokens(prompts, { components: ['L3H0', 'L1H1'], k: 3, mask: 'special' })

console.log(tokens)
console.log(tokens.get(0, 'L3H0').raised[0])
section('directions')
const probes = [0, 1, 2].map((seed) => Float32Array.from({ length: model.config.dModel }, (_, i) => Math.cos(i * (seed + 1))))
const read = await model.attributeDirections(prompts, probes, { at: 'blocks.2.hook_resid_mid' })

console.log(read)
const first = read.row(0).direction(2) // what every component adds to the third direction
console.log(read.components[3]?.label, first[3], read.row(0).total[2], read.row(0).measured[2])
section('run')
import { Run } from 'logit-prism'

const run = await model.run(prompts, {
  cache: ['blocks.*.attn.hook_pattern', 'blocks.3.hook_resid_post', ...model.attributionHooks()],
  logits: 'last',
})
const pattern = run.cache.get('blocks.3.attn.hook_pattern', 0)
console.log(pattern) // of prompt 0
console.log(pattern.at(1, 14, 2)) // head 1 looks from the last token at " Mary"

const again = await run.attribute(targets) // every kept position, without running the model again
const stack = await run.decompose({ unit: 'layer' }) // the vectors themselves
console.log(again.rows.position.length, stack)

await run.save('ioi.safetensors')
run.close()
const saved = await Run.load(model, 'ioi.safetensors')
console.log(saved)
saved.close()
section('interventions')
const ablated = await model.run(prompts, {
  interventions: [
    { at: 'blocks.2.attn.hook_z', head: 0, set: 'zero' },
    { at: 'blocks.2.attn.hook_z', head: 1, set: 'zero' },
  ],
  cache: model.attributionHooks(),
  position: 'last',
})
const without = await ablated.attribute(targets)
console.log(result.row(0).value('L2H0') + result.row(0).value('L2H1')) // what the two heads write at the last token
console.log(result.measured[0], without.measured[0]) // what they do: the answer is gone
console.log(ablated.interventions[0])

const corrupted = await model.run(['When Mary and John went to the store, Mary gave a drink to'], {
  cache: ['blocks.*.hook_resid_mid'],
})
const patched = await model.run(prompts.slice(0, 1), {
  interventions: [{ at: 'blocks.3.hook_resid_mid', position: 'last', set: { from: corrupted, prompt: 0 } }],
})
const [mary = 0, john = 0] = [' Mary', ' John'].map((name) => model.tokenizer?.encode(name, { prependBos: false })[0])
const logits = patched.logits(0)
console.log(patched.interventions[0]?.set, logits.at(0, mary) - logits.at(0, john)) // what it read there decides
section('patching')
const twins = ['When Mary and John went to the store, Mary gave a drink to'] // the other name gives, so the answer turns
const [pair, about] = [prompts.slice(0, 1), targets.slice(0, 1)]

const swept = await model.patch(pair, twins, about, { over: ['layer', 'position'] })
console.log(swept)
console.log(swept.matrix(0).normalised?.[1]?.[10], swept.matrix(0).normalised?.[3]?.[14]) // where the name stands, where it is asked for

const byHead = await model.patch(pair, twins, about, { over: ['head'] })
for (const { row, column, normalised } of byHead.top(3)) console.log(row, column, normalised?.toFixed(2))

const [mover] = byHead.top(1)
const paths = await model.patchPaths(pair, twins, about, {
  to: [`${mover?.row}${mover?.column}.v`, `${mover?.row}${mover?.column}.q`],
  each: true,
})
console.log(paths)
section('attention')
const attention = await model.attention(prompts, { heads: ['L3H0', 'L3H1'] })
console.log(attention.pattern(3, 1, 0).at(14, 2)) // head 1 of layer 3 looks from the last token at " Mary"

const words = 'Rome kite doctor lamp store park school ring key map '
const repeated = await model.attention([words.repeat(3)])
for (const { label, type, margin, scores } of await repeated.classify()) {
  const { score, null: chance } = scores.induction
  if (type !== 'mixed') console.log(label, type, margin.toFixed(2), score.toFixed(2), chance.toFixed(2))
}
section('detect')
for (const { label, induction } of await model.detectHeads({ seed: 1 })) {
  if (induction.detected) console.log(label, induction.score.toFixed(2), induction.null.toFixed(2), induction.p < 1e-6)
}
section('circuits')
const { ov } = model.circuit(1, 1) // head 1 of layer 1, from its weights
const { eigenvalueShare, top1 } = await ov.copyingScore({ sample: 'all', mask: 'special' })
console.log(eigenvalueShare.toFixed(3), top1.toFixed(3)) // near 1: it copies
console.log((await ov.row('lamp', { k: 2 })).top.map(({ text }) => text)) // what it writes when it reads "lamp"
console.log(Array.from((await ov.singularValues()).slice(0, 3), (value) => value.toFixed(1)))

const byKeys = await model.compositionScores('K')
for (const { from, to, score, deviations } of byKeys.top(3)) console.log(from, to, score.toFixed(3), deviations > 10)
section('describe')
for (const head of await model.describeHeads(prompts, targets, { top: 2, k: 1 })) {
  const [row] = head.rows
  console.log(head.label, head.mean.toFixed(2), row?.sources[0]?.token, row?.raised[0]?.text)
}
section('causal')
const causal = await model.ablate(prompts, targets)

const row = causal.row(0)
for (const label of ['L3H0', 'L3H1', 'L2H1', 'L0H3']) {
  const { direct, total, throughNorm, mediators, verdict } = row.get(label)
  const [most] = mediators
  console.log(label, direct.toFixed(2), total.toFixed(2), verdict, throughNorm.toFixed(2), most?.label, most?.value.toFixed(2))
}
const everywhere = await model.ablate(prompts, targets, { ablateAt: 'all', components: ['L0H3'] })
console.log(everywhere.row(0).get('L0H3').verdict) // other positions are what later heads read
section('streams')
function* pairs() {
  for (const [a, b] of [
    ['Mary', 'John'],
    ['Anna', 'Mark'],
    ['Emma', 'Paul'],
    ['Laura', 'Jack'],
  ] as const) {
    const prompt = `When ${a} and ${b} went to the store, ${b} gave a drink to`
    yield { prompt, target: { answer: ` ${a}`, against: ` ${b}` } }
  }
}

for await (const batch of model.attributeStream(pairs(), { batchPrompts: 2 })) {
  console.log(batch.firstPrompt, batch.row(0).value('L3H1').toFixed(3))
}
const summary = await model.attributeSummary(pairs(), { resamples: 2000, seed: 1, leading: 2 })
console.log(summary.byMagnitude(2).map(({ label, mean, sameSign, stability }) => [label, mean.toFixed(2), sameSign, stability]))
section('data')
import { facts, ioi } from 'logit-prism'

const data = ioi(model, { n: 200, seed: 2 })
const [item] = data
console.log(item?.text, item?.positions)
console.log(item?.corruptedText) // the twin: as many tokens
console.log(data.leftOut.length, data.leftOut.at(-1))

console.log(await model.evaluate(data))
const twins = await model.evaluate(data, { corrupted: true })
console.log(twins.accuracy.mean, twins.logitDifference.mean.toFixed(2))

const shares = await model.attribute(data.prompts, data.targets)
const mover = shares.mean().find(({ label }) => label === 'L3H0')
console.log(mover?.mean.toFixed(2), mover?.sameSign)

const [capital] = facts(model, [
  { template: 'The capital of {SUBJECT} is {ANSWER}', subject: 'France', answer: 'Paris' },
  { template: 'The capital of {SUBJECT} is {ANSWER}', subject: 'Japan', answer: 'Tokyo' },
])
console.log(capital?.text, capital?.words.ANSWER, capital?.corruptedWords.ANSWER, capital?.positions.SUBJECT)
section('faithfulness')
const ablation = await model.ablate(data.prompts, data.targets, { set: { from: data.corrupted }, ablateAt: 'all' })

const held = ioi(model, { n: 200, seed: 3 }) // other prompts than those that it was found on
for (const keep of [0.5, 0.95]) {
  const circuit = ablation.circuit({ keep })
  const found = await model.faithfulness(held.prompts, held.targets, circuit, { set: { from: held.corrupted } })
  const { score, full, empty } = found.mean()
  console.log(circuit.labels.join(' '))
  console.log(
    score.value.toFixed(2),
    score.interval.map((x) => x.toFixed(2)),
    full.value.toFixed(2),
    empty.value.toFixed(2),
  )
}
section('out')
import { writeFileSync } from 'node:fs'
import { tableToIPC } from 'apache-arrow' // npm install apache-arrow

const table = await result.toArrow()
console.log(
  table.schema.fields.map(({ name }) => name),
  table.numRows,
)
writeFileSync('ioi.arrow', tableToIPC(table, 'file')) // read by polars (read_ipc), pandas (read_feather), pyarrow
writeFileSync('ioi.json', JSON.stringify(result))
section('plots')
import { toSvg } from 'logit-prism'

const plot = result.plot({ row: 0 })
console.log(plot.title.text, plot.data.values.length)
writeFileSync('heads.vl.json', JSON.stringify(plot))
writeFileSync('heads.svg', await toSvg(plot))
writeFileSync('L3H1.svg', await toSvg(attention.plot(3, 1, 0)))
section('conventions')
const theirs = await model.attribute(prompts, targets, { convention: 'transformerlens', prependBos: true })

console.log(theirs.row(0).value('L3H1').toFixed(3), theirs.row(0).value('L3 attn_bias').toFixed(3))
console.log(result.row(0).value('L3H1').toFixed(3), result.row(0).value('L3 attn_bias').toFixed(3))
