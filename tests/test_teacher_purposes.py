"""Teachers by purpose, cascades, and several keys for one endpoint."""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from small import Rule, make_pool, make_recipe, prompt
from teacher_server import TeacherServer

from balkit import frames, recipe, steps, synthesize, texts
from balkit.cli import main
from balkit.errors import CapReached, RecipeError, TeacherStopped
from balkit.planning import plan
from balkit.report import by_endpoint, cascades
from balkit.teacher import Ledger, Progress, Request, Scripted, make_teacher

CHEAP = {
    "name": "cheap",
    "transport": "offline",
    "model": "c",
    "price": {"input_usd_per_mtok": 1, "output_usd_per_mtok": 1},
}
DEAR = {
    "name": "dear",
    "transport": "offline",
    "model": "d",
    "price": {"input_usd_per_mtok": 9, "output_usd_per_mtok": 9},
}
LABELS = ("bird", "fruit", "tool")


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    with Ledger(tmp_path / "calls.sqlite") as opened:
        yield opened


class Fallible(Rule):
    """Wrong about prompts with `word` where the cheap one is asked. Counts requests by purpose and endpoint."""

    def __init__(self, word: str) -> None:
        super().__init__()
        self.word = word
        self.asked: Counter[tuple[str, str]] = Counter()

    def __call__(self, request: Request) -> str:
        self.asked[request.purpose, request.endpoint] += 1
        self.wrong = self.word if request.endpoint == "cheap" else ""
        return super().__call__(request)


def examples(n: int) -> pl.DataFrame:
    import random

    rng = random.Random(3)
    texts_ = [(domain, prompt(domain, rng)) for domain in LABELS for _ in range(n)]
    row = {"split": "train", "origin": "source", "parents": [], "added_in": 1}
    return frames.EXAMPLES.of(
        [
            {"example_id": texts.example_id(text, domain), "prompt": text, "reference": domain, "domain": domain} | row
            for domain, text in texts_
        ]
    )


def channel(ledger: Ledger, rule: Any, changes: dict[str, Any], **more: Any) -> synthesize.Channel:
    made = make_recipe(**changes)
    return steps.channel(ledger, recipe=made, labels=LABELS, run_id="r", stage=1, teacher=Scripted(rule), **more)


def test_each_purpose_is_asked_of_its_own_teacher(ledger: Ledger) -> None:
    rule = Fallible("nothing")
    to = channel(ledger, rule, {"teachers": {"synthesis": DEAR, "vote": CHEAP}})
    section = recipe.Synthesis(per_call=2, votes=1, calls_per_row=4)
    sources = synthesize.Sources(examples(4), known=[], evaluation=[])
    synthesize.write_examples({"bird": 2}, channel=to, section=section, sources=sources, seed=0)
    synthesize.rationales(examples(1), channel=to)
    assert set(rule.asked) == {("synthesis", "dear"), ("vote", "cheap"), ("rationale", "rule")}


def test_of_a_cascade_the_dear_one_sees_only_what_the_cheap_one_failed_at(ledger: Ledger) -> None:
    rule = Fallible("apple")
    to = channel(ledger, rule, {"teachers": {"rationale_first": CHEAP, "rationale": DEAR}})
    asked = examples(20)
    hard = asked.filter(pl.col("prompt").str.contains("apple")).height
    found = synthesize.rationales(asked, channel=to)
    assert 0 < hard < 30
    assert rule.asked == {("rationale", "cheap"): 60, ("rationale", "dear"): hard}
    assert found.filter("accepted").height == 60
    assert found.filter(~pl.col("accepted"))["reason"].unique().to_list() == ["answer_contradicts_reference"]


def test_votes_that_disagree_are_decided_by_the_next_of_the_cascade(ledger: Ledger) -> None:
    section = recipe.Synthesis(per_call=2, votes=2, calls_per_row=8, max_tokens=256)
    sources = synthesize.Sources(examples(4), known=[], evaluation=[])
    kept = {}
    for name, vote in (("cheap", {"vote": CHEAP}), ("both", {"vote_first": CHEAP, "vote": DEAR})):
        rule = Fallible(" ")  # the cheap one is always wrong
        to = channel(ledger, rule, {"teachers": vote})
        written = synthesize.write_examples({"bird": 2}, channel=to, section=section, sources=sources, seed=0)
        kept[name] = written.examples.height
        assert rule.asked["vote", "dear"] == (0 if name == "cheap" else rule.asked["vote", "dear"])
    assert kept["cheap"] == 0
    assert kept["both"] >= 2


def test_the_caps_are_the_runs_over_all_its_teachers(ledger: Ledger) -> None:
    to = channel(
        ledger, Fallible("apple"), {"teachers": {"rationale_first": CHEAP, "rationale": DEAR}, "caps": {"calls": 61}}
    )
    with pytest.raises(CapReached):
        synthesize.rationales(examples(20), channel=to)
    assert ledger.spent("r").calls == 61


def test_progress_is_that_of_all_doors(ledger: Ledger) -> None:
    seen: list[Progress] = []
    to = channel(
        ledger, Fallible("apple"), {"teachers": {"rationale_first": CHEAP, "rationale": DEAR}}, progress=seen.append
    )
    synthesize.rationales(examples(20), channel=to)
    assert seen[-1].done == seen[-1].sent == ledger.spent("r").calls > 60
    assert seen[-1].cost_microusd == ledger.spent("r").cost_microusd


