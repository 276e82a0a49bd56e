"""The command line: exit codes, JSON for machines, messages that say what to do."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import polars as pl
import pytest
import typer
import yaml
from small import make_recipe, rows

from balkit import recipe as recipes
from balkit.cli import app, main

Balkit = Callable[..., tuple[int, str, str]]


@pytest.fixture
def balkit(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Balkit:
    """Runs a command in `tmp_path`; returns its exit code, stdout and stderr."""

    def run(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(sys, "argv", ["balkit", *arguments])
        with pytest.raises(SystemExit) as ended:
            main()
        code = ended.value.code or 0
        assert isinstance(code, int)
        printed = capsys.readouterr()
        return code, printed.out, printed.err

    return run


@pytest.fixture
def pool(balkit: Balkit, tmp_path: Path) -> str:
    """A pool with three domains and a recorded teacher's recipe beside it (recipe.yaml)."""
    train = [row for domain, n in (("fruit", 12), ("tool", 8), ("bird", 6)) for row in rows(domain, n, seed=1)]
    write_jsonl(tmp_path / "train.jsonl", train)
    write_jsonl(
        tmp_path / "eval.jsonl", [row for domain in ("fruit", "tool", "bird") for row in rows(domain, 2, seed=2)]
    )
    write_jsonl(
        tmp_path / "replies.jsonl",
        [
            {
                "purpose": "rationale",
                "prompt": row["question"],
                "text": f"One kind.\nAnswer: {row['answer']}",
                "author": "a",
            }
            for row in train
        ],
    )
    body = yaml.safe_load(recipes.dump(make_recipe(budget_rows=12, fill=["real"], select={"then": "k_center"})))
    body["teacher"] |= {"transport": "recorded", "file": "replies.jsonl", "price": "free"}
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(body))
    columns = ("--prompt", "question", "--answer", "answer", "--domain", "topic")
    assert balkit("add", "pool", "train.jsonl", *columns)[0] == 0
    assert balkit("add", "pool", "eval.jsonl", "--split", "eval", *columns)[0] == 0
    return "pool"


def write_jsonl(path: Path, lines: list[dict[str, str]]) -> None:
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")


def test_every_command_has_help_with_an_example() -> None:
    commands = typer.main.get_command(app)
    context = typer.Context(commands)
    for name in commands.list_commands(context):  # type: ignore[attr-defined]
        command = commands.get_command(context, name)  # type: ignore[attr-defined]
        for one in getattr(command, "commands", {"": command}).values():
            assert "Example: balkit" in (one.help or ""), name


def test_from_add_to_export_each_step_says_what_comes_next(balkit: Balkit, pool: str, tmp_path: Path) -> None:
    code, out, _ = balkit("plan", pool, "recipe.yaml", "--json")
    planned = json.loads(out)
    assert (code, planned["total"]["take"]) == (0, 12)
    code, out, _ = balkit("run", pool, "recipe.yaml", "--no-train", "--json")
    result = json.loads(out)
    assert (code, result["stages"][-1]["rows"]) == (0, 12)
    snapshot = result["stages"][-1]["snapshot_id"]
    code, out, err = balkit("run", pool, "recipe.yaml", "--no-train", "--quiet")
    assert (code, err) == (0, "")
    assert f"balkit export pool {snapshot}" in out
    assert "what the rows stand for" in out
    assert "done: 12 of 12 rows in 2 stages (12 real, 0 written, 0 repeated), in " in out
    assert "cost: $0.0000 in 12 calls, " in out
    assert "balkit report pool" in out
    assert {(row["stage"], row["domain"]) for row in result["measures"]} == {
        (stage, domain) for stage in (1, 2) for domain in ("fruit", "tool", "bird")
    }
    code, out, _ = balkit("export", pool, snapshot, "--to", "trl", "--out", "exports", "--json")
    assert code == 0
    assert len((tmp_path / "exports/trl/data/train.jsonl").read_text().splitlines()) == 12
    code, out, _ = balkit("export", pool, snapshot, "--to", "all", "--out", "everything")
    assert (code, "NO TOKENIZER" in out, "trainable" in out, "sequence_len=512" in out) == (0, True, True, True)
    assert balkit("export", pool, snapshot, "--to", "trl", "--out", "x", "--max-length", "1")[0] == 1
    assert not (tmp_path / "x").exists()
    code, out, _ = balkit("spend", pool, "--json")
    assert sum(row["calls"] for row in json.loads(out)["rows"]) == 12
    code, out, _ = balkit("sql", pool, "SELECT count(*) AS n FROM snapshot_rows", "--json")
    assert json.loads(out) == [{"n": 12}]
    assert balkit("check", pool)[0] == 0
    code, out, _ = balkit("log", pool, "--json")
    assert [row["version"] for row in json.loads(out)] == [4, 3, 2, 1]


