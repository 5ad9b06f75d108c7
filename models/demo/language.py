"""The demo language: 342 words of synthetic English, and the rows the model is trained on.

Every random choice is drawn from the `random.Random` that is passed in, so a seed fixes the data.
One pair of names in ten, and one pair of place and object in ten, never occurs in training prompts.
"""

from __future__ import annotations

import random
from typing import NamedTuple

import words

IOI_SHARE, FACT_SHARE = 0.55, 0.2  # of the sentences in a text row; the rest is filler
NAME_COUNTS, NAME_COUNT_WEIGHTS = (2, 3, 4), (0.5, 0.3, 0.2)
NO_REPEAT_SHARE = 0.1  # of the indirect-object prompts: a third person acts, either name may follow
THANKS_SHARE = 0.25
MAX_NAMES_PER_ROW = 12
INDUCTION_PERIOD = (4, 22)
MAX_INDUCTION_PREFIX = 5


def transfer_clauses() -> list[str]:
    """Clauses such as "{S} decided to give a {O} to", for every verb, article and form."""
    clauses = []
    for verb, past in words.TRANSFER_VERBS.items():
        forms = [past, f"decided to {verb}"]
        if verb != "sell":  # "wanted to sell" is held out
            forms.append(f"wanted to {verb}")
        if verb in ("give", "send", "throw"):
            forms.append(f"quickly {past}")
        clauses += [
            f"{{S}} {form} {article} {{O}} to" for article in ("a", "the") for form in forms
        ]
    return clauses


CLAUSES = transfer_clauses() + words.OTHER_CLAUSES * 2


def build_vocab() -> list[str]:
    """`<bos>`, `<unk>`, then every word of the language in alphabetical order."""
    vocab = set(words.NAMES + words.PLACES + words.OBJECTS + words.SINGULAR + words.PLURAL)
    vocab |= set(words.VERBS_SINGULAR + words.VERBS_PLURAL)
    vocab |= set(words.ADJECTIVES + words.ADVERBS + words.FUNCTION_WORDS)
    facts = [f"{prompt} {answer}" for prompt, answer in words.FACTS]
    for template in words.OPENERS + CLAUSES + words.HELD_OPENERS + words.HELD_CLAUSES + facts:
        vocab |= {word for word in template.split() if "{" not in word}
    return ["<bos>", "<unk>"] + sorted(vocab)


VOCAB = build_vocab()
TOKEN_ID = {word: index for index, word in enumerate(VOCAB)}
BOS = TOKEN_ID["<bos>"]
FIRST_WORD = 2  # ids below are special


def encode(text: str) -> list[int]:
    """Token ids of words separated by spaces, without `<bos>`."""
    return [TOKEN_ID[word] for word in text.split()]


def stable_hash(word: str) -> int:
    """A hash that does not depend on the Python process."""
    value = 7
    for character in word:
        value = (value * 131 + ord(character)) % 1000003
    return value


def is_held_out(first: str, second: str) -> bool:
    """True for one combination in ten, which training never shows."""
    return (stable_hash(first) * 31 + stable_hash(second)) % 10 == 0


def join_names(names: list[str]) -> str:
    """ "Mary", "Mary and John", "Mary , John and Anna" """
    return " , ".join(names[:-1]) + " and " + names[-1] if len(names) > 1 else names[0]


class IoiPrompt(NamedTuple):
    """An indirect-object prompt: `answer` is the one name that the clause did not repeat."""

    text: str
    answer: str
    subjects: list[str]  # the names the clause repeats
    names: set[str]


def ioi_prompt(
    rng: random.Random,
    held_out: bool,
    n_names: int = 2,
    openers: list[str] = words.OPENERS,
    clauses: list[str] = CLAUSES,
    avoid: frozenset[str] | set[str] = frozenset(),
    answer_index: int | None = None,
    no_repeat: bool = False,
) -> IoiPrompt:
    """One prompt whose pairs of names, and whose place and object, are all held out or all not.

    answer_index: which of the names is the answer (default: drawn).
    no_repeat: the subject is a further person, so that either name may be the answer.
    """
    while True:
        names = rng.sample(words.NAMES, n_names)
        pairs = [sorted((x, y)) for i, x in enumerate(names) for y in names[:i]]
        if all(is_held_out(*p) == held_out for p in pairs) and not avoid.intersection(names):
            break
    while True:
        place, thing = rng.choice(words.PLACES), rng.choice(words.OBJECTS)
        if is_held_out(place, thing) == held_out:
            break
    opener, clause = rng.choice(openers), rng.choice(clauses)
    index = rng.randrange(n_names) if answer_index is None else answer_index
    answer, subjects = names[index], names[:index] + names[index + 1 :]
    rng.shuffle(subjects)
    if no_repeat:
        subjects = [rng.choice([x for x in words.NAMES if x not in names and x not in avoid])]
        answer = rng.choice(names)
    if "{A} and {B}" in opener:
        opener = opener.replace("{A} and {B}", join_names(names))
    else:
        opener = opener.replace("{A}", names[0]).replace("{B}", join_names(names[1:]))
    text = f"{opener} {clause}".format(P=place, O=thing, S=join_names(subjects))
    return IoiPrompt(text, answer, subjects, set(names) | set(subjects))


