"""The cache of vectors: encoded once, kept through kills, noticed when damaged."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from balkit.errors import VectorError
from balkit.vectors import Hashing, Vectors, cached, drop_damaged, segments
from balkit.vectors.encoders import Floats

ROOT = Path(__file__).resolve().parent.parent


class Counting:
    """A hashing encoder that remembers what it was asked to encode."""

    def __init__(self, *, dim: int = 16, name: str = "counting") -> None:
        self.name, self.dim = name, dim
        self.asked: list[str] = []

    def encode(self, texts: Sequence[str]) -> Floats:
        self.asked.extend(texts)
        return Hashing(dim=self.dim).encode(texts)


class Broken(Counting):
    def encode(self, texts: Sequence[str]) -> Floats:
        rows = super().encode(texts)
        rows[[text == "the bad one" for text in texts]] = np.nan
        return rows


def stored(folder: Path) -> int:
    """The rows of all segments."""
    return sum(len(segments.read(file)) for file in folder.rglob("*.vectors"))


def test_a_text_is_encoded_once(tmp_path: Path) -> None:
    encoder = Counting()
    vectors = Vectors(tmp_path, encoder)
    vectors.of(["a", "b", "a"])
    vectors.of(["b", "c"])
    assert sorted(encoder.asked) == ["a", "b", "c"]


def test_a_text_is_encoded_once_over_processes(tmp_path: Path) -> None:
    first, second = Counting(), Counting()
    before = Vectors(tmp_path, first).of(["a", "b"])
    after = Vectors(tmp_path, second).of(["b", "a"])
    assert second.asked == []
    np.testing.assert_array_equal(after, before[::-1])


def test_what_another_object_wrote_meanwhile_is_used(tmp_path: Path) -> None:
    encoder = Counting()
    early = Vectors(tmp_path, encoder)
    early.of(["a"])
    Vectors(tmp_path, Counting()).of(["b"])
    early.of(["b"])
    assert encoder.asked == ["a"]


@given(texts=st.lists(st.text(max_size=12), max_size=20))
@settings(max_examples=30)
def test_vectors_come_in_the_order_of_the_texts(texts: list[str], tmp_path_factory: pytest.TempPathFactory) -> None:
    vectors = Vectors(tmp_path_factory.mktemp("vectors"), Hashing(dim=32))
    vectors.of(texts[::2])
    rows = vectors.of(texts)
    assert rows.dtype == np.float32
    np.testing.assert_array_equal(rows, Hashing(dim=32).encode(texts))


def test_large_segments_are_read_back_as_they_were_written(tmp_path: Path) -> None:
    texts = [f"text {i}" for i in range(9000)]
    written = Vectors(tmp_path, Hashing(dim=8)).of(texts)
    read = Vectors(tmp_path, Counting(dim=8, name=Hashing(dim=8).name)).of(texts)
    np.testing.assert_array_equal(written, read)
    np.testing.assert_array_equal(written, Hashing(dim=8).encode(texts))


def test_encoders_do_not_share_vectors(tmp_path: Path) -> None:
    Vectors(tmp_path, Counting(name="one")).of(["a"])
    other = Counting(name="two")
    Vectors(tmp_path, other).of(["a"])
    assert other.asked == ["a"]


@pytest.mark.parametrize("where", [2, 9, 30, 80, 130, -1])
def test_a_flipped_byte_is_noticed_and_only_those_texts_encoded_again(
    tmp_path: Path, where: int, caplog: pytest.LogCaptureFixture
) -> None:
    encoder = Counting()
    vectors = Vectors(tmp_path, encoder)
    before = vectors.of(["a", "b"])
    damaged = next(vectors.folder.glob("*.vectors"))
    vectors.of(["c"])
    body = bytearray(damaged.read_bytes())
    body[where] ^= 0x04
    damaged.write_bytes(body)
    again = Counting()
    with caplog.at_level(logging.WARNING):
        np.testing.assert_array_equal(Vectors(tmp_path, again).of(["a", "b", "c"])[:2], before)
    assert sorted(again.asked) == ["a", "b"]
    assert "dropped" in caplog.text


def test_a_cut_off_segment_is_encoded_again(tmp_path: Path) -> None:
    vectors = Vectors(tmp_path, Counting())
    before = vectors.of(["a", "b"])
    cut = next(vectors.folder.glob("*.vectors"))
    cut.write_bytes(cut.read_bytes()[:-7])
    np.testing.assert_array_equal(Vectors(tmp_path, Counting()).of(["a", "b"]), before)


def test_the_cache_may_be_deleted_at_any_time(tmp_path: Path) -> None:
    vectors = Vectors(tmp_path, Counting())
    before = vectors.of(["a"])
    for file in vectors.folder.iterdir():
        file.unlink()
    vectors.folder.rmdir()
    np.testing.assert_array_equal(vectors.of(["b", "a"])[1:], before)


@pytest.mark.parametrize("where", [2, 9, 30, -1])
def test_a_damaged_segment_that_was_mapped_into_memory_is_noticed(tmp_path: Path, where: int) -> None:
    texts = [f"text {i}" for i in range(2000)]
    vectors = Vectors(tmp_path, Counting())
    before = vectors.of(texts)
    file = next(vectors.folder.glob("*.vectors"))
    body = bytearray(file.read_bytes())
    body[where] ^= 0x40
    file.write_bytes(body)
    again = Counting()
    np.testing.assert_array_equal(Vectors(tmp_path, again).of(texts), before)
    assert sorted(again.asked) == sorted(texts)


def test_segments_that_are_not_needed_are_not_read(tmp_path: Path) -> None:
    vectors = Vectors(tmp_path, Counting())
    vectors.of(["a"])
    damaged = next(vectors.folder.glob("*.vectors"))
    vectors.of(["b"])
    body = bytearray(damaged.read_bytes())
    body[-1] ^= 1
    damaged.write_bytes(body)
    other = Counting()
    Vectors(tmp_path, other).of(["b"])
    assert other.asked == []
    assert drop_damaged(tmp_path) == [damaged]


def test_many_small_segments_become_one(tmp_path: Path) -> None:
    encoder = Counting()
    vectors = Vectors(tmp_path, encoder)
    rows = np.concatenate([vectors.of([f"text {i}"]) for i in range(100)])
    assert len(list(tmp_path.rglob("*.vectors"))) <= 16
    other = Counting()
    np.testing.assert_array_equal(Vectors(tmp_path, other).of([f"text {i}" for i in range(100)]), rows)
    np.testing.assert_array_equal(vectors.of([f"text {i}" for i in range(100)]), rows)
    assert (len(encoder.asked), other.asked) == (100, [])


def test_another_process_may_merge_what_this_one_uses(tmp_path: Path) -> None:
    early = Vectors(tmp_path, Counting())
    rows = early.of(["text 0"])
    for i in range(1, 40):
        Vectors(tmp_path, Counting()).of([f"text {i}"])
    assert len(list(tmp_path.rglob("*.vectors"))) <= 16
    encoder = early.encoder = Counting()
    np.testing.assert_array_equal(early.of([f"text {i}" for i in range(40)])[:1], rows)
    assert encoder.asked == []


def test_what_several_processes_wrote_is_kept_once(tmp_path: Path) -> None:
    several = [Vectors(tmp_path, Counting()) for _ in range(3)]
    for i in range(120):
        several[i % 3].of([f"text {i}", f"text {i // 2}"])
    assert stored(tmp_path) == 120
    assert len(list(tmp_path.rglob("*.vectors"))) <= 16


def test_a_merge_keeps_a_segment_that_it_makes_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("_TEXTS_AT_ONCE", 1), ("_SEGMENT_BYTES", 16 * 4 * 16), ("_SECONDS_AT_RISK", -1.0)):
        monkeypatch.setattr(cached, name, value)
    encoder = Counting(dim=16)
    Vectors(tmp_path, encoder).of([f"text {i}" for i in range(17)])  # merged into a segment of 16 and one of 1
    assert (stored(tmp_path), len(encoder.asked)) == (17, 17)


def test_a_segment_that_is_gone_before_it_is_looked_at_is_not_damaged(tmp_path: Path) -> None:
    vectors = Vectors(tmp_path, Counting())
    vectors.of(["a"])
    (vectors.folder / "merged.vectors").symlink_to(tmp_path / "nowhere")
    assert drop_damaged(tmp_path) == []


def test_slow_texts_are_stored_after_few_and_quick_ones_encoded_many_at_a_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Batches(Counting):
        def encode(self, texts: Sequence[str]) -> Floats:
            sizes.append(len(texts))
            kept.append(stored(tmp_path))
            now[0] += 0.2 * len(texts) if self.name == "slow" else 0.0
            return super().encode(texts)

    now = [0.0]
    monkeypatch.setattr(cached, "time", SimpleNamespace(monotonic=lambda: now[0]))
    for name, wanted in (("slow", [32, 32, 32, 32, 32]), ("quick", [32, 64, 64])):
        sizes: list[int] = []
        kept: list[int] = []
        Vectors(tmp_path, Batches(name=name)).of([f"text {i}" for i in range(160)])
        assert sizes == wanted
        if name == "slow":  # 6.4 s a batch
            assert kept == [0, 0, 64, 64, 128]


def test_texts_of_like_length_are_encoded_together(tmp_path: Path) -> None:
    encoder = Counting()
    Vectors(tmp_path, encoder).of([f"{'x' * (i % 7)}{i}" for i in range(1500)])
    lengths = [len(text) for text in encoder.asked]
    assert lengths == sorted(lengths, reverse=True)


def test_equal_beginnings_of_keys_are_told_apart() -> None:
    keys = np.array([[5, 1, 0, 0], [5, 2, 0, 0], [5, 3, 0, 0], [9, 0, 0, 0]], np.uint64)
    index = cached._Index([segments.Segment(Path("one"), keys[:3], np.eye(3, dtype=np.float32), 0, True)])
    wanted = np.concatenate([keys[[2, 0, 3, 1]], np.array([[5, 9, 0, 0], [1, 0, 0, 0]], np.uint64)])
    assert index.row[index.find(wanted)][[0, 1, 3]].tolist() == [2, 0, 1]
    assert (index.find(wanted) < 0).tolist() == [False, False, True, False, True, True]


SLOW = """
import sys, time
from pathlib import Path
from balkit.vectors import Hashing, Vectors
from balkit.vectors import cached
cached._SECONDS_AT_RISK = 0.0
class Slow(Hashing):
    def encode(self, texts):
        time.sleep(float(sys.argv[2]))
        return super().encode(texts)