def test_a_plan_is_shown_by_domain_and_where_asked_by_stage(balkit: Balkit, pool: str) -> None:
    code, out, _ = balkit("plan", pool, "recipe.yaml")
    assert code == 0
    assert "stage 2" in out
    assert [line.split()[0] for line in out.splitlines()[2:6]] == ["fruit", "tool", "bird", "total"]
    assert "tokens" in balkit("plan", pool, "recipe.yaml", "--by-stage")[1]


@pytest.mark.long
def test_train_eval_and_score_work_one_by_one(balkit: Balkit, pool: str) -> None:
    snapshot = json.loads(balkit("run", pool, "recipe.yaml", "--no-train", "--json")[1])["stages"][-1]["snapshot_id"]
    code, out, _ = balkit("train", pool, snapshot, "--recipe", "recipe.yaml", "--json")
    checkpoint = json.loads(out)["checkpoint"]
    assert (code, json.loads(out)["steps"]) == (0, 2)
    code, out, _ = balkit("eval", pool, checkpoint, "--recipe", "recipe.yaml", "--json")
    assert code == 0
    assert set(json.loads(out)["per_domain"]) == {"fruit", "tool", "bird"}
    asked = ("eval", pool, checkpoint, "--recipe", "recipe.yaml", "--against", "base", "--confusion", "--errors", "2")
    body = json.loads(balkit(*asked, "--json")[1])
    assert set(body["intervals"]) <= {"macro", "micro", "head", "tail", "few"}
    counts = [body["against"][name] for name in ("both_right", "only_other", "only_this", "neither")]
    assert sum(counts) == sum(row["rows"] for row in body["confusion"]) == 6
    assert len(body["errors"]) == 2
    versions = len(json.loads(balkit("log", pool, "--json")[1]))
    code, out, _ = balkit(*asked)
    assert (code, "McNemar p" in out, "wanted" in out, "95 % intervals" in out) == (0, True, True, True)
    assert len(json.loads(balkit("log", pool, "--json")[1])) == versions
    code, _, err = balkit("eval", pool, checkpoint, "--recipe", "recipe.yaml", "--split", "dev")
    assert (code, "no dev row with a reference answer" in err) == (1, True)
    drawn = ("eval", pool, checkpoint, "--recipe", "recipe.yaml", "--samples", "2", "--temperature", "1.5")
    body = json.loads(balkit(*drawn, "--json")[1])
    assert (body["samples"]["samples"], set(body["samples"]["pass_at"])) == (2, {"1", "2"})
    assert body["train_examples"] == {"fruit": 12, "tool": 8, "bird": 6}
    code, out, _ = balkit(*drawn)
    assert (code, "pass@2" in out, "few" in out) == (0, True, True)
    code, out, _ = balkit("score", pool, checkpoint, "--recipe", "recipe.yaml", "--domain", "bird", "--json")
    assert code == 0
    asked = ("score", pool, "base", "--recipe", "recipe.yaml", "--answers", "reference", "--split", "eval")
    assert [row["name"] for row in json.loads(balkit(*asked, "--score", "loss", "--json")[1])] == ["loss"] * 3
    assert {row["name"]: row["rows"] for row in json.loads(out)} == {"ifd": 6, "loss": 6, "entropy": 6}


