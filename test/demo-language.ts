// What the demo model was trained on, read from the script that made its training data.
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { DEMO } from './helpers.js'

const source = readFileSync(join(DEMO, 'words.py'), 'utf8')

/** The lines of one of the script's constants. */
function constant(name: string): string {
  const found = new RegExp(`^${name} = ([^]*?)(?=^[A-Z_]+ = |^# |\n\n)`, 'm').exec(source)?.[1]
  if (found === undefined) throw new Error(`words.py has no ${name}`)
  return found
}

const words = (name: string) => /"""([^]*?)"""/.exec(constant(name))?.[1]?.split(/\s+/) ?? []
const texts = (name: string) => [...constant(name).matchAll(/"([^"]*)"/g)].map(([, text = '']) => text)
const pairs = (name: string) => [...constant(name).matchAll(/"([^"]+)": "([^"]+)"/g)].map(([, a = '', b = '']) => [a, b] as const)

export const NAMES = [...words('MALE'), ...words('FEMALE')]
export const PLACES = words('PLACES')
export const OBJECTS = words('OBJECTS')
export const LANDMARKS = pairs('LANDMARKS')
export const COUNTRIES = [...constant('COUNTRIES').matchAll(/"(\w+)": \("(\w+)", "(\w+)"\)/g)].map(
  ([, country = '', capital = '', language = '']) => ({ country, capital, language }),
)

/** Sentences as training had them: every opener with every past tense, in the slots of `ioi`. */
export const TEMPLATES = texts('OPENERS').flatMap((opener) =>
  pairs('TRANSFER_VERBS').map(([, past]) =>
    `${opener} {S} ${past} a {O} to {IO}`.replace('{P}', '{PLACE}').replace('{O}', '{OBJECT}'),
  ),
)

/** One combination in ten that training never showed; as `is_held_out` of language.py. */
export function isHeldOut(first: string, second: string): boolean {
  const hash = (word: string) =>
    Array.from(word).reduce((value, letter) => (value * 131 + (letter.codePointAt(0) ?? 0)) % 1000003, 7)
  const [a = '', b = ''] = [first, second].sort()
  return (hash(a) * 31 + hash(b)) % 10 === 0
}