Vectors(Path(sys.argv[1]), Slow(dim=16)).of([f"text {i}" for i in range(int(sys.argv[3]))])
"""


def started(folder: Path, *, seconds_a_batch: float, texts: int) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-c", SLOW, str(folder), str(seconds_a_batch), str(texts)]
    return subprocess.Popen(command, env={**os.environ, "PYTHONPATH": str(ROOT)})


def test_a_killed_process_keeps_what_it_had_encoded(tmp_path: Path) -> None:
    process = started(tmp_path, seconds_a_batch=0.2, texts=20_000)
    while len(list(tmp_path.rglob("*.vectors"))) < 2:
        assert process.poll() is None
        time.sleep(0.01)
    process.kill()
    process.wait()
    kept = stored(tmp_path)
    assert kept
    texts = [f"text {i}" for i in range(20_000)]
    encoder = Counting(name=Hashing(dim=16).name)
    np.testing.assert_array_equal(Vectors(tmp_path, encoder).of(texts), Hashing(dim=16).encode(texts))
    assert len(encoder.asked) == 20_000 - kept


def test_two_processes_at_once_end_with_the_same_sound_cache(tmp_path: Path) -> None:
    processes = [started(tmp_path, seconds_a_batch=0.01, texts=12_000) for _ in range(2)]
    assert [process.wait() for process in processes] == [0, 0]
    texts = [f"text {i}" for i in range(12_000)]
    encoder = Counting(name=Hashing(dim=16).name)
    np.testing.assert_array_equal(Vectors(tmp_path, encoder).of(texts), Hashing(dim=16).encode(texts))
    assert encoder.asked == []
    assert drop_damaged(tmp_path) == []


FULL = """
import resource, signal, sys
from pathlib import Path
from balkit.errors import VectorError
from balkit.vectors import Hashing, Vectors
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
vectors = Vectors(Path(sys.argv[1]), Hashing(dim=16))
vectors.of(["kept"])
resource.setrlimit(resource.RLIMIT_FSIZE, (4096, resource.RLIM_INFINITY))
try:
    vectors.of([f"text {i}" for i in range(2000)])
