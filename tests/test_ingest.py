"""What enters a pool, in which form, and what is said of rows that cannot."""

from __future__ import annotations

import json
import time
import unicodedata
from datetime import timedelta
from pathlib import Path

import polars as pl
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from once import copied
from pool_rows import add

from balkit import texts
from balkit.errors import IngestError
from balkit.pool import AddReport, Pool

GOOD = [
    {"q": "What is 2 + 2?", "a": 4, "subject": "sums"},
    {"q": "Is 7 a prime?", "a": True, "subject": "primes"},
]


@pytest.fixture
def pool(tmp_path: Path) -> Pool:
    return copied(Pool.create, tmp_path / "pool")


def jsonl(path: Path, rows: list[dict[str, object]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def take(pool: Pool, source: object, *, split: str = "train") -> AddReport:
    return pool.add(source, prompt="q", answer="a", domain="subject", split=split)  # type: ignore[arg-type]


def problems(pool: Pool, source: object) -> list[str]:
    """The problems of a source that must not enter."""
    before = pool.version
    with pytest.raises(IngestError) as caught:
        take(pool, source)
    assert pool.version == before
    return caught.value.problems


def stored(pool: Pool) -> dict[str, tuple[str | None, str]]:
    return {row[0]: row[1:] for row in pool.examples().select("prompt", "reference", "domain").iter_rows()}


def says_something(prompt: str) -> bool:
    """Whether anything in a prompt can be seen."""
    return any(not unicodedata.category(c).startswith(("Z", "Cc", "Cf")) for c in prompt)


EXPECTED = {"What is 2 + 2?": ("4", "sums"), "Is 7 a prime?": ("true", "primes")}


def test_jsonl_rows_become_examples(pool: Pool, tmp_path: Path) -> None:
    report = take(pool, jsonl(tmp_path / "x.jsonl", GOOD))
    assert report == AddReport(version=1, rows=2, new=2, duplicate=0, leaks=0, without_answer=0, domains=2)
    assert stored(pool) == EXPECTED
    assert pool.check() == []


@pytest.mark.parametrize(("suffix", "separator"), [("csv", ","), ("tsv", "\t")])
def test_csv_and_tsv_rows_become_examples(pool: Pool, tmp_path: Path, suffix: str, separator: str) -> None:
    frame = pl.DataFrame({"subject": ["sums", "primes"], "a": ["4", "true"], "q": [row["q"] for row in GOOD]})
    frame.write_csv(tmp_path / f"x.{suffix}", separator=separator)
    take(pool, tmp_path / f"x.{suffix}")
    assert stored(pool) == EXPECTED


def test_parquet_and_frames_are_read_with_their_types(pool: Pool, tmp_path: Path) -> None:
    frame = pl.DataFrame({"q": ["one", "two", "three"], "a": [1, 2, None], "subject": [10, 20, 30]})
    frame.write_parquet(tmp_path / "x.parquet")
    assert take(pool, tmp_path / "x.parquet").without_answer == 1
    assert stored(pool) == {"one": ("1", "10"), "two": ("2", "20"), "three": (None, "30")}
    assert take(pool, frame).duplicate == 3


def test_categories_are_text(pool: Pool) -> None:
    frame = pl.DataFrame({"q": ["one"], "a": ["4"], "subject": ["sums"]}, schema_overrides={"subject": pl.Categorical})
    take(pool, frame)
    assert stored(pool) == {"one": ("4", "sums")}


def test_numbers_are_stored_as_they_are_written(pool: Pool, tmp_path: Path) -> None:
    (tmp_path / "x.jsonl").write_text(
        '{"q": "price?", "a": 0.10, "subject": 7}\n{"q": "big?", "a": 1e3, "subject": 7}\n'
    )
    take(pool, tmp_path / "x.jsonl")
    assert stored(pool) == {"price?": ("0.10", "7"), "big?": ("1e3", "7")}


def test_several_files_enter_together(pool: Pool, tmp_path: Path) -> None:
    report = take(pool, [jsonl(tmp_path / "x.jsonl", GOOD[:1]), str(jsonl(tmp_path / "y.jsonl", GOOD))])
    assert (report.version, report.rows, report.new, report.duplicate) == (1, 3, 2, 1)


def test_rows_without_an_answer_column_have_no_reference(pool: Pool, tmp_path: Path) -> None:
    report = pool.add(jsonl(tmp_path / "x.jsonl", GOOD), prompt="q", answer=None, domain="subject")
    assert report.without_answer == 2
    assert set(pool.examples()["reference"]) == {None}


def test_one_column_may_be_answer_and_domain(pool: Pool) -> None:
    frame = pl.DataFrame({"q": ["oil rose"], "label": ["crude"]})
    pool.add(frame, prompt="q", answer="label", domain="label", message="R52")
    assert stored(pool) == {"oil rose": ("crude", "crude")}
    assert pool.log()["message"].to_list() == ["R52"]


def test_adding_the_same_file_again_changes_nothing(pool: Pool, tmp_path: Path) -> None:
    path = jsonl(tmp_path / "x.jsonl", GOOD)
    take(pool, path)
    again = take(pool, path)
    assert (again.version, again.new, again.duplicate) == (1, 0, 2)
    assert pool.log().height == 1


def test_spellings_of_one_prompt_are_one_example(pool: Pool) -> None:
    frame = pl.DataFrame({"q": ["caf\u00e9\nopen ", "cafe\u0301 \r\nopen"], "a": ["4"] * 2, "subject": ["x ", "x"]})
    assert take(pool, frame).duplicate == 1
    assert stored(pool) == {"café\nopen": ("4", "x")}


def test_another_answer_is_another_example(pool: Pool) -> None:
    report = take(pool, pl.DataFrame({"q": ["one", "one"], "a": ["4", "5"], "subject": ["x", "x"]}))
    assert (report.new, report.duplicate) == (2, 0)


def test_the_origin_is_what_the_caller_says(pool: Pool) -> None:
    frame = pl.DataFrame({"q": ["one"], "a": ["4"], "subject": ["x"]})
    pool.add(frame, prompt="q", answer="a", domain="subject", origin="synthetic")
    assert pool.coverage()["synthetic"].to_list() == [1]


@pytest.mark.parametrize("body", [b"\xef\xbb\xbf", b"\n\n", b""])
def test_a_file_may_begin_with_a_mark_or_blank_lines(pool: Pool, tmp_path: Path, body: bytes) -> None:
    lines = b'{"q": "one", "a": 1, "subject": "x"}\r\n\r\n  \n{"q": "two", "a": 2, "subject": "x"}'
    (tmp_path / "x.jsonl").write_bytes(body + lines)
    (tmp_path / "y.csv").write_bytes(body + b"q,a,subject\r\nthree,3,x\r\n\r\nfour,4,x\r\n")
    assert take(pool, [tmp_path / "x.jsonl", tmp_path / "y.csv"]).new == 4


def test_quoted_fields_hold_separators_line_ends_and_megabytes(pool: Pool, tmp_path: Path) -> None:
    long = "word, " * 50_000 + "end"
    frame = pl.DataFrame({"q": ['say "hi",\nthen go', long], "a": ["1", ""], "subject": ["x", "x"]})
    frame.write_csv(tmp_path / "x.csv")
    assert take(pool, tmp_path / "x.csv").without_answer == 1
    assert stored(pool) == {'say "hi",\nthen go': ("1", "x"), long: (None, "x")}


def test_a_line_separator_inside_a_text_ends_no_line(pool: Pool, tmp_path: Path) -> None:
    body = json.dumps({"q": "one\u2028two\u0000", "a": 1, "subject": "x"}, ensure_ascii=False)
    (tmp_path / "x.jsonl").write_text(body, encoding="utf-8")
    take(pool, tmp_path / "x.jsonl")
    assert list(stored(pool)) == ["one\u2028two\u0000"]


def test_a_misspelt_column_is_named_with_what_is_there(pool: Pool, tmp_path: Path) -> None:
    path = jsonl(tmp_path / "x.jsonl", [{"question": "one", "A": 1, "topic": "x"}])
    with pytest.raises(IngestError) as caught:
        pool.add(path, prompt="qestion", answer="a", domain="level")
    assert caught.value.problems == [
        f"{path}: no column 'qestion'; did you mean 'question'? (it has: question, A, topic)",
        f"{path}: no column 'a'; did you mean 'A'? (it has: question, A, topic)",
        f"{path}: no column 'level' (it has: question, A, topic)",
    ]


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_a_missing_column_is_named_in_every_kind_of_file(pool: Pool, tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"x.{suffix}"
    frame = pl.DataFrame({"q": ["one"], "a": ["1"]})
    getattr(frame, f"write_{suffix}")(path)
    assert problems(pool, path) == [f"{path}: no column 'subject' (it has: q, a)"]


def test_all_problems_of_all_files_are_reported_together(pool: Pool, tmp_path: Path) -> None:
    first, second = tmp_path / "x.jsonl", tmp_path / "y.csv"
    first.write_text(
        '{"q": "", "a": 1, "subject": "x"}\n'
        '{"q": "one", "a": NaN, "subject": "x"}\n'
        '{"q": "two", "a": 1\n'
        '{"q": "three", "a": 1}\n'
        '["four"]\n'
        '{"q": "five", "a": [1], "subject": null}\n'
        '{"q": "six", "a": 1, "subject": "  "}\n'
        '{"q": "\\ud800", "a": 1, "subject": "x"}\n'
        '{"q": "fine", "a": null, "subject": "x"}\n'
    )
    second.write_text('q,a,subject\none,1\n"two\nlines",2,x\nthree,3,x,4\nfour,4,\n')
    found = problems(pool, [first, second, tmp_path / "z.jsonl"])
    expected = [
        f"{first} line 2: 'a' is NaN",
        f"{first} line 3: not JSON: Expecting ',' delimiter at column",
        f"{first} line 4: no key 'subject' (it has: q, a)",
        f'{first} line 5: not a JSON object: ["four"]',
        f"{first} line 6: 'a' is a list",
        f"{first} line 8: 'q' holds half of a surrogate pair",
        f"{first} line 1: the prompt ('q') is empty",
        f"{first} line 7: the domain ('subject') is empty",
        f"{second} line 2: 2 fields, the header has 3",
        f"{second} line 5: 4 fields, the header has 3",
        f"{second} line 6: the domain ('subject') is empty",
        f"{tmp_path / 'z.jsonl'}: no such file",
    ]
    assert all(any(line.startswith(start) for line in found) for start in expected), found
    assert len(found) == len(expected)


@pytest.mark.parametrize("domain", ["sp\nace", "sp\race", "sp\tace", "sp\x07ace", "sp\u2028ace", "sp\x85ace"])
def test_a_domain_with_a_line_end_or_control_character_is_refused(pool: Pool, tmp_path: Path, domain: str) -> None:
    path = jsonl(tmp_path / "x.jsonl", [*GOOD, {"q": "Where?", "a": "there", "subject": domain}])
    (said,) = problems(pool, path)
    assert said.startswith(f"{path} line 3: the domain ('subject') ")
    assert said.isprintable()


def test_an_error_says_that_nothing_was_added(pool: Pool, tmp_path: Path) -> None:
    with pytest.raises(IngestError, match="nothing was added: 1 problem\n"):
        take(pool, tmp_path / "nowhere.jsonl")


@pytest.mark.parametrize(
    ("name", "body", "problem"),
    [
        ("x.jsonl", b"", "holds no rows"),
        ("x.csv", b"", "holds no rows"),
        ("x.csv", b"q,a,subject\n", "holds no rows"),
        ("x.jsonl", b'[{"q": 1}]', "is a JSON array"),
        ("x.jsonl", b'{"q": "caf\xe9"}\n', "line 1: not UTF-8 (byte 0xe9)"),
        ("x.csv", b"q,a,subject\nfine,1,x\ncaf\xe9,1,x\n", "line 3: not UTF-8"),
        ("x.csv", "q,a,subject\n".encode("utf-16"), "is UTF-16"),
        ("x.csv", b'q,a,subject\n"one,1,x\n', "unexpected end of data"),
        ("x.csv", b"q,a,subject,q\none,1,x,2\n", "column 'q' stands 2 times"),
        ("x.parquet", b"PAR1 not really", "not a Parquet file"),
        ("x.parquet", b"", "not a Parquet file"),
        ("x.txt", b"text", ".txt is not one of .jsonl"),
        ("x", b"text", "no suffix is not one of"),
    ],
)
def test_a_file_that_cannot_be_read_says_why(pool: Pool, tmp_path: Path, name: str, body: bytes, problem: str) -> None:
    (tmp_path / name).write_bytes(body)
    (found,) = problems(pool, tmp_path / name)
    assert found.startswith(str(tmp_path / name))
    assert problem in found


def test_a_folder_is_no_file(pool: Pool, tmp_path: Path) -> None:
    (tmp_path / "x.jsonl").mkdir()
    assert "is a folder" in problems(pool, tmp_path / "x.jsonl")[0]


def test_an_empty_frame_and_no_source_at_all_are_errors(pool: Pool) -> None:
    assert problems(pool, pl.DataFrame({"q": [], "a": [], "subject": []})) == ["frame: holds no rows"]
    assert problems(pool, []) == ["no file was given"]
    assert "not a path or a polars frame" in problems(pool, [7])[0]


def test_rows_of_a_frame_count_from_0(pool: Pool) -> None:
    frame = pl.DataFrame({"q": ["one", None], "a": [1.0, float("nan")], "subject": ["x", "y"]})
    assert problems(pool, frame)[0].startswith("frame row 1: 'a' is NaN")
    assert problems(pool, frame.with_columns(a=1)) == ["frame row 1: the prompt ('q') is empty"]


def test_a_nested_column_is_named_with_its_type(pool: Pool) -> None:
    frame = pl.DataFrame({"q": ["one"], "a": [[1, 2]], "subject": ["x"]})
    assert problems(pool, frame) == ["frame: column 'a' is List(Int64), not text, numbers or true/false"]


def test_an_unknown_split_is_refused(pool: Pool) -> None:
    with pytest.raises(IngestError, match="split 'test' is not one of train, dev, eval"):
        take(pool, pl.DataFrame({"q": ["one"], "a": ["1"], "subject": ["x"]}), split="test")


def test_one_example_with_two_domains_in_a_batch_is_refused(pool: Pool) -> None:
    frame = pl.DataFrame({"q": ["one", "two", "one"], "a": ["4"] * 3, "subject": ["x", "x", "y"]})
    assert problems(pool, frame) == [
        "frame row 2: the same prompt and answer as frame row 0, there with domain 'x', here with 'y'"
    ]


def test_an_example_of_the_pool_with_another_domain_or_split_is_refused(pool: Pool) -> None:
    add(pool, "one", domain="x")
    add(pool, "two", domain="x", split="dev")
    frame = pl.DataFrame({"q": ["new", "one", "two"], "a": ["4"] * 3, "subject": ["x", "y", "x"]})
    first, second = problems(pool, frame)
    assert "frame row 1: this prompt and answer are in the pool with domain 'x', here it is 'y'" in first
    assert "frame row 2: this prompt and answer are in the pool with split 'dev', here it is 'train'" in second


def test_train_prompts_that_stand_in_eval_are_counted(pool: Pool) -> None:
    add(pool, "What is a tin?", "Another", split="eval")
    frame = pl.DataFrame({"q": ["what is a TIN", "fine"], "a": ["5", "6"], "subject": ["a", "a"]})
    assert take(pool, frame).leaks == 1
    assert pool.coverage()["leaks"].to_list() == [1]


def test_train_prompts_that_new_eval_rows_repeat_are_counted(pool: Pool) -> None:
    add(pool, "What is a tin?", "Fine")
    frame = pl.DataFrame({"q": ["what is a TIN", "unseen"], "a": ["5", "6"], "subject": ["a", "a"]})
    assert take(pool, frame, split="eval").leaks == 1


def test_a_hundred_thousand_rows_take_seconds(pool: Pool) -> None:
    frame = pl.DataFrame({"q": [f"What is {i} + {i}?" for i in range(100_000)], "a": range(100_000)})
    begun = time.process_time()
    assert take(pool, frame.with_columns(subject=pl.col("a") % 7)).new == 100_000
    assert time.process_time() - begun < 20


@settings(max_examples=12, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(
        st.fixed_dictionaries(
            {
                "q": st.text(st.characters(codec="utf-8"), min_size=1, max_size=20).filter(says_something),
                "a": st.one_of(st.none(), st.text(st.characters(codec="utf-8"), max_size=5)),
            }
        ),
        min_size=1,
        max_size=6,
    )
)
@pytest.mark.long
def test_what_a_jsonl_file_says_is_what_the_pool_holds(tmp_path: Path, rows: list[dict[str, str | None]]) -> None:
    folder = tmp_path / texts.digest(rows)[:16]
    folder.mkdir(exist_ok=True)
    (folder / "x.jsonl").write_text("\n".join(json.dumps(row | {"subject": "x"}) for row in rows), encoding="utf-8")
    pool = Pool.create(folder / f"pool-{len(list(folder.iterdir()))}")
    take(pool, folder / "x.jsonl")
    expected = {(texts.canonical(row["q"] or ""), texts.canonical(row["a"] or "") or None) for row in rows}
    assert set(pool.examples().select("prompt", "reference").iter_rows()) == expected
    assert pool.check() == []


@pytest.mark.parametrize(("suffix", "packing"), [("gz", "gzip"), ("zst", "zstd")])
@pytest.mark.parametrize("kind", ["jsonl", "csv", "parquet", "arrow"])
def test_packed_files_are_read_as_the_others(pool: Pool, tmp_path: Path, kind: str, suffix: str, packing: str) -> None:
    plain, frame = tmp_path / f"x.{kind}", pl.DataFrame({"q": ["one", "two"], "a": ["1", "2"], "subject": ["s", "t"]})
    writers = {"jsonl": frame.write_ndjson, "csv": frame.write_csv, "parquet": frame.write_parquet}
    writers.get(kind, frame.write_ipc)(plain)
    packed = tmp_path / f"x.{kind}.{suffix}"
    with pa.output_stream(str(packed), compression=packing) as out:
        out.write(plain.read_bytes())
    assert take(pool, packed).new == 2
    assert stored(pool) == {"one": ("1", "s"), "two": ("2", "t")}
    assert take(pool, plain).duplicate == 2
    packed.write_bytes(packed.read_bytes()[:-9])
    (said,) = problems(pool, packed)
    assert said.startswith(f"{packed}: cannot be read: ")


def test_a_path_leads_into_nested_fields_of_every_kind_of_file(pool: Pool, tmp_path: Path) -> None:
    chat = [{"role": "user", "content": "What is 2 + 2?"}, {"role": "assistant", "content": "4"}]
    rows = [{"messages": chat, "meta": {"subject": "sums"}}]
    file, table = jsonl(tmp_path / "x.jsonl", rows), tmp_path / "x.parquet"
    pl.DataFrame(rows).write_parquet(table)
    for source in (file, table, pl.DataFrame(rows)):
        report = pool.add(source, prompt="messages.0.content", answer="messages.1.content", domain="meta.subject")
        assert report.rows == 1
    assert stored(pool) == {"What is 2 + 2?": ("4", "sums")}


def test_a_path_that_leads_nowhere_is_a_missing_column(pool: Pool, tmp_path: Path) -> None:
    file = jsonl(tmp_path / "x.jsonl", [{"m": {"q": "one"}, "d": "s"}, {"m": {}, "d": "s"}])
    with pytest.raises(IngestError) as caught:
        pool.add(file, prompt="m.question", answer=None, domain="d")
    assert caught.value.problems == [f"{file}: no column 'm.question' (it has: m, d)"]
    with pytest.raises(IngestError) as caught:
        pool.add(file, prompt="m.q", answer=None, domain="d")
    assert caught.value.problems == [f"{file} line 2: no key 'm.q' (it has: m, d)"]


def test_a_key_with_a_dot_in_it_is_a_key(pool: Pool, tmp_path: Path) -> None:
    file = jsonl(tmp_path / "x.jsonl", [{"m.q": "one", "m": {"q": "two"}, "d": "s"}])
    pool.add(file, prompt="m.q", answer=None, domain="d")
    assert stored(pool) == {"one": (None, "s")}


def test_one_domain_for_all_rows_and_never_two_ways_to_say_it(pool: Pool, tmp_path: Path) -> None:
    file = jsonl(tmp_path / "x.jsonl", [{"q": "one"}, {"q": "two"}])
    pool.add(file, prompt="q", answer=None, domain_is="sums")
    assert stored(pool) == {"one": (None, "sums"), "two": (None, "sums")}
    for both in ({}, {"domain": "q", "domain_is": "sums"}):
        with pytest.raises(IngestError, match="name one"):
            pool.add(file, prompt="q", answer=None, **both)
    with pytest.raises(IngestError, match=r"line 1: the domain \('domain_is'\) is empty"):
        pool.add(file, prompt="q", answer=None, domain_is=" ")


def test_a_name_with_a_star_stands_for_all_files_that_fit(pool: Pool, tmp_path: Path) -> None:
    for name in ("b", "a"):
        jsonl(tmp_path / f"part-{name}.jsonl", [{"q": name, "a": "1", "subject": "s"}])
    assert take(pool, tmp_path / "part-*.jsonl").new == 2
    assert problems(pool, tmp_path / "none-*.jsonl") == [f"{tmp_path / 'none-*.jsonl'}: no such file"]
    odd = jsonl(tmp_path / "odd[1].jsonl", [{"q": "odd", "a": "1", "subject": "s"}])
    assert take(pool, odd).new == 1


def test_a_dry_run_reports_what_would_be_and_stores_nothing(pool: Pool, tmp_path: Path) -> None:
    file = jsonl(tmp_path / "x.jsonl", GOOD)
    columns = {"prompt": "q", "answer": "a", "domain": "subject"}
    would = pool.add(file, dry_run=True, **columns)
    assert (would.version, would.new, pool.version, pool.examples().height) == (0, 2, 0, 0)
    assert pool.add(file, **columns).new == 2
    assert pool.add(file, dry_run=True, **columns).duplicate == 2


def test_bad_rows_can_be_left_out_and_each_is_named(pool: Pool, tmp_path: Path) -> None:
    add(pool, "stored", domain="other")
    file, bad = tmp_path / "x.jsonl", tmp_path / "bad.txt"
    rows = [
        {"q": "one", "a": "1", "subject": "s"},
        {"q": "", "a": "1", "subject": "s"},
        {"q": "two", "a": "2"},
        {"q": "one", "a": "1", "subject": "t"},
        {"q": "stored", "a": "4", "subject": "s"},
        {"q": "three", "a": "3", "subject": "line\nend"},
        {"q": "four", "a": "4", "subject": "s"},
    ]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows) + "{broken\n")
    report = pool.add(file, prompt="q", answer="a", domain="subject", skip_bad=bad)
    assert (report.new, report.duplicate, report.skipped) == (2, 0, 6)
    assert stored(pool) == {"stored": ("4", "other"), "one": ("1", "s"), "four": ("4", "s")}
    assert sorted(line.split(": ")[0].removeprefix(str(file)) for line in bad.read_text().splitlines()) == [
        f" line {number}" for number in (2, 3, 4, 5, 6, 8)
    ]
    assert pool.check() == []


def test_bad_cells_of_a_frame_can_be_left_out(pool: Pool, tmp_path: Path) -> None:
    frame = pl.DataFrame({"q": ["one", "two"], "a": [1.5, float("nan")], "subject": ["s", "s"]})
    report = pool.add(frame, prompt="q", answer="a", domain="subject", skip_bad=tmp_path / "bad.txt")
    assert (report.new, report.skipped, stored(pool)) == (1, 1, {"one": ("1.5", "s")})


def test_a_file_without_a_column_is_an_error_however_much_may_be_left_out(pool: Pool, tmp_path: Path) -> None:
    file = jsonl(tmp_path / "x.jsonl", [{"q": "one", "a": "1"}])
    with pytest.raises(IngestError, match="no column 'subject'"):
        pool.add(file, prompt="q", answer="a", domain="subject", skip_bad=tmp_path / "bad.txt")
    assert not (tmp_path / "bad.txt").exists()


def test_the_file_for_bad_rows_is_never_one_that_is_there_for_something_else(pool: Pool, tmp_path: Path) -> None:
    file = jsonl(tmp_path / "x.jsonl", [*GOOD, {"q": "", "a": 1, "subject": "s"}])
    before = file.read_bytes()
    for bad in (file, tmp_path, pool.path / "HEAD", tmp_path / "nowhere" / "bad.txt"):
        with pytest.raises(IngestError, match=r"no file; name another|its folder is not there"):
            pool.add(str(tmp_path / "*.jsonl"), prompt="q", answer="a", domain="subject", skip_bad=str(bad))
    assert (file.read_bytes(), pool.version) == (before, 0)
    pool.add(file, prompt="q", answer="a", domain="subject", skip_bad=str(tmp_path / "bad.txt"))
    assert pool.version == 1


@pytest.mark.parametrize("kind", ["parquet", "arrow"])
def test_a_name_with_a_star_in_it_is_one_file(pool: Pool, tmp_path: Path, kind: str) -> None:
    for name in ("a*", "ab", "br[1]"):
        frame = pl.DataFrame({"q": [name], "a": ["1"], "subject": ["s"]})
        {"parquet": frame.write_parquet, "arrow": frame.write_ipc}[kind](tmp_path / f"{name}.{kind}")
    assert take(pool, tmp_path / f"a*.{kind}").new == 1
    assert take(pool, tmp_path / f"br[1].{kind}").new == 1
    assert set(stored(pool)) == {"a*", "br[1]"}


def test_an_arrow_stream_is_read_as_an_arrow_file(pool: Pool, tmp_path: Path) -> None:
    table = pl.DataFrame({"q": ["one"], "a": ["1"], "subject": ["s"]}).to_arrow()
    with pa.ipc.new_stream(str(tmp_path / "x.arrow"), table.schema) as stream:
        stream.write_table(table)
    assert take(pool, tmp_path / "x.arrow").new == 1


def test_a_place_that_no_list_has_is_a_missing_column(pool: Pool) -> None:
    frame = pl.DataFrame({"l": [["a"], ["b", "c"]], "d": ["s", "s"]})
    with pytest.raises(IngestError, match=r"no column 'l\.7'"):
        pool.add(frame, prompt="l.0", answer="l.7", domain="d")
    assert pool.add(frame, prompt="l.0", answer="l.1", domain="d").without_answer == 1


def test_a_duration_is_no_text(pool: Pool) -> None:
    frame = pl.DataFrame({"q": ["one"], "a": [timedelta(hours=1)], "subject": ["s"]})
    (said,) = problems(pool, frame)
    assert "column 'a' is Duration" in said


def test_progress_counts_the_rows_that_were_read(pool: Pool) -> None:
    frame = pl.DataFrame({"q": [f"{i}" for i in range(50_000)], "a": "x", "s": "d"})
    seen: list[int] = []
    pool.add(frame, prompt="q", answer="a", domain="s", progress=seen.append)
    assert seen == [20_000, 40_000, 50_000]
