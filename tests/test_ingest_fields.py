"""What of a row becomes prompt, answer and domain: templates, chats and expressions, in sources of every kind."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pytest
from once import copied

from balkit.cli import main
from balkit.errors import IngestError
from balkit.pool import Pool

Rows = list[dict[str, Any]]
Make = Callable[[Path, Rows], Any]


@pytest.fixture
def pool(tmp_path: Path) -> Pool:
    return copied(Pool.create, tmp_path / "pool")


def jsonl(path: Path, rows: Rows) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def as_jsonl(folder: Path, rows: Rows) -> Path:
    return jsonl(folder / "x.jsonl", rows)


def as_csv(folder: Path, rows: Rows) -> Path:
    pl.DataFrame(rows).write_csv(folder / "x.csv")
    return folder / "x.csv"


def as_parquet(folder: Path, rows: Rows) -> Path:
    pl.DataFrame(rows, infer_schema_length=None).write_parquet(folder / "x.parquet")
    return folder / "x.parquet"


def as_arrow(folder: Path, rows: Rows) -> Path:
    pl.DataFrame(rows, infer_schema_length=None).write_ipc(folder / "x.arrow")
    return folder / "x.arrow"


def as_frame(folder: Path, rows: Rows) -> pl.DataFrame:
    return pl.DataFrame(rows, infer_schema_length=None)


def as_lazy(folder: Path, rows: Rows) -> pl.LazyFrame:
    return as_frame(folder, rows).lazy()


def as_table(folder: Path, rows: Rows) -> pa.Table:
    return pa.Table.from_pylist(rows)


def as_pandas(folder: Path, rows: Rows) -> Any:
    return pytest.importorskip("pandas").DataFrame(rows)


def as_dataset(folder: Path, rows: Rows) -> Any:
    return pytest.importorskip("datasets").Dataset.from_list(rows)


def as_saved(folder: Path, rows: Rows) -> Path:
    as_dataset(folder, rows).save_to_disk(str(folder / "saved"))
    return folder / "saved"


def as_hub(folder: Path, rows: Rows) -> str:
    (folder / "hub").mkdir()
    pl.DataFrame(rows, infer_schema_length=None).write_parquet(folder / "hub" / "train.parquet")
    return f"hf:{folder / 'hub'}"


NESTED: list[Make] = [as_jsonl, as_parquet, as_arrow, as_frame, as_lazy, as_table, as_dataset, as_saved, as_hub]
ALL: list[Make] = [*NESTED, as_csv, as_pandas]


def stored(pool: Pool) -> set[tuple[str, str | None, str]]:
    return set(pool.examples().select("prompt", "reference", "domain").iter_rows())


def problems(pool: Pool, source: Any, **columns: Any) -> list[str]:
    """The problems of a source that must not enter."""
    before = pool.version
    with pytest.raises(IngestError) as caught:
        pool.add(source, **{"answer": None, "domain_is": "d"} | columns)
    assert pool.version == before
    return caught.value.problems


# Templates


@pytest.mark.parametrize("make", ALL)
def test_a_template_puts_columns_together(pool: Pool, tmp_path: Path, make: Make) -> None:
    source = make(tmp_path, [{"q": "2+2?", "hint": "add", "n": 4}, {"q": "3+3?", "hint": None, "n": 6}])
    pool.add(source, prompt="{q}\n({hint}) {{x}}", answer="= {n}", domain="d{n}")
    assert stored(pool) == {("2+2?\n(add) {x}", "= 4", "d4"), ("3+3?\n() {x}", "= 6", "d6")}
    assert pool.check() == []


@pytest.mark.parametrize("make", NESTED)
def test_a_template_holds_paths_into_lists_and_objects(pool: Pool, tmp_path: Path, make: Make) -> None:
    source = make(tmp_path, [{"q": "Which?", "options": ["red", "blue"], "meta": {"topic": "hues"}}])
    pool.add(source, prompt="{q} {options.0} or {options.1}", answer="options.1", domain="{meta.topic}!")
    assert stored(pool) == {("Which? red or blue", "blue", "hues!")}


@pytest.mark.parametrize("make", ALL)
def test_a_column_that_a_template_lacks_is_named(pool: Pool, tmp_path: Path, make: Make) -> None:
    source = make(tmp_path, [{"question": "2+2?", "n": 4}])
    found = problems(pool, source, prompt="{qestion} {nothing.0}")
    assert "no column 'qestion'; did you mean 'question'? (it has: question, n)" in found[0]
    assert "no column 'nothing.0' (it has: question, n)" in found[1]


@pytest.mark.parametrize("text", ["{a", "a}", "{}", "{a!r}", "{a:>10}", "{{a}}"])
def test_a_bad_template_is_refused_before_anything_is_read(pool: Pool, tmp_path: Path, text: str) -> None:
    (said,) = problems(pool, tmp_path / "nowhere.jsonl", prompt=text)
    assert said.startswith(f"prompt {text!r}: ")


@pytest.mark.parametrize("make", [as_jsonl, as_parquet])
def test_a_list_in_a_template_is_no_text(pool: Pool, tmp_path: Path, make: Make) -> None:
    (said,) = problems(pool, make(tmp_path, [{"q": "x", "l": ["y"]}]), prompt="{q} {l}")
    assert "'l' is " in said


# Chats


def turns(*said: tuple[str, Any], keys: tuple[str, str] = ("role", "content"), **more: Any) -> Rows:
    return [dict(zip(keys, turn, strict=True)) | more for turn in said]


ONE = [("system", "Be brief."), ("user", "2+2?"), ("assistant", "4")]
TWO = [("user", "2+2?"), ("assistant", "4"), ("user", "And 3+3?"), ("assistant", "6")]
OPEN = [("user", "Why?")]
CHATS = [
    (ONE, ("Be brief.\n\n2+2?", "4", "d")),
    (TWO, ("User: 2+2?\n\nAssistant: 4\n\nUser: And 3+3?", "6", "d")),
    (OPEN, ("Why?", None, "d")),
]


@pytest.mark.parametrize("make", NESTED)
def test_chat_turns_give_prompt_and_answer(pool: Pool, tmp_path: Path, make: Make) -> None:
    rows = [{"messages": turns(*said, name=None, tool_calls=None)} for said, _ in CHATS]
    pool.add(make(tmp_path, rows), prompt="messages", answer="messages", domain_is="d")
    assert stored(pool) == {expected for _, expected in CHATS}


@pytest.mark.parametrize("make", NESTED)
def test_sharegpt_turns_are_chat_turns(pool: Pool, tmp_path: Path, make: Make) -> None:
    said = turns(("developer", "Be brief."), ("Human", "2+2?"), ("gpt", "4"), keys=("from", "value"))
    pool.add(make(tmp_path, [{"conversations": said}]), prompt="conversations", answer="conversations", domain_is="d")
    assert stored(pool) == {CHATS[0][1]}


def test_the_last_answer_is_not_in_the_prompt_though_no_answer_is_taken(pool: Pool, tmp_path: Path) -> None:
    pool.add(as_jsonl(tmp_path, [{"m": turns(*TWO)}]), prompt="m", answer=None, domain_is="d")
    assert "6" not in pool.examples()["prompt"][0]


@pytest.mark.parametrize("make", [as_jsonl, as_parquet])
def test_a_turns_content_may_be_parts_of_text(pool: Pool, tmp_path: Path, make: Make) -> None:
    parts = [{"type": "text", "text": "one", "image_url": None}, {"type": "text", "text": "two", "image_url": None}]
    pool.add(make(tmp_path, [{"m": turns(("user", parts))}]), prompt="m", answer="m", domain_is="d")
    assert stored(pool) == {("one\ntwo", None, "d")}


CALL = {"role": "assistant", "tool_calls": [{"id": "1"}]}
NO_CHATS: list[tuple[Rows, str]] = [
    (turns(("user", "x"), ("tool", "y")), "turn 1 is by 'tool'"),
    (turns(("assistant", "x")), "no user asks"),
    (turns(("user", " "), ("assistant", "x")), "no user asks"),
    (turns(("user", None)), "turn 0 has a content that is no text"),
    (turns(("user", "x"), ("assistant", None), tool_calls=[{"id": "1"}]), "calls a tool"),
    (turns(("user", [{"type": "image", "text": "", "url": "http://x"}])), "turn 0 has a content that is no text"),
]


@pytest.mark.parametrize("make", [as_jsonl, as_parquet])
@pytest.mark.parametrize(("chat", "problem"), NO_CHATS)
def test_a_conversation_that_is_no_text_is_a_problem_of_its_row(
    pool: Pool, tmp_path: Path, make: Make, chat: Rows, problem: str
) -> None:
    source = make(tmp_path, [{"m": chat}])
    found = problems(pool, source, prompt="m", answer="m")
    assert len(found) == 1
    assert found[0].startswith((f"{source} line 1: 'm' is a conversation", f"{source} row 0: 'm' is a conversation"))
    assert problem in found[0]


def test_a_call_of_a_tool_without_content_is_named(pool: Pool, tmp_path: Path) -> None:
    (said,) = problems(pool, as_jsonl(tmp_path, [{"m": [*turns(("user", "x")), CALL]}]), prompt="m")
    assert "line 1: 'm' is a conversation whose turn 1 calls a tool" in said


# Expressions


@pytest.mark.parametrize("make", ALL)
def test_an_expression_gives_the_domain(pool: Pool, tmp_path: Path, make: Make) -> None:
    source = make(tmp_path, [{"q": "easy?", "level": 1}, {"q": "hard?", "level": 5}])
    pool.add(source, prompt="q", answer=None, domain_sql="CASE WHEN level::INT > 3 THEN 'hard' ELSE 'easy' END")
    assert stored(pool) == {("easy?", None, "easy"), ("hard?", None, "hard")}


@pytest.mark.parametrize("make", NESTED)
def test_an_expression_reads_nested_fields(pool: Pool, tmp_path: Path, make: Make) -> None:
    source = make(tmp_path, [{"q": "x", "meta": {"topic": "sums", "sub": {"topic": "of two"}}}])
    sql = "meta->>'topic' || ' ' || (meta->'sub'->>'topic') || ' ' || json_extract_string(meta, '$.topic')"
    pool.add(source, prompt="q", answer=None, domain_sql=sql)
    assert stored(pool) == {("x", None, "sums of two sums")}


def test_a_lambdas_parameter_is_no_column(pool: Pool) -> None:
    frame = pl.DataFrame({"q": ["x"], "l": [["b", "a"]]})
    pool.add(frame, prompt="q", answer=None, domain_sql="list_transform(l, lambda x: upper(x))[1] || q")
    assert stored(pool) == {("x", None, "Bx")}


@pytest.mark.parametrize("make", ALL)
def test_a_row_in_which_the_expression_fails_is_named(pool: Pool, tmp_path: Path, make: Make) -> None:
    source = make(tmp_path, [{"q": "x", "level": "1"}, {"q": "y", "level": "high"}])
    (said,) = problems(pool, source, prompt="q", domain_is=None, domain_sql="'level ' || level::INT")
    line = "line 2" if make is as_jsonl else "line 3" if make is as_csv else "row 1"
    assert f"{line}: the domain " in said
    assert "fails there" in said


@pytest.mark.parametrize(
    "sql",
    [
        "max(q)",
        "count(*)",
        "row_number() OVER ()",
        "(SELECT 1)",
        "(SELECT content FROM read_text('/etc/passwd'))",
        "q FROM read_text('/etc/passwd')",
        "q) FROM read_text('/etc/passwd') WHERE (true",
        "q; DROP TABLE rows",
        "'x'",
        "now()",
        "COLUMNS(*)",
        "#1",
        "$1",
        "ATTACH 'x'",
        "COPY rows TO 'x'",
        "q +",
        "",
    ],
)
def test_what_is_no_expression_over_one_row_is_refused_before_anything_is_read(pool: Pool, sql: str) -> None:
    (said,) = problems(pool, "nowhere.jsonl", prompt="q", domain_is=None, domain_sql=sql)
    assert said.startswith(f"domain_sql {sql!r}: is no ")


@pytest.mark.parametrize("make", ALL)
def test_a_column_that_an_expression_lacks_is_named(pool: Pool, tmp_path: Path, make: Make) -> None:
    source = make(tmp_path, [{"q": "x", "level": 1}])
    (said,) = problems(pool, source, prompt="q", domain_is=None, domain_sql="lower(levle)")
    assert said.endswith("no column 'levle'; did you mean 'level'? (it has: q, level)")


def test_an_expression_reaches_no_file(pool: Pool, tmp_path: Path) -> None:
    source = as_jsonl(tmp_path, [{"q": "/etc/passwd"}])
    (said,) = problems(pool, source, prompt="q", domain_is=None, domain_sql="read_text(q)")
    assert "Binder Error" in said
    assert "root:" not in said


# Folders and names of data sets


def test_a_saved_dataset_keeps_its_choice_of_rows(pool: Pool, tmp_path: Path) -> None:
    chosen = as_dataset(tmp_path, [{"q": f"{i}?", "n": i} for i in range(10)]).filter(lambda row: row["n"] % 3 == 0)
    chosen.select([2, 1]).save_to_disk(str(tmp_path / "saved"))
    pool.add([tmp_path / "saved", chosen], prompt="q", answer="n", domain_is="d")
    assert stored(pool) == {(f"{i}?", str(i), "d") for i in (0, 3, 6, 9)}


def test_a_folder_of_several_splits_says_to_name_one(pool: Pool, tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    both = datasets.DatasetDict({name: as_dataset(tmp_path, [{"q": name}]) for name in ("train", "test")})
    both.save_to_disk(str(tmp_path / "both"))
    (said,) = problems(pool, tmp_path / "both", prompt="q")
    assert said.endswith(f"several splits; name one: {tmp_path / 'both' / 'test'}, {tmp_path / 'both' / 'train'}")
    assert problems(pool, both, prompt="q") == ["frame: holds the splits train, test; name one: ['train']"]
    pool.add(tmp_path / "both" / "test", prompt="q", answer=None, domain_is="d")
    assert stored(pool) == {("test", None, "d")}


@pytest.mark.parametrize("make", [as_jsonl, as_parquet])
def test_a_name_of_the_hub_may_name_its_split(pool: Pool, tmp_path: Path, make: Make) -> None:
    (tmp_path / "hub").mkdir()
    for split in ("train", "test"):
        path = make(tmp_path / "hub", [{"q": f"of {split}"}])
        path.rename(path.with_stem(split))
    name = f"hf:{tmp_path / 'hub'}"
    (said,) = problems(pool, name, prompt="q")
    assert said == f"{name}: holds the splits train, test; name one: {name}@train"
    assert "nosplit" in problems(pool, f"{name}@nosplit", prompt="q")[0]
    pool.add(f"{name}@test", prompt="q", answer=None, domain_is="d")
    assert stored(pool) == {("of test", None, "d")}


def test_a_dataset_that_cannot_be_loaded_says_so(pool: Pool, tmp_path: Path) -> None:
    (said,) = problems(pool, f"hf:{tmp_path / 'nowhere'}", prompt="q")
    assert said.startswith(f"hf:{tmp_path / 'nowhere'}: not a data set that can be loaded: ")
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "state.json").write_text("{")
    (said,) = problems(pool, tmp_path / "broken", prompt="q")
    assert said.startswith(f"{tmp_path / 'broken'}: not a folder of datasets: ")


def test_without_datasets_the_message_says_how_to_get_it(
    pool: Pool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    saved = as_saved(tmp_path, [{"q": "x"}])
    monkeypatch.setitem(sys.modules, "datasets", None)
    for source in ("hf:owner/name@train", saved):
        (said,) = problems(pool, source, prompt="q")
        assert said == f"{source}: datasets is needed here and is not installed: pip install 'balkit[datasets]'"


# Frames of other libraries


def test_whatever_gives_an_arrow_stream_is_a_frame(pool: Pool, tmp_path: Path) -> None:
    import duckdb

    table = pa.table({"q": ["x", "y"], "unread": [1, 2]})
    sources = [table.to_reader(), table.to_batches()[0], duckdb.sql("SELECT 'z' AS q"), pl.Series([{"q": "s"}])]
    pool.add(sources, prompt="q", answer=None, domain_is="d")
    assert stored(pool) == {(text, None, "d") for text in "xyzs"}


def test_what_a_library_says_of_its_frame_is_a_problem(pool: Pool, tmp_path: Path) -> None:
    lazy = pl.scan_parquet(tmp_path / "nowhere.parquet")
    late = pl.LazyFrame({"q": ["1", "x"]}).with_columns(pl.col("q").cast(pl.Int64))
    mixed = pytest.importorskip("pandas").DataFrame({"q": ["x", 1]})
    for source in (lazy, late, mixed):
        (said,) = problems(pool, source, prompt="q")
        assert said.startswith("frame: not a frame")


def test_an_iterable_dataset_is_a_frame(pool: Pool, tmp_path: Path) -> None:
    stream = pytest.importorskip("datasets").IterableDataset.from_generator(lambda: iter([{"q": "x"}, {"q": "y"}]))
    pool.add(stream, prompt="q", answer=None, domain_is="d")
    assert stored(pool) == {("x", None, "d"), ("y", None, "d")}
    assert "no column 'p'" in problems(pool, stream, prompt="p")[0]


# Sources of several pieces


def many(n: int, **odd: str) -> Rows:
    """Rows with the prompts 0 to n - 1; `odd` gives another one, by its row as `row_N`."""
    rows: Rows = [{"q": str(i), "s": "d"} for i in range(n)]
    for row, text in odd.items():
        rows[int(row.removeprefix("row_"))]["q"] = text
    return rows


@pytest.mark.parametrize("make", [as_jsonl, as_csv, as_parquet, as_lazy, as_table, as_dataset])
def test_a_row_far_down_is_named_rightly(pool: Pool, tmp_path: Path, make: Make) -> None:
    (said,) = problems(pool, make(tmp_path, many(46_000, row_45000=" ")), prompt="q")
    place = {as_jsonl: "line 45001", as_csv: "line 45002"}.get(make, "row 45000")
    assert said.endswith(f"{place}: the prompt ('q') is empty")


def test_a_column_that_no_row_of_a_large_file_has_is_one_problem(pool: Pool, tmp_path: Path) -> None:
    source = as_jsonl(tmp_path, many(25_000))
    for columns in ({"prompt": "p"}, {"prompt": "q", "domain_is": None, "domain_sql": "p"}):
        (said,) = problems(pool, source, **columns)
        assert "no column 'p'" in said


def test_a_column_may_first_appear_far_down(pool: Pool, tmp_path: Path) -> None:
    rows = many(31_000)
    rows[30_000]["late"] = "far"
    source = as_jsonl(tmp_path, rows)
    report = pool.add(source, prompt="q", answer=None, domain_sql="coalesce(late, s)")
    assert (report.new, report.domains) == (31_000, 2)
    with pytest.raises(IngestError) as caught:
        pool.add(source, prompt="q", answer="late", domain_is="d")
    assert (caught.value.total, len(caught.value.problems)) == (30_999, 1000)
    assert caught.value.problems[0] == f"{source} line 1: no key 'late' (it has: q, s)"


def test_repeats_and_contradictions_are_seen_across_pieces_and_files(pool: Pool, tmp_path: Path) -> None:
    first = jsonl(tmp_path / "x.jsonl", many(30_000, row_25000="7"))
    second = jsonl(tmp_path / "y.jsonl", [{"q": "7", "s": "d"}])
    report = pool.add([first, second], prompt="q", answer=None, domain="s")
    assert (report.rows, report.new, report.duplicate) == (30_001, 29_999, 2)
    rows = many(25_000)
    rows.append({"q": "8", "s": "e"})
    first, other = jsonl(first, rows), jsonl(second, [{"q": "9", "s": "f"}])
    here = "the same prompt and answer as"
    assert problems(Pool.create(tmp_path / "other"), [first, other], prompt="q", domain="s", domain_is=None) == [
        f"{first} line 25001: {here} {first} line 9, there with domain 'd', here with 'e'",
        f"{other} line 1: {here} {first} line 10, there with domain 'd', here with 'f'",
    ]


@pytest.mark.long
def test_all_rows_again_are_all_duplicates(pool: Pool) -> None:
    frame = pl.DataFrame(many(70_000))
    assert pool.add(frame, prompt="q", answer=None, domain="s").new == 70_000
    assert pool.add(frame, prompt="q", answer=None, domain="s").duplicate == 70_000


def test_each_of_many_bad_rows_is_named(pool: Pool, tmp_path: Path) -> None:
    file = tmp_path / "x.jsonl"
    file.write_text("{broken\n" * 30_000 + '{"q": "x"}\n')
    report = pool.add(file, prompt="q", answer=None, domain_is="d", skip_bad=tmp_path / "bad.txt")
    assert (report.new, report.skipped, len(report.problems)) == (1, 30_000, 50)
    named = (tmp_path / "bad.txt").read_text().splitlines()
    assert [line.split(": ")[0] for line in named] == [f"{file} line {n}" for n in range(1, 30_001)]


def test_problems_before_the_place_where_a_file_breaks_are_reported_too(pool: Pool, tmp_path: Path) -> None:
    (tmp_path / "x.jsonl").write_bytes(b'{"q": ""}\n{"q": 1\n{"q": "caf\xe9"}\n')
    (tmp_path / "x.csv").write_bytes(b"q,r\n,1\none\ncaf\xe9,1\n")
    for file, places in ((tmp_path / "x.jsonl", (2, 1, 3)), (tmp_path / "x.csv", (3, 2, 4))):
        found = problems(pool, file, prompt="q")
        assert [said.split(": ")[0] for said in found] == [f"{file} line {n}" for n in places]


def test_a_problem_of_a_file_is_named_after_thousands_of_rows(pool: Pool, tmp_path: Path) -> None:
    (tmp_path / "x.jsonl").write_text("{broken\n" * 3000)
    sources = [tmp_path / "x.jsonl", tmp_path / "none.jsonl"]
    assert problems(pool, sources, prompt="q")[-1] == f"{sources[1]}: no such file"
    assert problems(pool, sources, prompt="q", skip_bad=tmp_path / "bad.txt") == [f"{sources[1]}: no such file"]
    assert not list(tmp_path.glob("*bad.txt*"))


# Dry runs


@pytest.mark.parametrize("make", ALL)
def test_a_dry_run_counts_what_is_good_and_names_what_is_not(pool: Pool, tmp_path: Path, make: Make) -> None:
    pool.add(pl.DataFrame({"q": ["old"]}), prompt="q", answer=None, domain_is="d")
    source = make(tmp_path, [{"q": text, "n": 1} for text in ("new", "old", " ", "new")])
    report = pool.add(source, prompt="q", answer=None, domain_is="d", dry_run=True)
    assert (report.rows, report.new, report.duplicate, report.skipped) == (3, 1, 2, 1)
    assert report.problems[0].endswith("the prompt ('q') is empty")
    assert pool.version == 1


Balkit = Callable[..., tuple[int, str]]


@pytest.fixture
def balkit(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Balkit:
    """Runs `balkit` in `tmp_path`; returns its exit code and what it printed."""

    def run(*arguments: str) -> tuple[int, str]:
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(sys, "argv", ["balkit", *arguments])
        with pytest.raises(SystemExit) as ended:
            main()
        printed = capsys.readouterr()
        return int(ended.value.code or 0), printed.out + printed.err

    return run


def test_the_dry_run_command_prints_counts_and_problems_and_fails(balkit: Balkit, tmp_path: Path) -> None:
    as_jsonl(tmp_path, [{"q": text} for text in ("x", "y", *[" "] * 60)])
    add = ("add", "pool", "x.jsonl", "--prompt", "q", "--domain-is", "d")
    code, said = balkit(*add, "--dry-run")
    assert (code, "nothing was stored: 2 new of 2 rows" in said, "60 problems" in said) == (1, True, True)
    assert ("x.jsonl line 3: the prompt ('q') is empty" in said, "... and 10 more" in said) == (True, True)
    assert not (tmp_path / "pool").exists()
    assert balkit(*add, "--dry-run", "--skip-bad", "bad.txt")[0] == 0
    assert balkit(*add)[0] == 1


def test_the_command_takes_expressions_and_names_of_the_hub(balkit: Balkit, tmp_path: Path) -> None:
    name = as_hub(tmp_path, [{"q": "x", "n": 1}]).replace("/hub", "//hub")
    code, said = balkit("add", "pool", name, "--prompt", "{q}?", "--domain-sql", "'n' || n")
    assert (code, "1 new of 1 rows" in said) == (0, True), said
    code, said = balkit("add", "pool", f"{name}@none", "--prompt", "q", "--domain-is", "d")
    assert (code, f"{name}@none" in said) == (1, True)


# What is left behind, and what it costs


def test_an_interrupt_leaves_nothing_behind(pool: Pool, tmp_path: Path) -> None:
    def rows() -> Any:
        yield pa.record_batch({"q": ["", "x"]})
        raise KeyboardInterrupt

    class Stream:
        def __arrow_c_stream__(self, requested_schema: object = None) -> object:
            reader = pa.RecordBatchReader.from_batches(pa.schema({"q": pa.string()}), rows())
            return reader.__arrow_c_stream__(requested_schema)

    before = sorted(pool.path.iterdir())
    with pytest.raises((KeyboardInterrupt, IngestError)):
        pool.add(Stream(), prompt="q", answer=None, domain_is="d", skip_bad=tmp_path / "bad.txt")
    assert sorted(pool.path.iterdir()) == before
    assert not list(tmp_path.glob("*bad.txt*"))


def test_what_a_killed_process_left_is_removed(pool: Pool) -> None:
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    for pid in (ended.pid, os.getpid()):
        (pool.path / f".staging.x.{pid}").mkdir()
    pool.add(pl.DataFrame({"q": ["x"]}), prompt="q", answer=None, domain_is="d")
    assert [path.name for path in pool.path.glob(".staging.*")] == [f".staging.x.{os.getpid()}"]


ADDING = """
import re, sys
from pathlib import Path
from balkit.pool import Pool
Pool.create(sys.argv[1]).add(sys.argv[2], prompt="q", answer="a", domain="s")
print(int(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1]) // 1024)
"""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="no peak of a process that a parent has no part in")
def test_memory_does_not_grow_with_the_file(tmp_path: Path) -> None:
    peaks_mb = []
    for n in (70_000, 200_000):  # both fill a block of what is stored together
        rows = [{"q": f"{i} {'word ' * 40}", "a": str(i), "s": str(i % 7)} for i in range(n)]
        file = jsonl(tmp_path / f"{n}.jsonl", rows)
        command = [sys.executable, "-c", ADDING, str(tmp_path / f"pool-{n}"), str(file)]
        peaks_mb.append(int(subprocess.run(command, capture_output=True, text=True, check=True).stdout))
    assert peaks_mb[1] < peaks_mb[0] + 200, peaks_mb
