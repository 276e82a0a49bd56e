"""A planted key and a planted header are in nothing that a whole run leaves behind or says."""

from __future__ import annotations

import json
import logging
import re
from pathlib import Path
from typing import Any

import pytest
from small import make_pool, make_recipe
from teacher_server import Say, TeacherServer

from balkit import recipe as recipes
from balkit.errors import RecipeError
from balkit.exports import export
from balkit.pool import Pool
from balkit.results import report_of
from balkit.stages import run

pytest.importorskip("litellm")

KEY, PASS = "sk-canary-71c0de5e55", 'canary"pass\\8421'


def told(body: dict[str, Any]) -> str:
    """A worked answer that gives away the key."""
    shown = re.search(r"The reference answer is: (.*)", body["messages"][-1]["content"])
    return f"Your key is {KEY} and your pass {PASS}.\nAnswer: {shown[1] if shown else '?'}"


def test_a_planted_key_is_in_no_file_of_a_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    monkeypatch.setenv("CANARY_API_KEY", KEY)
    monkeypatch.setenv("GATEWAY_PASS", PASS)
    plan = [Say(status=429, error=f"slower, {KEY}", headers={"Retry-After": "0"}), Say(status=400, error=f"no {PASS}")]
    with TeacherServer(plan, answer=told) as server:
        teacher = {"model": "openai/m", "base_url": server.url, "api_key_env": "CANARY_API_KEY", "price": "free"}
        recipe = make_recipe(
            budget_rows=9,
            stages=1,
            fill=["real"],
            select={"first": "random", "then": "random"},
            teacher=teacher | {"headers": {"X-Pass": "$GATEWAY_PASS"}},
        )
        result = run(make_pool(tmp_path / "pool"), recipe)
        assert server.authorizations[-1] == f"Bearer {KEY}"
        assert server.headers[-1]["x-pass"] == PASS
    snapshot = Pool.open(tmp_path / "pool").snapshot(result.snapshot_id)
    assert snapshot.rows.height == 9
    export(snapshot, to=["trl", "hf", "jsonl"], out=tmp_path / "export")
    (tmp_path / "report.json").write_text(json.dumps(report_of(result)))
    traces = [secret.encode() for text in (KEY, PASS) for secret in (text, json.dumps(text)[1:-1])]
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert len(files) > 20
    assert [path.name for path in files if any(trace in path.read_bytes() for trace in traces)] == []
    said = "".join(capfd.readouterr()) + caplog.text
    assert not any(trace.decode() in said for trace in traces)


def test_a_password_in_a_url_is_refused_and_not_shown() -> None:
    body = {"name": "r", "budget_rows": 9, "teacher": {"model": "openai/m", "base_url": f"https://me:{KEY}@host/v1"}}
    with pytest.raises(RecipeError, match=r"teacher\.base_url: holds a user's name or password") as caught:
        recipes.load(body)
    assert KEY not in str(caught.value)
