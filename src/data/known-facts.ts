// Facts that models of English tend to know: a relation's sentence, then subject and answer.

/** One fact: what stands at `{SUBJECT}` and, behind the prompt, at `{ANSWER}`. */
export interface Fact {
  /** A sentence with the slots `{SUBJECT}` and, at its end, `{ANSWER}`. */
  readonly template: string
  readonly subject: string
  readonly answer: string
  /** What the fact is about. Default: the template. */
  readonly relation?: string
}

const CAPITALS = `France Paris, Spain Madrid, Italy Rome, Germany Berlin, England London, Portugal Lisbon, Greece Athens, Poland Warsaw,
  Sweden Stockholm, Norway Oslo, Denmark Copenhagen, Finland Helsinki, Ireland Dublin, Austria Vienna, Hungary Budapest,
  Ukraine Kyiv, Russia Moscow, Turkey Ankara, Iran Tehran, Iraq Baghdad, Syria Damascus, Lebanon Beirut, Afghanistan Kabul,
  Thailand Bangkok, Vietnam Hanoi, Japan Tokyo, China Beijing, South Korea Seoul, Taiwan Taipei, Egypt Cairo,
  Kenya Nairobi, Cuba Havana, Peru Lima, Chile Santiago, Canada Ottawa, Brazil Brasilia`
const LANGUAGES = `France French, Spain Spanish, Italy Italian, Germany German, England English, Portugal Portuguese, Greece Greek,
  Poland Polish, Sweden Swedish, Norway Norwegian, Denmark Danish, Finland Finnish, Hungary Hungarian, Russia Russian,
  Turkey Turkish, Iran Persian, Japan Japanese, China Chinese, Korea Korean, Thailand Thai, Vietnam Vietnamese, Egypt Arabic,
  Iraq Arabic, Austria German, Brazil Portuguese, Mexico Spanish, Cuba Spanish, Peru Spanish, Chile Spanish, Argentina Spanish`
const LANDMARKS = `Eiffel Tower Paris, Louvre Museum Paris, Space Needle Seattle, Brandenburg Gate Berlin, Charles Bridge Prague,
  Tower Bridge London, Hyde Park London, Big Ben London, Blue Mosque Istanbul, Galata Tower Istanbul,
  Forbidden City Beijing, Trevi Fountain Rome, Prado Museum Madrid, Retiro Park Madrid, Acropolis Museum Athens,
  Liberty Bell Philadelphia, Red Square Moscow, Gorky Park Moscow, Ueno Park Tokyo`
const CONTINENTS = `France Europe, Spain Europe, Italy Europe, Germany Europe, Poland Europe, Sweden Europe, Greece Europe,
  Japan Asia, China Asia, India Asia, Thailand Asia, Vietnam Asia, Egypt Africa, Kenya Africa, Nigeria Africa, Ghana Africa`

/** The built-in facts. */
export const KNOWN_FACTS: readonly Fact[] = [
  ...facts('capital', 'The capital of {SUBJECT} is {ANSWER}', CAPITALS),
  ...facts('language', 'The language of {SUBJECT} is {ANSWER}', LANGUAGES),
  ...facts('landmark', 'The {SUBJECT} is in the city of {ANSWER}', LANDMARKS),
  ...facts('continent', '{SUBJECT} is a country on the continent of {ANSWER}', CONTINENTS),
]

function facts(relation: string, template: string, list: string): Fact[] {
  return list.split(/,\s+/).map((fact) => {
    const words = fact.split(' ')
    return { relation, template, subject: words.slice(0, -1).join(' '), answer: words.at(-1) ?? '' }
  })
}