def test_coverage_names_the_domains_in_order_of_size(balkit: Balkit, pool: str) -> None:
    code, out, _ = balkit("coverage", pool, "--json")
    assert code == 0
    assert [(row["domain"], row["train"]) for row in json.loads(out)] == [("fruit", 12), ("tool", 8), ("bird", 6)]
    assert "fruit" in balkit("coverage", pool)[1]


def test_a_diff_counts_what_came_between_two_versions(balkit: Balkit, pool: str) -> None:
    code, out, _ = balkit("diff", pool, "0", "1", "--json")
    assert (code, {row["domain"]: row["added"] for row in json.loads(out)}) == (0, {"fruit": 12, "tool": 8, "bird": 6})
    assert "moved_in" in balkit("diff", pool, "0", "2")[1]
    assert "no example, label or rationale differs" in balkit("diff", pool, "2", "2")[1]
    code, _, err = balkit("diff", pool, "2", "1")
    assert (code, "name the older one first" in err) == (1, True)


def test_a_misspelt_column_is_named_with_the_columns_that_are_there(balkit: Balkit, pool: str) -> None:
    code, _, err = balkit("add", pool, "train.jsonl", "--prompt", "qestion", "--answer", "answer", "--domain", "topic")
    assert code == 1
    assert "'qestion'; did you mean 'question'?" in err
    assert "Traceback" not in err


def test_a_broken_line_is_named_and_nothing_is_added(balkit: Balkit, pool: str, tmp_path: Path) -> None:
    (tmp_path / "broken.jsonl").write_text('{"question": "a", "topic": "fruit"}\n{"question": "b"\n')
    code, _, err = balkit("add", pool, "broken.jsonl", "--prompt", "question", "--domain", "topic")
    assert code == 1
    assert "broken.jsonl" in err
    assert "line 2" in err
    assert json.loads(balkit("log", pool, "--json")[1])[0]["version"] == 2


@pytest.mark.parametrize("path", ["new", "deep/new", "there", "."])
def test_a_refused_add_leaves_no_blank_pool_behind(balkit: Balkit, tmp_path: Path, path: str) -> None:
    (tmp_path / "there").mkdir()
    write_jsonl(tmp_path / "rows.jsonl", [{"question": "a", "topic": ""}])
    before = sorted(tmp_path.rglob("*"))
    code, _, err = balkit("add", path, "rows.jsonl", "--prompt", "question", "--domain", "topic")
    assert (code, "is empty" in err) == (1, True)
    assert sorted(tmp_path.rglob("*")) == before


def test_a_recipes_problems_come_all_at_once_with_suggestions(balkit: Balkit, pool: str, tmp_path: Path) -> None:
    (tmp_path / "bad.yaml").write_text(
        "name: x\nbudget_row: 3\nbalance: {policy: unform}\nteacher: {transport: offline}\n"
    )
    code, _, err = balkit("plan", pool, "bad.yaml")
    assert code == 1
    assert "budget_row: unknown key; did you mean 'budget_rows'?" in err
    assert "budget_rows: missing" in err
    assert "balance.policy" in err


def test_a_pool_that_is_not_there_is_an_error_without_a_traceback(balkit: Balkit) -> None:
    code, _, err = balkit("coverage", "nowhere")
    assert code == 1
    assert "nowhere" in err
    assert "Traceback" not in err


@pytest.mark.parametrize(
    ("command", "code", "exit_code"),
    [
        (["coverage", "nowhere"], "pool-missing", 1),
        (["sql", "pool", "DROP TABLE examples"], "sql", 1),
        (["plan", "pool", "train.jsonl"], "recipe", 1),
        (["add", "pool", "recipe.yaml", "--prompt", "a", "--domain", "b"], "ingest", 1),
        (["export", "pool", "latest", "--to", "nobody", "--out", "x"], "pool", 1),
        (["recipes", "copy", "quickstart", "nowhere/x.yaml"], "system", 1),
        (["coverage"], "usage", 2),
    ],
)
def test_every_error_says_what_its_code_and_what_helps(
    balkit: Balkit, pool: str, command: list[str], code: str, exit_code: int
) -> None:
    ended, _, err = balkit(*command)
    said, helps = err[: err.index("  [")], err[err.index("  [") :]
    assert ended == exit_code
    assert said.startswith("balkit: ")
    assert helps.startswith(f"  [{code}] ")
    assert f"docs/troubleshooting.md#{code}" in helps
    assert max(map(len, helps.splitlines())) <= 80


