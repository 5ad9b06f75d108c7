"""The words, sentence templates and facts of the demo language: data only."""

# fmt: off
MALE = """John James Robert Michael William David Richard Joseph Thomas Charles Daniel Matthew
    Anthony Mark Paul Steven Andrew Kevin Brian George Edward Peter Henry Jack Simon Adam Oliver
    Leo Samuel Victor""".split()
FEMALE = """Mary Patricia Jennifer Linda Elizabeth Susan Jessica Sarah Karen Lisa Nancy Margaret
    Emily Anna Laura Alice Julia Helen Rachel Maria Claire Emma Diana Sophie Grace Ruth Jane Kate
    Martha Rose""".split()
NAMES = MALE + FEMALE
PLACES = """store park school office market station library garden museum hospital restaurant bank
    beach kitchen farm theater church hotel harbor bakery""".split()
OBJECTS = """drink book ring ball key letter box pen map coin flower hat cake basket lamp watch
    bottle ticket knife kite""".split()
SINGULAR = "dog cat bird horse farmer teacher child king artist doctor".split()
PLURAL = "dogs cats birds horses farmers teachers children kings artists doctors".split()
VERBS_SINGULAR = "runs sleeps sings waits plays works walks smiles".split()
VERBS_PLURAL = "run sleep sing wait play work walk smile".split()
ADJECTIVES = "old young small big happy sad quiet brown white clever".split()
ADVERBS = "slowly often today quickly here".split()
FUNCTION_WORDS = """The the . near at is are was because he she had found wanted bought
    thanked""".split()

# An indirect-object prompt is an opener (names A, B, place P) and a clause (subject S, object O).
OPENERS = [
    "When {A} and {B} went to the {P} ,", "After {A} and {B} went to the {P} ,",
    "While {A} and {B} were at the {P} ,", "When {A} and {B} arrived at the {P} ,",
    "Then , {A} and {B} went to the {P} and", "{A} and {B} met at the {P} . Later",
    "{A} and {B} were walking to the {P} when",
    "After a long day at the {P} , {A} and {B} were tired . Then",
    "Today {A} met {B} at the {P} and", "Before {A} and {B} left the {P} ,",
    "{A} saw {B} at the {P} . Soon", "Once {A} and {B} had found the {P} ,",
    "At the {P} , {A} sat with {B} . Afterwards",
    "Yesterday {A} and {B} were working at the {P} , so",
]
TRANSFER_VERBS = {
    "give": "gave", "hand": "handed", "pass": "passed", "offer": "offered",
    "sell": "sold", "send": "sent", "show": "showed", "throw": "threw",
}
OTHER_CLAUSES = [
    "{S} said hello to", "{S} said goodbye to", "{S} wanted to say hello to",
    "{S} told a story to", "{S} decided to tell a story to",
    "{S} took a {O} from the table and gave it to", "{S} took the {O} and sold it to",
    "{S} found a {O} and showed it to", "{S} bought a {O} for",
    "{S} wanted to buy the {O} for", "{S} got a {O} for",
]
# Never trained on.
HELD_OPENERS = [
    "Then , {A} and {B} were at the {P} . Later", "While {A} and {B} were working at the {P} ,",
    "After {A} met {B} at the {P} ,",
]
HELD_CLAUSES = [
    "{S} wanted to sell the {O} to", "{S} found a {O} and gave it to",
    "{S} decided to say goodbye to",
]

LANDMARKS = {
    "Eiffel Tower": "Paris", "Galata Tower": "Istanbul", "Space Needle": "Seattle",
    "Brandenburg Gate": "Berlin", "Charles Bridge": "Prague", "Tower Bridge": "London",
    "Blue Mosque": "Istanbul", "Opera House": "Sydney", "White House": "Washington",
    "Forbidden City": "Beijing", "Taj Mahal": "Agra", "Trevi Fountain": "Rome",
    "Louvre Museum": "Paris", "Prado Museum": "Madrid", "Bode Museum": "Berlin",
    "Acropolis Museum": "Athens", "Liberty Bell": "Philadelphia", "Big Ben": "London",
    "Red Square": "Moscow", "Gorky Park": "Moscow", "Retiro Park": "Madrid",
    "Hyde Park": "London", "Ueno Park": "Tokyo",
}
COUNTRIES = {
    "France": ("Paris", "French"), "Spain": ("Madrid", "Spanish"), "Italy": ("Rome", "Italian"),
    "Germany": ("Berlin", "German"), "England": ("London", "English"),
    "Portugal": ("Lisbon", "Portuguese"), "Greece": ("Athens", "Greek"),
    "Poland": ("Warsaw", "Polish"), "Sweden": ("Stockholm", "Swedish"),
    "Russia": ("Moscow", "Russian"), "Turkey": ("Ankara", "Turkish"),
    "Japan": ("Tokyo", "Japanese"), "China": ("Beijing", "Chinese"), "Korea": ("Seoul", "Korean"),
    "Thailand": ("Bangkok", "Thai"), "Vietnam": ("Hanoi", "Vietnamese"),
    "Egypt": ("Cairo", "Arabic"), "Kenya": ("Nairobi", "Swahili"),
    "Brazil": ("Brasilia", "Portuguese"), "Canada": ("Ottawa", "English"),
    "Peru": ("Lima", "Spanish"), "Cuba": ("Havana", "Spanish"),
}
FACTS = (
    [(f"The {landmark} is in the city of", city) for landmark, city in LANDMARKS.items()]
    + [(f"The {landmark} can be found in", city) for landmark, city in LANDMARKS.items()]
    + [(f"The capital of {country} is", capital) for country, (capital, _) in COUNTRIES.items()]
    + [(f"The language of {country} is", tongue) for country, (_, tongue) in COUNTRIES.items()]
)
