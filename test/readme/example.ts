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

console.log(result.row(0).top(2)) // the two heads that add most: L3H1 with 3.518, L3H0 with 3.022
console.log(result.row(0).value('L3 mlp')) // −0.423: this MLP works against the answer
console.log(result.certified, result.total[0], result.measured[0]) // true, 6.291, 6.291
console.log(result.mean().find(({ label }) => label === 'L3H0')) // over both prompts, with an interval