def test_the_codes_are_listed_and_looked_up(balkit: Balkit) -> None:
    listed = json.loads(balkit("errors", "--json")[1])
    assert {"code", "means", "fix"} == set(listed[0])
    code, out, _ = balkit("errors", "pool-locked")
    assert (code, out.startswith("pool-locked\n"), "balkit status POOL" in out) == (0, True, True)
    assert balkit("errors", "no-such")[0] == 2


def test_wrong_usage_exits_with_2(balkit: Balkit) -> None:
    assert balkit("add")[0] == 2
    assert balkit("no-such-command")[0] == 2


def test_reading_makes_no_ledger(balkit: Balkit, pool: str, tmp_path: Path) -> None:
    before = sorted((tmp_path / pool).rglob("*"))
    code, out, _ = balkit("spend", pool, "--json")
    assert (code, json.loads(out)) == (0, {"rows": [], "cascades": [], "runs": []})
    assert balkit("spend", pool)[0] == 0
    assert balkit("check", pool)[0] == 0
    assert sorted((tmp_path / pool).rglob("*")) == before


def test_writing_sql_is_refused(balkit: Balkit, pool: str) -> None:
    code, _, err = balkit("sql", pool, "DROP TABLE examples")
    assert code == 1
    assert "balkit:" in err


def test_recipes_are_listed_shown_copied_and_described(balkit: Balkit, tmp_path: Path) -> None:
    listed = json.loads(balkit("recipes", "list", "--json")[1])
    assert "quickstart" in listed
    assert all(listed.values()), "each recipe starts with a comment that says what it is"
    assert balkit("recipes", "show", "quickstart")[1].startswith("#")
    assert json.loads(balkit("recipes", "show", "quickstart", "--json")[1])["name"] == "quickstart"
    code, out, _ = balkit("recipes", "copy", "quickstart", "mine.yaml", "--json")
    assert (code, json.loads(out)) == (0, {"file": "mine.yaml"})
    assert recipes.load(tmp_path / "mine.yaml").name == "quickstart"
    code, _, err = balkit("recipes", "copy", "quickstart", "mine.yaml")
    assert (code, "exists already" in err) == (1, True)
    code, _, err = balkit("recipes", "show", "quickstrt")
    assert (code, "did you mean quickstart?" in err) == (1, True)
    for schema in (balkit("recipes", "schema"), balkit("recipes", "schema", "--json")):
        assert "budget_rows" in json.loads(schema[1])["properties"]


def test_every_shipped_recipe_is_valid() -> None:
    from balkit.assets import recipes_folder

    for file in recipes_folder().glob("*.yaml"):
        assert recipes.load(file).name


def test_rows_come_from_stdin_and_a_dry_run_leaves_no_pool(
    balkit: Balkit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    line = b'{"question": "2 + 2?", "answer": "4"}\n'
    columns = ("--prompt", "question", "--answer", "answer", "--domain-is", "sums")
    for more, version in ((("--dry-run",), None), ((), 1)):
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(line)))
        code, out, _ = balkit("add", "new/pool", "-", *columns, *more)
        assert (code, "1 new of 1 rows" in out) == (0, True)
        assert (tmp_path / "new").exists() is (version is not None)
    code, out, _ = balkit("coverage", "new/pool", "--json")
    assert [(row["domain"], row["train"]) for row in json.loads(out)] == [("sums", 1)]


