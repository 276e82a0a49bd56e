# ruff: noqa: E501
"""A corpus with planted defects: sound rows of five kinds, and rows that have exactly one defect each.

`corpus` makes one kind's rows from a seed; nothing in it comes from a file. Sound rows hold traps: rationales that weigh
another answer before the final one, numbers in other spellings, variants of a problem with other numbers, one
instruction before all prompts of a domain, labels that stand inside of other words.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

Row = dict[str, Any]

KINDS = ("number", "math", "choice", "label", "text")

#: Which kinds can have which defect.
DEFECTS: dict[str, tuple[str, ...]] = {
    "empty_prompt": KINDS,
    "missing_answer": KINDS,
    "unreadable_answer": ("number", "math"),
    "answer_not_among_choices": ("choice",),
    "repeated_choices": ("choice",),
    "label_outside_set": ("label",),
    "label_from_prose": ("label",),
    "answer_contradicts_rationale": ("number", "math", "choice", "label"),
    "empty_rationale": KINDS,
    "truncated_rationale": KINDS,
    "refusal": KINDS,
    "control_tokens": KINDS,
    "other_language": KINDS,
    "too_long_for_student": KINDS,
    "exact_duplicate": KINDS,
    "conflicting_answers": ("number", "math", "choice", "label"),
    "near_duplicate": KINDS,
    "semantic_duplicate": KINDS,
    "leak_between_splits": KINDS,
    "diversity_collapse": ("number", "text"),
    "likely_wrong_label": ("label",),
}

#: Findings that a defect brings along by what it is.
IMPLIED: dict[str, set[str]] = {
    "label_from_prose": {"answer_contradicts_rationale", "likely_wrong_label"},
    "answer_contradicts_rationale": {"label_from_prose", "likely_wrong_label"},
    "refusal": {"truncated_rationale"},
    "other_language": {"diversity_collapse"},
    "conflicting_answers": {"exact_duplicate", "likely_wrong_label"},
    "exact_duplicate": {"near_duplicate"},
    "near_duplicate": {"semantic_duplicate"},
    "semantic_duplicate": {"near_duplicate"},
    "diversity_collapse": {"near_duplicate", "semantic_duplicate", "exact_duplicate", "conflicting_answers"},
    "answer_not_among_choices": {"answer_contradicts_rationale"},
}


@dataclass
class Corpus:
    """Rows (prompt, answer, rationale, domain, split), and the defect of each row that has one.

    Of two equal prompts with two answers neither is right by itself: `partners` are the sound ones of these.
    """

    kind: str
    rows: list[Row] = field(default_factory=list)
    defects: dict[int, str] = field(default_factory=dict)
    partners: set[int] = field(default_factory=set)

    def put(self, row: Row, defect: str | None = None) -> None:
        if defect is not None:
            self.defects[len(self.rows)] = defect
        self.rows.append(row)


#: Of each topic: places, people, things, and what is done. A topic is a domain, and a label of kind `label`.
TOPICS: dict[str, tuple[list[str], list[str], list[str], list[str]]] = {
    name: tuple(part.split("|") for part in parts)  # type: ignore[misc]
    for name, parts in {
        "ship": (
            "harbour|quay|dry dock|estuary|shipyard|lighthouse|strait|lagoon|pier|open sea|fjord|breakwater|canal lock",
            "captain|stoker|harbour pilot|boatswain|deckhand|coxswain|fisherman|mate|ferryman|shipwright|customs officer",
            "tanker|trawler|anchor|lifeboat|mainsail|cargo hold|rudder|hull|ferry|tugboat|mooring line|bilge pump|buoy",
            "steer|moor|unload|tow|launch|anchor|repair|caulk|navigate|salvage|paint|dredge|hoist",
        ),
        "tea": (
            "plantation|tasting room|tea house|hillside|auction hall|drying shed|monsoon valley|cellar|kitchen|warehouse",
            "picker|taster|blender|planter|broker|host|gardener|merchant|grocer|agronomist|sommelier",
            "oolong|teapot|green leaves|chest of Darjeeling|kettle|strainer|jasmine blend|Assam|matcha bowl|caddy|sachet",
            "brew|steep|pluck|dry|blend|roast|pour|sip|grade|pack|ferment|infuse",
        ),
        "law": (
            "courtroom|chambers|registry|supreme court|law library|jury room|tribunal|notary's office|police station",
            "judge|barrister|plaintiff|defendant|clerk|juror|solicitor|bailiff|prosecutor|notary|witness|mediator",
            "verdict|statute|subpoena|contract|appeal|affidavit|clause|lawsuit|will|warrant|settlement|precedent",
            "overturn|sign|appeal|draft|dispute|file|enforce|amend|annul|cite|contest|swear",
        ),
        "art": (
            "gallery|studio|museum|atelier|sculpture park|auction room|print shop|chapel|foundry|academy|biennale",
            "painter|sculptor|curator|restorer|engraver|dealer|collector|model|muralist|critic|apprentice",
            "fresco|portrait|canvas|bronze figure|etching|easel|watercolour|mosaic|triptych|charcoal sketch|frame",
            "paint|carve|exhibit|restore|sketch|varnish|engrave|frame|forge|admire|cast|glaze",
        ),
        "rail": (
            "station|depot|signal box|tunnel|viaduct|marshalling yard|platform|level crossing|junction|siding",
            "conductor|signalman|stationmaster|guard|engine driver|porter|dispatcher|commuter|track inspector|fireman",
            "locomotive|sleeper car|timetable|freight train|boiler|carriage|switch|express|buffer|rail|pantograph",
            "couple|shunt|board|derail|electrify|delay|brake|signal|inspect|overhaul|reroute|fire up",
        ),
        "oil": (
            "refinery|well|offshore rig|pipeline terminal|storage depot|desert field|filling station|laboratory|basin",
            "driller|geologist|roughneck|petroleum trader|refiner|welder|surveyor|minister of energy|chemist|hauler",
            "barrel of crude|drill bit|pipeline|derrick|kerosene|gas flare|pump jack|diesel cargo|well head|asphalt",
            "drill|refine|pump|distil|export|flare|store|price|cap|survey|spill|ration",
        ),
    }.items()
}

_NAMES = [
    "Ada",
    "Omar",
    "Ines",
    "Pavel",
    "Mei",
    "Tariq",
    "Greta",
    "Luis",
    "Noor",
    "Henrik",
    "Aiko",
    "Bruno",
    "Salma",
    "Yusuf",
    "Clara",
    "Dmitri",
    "Esther",
    "Farid",
    "Gwen",
    "Hugo",
    "Iris",
    "Jonas",
    "Keiko",
    "Lena",
    "Marco",
    "Nadia",
    "Oscar",
    "Priya",
    "Quentin",
    "Rosa",
    "Stefan",
    "Thandi",
    "Ulrich",
    "Vera",
    "Wanda",
    "Xavier",
    "Yara",
    "Zoltan",
    "Amara",
    "Boris",
    "Celia",
    "Dario",
    "Elif",
    "Fiona",
    "Gita",
    "Hamid",
    "Ivo",
    "Jana",
    "Karim",
    "Leila",
]
_TIMES = [
    "before sunrise",
    "late in March",
    "after the long strike",
    "on a wet Tuesday",
    "during the holidays",
    "two winters ago",
    "at noon",
    "in the dry season",
    "while nobody watched",
    "as the fog lifted",
    "that very evening",
    "once the inspectors had left",
    "by accident",
    "without any hurry",
    "against all advice",
    "for the third time",
    "with borrowed tools",
    "in spite of the heat",
    "just in time",
    "under a full moon",
    "when prices fell",
    "since the old one broke",
    "to everyone's surprise",
    "on the last day of school",
]
_LOOKS = [
    "rusty",
    "brand-new",
    "battered",
    "famous",
    "half-finished",
    "silent",
    "oversized",
    "fragile",
    "nameless",
    "costly",
    "forgotten",
    "borrowed",
    "spotless",
    "crooked",
    "ancient",
    "foreign",
    "heavy",
    "faded",
    "unlucky",
    "narrow",
    "bright",
    "second-hand",
    "ordinary",
    "spare",
    "hand-made",
]
#: The same thing said in two ways; the second is a paraphrase.
_SAID: tuple[tuple[str, str], ...] = (
    ("{name}, a {who}, had to {do} the {look} {thing} at the {place} {time}.",
     "{time}, at the {place}, the {who} {name} was obliged to {do} the {look} {thing}."),
    ("Nobody at the {place} wanted to {do} the {look} {thing}, so {name} the {who} did it {time}.",
     "As no one at the {place} was willing to {do} the {look} {thing}, the {who} {name} took care of it {time}."),
    ("{time}, word reached the {who} that {name} would {do} a {look} {thing} near the {place}.",
     "The {who} heard {time} that a {look} {thing} near the {place} was going to be handled by {name}, who would {do} it."),
    ("A {look} {thing} stood in the {place}; the {who} asked {name} to {do} it {time}.",
     "In the {place} there was a {look} {thing}, and {name} was asked by the {who} to {do} it {time}."),
    ("To {do} one {look} {thing}, {name} walked past the {place} with a {who} {time}.",
     "{name} and a {who} went by the {place} {time} in order to {do} a single {look} {thing}."),
    ("The {who}'s report says: {look} {thing}, found by {name} behind the {place} {time}, still to {do}.",
     "According to the report of the {who}, {name} came upon a {look} {thing} behind the {place} {time}; it is yet to {do}."),
    ("It was {name} who taught the {who} of the {place} how to {do} any {look} {thing} {time}.",
     "The {place}'s {who} learned {time} from {name} the way to {do} a {look} {thing}."),
    ("Between the {place} and home {name} lost a {look} {thing}, which a {who} meant to {do} {time}.",
     "A {look} {thing} that a {who} wanted to {do} {time} went missing from {name} on the way home from the {place}."),
)  # fmt: skip


def scene(topic: str, rng: random.Random) -> tuple[str, str]:
    """A sentence of a topic, and a paraphrase of it."""
    places, people, things, deeds = TOPICS[topic]
    slots = {
        "name": rng.choice(_NAMES), "who": rng.choice(people), "thing": rng.choice(things), "do": rng.choice(deeds),
        "place": rng.choice(places), "time": rng.choice(_TIMES), "look": rng.choice(_LOOKS),
    }  # fmt: skip
    return tuple(_capital(said.format(**slots)) for said in rng.choice(_SAID))  # type: ignore[return-value]


def _capital(text: str) -> str:
    return text[0].upper() + text[1:]


def scenes(topic: str, count: int, rng: random.Random) -> tuple[str, str]:
    """Several such sentences, and their paraphrases in another order."""
    made = [scene(topic, rng) for _ in range(count)]
    return " ".join(one for one, _ in made), " ".join(other for _, other in reversed(made))


@dataclass(frozen=True)
class Made:
    """A sound row, and its prompt in other words."""

    row: Row
    reworded: str


def sound(kind: str, topic: str, rng: random.Random) -> Made:
    """A sound row of a kind."""
    prompt, answer, rationale, reworded = _MAKERS[kind](topic, rng)
    return Made({"prompt": prompt, "answer": answer, "rationale": rationale, "domain": topic}, reworded)


Parts = tuple[str, str, str, str]


def _number(topic: str, rng: random.Random) -> Parts:
    said, other = scenes(topic, 2, rng)
    thing, name = rng.choice(TOPICS[topic][2]), rng.choice(_NAMES)
    a, b, c = rng.randint(11, 99), rng.randint(3, 30), rng.randint(2, 9)
    ask, ask_other, value, work = rng.choice(
        [
            (f"{name} then buys {a} units at {c} dollars each and pays {b} dollars for a {thing}. What is the total cost in dollars?",
             f"Afterwards {name} purchases {a} units, each at {c} dollars, plus a {thing} for {b} dollars. How many dollars is that altogether?",
             a * c + b, f"The units cost {a} * {c} = {a * c} dollars. With the {thing} it is {a * c} + {b} = {a * c + b}."),
            (f"If the {thing} weighs {a * c} kilos and is cut into {c} equal parts, and {b} kilos are added to one, how heavy is that part?",
             f"Suppose the {thing}, {a * c} kilos in weight, is divided into {c} equal pieces and one of them gets {b} kilos more; what does this piece weigh?",
             a + b, f"One part weighs {a * c} / {c} = {a} kilos. Adding {b} gives {a} + {b} = {a + b}."),
            (f"That took {a} minutes, and {name} repeats it {c} times after a break of {b} minutes. How many minutes pass in all?",
             f"It lasted {a} minutes. {name} rests for {b} minutes and does the same {c} more times. What is the whole time in minutes?",
             a + b + a * c, f"First come {a} minutes, then {b}, then {c} * {a} = {a * c}. Together {a} + {b} + {a * c} = {a + b + a * c}."),
        ]
    )  # fmt: skip
    shown = f"{value:,}" if rng.random() < 0.3 else str(value)
    end = rng.choice(
        ["Answer: {v}", "#### {v}", "The answer is {v}.", "So the answer is **{v}**.", "**Final answer:** {v}"]
    )
    trap = rng.choice(["", "", f"At first sight the answer is {value + b}, but that counts the {b} twice. "])
    return f"{said} {ask}", shown, f"{trap}{work}\n{end.format(v=value)}", f"{other} {ask_other}"


def _math(topic: str, rng: random.Random) -> Parts:
    said, other = scenes(topic, 2, rng)
    name = rng.choice(_NAMES)
    p, q, r = rng.randint(2, 9), rng.randint(2, 19), rng.randint(3, 40)
    ask, ask_other, answer, shown, work = rng.choice(
        [
            (f"On the wall {name} has chalked ${p}x + {q} = {r}$. Solve for $x$.",
             f"{name} wrote ${p}x + {q} = {r}$ on the wall with chalk. Find $x$.",
             rf"\frac{{{r - q}}}{{{p}}}", rf"\dfrac{{{r - q}}}{{{p}}}", f"Subtract ${q}$: ${p}x = {r - q}$. Divide by ${p}$."),
            (f"A note by {name} asks for the derivative of ${p}x^{{{q}}} - {r}x$ with respect to $x$.",
             f"What {name} wants to know is the derivative in $x$ of ${p}x^{{{q}}} - {r}x$.",
             f"{p * q}x^{{{q - 1}}} - {r}", f"{p * q}x^{{{q - 1}}}-{r}", f"Bring ${q}$ down: ${p} \\cdot {q} = {p * q}$."),
            (f"The plan shows a right triangle with legs $\\sqrt{{{p}}}$ and $\\sqrt{{{q + r}}}$; {name} needs its hypotenuse.",
             f"{name} has to find the hypotenuse of the plan's right triangle, whose legs are $\\sqrt{{{p}}}$ and $\\sqrt{{{q + r}}}$.",
             rf"\sqrt{{{p + q + r}}}", rf"\sqrt{{{p + q + r}}}", f"The squares sum to ${p} + {q + r} = {p + q + r}$."),
        ]
    )  # fmt: skip
    end = rng.choice(
        [r"Therefore the result is $\boxed{{{v}}}$.", "The answer is ${v}$.", "The answer is: {v}", "Answer: ${v}$"]
    )
    trap = rng.choice(["", "", f"One may be tempted to say the answer is ${p + q}$, which forgets a step. "])
    return f"{said} {ask}", answer, f"{trap}{work} {end.format(v=shown)}", f"{other} {ask_other}"


def _choice(topic: str, rng: random.Random) -> Parts:
    said, other = scenes(topic, 2, rng)
    name = rng.choice(_NAMES)
    own = rng.sample(TOPICS[topic][2], 1)
    foreign = rng.sample([one for name_, parts in TOPICS.items() if name_ != topic for one in parts[2]], 3)
    options = [_capital(f"a {rng.choice(_LOOKS)} {text}") for text in [*own, *foreign]]
    right = options[0]
    rng.shuffle(options)
    letter = "ABCD"[options.index(right)]
    wrong = rng.choice([one for one in "ABCD" if one != letter])
    mark = rng.choice(["({}) {}", "{}. {}", "{}) {}"])
    listed = "\n".join(mark.format(one, text) for one, text in zip("ABCD", options, strict=True))
    ask, ask_other = rng.choice(
        [
            (f"Which of these would {name} most likely meet there?", f"Which one is {name} most likely to come across there?"),
            (f"What does {name} need for such work?", f"For work of that sort, what is it that {name} needs?"),
            (f"What fits {name}'s trade best?", f"Which thing suits the trade of {name} best?"),
        ]
    )  # fmt: skip
    why = f"({wrong}) belongs elsewhere, and so do the others; {right[2:]} is at home in that place."
    end = rng.choice(
        [
            "The answer is ({l}).",
            "Answer: {l}",
            "So the correct option is ({l}) {t}.",
            "The answer is: {t}",
            "**Answer:** ({l})",
        ]
    )
    trap = rng.choice(["", "", f"Some would say the answer is ({wrong}), but it is not. "])
    stored = rng.choice([letter, letter, f"({letter})", right])
    shown = end.format(l=letter, t=right)
    return f"{said} {ask}\n{listed}", stored, f"{trap}{why} {shown}", f"{other} {ask_other}\n{listed}"


#: Words that hold a label without being it.
_HOLDS = {
    "ship": "ownership|hardship|craftsmanship", "tea": "steady|instead|team", "law": "flaw|claws|lawn",
    "art": "start|department|party", "rail": "trail|frail|derailed", "oil": "soil|boiling|spoiled",
}  # fmt: skip


def _label(topic: str, rng: random.Random) -> Parts:
    said, other = scenes(topic, 3, rng)
    wrong = rng.choice([one for one in TOPICS if one != topic])
    trap = rng.choice(
        [
            "",
            f'One might think of "{wrong}", which it is not. ',
            f"Whatever it says of {rng.choice(_TIMES)} matters little. ",
        ]
    )
    why = f"The text speaks of a {rng.choice(TOPICS[topic][1])} and of what they {rng.choice(TOPICS[topic][3])}."
    end = rng.choice(
        ['The most appropriate label is "{l}".', "Label: {l}", 'It is best classified as "{l}".', "Therefore, the topic is {l}.",
         'The label that fits best would be "{l}".', "Answer: {l}"]
    )  # fmt: skip
    return (
        said,
        topic,
        f"{trap}{why} {end.format(l=topic)}" if "\n" in end else f"{trap}{why}\n{end.format(l=topic)}",
        other,
    )


def _text(topic: str, rng: random.Random) -> Parts:
    said, other = scenes(topic, 2, rng)
    name = rng.choice(_NAMES)
    ask, ask_other = rng.choice(
        [
            (f"Advise {name} on the next step.", f"What should {name} do next? Give advice."),
            (f"Write {name} a short reply.", f"Compose a brief answer to {name}."),
            (f"Explain to {name} what went wrong.", f"Tell {name} what the mistake was."),
            (f"Summarise this for {name}.", f"Give {name} a summary of it."),
        ]
    )
    answer = f"{name} should tell the {rng.choice(TOPICS[topic][1])} at the {rng.choice(TOPICS[topic][0])} about it {rng.choice(_TIMES)}."
    why = f"What counts is the {rng.choice(TOPICS[topic][2])}, since one can hardly {rng.choice(TOPICS[topic][3])} it {rng.choice(_TIMES)}."
    return f"{said} {ask}", answer, f"{why} {scene(topic, rng)[0]}", f"{other} {ask_other}"


_MAKERS: dict[str, Callable[[str, random.Random], Parts]] = {
    "number": _number, "math": _math, "choice": _choice, "label": _label, "text": _text,
}  # fmt: skip


def corpus(
    kind: str, *, sound_rows: int, per_defect: int | dict[str, int], seed: int, skip: tuple[str, ...] = ()
) -> Corpus:
    """`sound_rows` sound rows and `per_defect` rows with each defect that the kind can have, shuffled.

    A row that repeats another comes after it, as the second of two is the duplicate. Held-out rows, of which leaks
    are made, and a fifth of the sound rows have the split `test`.
    """
    rng = random.Random(f"{kind} {seed}")
    topics = list(TOPICS)
    made = [sound(kind, rng.choice(topics), rng) for _ in range(sound_rows)]
    first, planted = Corpus(kind), list[tuple[Row, str]]()
    for at, one in enumerate(made):
        first.put(one.row | {"split": "test" if at % 5 == 0 else "train"})
    originals = [one for at, one in enumerate(made) if at % 5]
    held_out = [one for at, one in enumerate(made) if at % 5 == 0]
    for defect, kinds in DEFECTS.items():
        if kind not in kinds or defect in skip:
            continue
        source = held_out if defect == "leak_between_splits" else originals
        for at in range(per_defect if isinstance(per_defect, int) else per_defect[defect]):
            # what repeats a row repeats one of its own, so that the group is a pair
            pair = rng.choice(source) if defect not in _REPEATS else source[(_REPEATS[defect] * 997 + at) % len(source)]
            planted.append((_planted(defect, kind, pair, rng, at=at) | {"split": "train"}, defect))
    rng.shuffle(planted)
    for row, defect in planted:
        first.put(row, defect)
    torn = {row["prompt"] for row, defect in planted if defect == "conflicting_answers"}
    first.partners = {at for at, one in enumerate(made) if one.row["prompt"] in torn}
    begun = set[str]()
    for index in [index for index, defect in first.defects.items() if defect == "diversity_collapse"]:
        pattern = first.rows[index]["prompt"][:5]
        if pattern not in begun:
            begun.add(pattern)
            del first.defects[index]  # the first of each pattern is kept
    return first


_REPEATS = {
    "exact_duplicate": 1, "conflicting_answers": 2, "near_duplicate": 3, "semantic_duplicate": 4,
    "leak_between_splits": 5,
}  # fmt: skip
_FOREIGN = {
    "number": "Ein Bauer verkauft {a} Äpfel und behält {b} davon für sich selbst. Wie viele Äpfel hatte er am Anfang insgesamt?",
    "math": "Résolvez l'équation suivante et justifiez chaque étape de votre raisonnement avec soin : ${a}x = {b}$.",
    "choice": "¿Qué objeto lleva el viajero cuando llueve mucho durante {a} días?\n(A) un paraguas\n(B) una silla\n(C) un piano",
    "label": "Der Richter hat gestern nach {a} Jahren und {b} Tagen endlich ein Urteil in dieser Sache gesprochen, das niemand erwartet hatte.",
    "text": "Spiega al signor Rossi perché la consegna di {a} casse è arrivata con {b} giorni di ritardo e che cosa deve fare adesso.",
}  # fmt: skip
_REFUSALS = (
    "I'm sorry, but I can't help with that request.",
    "As an AI language model, I do not have access to the details that would be needed here.",
    "I cannot assist with this question, since it lacks context.",
    "I apologize, but I am unable to answer this.",
    "I am unable to determine this. It would violate our guidelines.",
)
_CONTROL = (
    "<|im_end|>",
    "<|endoftext|>",
    "[INST]",
    "</s>",
    "<|eot_id|>",
    "<start_of_turn>",
    "\x00",
    "\x1b[0m",
    "<|assistant|>",
)


def _planted(defect: str, kind: str, one: Made, rng: random.Random, *, at: int) -> Row:
    """A row with the defect. Where it need not repeat a row, it is one of its own."""
    if defect in _REPEATS:
        return _repeated(defect, kind, one, rng)
    row = dict(sound(kind, rng.choice(list(TOPICS)), rng).row)
    topic = row["domain"]
    a, b = rng.randint(100, 999), rng.randint(10, 99)
    if defect == "empty_prompt":
        return row | {"prompt": rng.choice(["", " ", "\n\t"])}
    if defect == "missing_answer":
        return row | {"answer": rng.choice([None, "", "  "])}
    if defect == "unreadable_answer":
        if kind == "number":
            return row | {
                "answer": rng.choice(["it depends", "not enough information", "see above", "n/a", "as many as before"])
            }
        return row | {
            "answer": f"it depends on what {rng.choice(_NAMES)} meant by the {rng.choice(TOPICS[topic][2])}, which nobody can tell from here"
        }
    if defect == "answer_not_among_choices":
        return row | {"answer": rng.choice(["E", "F", "(G)", "S", f"a {rng.choice(_LOOKS)} elephant"])}
    if defect == "repeated_choices":
        return _twice(row)
    if defect == "label_outside_set":
        return row | {
            "answer": rng.choice(
                [topic.upper(), f"{topic}s", "weather", "sports", f"the topic is {topic}", "none", "unknown"]
            )
        }
    if defect == "label_from_prose":
        wrong = rng.choice([name for name in TOPICS if name != topic])
        word = rng.choice(_HOLDS[wrong].split("|"))
        said = f'With a {word} in mind, {rng.choice(_TIMES)}, the most appropriate label is "{topic}".'
        return row | {"answer": wrong, "rationale": said}
    if defect == "answer_contradicts_rationale":
        return row | {"answer": _other_answer(kind, row, rng)}
    if defect == "empty_rationale":
        return row | {"rationale": rng.choice([None, "", "   ", f"Answer: {row['answer']}", str(row["answer"])])}
    if defect == "truncated_rationale":
        return row | {"rationale": _cut(row, rng)}
    if defect == "refusal":
        part = rng.choice(["rationale", "rationale", "answer"]) if kind == "text" else "rationale"
        return row | {part: rng.choice(_REFUSALS)}
    if defect == "control_tokens":
        part = rng.choice(["prompt", "rationale"])
        words = str(row[part]).split(" ")
        place = rng.randrange(1, len(words))
        return row | {part: " ".join([*words[:place], rng.choice(_CONTROL), *words[place:]])}
    if defect == "other_language":
        foreign = {"answer": "A"} if kind == "choice" else {}
        said = _FOREIGN[kind].format(a=a, b=b)
        worked = (
            f"It is the umbrella, which {rng.choice(_NAMES)} has. The answer is (A)."
            if kind == "choice"
            else row["rationale"]
        )
        return row | foreign | {"prompt": f"{said} {rng.choice(_NAMES)} {at}", "rationale": worked}
    if defect == "too_long_for_student":
        part = rng.choice(["prompt", "rationale"])
        return row | {part: f"{scenes(topic, 120, rng)[0]} {row[part]}"}
    if defect == "diversity_collapse":
        return _collapsed(kind, row, rng)
    if defect == "likely_wrong_label":
        wrong = rng.choice([name for name in TOPICS if name != topic])
        return row | {"answer": wrong, "rationale": f'It reads as it does. The most appropriate label is "{wrong}".'}
    raise AssertionError(defect)


def _repeated(defect: str, kind: str, one: Made, rng: random.Random) -> Row:
    row = dict(one.row)
    if defect == "exact_duplicate" or (defect == "leak_between_splits" and rng.random() < 0.5):
        prompt = row["prompt"]
        return row | {
            "prompt": rng.choice([prompt, f"{prompt} ", prompt.replace(" ", "  ", 3), prompt.replace(". ", ".\n", 1)])
        }
    if defect == "conflicting_answers":
        other = _other_answer(kind, row, rng)
        return row | {"answer": other, "rationale": f"Looking at it closely one finds this. {_declaring(kind, other)}"}
    if defect in ("near_duplicate", "leak_between_splits"):
        head, _, rest = row["prompt"].partition(" ")
        typo = rest.replace("e ", "ee ", 1) if rng.random() < 0.5 else rest.replace(" ", " indeed ", 1)
        return row | {
            "prompt": rng.choice(
                [f"Well, {head} {rest}", f"{head} {typo}", f"{head} {rest.replace('.', '!', 1)} Please."]
            )
        }
    return row | {"prompt": one.reworded}


def _declaring(kind: str, answer: str) -> str:
    return f'The most appropriate label is "{answer}".' if kind == "label" else f"Answer: {answer}"


def _other_answer(kind: str, row: Row, rng: random.Random) -> str:
    if kind == "number":
        return str(int(row["answer"].replace(",", "")) + rng.choice([-7, -1, 1, 10, 23]))
    if kind == "math":
        return rng.choice(
            [
                f"\\frac{{{rng.randint(50, 99)}}}{{101}}",
                f"{rng.randint(100, 900)}",
                f"\\sqrt{{{rng.randint(101, 200)}}}",
            ]
        )
    if kind == "label":
        return rng.choice([name for name in TOPICS if name != row["answer"]])
    listed = [line.strip() for line in row["prompt"].splitlines()[-4:]]
    letters = [line.lstrip("(")[0] for line in listed]
    texts = [line.split(" ", 1)[1] for line in listed]
    right = row["answer"].strip("()")
    right = letters[texts.index(right)] if right in texts else right
    return rng.choice([letter for letter in letters if letter != right])


def _twice(row: Row) -> Row:
    lines = row["prompt"].splitlines()
    letter = row["answer"].strip("()")
    at = next(
        (n for n, line in enumerate(lines[-4:]) if line.lstrip("(")[0] == letter or line.endswith(row["answer"])), 0
    )
    texts = [line.split(" ", 1) for line in lines[-4:]]
    others = [n for n in range(4) if n != at]
    texts[others[0]][1] = texts[others[1]][1]
    return row | {"prompt": "\n".join([*lines[:-4], *(" ".join(part) for part in texts)])}


def _cut(row: Row, rng: random.Random) -> str:
    """The rationale up to somewhere within a sentence, before it declares anything."""
    scene_ = scene(row["domain"], rng)[0]
    words = scene_.split(" ")
    cut = " ".join(words[: rng.randrange(4, len(words) - 2)]).rstrip(".;:!?'s\"0123456789 ")
    return f"{scene(row['domain'], rng)[0]} {cut}"


def _collapsed(kind: str, row: Row, rng: random.Random) -> Row:
    a, b = rng.randint(2, 40), rng.randint(2, 40)
    colour = rng.choice(["red", "green", "white", "black"])
    if kind == "number":
        asked = rng.choice(
            [f"A jar contains {a} {colour} marbles and {b} blue marbles. If one marble is drawn at random, how many marbles are left in the jar?",
             f"A bag contains {a} {colour} balls and {b} blue balls. What is the total number of balls in the bag before any ball is drawn?"]
        )  # fmt: skip
        value = a + b - 1 if asked.startswith("A jar") else a + b
        return row | {
            "prompt": asked,
            "answer": str(value),
            "domain": "chance",
            "rationale": f"There are {a + b} of them in all.\nAnswer: {value}",
        }
    name = rng.choice(_NAMES)
    asked = rng.choice(
        [f"Write a short poem about the {colour} sunset over the sea for my friend {name}, please.",
         f"Give me three tips for staying healthy while working from home, and address them to {name}.",
         f"Think of a funny name for the {colour} kitten that my neighbour {name} has found in the garden."]
    )  # fmt: skip
    return row | {"prompt": asked, "domain": "requests"}


@dataclass(frozen=True)
class Score:
    """Of one reason: rows planted and found, other rows that may not have it and that have it all the same."""

    planted: int
    found: int
    others: int
    false: tuple[int, ...]


def scores(corpus: Corpus, findings: list[tuple[int, str]]) -> dict[str, Score]:
    """The scores by reason of the findings (row, reason), of every reason there is."""
    flagged: dict[str, set[int]] = {}
    for row, reason in findings:
        flagged.setdefault(reason, set()).add(row)
    result = {}
    for reason in DEFECTS:
        planted = {row for row, defect in corpus.defects.items() if defect == reason}
        spared = {row for row, defect in corpus.defects.items() if reason in IMPLIED.get(defect, set())}
        spared |= corpus.partners if reason == "conflicting_answers" else set()
        others = set(range(len(corpus.rows))) - planted - spared
        own = flagged.get(reason, set())
        result[reason] = Score(len(planted), len(planted & own), len(others), tuple(sorted(others & own)))
    return result
