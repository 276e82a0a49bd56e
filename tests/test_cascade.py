"""A teacher that does everything wrong that one can: each row ends with its reason and both texts."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import numpy as np
import polars as pl
import pytest
from test_synthesize import Teacher, example, write

from balkit import frames
from balkit.recipe import Synthesis
from balkit.synthesize import Written
from balkit.teacher.protocol import Request
from balkit.verify import usual

pytest.importorskip("rapidfuzz")
pytest.importorskip("py3langid")

REAL = [
    "The smelter on the river raised its output of refined metal by a tenth this spring",
    "Miners at the northern pit went on strike over the new rules for night shifts",
    "A trader in London said that stocks in the warehouses had fallen for three weeks",
    "The ministry will lower the duty on exports of concentrate from the first of May",
    "Engineers repaired the furnace after the fire and expect it to run again on Monday",
    "Buyers of solder complained that deliveries from the island came late again",
]
HELD_OUT = "The government of Bolivia closed two old mines near Oruro after a flood in the shafts"


def examples(*prompts: str, answer: str = "tin") -> str:
    return json.dumps({"examples": [{"prompt": prompt, "answer": answer} for prompt in prompts]})


def written_by(*replies: str, vote: str = "It is about the metal.\nAnswer: tin", **more: Any) -> Written:
    """What comes of these replies, one call each, for the domain tin."""

    def rule(request: Request) -> str:
        if request.purpose != "synthesis":
            return vote
        return replies[request.sample] if request.sample < len(replies) else '{"examples": []}'

    real = frames.EXAMPLES.of([example(text, more.pop("answer", "tin"), "tin") for text in more.pop("real", REAL)])
    usual = {"demonstrations": real, "known": real["prompt"].to_list(), "evaluation": [HELD_OUT]}
    pool = real.select("example_id", "prompt")
    done = write(
        Teacher(rule), {"tin": len(replies)}, **usual | {"per_call": 1, "calls_per_row": 1.0, "pool": pool} | more
    )
    return done


def refusal(done: Written) -> tuple[str, dict[str, Any]]:
    """The reason and the detail of the one row that was refused."""
    row = done.decisions.filter(~pl.col("kept") & pl.col("step").is_in(["verify", "vote"])).row(0, named=True)
    return row["reason"], json.loads(row["detail"])


def test_a_sound_row_passes_the_whole_cascade() -> None:
    done = written_by(examples("A ship with ore for the plant ran aground off the coast of Java on Sunday"))
    assert done.decisions.filter("kept").height == 1


def test_a_real_example_again_is_refused_with_its_text_and_id() -> None:
    reason, detail = refusal(written_by(examples(REAL[0].upper() + "!")))
    assert (reason, detail["other"], detail["similarity"]) == ("exact_duplicate", REAL[0], 1.0)
    assert detail["other_id"] == example(REAL[0], "tin", "tin")["example_id"]
    assert detail["prompt"] == REAL[0].upper() + "!"


def test_a_teacher_that_repeats_itself_is_held_against_its_own_row() -> None:
    story = "A ship with ore for the plant ran aground off the coast of Java on Sunday"
    done = written_by(examples(story), examples(story.replace("Sunday", "a Sunday")))
    reason, detail = refusal(done)
    assert reason == "near_duplicate"
    assert {detail["prompt"], detail["other"]} == {story, story.replace("Sunday", "a Sunday")}
    assert detail["other_id"] == done.examples["example_id"][0]


@pytest.mark.parametrize(
    ("prompt", "reason"),
    [
        ("", "empty"),
        ("I'm sorry, but I can't help with that request about metals and mining companies.", "refusal"),
        ("As an AI language model, I do not write news stories about mining companies.", "refusal"),
        ("<|im_start|>user The smelter closed for good last year<|im_end|>", "control_tokens"),
        ("The smelter closed\x07 for good last year, its owner said on Friday", "control_tokens"),
        ("```\nThe smelter closed for good last year, its owner said on Friday\n```", "reply_markup"),
        ("It shut.", "too_short"),
        ("The smelter closed for good. " * 12, "too_long"),
        ("Die Hütte am Fluss hat im Frühjahr ihre Erzeugung um ein Zehntel erhöht", "other_language"),
        ("La fonderie au bord du fleuve a augmenté sa production ce printemps", "other_language"),
    ],
)
def test_a_row_of_the_wrong_form_says_what_is_wrong(prompt: str, reason: str) -> None:
    found, detail = refusal(written_by(examples(prompt)))
    assert found == reason
    assert detail["prompt"] == prompt.strip()
    assert "note" in detail or reason == "empty"


def test_what_real_examples_do_too_is_no_fault() -> None:
    real = [f"```\n{text}\n```" for text in REAL]
    done = written_by(examples("```\nThe smelter closed for good last year, it said on Friday\n```"), real=real)
    assert done.decisions.filter("kept").height == 1


def test_lengths_and_languages_of_the_recipe_stand_instead_of_the_learned_ones() -> None:
    german = "Die Hütte am Fluss hat im Frühjahr ihre Erzeugung um ein Zehntel erhöht"
    assert written_by(examples(german), languages=("en", "de")).decisions.filter("kept").height == 1
    assert refusal(written_by(examples(german), languages=("fr",)))[0] == "other_language"
    assert written_by(examples("It shut."), min_chars=3).decisions.filter("kept").height == 1
    assert refusal(written_by(examples(REAL[0] + " so"), max_chars=40))[0] == "too_long"


def test_a_shared_run_of_words_or_a_whole_short_text_of_eval_is_a_leak() -> None:
    longer = f"Reports said that {HELD_OUT[:60].lower()}, after a flood in the shafts and much rain in the hills"
    reason, detail = refusal(written_by(examples(f"It was said: {HELD_OUT}")))
    assert (reason, detail["other"]) == ("stands_in_eval", HELD_OUT)
    short = "two old mines near Oruro closed for good"
    assert (
        refusal(written_by(examples(f"Sources say {short} on Friday, to nobody's surprise"), evaluation=[short]))[1][
            "other"
        ]
        == short
    )
    assert written_by(examples(longer)).decisions.filter("kept").height == 1  # ten words in a row are no leak


def encode(prompts: Sequence[str]) -> np.ndarray:
    """A sense that is the same for texts about Bolivia's mines, and its own for every other text."""
    vectors = np.zeros((len(prompts), 64), np.float32)
    for row, text in enumerate(prompts):
        place = 0 if "Oruro" in text else 1 + sum(text.encode()) % 63
        vectors[row, place] = 1
    return vectors