@pytest.mark.long
def test_versions_are_tagged_and_domains_relabelled(balkit: Balkit, pool: str) -> None:
    assert balkit("tag", pool, "1", "raw", "--json")[1] == '{\n  "tag": "raw",\n  "version": 1\n}\n'
    code, out, _ = balkit("relabel", pool, "bird", "--to", "animal")
    assert (code, "examples of bird are animal" in out) == (0, True)
    code, out, _ = balkit("coverage", pool, "--at", "raw", "--json")
    assert {row["domain"] for row in json.loads(out)} == {"fruit", "tool", "bird"}
    assert {row["domain"] for row in json.loads(balkit("coverage", pool, "--json")[1])} == {"fruit", "tool", "animal"}
    code, out, _ = balkit("diff", pool, "raw", "4", "--rows", "--json")
    assert {row["change"] for row in json.loads(out)} == {"added", "moved_in", "moved_out"}
    assert [row["tags"] for row in json.loads(balkit("log", pool, "--json")[1])] == [None, None, None, "raw"]
    code, _, err = balkit("relabel", pool, "brid", "--to", "animal")
    assert (code, "the domains are fruit, tool, animal" in err) == (1, True)
    code, _, err = balkit("coverage", pool, "--at", "rough")
    assert (code, "no version rough; there are 0 to 4; tags: raw" in err) == (1, True)
    code, out, _ = balkit("compact", pool, "--json")
    assert (code, json.loads(out)["bytes_after"] > 0) == (0, True)
    assert balkit("check", pool)[0] == 0


def test_examples_are_retired_and_relabelled_by_how_their_ids_begin(balkit: Balkit, pool: str) -> None:
    rows = json.loads(balkit("sql", pool, "SELECT example_id, domain FROM examples_at(99) ORDER BY 1", "--json")[1])
    first, second = rows[0], rows[1]
    assert balkit("retire", pool, first["example_id"][:12], "--reason", "wrong")[0] == 0
    named = ("--example", second["example_id"][:12])
    code, out, _ = balkit("relabel", pool, second["domain"], "--to", "other", *named, "--json")
    assert (code, json.loads(out)["examples"]) == (0, 1)
    left = json.loads(balkit("sql", pool, "SELECT example_id, domain FROM examples_at(99) ORDER BY 1", "--json")[1])
    assert left == [second | {"domain": "other"}, *rows[2:]]
    code, _, err = balkit("retire", pool, "zz", first["example_id"], "--reason", "wrong")
    assert (code, "no example has an id that begins with 'zz'" in err) == (1, True)
    code, _, err = balkit("retire", pool, "", "--reason", "wrong")
    assert (code, "give more of it" in err) == (1, True)


@pytest.mark.parametrize("suffix", ["csv", "parquet", "json", "jsonl"])
def test_a_query_is_written_to_a_file(balkit: Balkit, pool: str, tmp_path: Path, suffix: str) -> None:
    query = "SELECT domain, train FROM coverage ORDER BY domain"
    assert balkit("sql", pool, query, "--out", f"rows.{suffix}")[0] == 0
    file = tmp_path / f"rows.{suffix}"
    readers = {"csv": pl.read_csv, "parquet": pl.read_parquet, "json": pl.read_json, "jsonl": pl.read_ndjson}
    assert readers[suffix](file).rows() == [("bird", 6), ("fruit", 12), ("tool", 8)]


def test_a_query_that_fits_no_file_leaves_none(balkit: Balkit, pool: str, tmp_path: Path) -> None:
    before = sorted(tmp_path.iterdir())
    for query, name in (("SELECT 1", "rows.txt"), ("SELECT [1, 2] AS list", "rows.csv"), ("SELEC", "rows.json")):
        code, _, err = balkit("sql", pool, query, "--out", name)
        assert (code, "balkit: " in err, "Traceback" in err) == (1, True, False)
    assert sorted(tmp_path.iterdir()) == before


def test_json_has_no_nan(balkit: Balkit, pool: str) -> None:
    code, out, _ = balkit("sql", pool, "SELECT 'nan'::DOUBLE AS n, ['inf'::DOUBLE, 1.5] AS m", "--json")
    assert (code, json.loads(out)) == (0, [{"n": None, "m": [None, 1.5]}])


