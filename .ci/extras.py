"""Each extra of an installed wheel does what it is there for: `python .ci/extras.py EXTRA`, in an empty folder.

Run by `.ci/run` with the wheel's own Python, one extra after the other in one environment.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

TESTS = Path(__file__).resolve().parent.parent / "tests"
WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "red", "apple", "pear", "hammer"]


def teacher() -> None:
    """One call over HTTP to a provider on loopback."""
    sys.path.insert(0, str(TESTS))
    from teacher_server import TeacherServer

    with TeacherServer() as server:
        place = {"OPENAI_API_KEY": "sk-loopback", "OPENAI_BASE_URL": server.url, "OPENAI_API_BASE": server.url}
        command = ["balkit", "doctor", "--call", "openai/gpt-4o-mini"]
        done = subprocess.run(command, env=os.environ | place, capture_output=True, text=True, check=False)
        assert server.served == 1, done.stdout + done.stderr


def check() -> None:
    """An expression is compared, a near duplicate found, a language told."""
    from balkit import answers, duplicates, languages

    assert answers.same([(r"\\frac{1}{2}", "0.5")], kind="math") == [True]
    assert duplicates.near(["the red apple on the table", "on the table the red apple"]).other.tolist() == [-1, 0]
    assert languages.language("The red apple lies on the table, and nobody has eaten it until now.") == "en"


def static() -> None:
    """A table of token vectors gives a text its vector."""
    import numpy as np
    from model2vec import StaticModel
    from tokenizers import Tokenizer, models, pre_tokenizers

    from balkit import make_encoder
    from balkit.recipe import Vectors

    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    StaticModel(np.eye(len(WORDS), 8, dtype=np.float32) + 0.1, tokenizer).save_pretrained("table")
    assert make_encoder(Vectors(encoder="static", model="table")).encode(["red apple"]).shape == (1, 8)


def hnsw() -> None:
    """The index finds each row beside itself."""
    import numpy as np

    from balkit.vectors import neighbours

    rows = np.eye(64, dtype=np.float32)
    assert neighbours(rows, among=rows, k=1, method="graph").indices[:, 0].tolist() == list(range(64))


def report() -> None:
    """A run without a student becomes a page."""
    import balkit

    pool = balkit.Pool.create("reported")
    pool.add(balkit.quickstart_folder() / "dev.jsonl", prompt="ticket", answer="topic", domain="topic")
    body = {"name": "small", "budget_rows": 24, "stages": 1, "answers": {"kind": "label"}}
    teacher = {"transport": "offline", "model": "offline-support-teacher-1"}
    balkit.run(pool, balkit.load_recipe(body | {"teacher": teacher}), train=False)
    assert balkit.write_report(pool, "report.html").bytes > 10_000


def datasets() -> None:
    """A folder that `datasets` saved comes into a pool."""
    from datasets import Dataset

    Dataset.from_list([{"q": "2 + 2?", "a": "4", "d": "sums"}]).save_to_disk("saved")
    command = ["balkit", "add", "pool", "saved", "--prompt", "q", "--answer", "a", "--domain", "d"]
    assert "1 new of 1 rows" in subprocess.run(command, capture_output=True, text=True, check=True).stdout


def train() -> None:
    """The whole job, two students included."""
    subprocess.run(["balkit", "quickstart", "quickstart"], check=True)
    assert len(json.loads(Path("quickstart/report.json").read_text())["arms"]) == 2


def embed() -> None:
    """A sentence-transformers model that has learned nothing gives vectors; clusters are found."""
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Pooling, Transformer

    from balkit import clusters, make_encoder
    from balkit.recipe import Vectors

    bert()
    SentenceTransformer(modules=[Transformer("bert"), Pooling(16)]).save("model")
    encoder = make_encoder(Vectors(encoder="sentence-transformers", model="model"))
    assert encoder.encode(["red apple", "hammer"]).shape == (2, 16)
    texts = [f"red apple {n}" for n in range(8)] + [f"hammer {n}" for n in range(8)]
    rows = make_encoder(Vectors()).encode(texts)
    found = clusters.discover(texts, rows, ids=[str(n) for n in range(16)], k=2, min_rows=2, seed=0)
    assert found.domains.height == 2


def gguf() -> None:
    """A file of tensors is written and read."""
    import numpy as np
    from gguf import GGUFReader, GGUFWriter

    writer = GGUFWriter("tiny.gguf", "llama")
    writer.add_tensor("token_embd.weight", np.ones((4, 8), dtype=np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    assert [one.name for one in GGUFReader("tiny.gguf").tensors] == ["token_embd.weight"]


def qlora() -> None:
    """The package loads; 4-bit training itself needs a GPU."""
    import bitsandbytes

    assert bitsandbytes.nn.Linear4bit


def browser() -> None:
    """What drives a browser is there; `make test-browser` has one open a report."""
    from playwright.sync_api import sync_playwright

    assert sync_playwright


def bert() -> None:
    """A folder `bert` with a tiny model and its tokenizer."""
    import transformers

    Path("bert").mkdir()
    Path("bert/vocab.txt").write_text("\n".join(WORDS))
    shape = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    transformers.BertModel(transformers.BertConfig(vocab_size=len(WORDS), **shape)).save_pretrained("bert")
    transformers.BertTokenizer.from_pretrained("bert").save_pretrained("bert")


#: In the order in which they are installed: those without torch first.
EXTRAS = {
    one.__name__: one for one in (check, teacher, datasets, report, hnsw, static, train, embed, gguf, qlora, browser)
}

if __name__ == "__main__":
    if sys.argv[1:] == ["--list"]:
        print(*EXTRAS)
    else:
        EXTRAS[sys.argv[1]]()
        print(f"extra {sys.argv[1]}: works")