except VectorError as error:
    print(error)
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
print(len(vectors.of([f"text {i}" for i in range(2000)])))
"""


def test_a_full_disk_leaves_a_sound_cache(tmp_path: Path) -> None:
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    ran = subprocess.run(
        [sys.executable, "-c", FULL, str(tmp_path)], env=env, check=True, capture_output=True, text=True
    )
    assert "2000 vectors cannot be kept (File too large)" in ran.stdout
    assert ran.stdout.endswith("2000\n")
    assert all(file.suffix == ".vectors" for file in tmp_path.rglob("*") if file.is_file())
    encoder = Counting(name=Hashing(dim=16).name)
    Vectors(tmp_path, encoder).of(["kept", "text 7"])
    assert encoder.asked == []


def test_an_interrupted_encoding_keeps_the_batches_before(tmp_path: Path) -> None:
    class Interrupted(Counting):
        def encode(self, texts: Sequence[str]) -> Floats:
            if len(self.asked) >= 1024:
                raise KeyboardInterrupt
            return super().encode(texts)

    texts, interrupted = [f"text {i}" for i in range(3000)], Interrupted()
    with pytest.raises(KeyboardInterrupt):
        Vectors(tmp_path, interrupted).of(texts)
    encoder = Counting()
    Vectors(tmp_path, encoder).of(texts)
    assert len(encoder.asked) == 3000 - len(interrupted.asked) < 2000


def test_half_written_files_are_never_left_under_the_final_name(tmp_path: Path) -> None:
    vectors = Vectors(tmp_path, Counting())
    vectors.of(["a"])
    assert [file.suffix for file in vectors.folder.iterdir()] == [".vectors"]


def test_a_vector_that_is_not_finite_names_its_text_and_is_not_kept(tmp_path: Path) -> None:
    vectors = Vectors(tmp_path, Broken())
    with pytest.raises(VectorError, match="'the bad one'"):
        vectors.of(["fine", "the bad one"])
    assert not list(tmp_path.rglob("*.vectors"))


def test_progress_counts_new_texts_only(tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    vectors = Vectors(tmp_path, Counting())
    vectors.of(["a"])
    vectors.of(["a", "b", "c"], progress=lambda done, total: seen.append((done, total)))
    assert seen == [(2, 2)]