def test_a_query_that_is_no_text_is_refused(balkit: Balkit, pool: str) -> None:
    code, _, err = balkit("sql", pool, "SELECT '\udcff'")
    assert (code, "character 8 of the query is not text" in err) == (1, True)


def test_examples_are_written_alone_and_shown(balkit: Balkit, pool: str, tmp_path: Path) -> None:
    things = ("one robin, a swan and 9 of finch", "one crow, a gull and 4 of stork", "one eagle, a heron and 7 of crow")
    prompts = [f"Box {n} holds {three}. What are they?" for n, three in enumerate(things)]
    replies = [{"purpose": "synthesis", "domain": "bird", "prompt": one, "answer": "bird"} for one in prompts]
    replies += [{"purpose": "rationale", "prompt": one, "text": "Birds.\nAnswer: bird"} for one in prompts]
    write_jsonl(tmp_path / "replies.jsonl", replies)
    code, out, _ = balkit("synthesize", pool, "recipe.yaml", "--domain", "bird", "--rows", "2", "--json")
    found = json.loads(out)
    assert (code, len(found["kept"])) == (0, 2)
    assert {row["domain"] for row in found["kept"]} == {"bird"}
    assert all(row["rationale"] == "Birds.\nAnswer: bird" for row in found["kept"])
    code, _, err = balkit("synthesize", pool, "recipe.yaml", "--domain", "brid")
    assert (code, "is called brid; there are: bird, fruit, tool" in err) == (1, True)
    asked = ("score", pool, "base", "--recipe", "recipe.yaml", "--answers", "reference", "--score", "loss", "--json")
    rows = json.loads(balkit(*asked, "--domain", "bird", "--written")[1])
    assert [(row["origin"], row["rows"], row["unscored"]) for row in rows] == [("source", 6, 0), ("synthetic", 2, 0)]


def test_a_run_of_which_no_row_came_says_why_and_exits_with_1(balkit: Balkit, pool: str, tmp_path: Path) -> None:
    (tmp_path / "replies.jsonl").write_text("")
    for how in (["--no-train", "--quiet"], ["--no-train", "--json"], ["--quiet"]):
        code, _, err = balkit("run", pool, "recipe.yaml", *how)
        assert code == 1, how
        assert "no row came of it; refused: " in err
        assert "call_failed" in err


@pytest.mark.long
def test_what_came_into_eval_later_is_told_when_a_snapshot_is_exported(
    balkit: Balkit, pool: str, tmp_path: Path
) -> None:
    assert balkit("run", pool, "recipe.yaml", "--no-train", "--quiet")[0] == 0
    code, out, _ = balkit("sql", pool, "SELECT prompt FROM snapshot_rows JOIN examples USING (example_id)", "--json")
    leak = json.loads(out)[0]["prompt"].upper()
    write_jsonl(tmp_path / "more.jsonl", [{"question": leak, "answer": "fruit", "topic": "fruit"}])
    columns = ("--prompt", "question", "--answer", "answer", "--domain", "topic", "--split", "eval")
    assert balkit("add", pool, "more.jsonl", *columns)[0] == 0
    code, _, err = balkit("export", pool, "latest", "--to", "trl", "--out", "exports")
    assert (code, "1 rows could not enter a snapshot now (its prompt stands in the eval split)" in err) == (0, True)


@pytest.mark.long
def test_ctrl_c_leaves_a_run_that_goes_on(balkit: Balkit, pool: str, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "balkit", "run", pool, "recipe.yaml"]
    with subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE, text=True, env=dict(os.environ)) as process:
        assert process.stderr is not None
        for line in process.stderr:
            if " train " in line:
                break
        time.sleep(0.2)
        process.send_signal(signal.SIGINT)
        rest = process.stderr.read()
        code = process.wait(timeout=60)
    # CPython ends by the signal itself where it came while a string was being executed, as imports do; a shell says 130
    assert code in (130, -signal.SIGINT), rest
    assert "the same command goes on" in rest
    assert "Traceback" not in rest
    code, out, _ = balkit("run", pool, "recipe.yaml", "--json")
    assert (code, json.loads(out)["stages"][-1]["rows"]) == (0, 12)