def test_an_eval_row_in_other_words_is_refused_with_that_row() -> None:
    reworded = "Floods underground made the state shut a pair of aged pits in the Oruro region"
    reason, detail = refusal(written_by(examples(reworded), encode=encode))
    assert (reason, detail["other"], detail["similarity"]) == ("close_to_eval", HELD_OUT, 1.0)


def test_an_answer_outside_of_its_own_choices_says_what_is_offered() -> None:
    real = [f"{text}?\n(A) yes\n(B) no" for text in REAL]
    prompt = "Did the smelter on the river close this spring?\n(A) yes\n(B) no"
    done = written_by(examples(prompt, answer="D"), real=real, answer="A", kind="choice")
    assert refusal(done)[0] == "choice_not_offered"
    assert refusal(done)[1]["note"] == "D; offered: A, B"


def test_an_answer_that_nobody_else_finds_is_refused_with_what_they_said() -> None:
    story = "A ship with ore ran aground off the coast of Java on Sunday"
    reason, detail = refusal(written_by(examples(story), vote="Hm.\nAnswer: gold"))
    assert reason == "vote_disagrees"
    assert (detail["prompt"], detail["answer"]) == (story, "tin")
    assert detail["votes"] == [
        {"answer": "gold", "reason": "answer_contradicts_reference", "text": "Hm.\nAnswer: gold"}
    ]


def test_an_answer_that_its_own_rationale_contradicts_is_refused_before_any_vote() -> None:
    story = "A ship with ore ran aground off the coast of Java on Sunday"
    entry = {"prompt": story, "rationale": "Ore, so a metal.\nAnswer: gold", "answer": "tin"}
    asked: list[str] = []

    def rule(request: Request) -> str:
        asked.append(request.purpose)
        return json.dumps({"examples": [entry]})

    real = frames.EXAMPLES.of([example(text, "tin", "tin") for text in REAL])
    done = write(Teacher(rule), {"tin": 1}, demonstrations=real, per_call=1, calls_per_row=1.0, rationale=True)
    reason, detail = refusal(done)
    assert (reason, detail["other"]) == ("answer_contradicts_rationale", entry["rationale"])
    assert detail["note"] == "declared: gold"
    assert asked == ["synthesis"]


def test_without_votes_a_hinted_answer_that_differs_contradicts_the_written_one() -> None:
    story = "A ship with ore ran aground off the coast of Java on Sunday"
    reason, detail = refusal(written_by(examples(story), vote="Hm.\nAnswer: gold", votes=0))
    assert reason == "answer_contradicts_rationale"
    assert detail["votes"][0]["text"] == "Hm.\nAnswer: gold"


def test_a_fenced_reply_with_one_good_and_many_bad_rows_keeps_the_good_one() -> None:
    good = "A ship with ore ran aground off the coast of Java on Sunday"
    bad = [REAL[1], HELD_OUT, "I cannot provide examples of that kind, since they might be misused.", "It shut.", good]
    reply = f"Sure, here they are:\n```json\n{examples(good, *bad)}\n```"
    done = written_by(reply, per_call=6)
    assert done.decisions.filter("kept").height == 1
    reasons = done.decisions.filter(pl.col("step") == "verify")["reason"]
    assert sorted(reasons) == ["exact_duplicate", "exact_duplicate", "refusal", "stands_in_eval", "too_short"]


def test_below_five_examples_those_of_all_domains_say_what_is_usual() -> None:
    rows = [example(text, "x", "many") for text in REAL] + [example("Tin?", "x", "few")]
    found = usual(frames.EXAMPLES.of(rows), domains=["few", "many", "none"], section=Synthesis())
    assert found["few"] == found["none"]
    assert (found["few"].shortest, found["many"].shortest) == (2, 38)
    assert found["many"].languages == {"en"}
    assert usual(frames.EXAMPLES.empty(), domains=["none"], section=Synthesis())["none"].longest is None


def test_customers_who_cannot_log_in_are_no_refusal() -> None:
    tickets = ["I can't log in to my account since the update", "Sorry, I cannot find the invoice for March"]
    done = written_by(*map(examples, tickets), per_call=1)
    assert done.decisions.filter("kept").height == 2
