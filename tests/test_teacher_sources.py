"""Recorded replies, prices, and which transport a recipe gets."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from balkit import recipe
from balkit.errors import PriceUnknown, TeacherStopped
from balkit.recipe import Price
from balkit.teacher import Recorded, Reply, Request, Scripted, make_teacher, price_of
from balkit.teacher.caps import worst_case
from balkit.teacher.prices import Rate, priced_models
from balkit.teacher.remote import Remote


def rationale(prompt: str, sample: int = 0, purpose: Any = "rationale") -> Request:
    return Request(purpose, "t", "", (("user", f"Solve: {prompt}"),), "t", sample, 100, 0.5, subject=prompt)


def synthesis(sample: int, *, domain: str = "algebra", count: int = 2) -> Request:
    return Request("synthesis", "t", "", (("user", "write"),), "t", sample, 500, 1.0, domain=domain, count=count)


def recorded(tmp_path: Path, *lines: dict[str, str]) -> Recorded:
    file = tmp_path / "replies.jsonl"
    file.write_text("\n".join(json.dumps(line) for line in lines) + "\n\n")
    return Recorded(file)


def answers(teacher: Recorded, *requests: Request) -> list[Reply]:
    return list(teacher.ask(requests))


def test_sample_i_is_the_ith_recorded_text_of_the_prompt(tmp_path: Path) -> None:
    teacher = recorded(
        tmp_path,
        {"purpose": "rationale", "prompt": "1+1?", "text": "two", "author": "big"},
        {"purpose": "rationale", "prompt": "2+2?", "text": "four"},
        {"purpose": "rationale", "prompt": "1+1?", "text": "it is 2"},
    )
    first, second, vote = answers(
        teacher, rationale("  1+1? \r\n"), rationale("1+1?", 1), rationale("2+2?", purpose="vote")
    )
    assert (first.text, first.author) == ("two", "big")
    assert (second.text, second.author) == ("it is 2", "recorded")
    assert vote.text == "four"


def test_what_is_not_recorded_fails_for_good(tmp_path: Path) -> None:
    teacher = recorded(tmp_path, {"purpose": "rationale", "prompt": "1+1?", "text": "two"})
    beyond, unheard = answers(teacher, rationale("1+1?", 1), rationale("3+3?"))
    assert (beyond.outcome, unheard.outcome) == ("permanent", "permanent")
    assert "not recorded" in beyond.error


def test_written_examples_are_served_in_order_until_none_are_left(tmp_path: Path) -> None:
    lines = [{"purpose": "synthesis", "domain": "algebra", "prompt": f"p{i}", "answer": str(i)} for i in range(3)]
    replies = answers(recorded(tmp_path, *lines), *(synthesis(i) for i in range(3)), synthesis(0, domain="logic"))
    prompts = [[example["prompt"] for example in json.loads(reply.text)["examples"]] for reply in replies]
    assert prompts == [["p0", "p1"], ["p2"], [], []]


def test_every_bad_line_is_named(tmp_path: Path) -> None:
    file = tmp_path / "replies.jsonl"
    file.write_text('{"purpose": "rationale", "prompt": "p"}\n{oops\n[]\n{"purpose": "poem"}\n')
    with pytest.raises(TeacherStopped) as caught:
        Recorded(file)
    for line in ("replies.jsonl, line 1: text", "line 2: not JSON", "line 3: a line is an object", "line 4: purpose"):
        assert line in str(caught.value)


def test_a_missing_file_of_replies_is_named(tmp_path: Path) -> None:
    with pytest.raises(TeacherStopped, match=r"nowhere\.jsonl"):
        Recorded(tmp_path / "nowhere.jsonl")


def test_a_script_that_is_used_up_stops() -> None:
    first, second = Scripted(["a"]).ask([rationale("p"), rationale("q")])
    assert (first.text, second.outcome) == ("a", "stop")


def test_the_recipes_price_overrides_the_table() -> None:
    assert price_of("openai/gpt-4o-mini") == Rate(150_000, 600_000)
    assert price_of("openai/gpt-4o-mini", Price(input_usd_per_mtok=1, output_usd_per_mtok=2)) == Rate(10**6, 2 * 10**6)
    assert price_of("openai/gpt-4o-mini", "free") == Rate(0, 0)


def test_an_unknown_price_says_how_to_give_it() -> None:
    with pytest.raises(PriceUnknown, match=r"teacher\.price"):
        price_of("ollama/llama3")


def test_every_shipped_price_is_above_zero() -> None:
    assert len(priced_models()) > 20
    assert all(rate.input_picousd > 0 and rate.output_picousd > 0 for rate in priced_models().values())


@given(read=st.integers(0, 10**6), written=st.integers(0, 10**6), price=st.floats(0.001, 100))
def test_a_cost_is_rounded_up_by_less_than_a_microdollar(read: int, written: int, price: float) -> None:
    rate = price_of("m", Price(input_usd_per_mtok=price, output_usd_per_mtok=price))
    exact = (read * rate.input_picousd + written * rate.output_picousd) / 10**6
    assert exact <= rate.cost_microusd(read, written) < exact + 1
    assert rate.input_picousd >= price * 10**6 * (1 - 1e-12)


@given(st.text(), st.integers(1, 5000))
def test_the_worst_case_covers_every_byte_and_all_the_output(text: str, max_tokens: int) -> None:
    request = Request("vote", "t", "m", (("user", text),), "t", 0, max_tokens, 0.5)
    assert worst_case(request, Rate(0, 0)).tokens >= len(text.encode("utf-8", "surrogatepass")) + max_tokens


def test_a_recipe_gets_the_transport_it_names(tmp_path: Path) -> None:
    file = tmp_path / "r.jsonl"
    file.write_text("")
    assert isinstance(make_teacher(recipe.Teacher(transport="recorded", file=file)), Recorded)
    assert isinstance(make_teacher(recipe.Teacher(model="openai/m")), Remote)


def test_making_a_remote_teacher_loads_no_vendor() -> None:
    code = (
        "import sys; from balkit import recipe; from balkit.teacher import make_teacher;"
        "make_teacher(recipe.Teacher(model='openai/m'));"
        "sys.exit(int(bool({'litellm', 'openai', 'duckdb', 'torch'} & set(sys.modules))))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
