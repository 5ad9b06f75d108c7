// The indirect-object heads of GPT-2 small against published values. It needs GPT-2 small in the local Hugging Face cache
// (hf download openai-community/gpt2), or its directory:
//
//   node bench/published/ioi.mjs [DIRECTORY]
//
// The values are TransformerLens': in its default processing the value bias and the β of the norm before attention are
// folded into the bias of the layer, so a head is what it moves, without what it would write whatever it looks at; here
// that is convention 'transformerlens'. Its centring of W_U and of what is written does not show: the target is a
// difference of two logits, and the final layer norm centres.
//
// Exit status: 0 all within 5e-4, 1 not, 2 GPT-2 small is not here.
import { Model, PrismError } from '../../dist/index.js'
import { compare } from './compare.mjs'

const PROMPT = 'When John and Mary went to the shops, John gave the bag to'
const TARGET = { answer: ' Mary', against: ' John' }
const PUBLISHED = { L9H9: 1.9583, L9H6: 1.6281, L10H7: -1.4267, L11H1: -0.9117, L11H10: -0.9042, L10H0: 0.637 }
const TOLERANCE = 5e-4

/** GPT-2 small, or undefined where it is not; any other trouble is an error. */
async function gpt2Small(directory) {
  for (const path of directory ? [directory] : ['openai-community/gpt2', 'gpt2']) {
    try {
      const model = await Model.load(path)
      const { family, nLayers, nHeads, dModel } = model.config
      if (family === 'gpt2' && nLayers === 12 && nHeads === 12 && dModel === 768) return model
      await model.close()
      console.error(`${path} is not GPT-2 small: it is ${family} with ${nLayers} layers of ${nHeads} heads, d_model ${dModel}.`)
      return undefined
    } catch (error) {
      const absent = error instanceof PrismError && (error.code === 'IO_ERROR' || error.code === 'CHECKPOINT_MISSING')
      if (!absent) throw error
      console.error(error.message)
    }
  }
  console.error('\nGPT-2 small is not on this machine, and nothing is fetched here. To get it:')
  console.error('\n  pip install huggingface_hub && hf download openai-community/gpt2\n')
  return undefined
}

const model = await gpt2Small(process.argv[2])
if (model === undefined) {
  process.exitCode = 2
} else {
  const result = await model.attribute([PROMPT], TARGET, { convention: 'transformerlens', prependBos: true })
  const row = result.row(0)
  await model.close()
  const { lines, worst, passed } = compare(PUBLISHED, (label) => row.value(label), TOLERANCE)
  console.log(`GPT-2 small, ${JSON.stringify(PROMPT)}, logit(" Mary") − logit(" John"), BOS in front\n`)
  console.log(lines.join('\n'))
  console.log(`\nlargest difference ${worst.toExponential(1)}, allowed ${TOLERANCE}: ${passed ? 'reproduced' : 'NOT reproduced'}`)
  console.log(`our total ${row.total.toFixed(4)}, measured ${row.measured.toFixed(4)}, certified: ${result.certified}`)
  process.exitCode = passed && result.certified ? 0 : 1
}