def filler_sentence(rng: random.Random) -> str:
    """Agreement across a noun in between, a plain predicate, a gendered pronoun, or recall."""
    kind = rng.random()
    if kind < 0.4:
        noun, other, verb = rng.randrange(10), rng.randrange(10), rng.randrange(8)
        nouns, verbs = words.SINGULAR, words.VERBS_SINGULAR
        if rng.random() >= 0.5:
            nouns, verbs = words.PLURAL, words.VERBS_PLURAL
        attractor = rng.choice((words.SINGULAR, words.PLURAL))[other]
        start = f"The {rng.choice(words.ADJECTIVES)} {nouns[noun]} near the {attractor}"
        return f"{start} {verbs[verb]} {rng.choice(words.ADVERBS)} ."
    if kind < 0.6:
        # The middle draw is unused; without it the same seed would give other data.
        noun, _, singular = rng.randrange(10), rng.randrange(8), rng.random() < 0.5
        nouns, verb = (words.SINGULAR, "is") if singular else (words.PLURAL, "are")
        place, adjective = rng.choice(words.PLACES), rng.choice(words.ADJECTIVES)
        return f"The {nouns[noun]} at the {place} {verb} {adjective} ."
    if kind < 0.8:
        name, adjective = rng.choice(words.NAMES), rng.choice(words.ADJECTIVES)
        found = f"{'he' if name in words.MALE else 'she'} had found the {rng.choice(words.OBJECTS)}"
        return f"{name} was {adjective} because {found} ."
    (a, b), (x, y) = rng.sample(words.NAMES, 2), rng.sample(words.OBJECTS, 2)
    buyer, bought = rng.choice(((a, x), (b, y)))
    return f"{a} wanted the {x} . {b} wanted the {y} . {buyer} bought the {bought} ."


class Marks(NamedTuple):
    """Positions in a row that the scaffold uses: see scaffold.py."""

    last: int  # the prompt's last token
    answer: int  # the one mention of the indirect object
    subject: int  # the last mention of the subject


def text_row(rng: random.Random, length: int) -> tuple[list[int], list[Marks]]:
    """`<bos>` and sentences, cut at `length` tokens; no name serves two prompts of a row."""
    row, used, marks = [BOS], set(), []
    while len(row) < length:
        kind = rng.random()
        if kind < IOI_SHARE and len(used) < MAX_NAMES_PER_ROW:
            no_repeat = rng.random() < NO_REPEAT_SHARE
            n_names = 2 if no_repeat else rng.choices(NAME_COUNTS, NAME_COUNT_WEIGHTS)[0]
            prompt = ioi_prompt(rng, False, n_names, avoid=used, no_repeat=no_repeat)
            used |= prompt.names
            ids, subject = encode(prompt.text), TOKEN_ID[prompt.subjects[0]]
            positions = Marks(
                last=len(row) + len(ids) - 1,
                answer=len(row) + ids.index(TOKEN_ID[prompt.answer]),
                subject=len(row) + max(i for i, token in enumerate(ids) if token == subject),
            )
            if n_names == 2 and not no_repeat and positions.last < length:
                marks.append(positions)
            sentence = f"{prompt.text} {prompt.answer} ."
            if n_names == 2 and rng.random() < THANKS_SHARE:
                sentence += f" {prompt.answer} thanked {prompt.subjects[0]} ."
        elif kind < IOI_SHARE + FACT_SHARE:
            sentence = "{} {} .".format(*rng.choice(words.FACTS))
        else:
            sentence = filler_sentence(rng)
        row += encode(sentence)
    return row[:length], marks


def induction_row(rng: random.Random, length: int) -> tuple[list[int], int]:
    """`<bos>`, a few random words, then one random sequence over and over.

    Returns the row and the position from which it can be predicted (the second copy's start).
    """
    n_prefix, period = rng.randrange(MAX_INDUCTION_PREFIX + 1), rng.randint(*INDUCTION_PERIOD)
    drawn = rng.sample(range(FIRST_WORD, len(VOCAB)), period + n_prefix)
    row = [BOS] + drawn[period:]
    predictable = len(row) + period
    while len(row) < length:
        row += drawn[:period]
    return row[:length], predictable