def test_the_saving_of_a_cascade_is_reported(ledger: Ledger) -> None:
    changes = {"teachers": {"rationale_first": CHEAP, "rationale": DEAR}}
    synthesize.rationales(examples(20), channel=channel(ledger, Fallible("apple"), changes))
    calls = ledger.calls()
    (saved,) = cascades(calls, recipe=make_recipe(**changes))
    first = calls.filter(pl.col("endpoint") == "cheap")
    assert saved["cascade"] == "cheap > dear"
    assert (saved["examples"], saved["asked_last"]) == (60, calls.height - 60)
    assert saved["usd_without"] == pytest.approx(9e-6 * (first["input_tokens"] + first["output_tokens"]).sum())
    assert saved["saved_usd"] == pytest.approx(saved["usd_without"] - calls["cost_microusd"].sum() / 1e6)
    assert saved["saved_usd"] > 0
    assert set(by_endpoint(calls)["endpoint"]) == {"cheap", "dear"}


def test_balkit_spend_says_what_a_cascade_saved(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    changes = {"teachers": {"rationale_first": CHEAP, "rationale": DEAR}}
    pool = make_pool(tmp_path / "pool").path
    (pool / "runs" / "r").mkdir(parents=True)
    (pool / "runs" / "r" / "recipe.yaml").write_text(recipe.dump(make_recipe(**changes)))
    with Ledger(pool / "calls.sqlite") as ledger:
        synthesize.rationales(examples(20), channel=channel(ledger, Fallible("apple"), changes))
    printed = []
    for arguments in (["--json"], []):
        monkeypatch.setattr(sys, "argv", ["balkit", "spend", str(pool), *arguments])
        with pytest.raises(SystemExit):
            main()
        printed.append(capsys.readouterr().out)
    (saved,) = json.loads(printed[0])["cascades"]
    assert saved["saved_usd"] > 0
    assert f"was asked about {saved['asked_last']} of 60 examples" in printed[1]
    assert "less than the last alone" in printed[1]


def test_teachers_of_one_name_that_differ_are_an_error() -> None:
    with pytest.raises(RecipeError, match="of the same name differ"):
        make_recipe(teachers={"vote": {"transport": "offline", "model": "other", "name": "rule"}})


def test_a_cascade_needs_a_try_for_each() -> None:
    with pytest.raises(RecipeError, match=r"rationale\.tries 1 leaves no try"):
        make_recipe(teachers={"rationale_first": CHEAP, "rationale": DEAR}, rationale={"tries": 1})


def test_another_teacher_is_another_run_but_another_url_or_key_is_not() -> None:
    def digest(**changed: Any) -> str:
        return make_recipe(teachers={"vote": CHEAP | changed}).run_digest()

    assert digest() == digest(base_url="http://elsewhere/v1", api_key_env=["A", "B"], concurrency=99)
    assert digest() != digest(model="another")
    assert digest() != make_recipe().run_digest()


def test_a_mistake_in_a_cascade_is_named_by_its_place() -> None:
    with pytest.raises(RecipeError, match=r"teachers\.rationale\.modle: unknown key; did you mean 'model'"):
        make_recipe(teachers={"rationale": {"name": "dear", "modle": "x"}})


def test_files_of_every_teacher_count_from_the_recipes_folder(tmp_path: Path) -> None:
    text = "name: x\nbudget_rows: 9\nteacher: {transport: offline}\nteachers:\n"
    text += "  vote: {name: votes, transport: recorded, file: votes.jsonl}\n"
    (tmp_path / "recipe.yaml").write_text(text)
    loaded = recipe.load(tmp_path / "recipe.yaml")
    assert loaded.teachers.named()["vote"].file == tmp_path / "votes.jsonl"
    assert recipe.load(recipe_body(loaded)).teachers == loaded.teachers


def recipe_body(loaded: recipe.Recipe) -> dict[str, Any]:
    import yaml

    body: dict[str, Any] = yaml.safe_load(recipe.dump(loaded))
    return body


def test_a_plan_prices_each_purpose_by_its_teacher(tmp_path: Path) -> None:
    pool = make_pool(tmp_path / "pool")
    cheap = plan(pool, make_recipe(teacher=CHEAP)).as_dict()["total"]
    mixed = plan(pool, make_recipe(teacher=CHEAP, teachers={"synthesis": DEAR})).as_dict()["total"]
    dear = plan(pool, make_recipe(teacher=DEAR)).as_dict()["total"]
    assert cheap["usd"] < mixed["usd"] < dear["usd"] == pytest.approx(9 * cheap["usd"], rel=0.01)
    halved = plan(pool, make_recipe(teacher=DEAR | {"transport": "batch"})).as_dict()["total"]
    assert halved["usd"] == pytest.approx(dear["usd"] / 2, rel=0.01)


def test_several_keys_are_used_in_turn_and_kept_out_of_sight(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("litellm")
    monkeypatch.setenv("FIRST_KEY", "sk-first-31d7")
    monkeypatch.setenv("SECOND_KEY", "sk-second-8ae2")
    asked = [Request("vote", "t", "m", (("user", f"q{i} sk-second-8ae2"),), "t", 0, 9, 0.5) for i in range(6)]
    with TeacherServer() as server:
        section = recipe.Teacher(model="openai/m", base_url=server.url, api_key_env=("FIRST_KEY", "SECOND_KEY"))
        replies = list(make_teacher(section).ask(asked))
        assert Counter(server.authorizations) == {"Bearer sk-first-31d7": 3, "Bearer sk-second-8ae2": 3}
    assert not any("sk-second" in reply.raw for reply in replies)


def test_every_missing_key_variable_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("litellm")
    monkeypatch.setenv("FIRST_KEY", "sk-first-31d7")
    section = recipe.Teacher(model="openai/m", api_key_env=("FIRST_KEY", "NOT_THERE", "NOR_THIS"))
    with pytest.raises(TeacherStopped, match="NOT_THERE, NOR_THIS"):
        list(make_teacher(section).ask([Request("vote", "t", "m", (("user", "q"),), "t", 0, 9, 0.5)]))
