"""docs/synthesis.md: its reasons are those of the cascade in their order, its recipes say what they seem to."""

from __future__ import annotations

import json
import random
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from small import Rule, make_pool, make_recipe, prompt

from balkit.pool import Pool
from balkit.recipe import Recipe
from balkit.stages import run
from balkit.teacher import Request, Scripted
from balkit.verify import CASCADE

PAGE = (Path(__file__).parent.parent / "docs" / "synthesis.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", PAGE, flags=re.MULTILINE | re.DOTALL)


class Careless(Rule):
    """Writes eval's rows and real ones again, and sometimes answers its own rows otherwise."""

    def __init__(self, pool: Pool) -> None:
        super().__init__(wrong="apple")
        self.eval = pool.examples(split="eval").sort("example_id")
        self.real = pool.examples(split="train").sort("example_id")

    def __call__(self, request: Request) -> str:
        if request.purpose != "synthesis":
            return "So.\nAnswer: fruit" if "Box 77" in request.subject else super().__call__(request)
        again = [frame.filter(frame["domain"] == request.domain)["prompt"][0] for frame in (self.eval, self.real)]
        rng = random.Random(request.key)
        odd = f"Box 77{rng.randrange(1000)} holds one " + prompt(request.domain, rng).split(" holds one ")[1]
        texts = [*again, odd, prompt(request.domain, rng), prompt(request.domain, rng)]
        return json.dumps({"examples": [{"prompt": text, "answer": request.domain} for text in texts]})


def careless_pool(folder: Path) -> Pool:
    """A pool with a run of two stages that no student was trained in, its teacher careless."""
    made = make_pool(folder)
    select = {"first": "k_center", "then": "k_center"}
    run(made, make_recipe(select=select), teacher=Scripted(Careless(made)), train=False)
    return made


@pytest.fixture(scope="module")
def pool(tmp_path_factory: pytest.TempPathFactory) -> Pool:
    return careless_pool(tmp_path_factory.mktemp("synthesis") / "pool")


def test_the_reasons_of_the_page_are_those_of_the_cascade_in_their_order() -> None:
    cells = re.findall(r"^\| (`[^|]+`) \|", PAGE.split("## The cascade")[1].split("\n## ")[0], flags=re.MULTILINE)
    named = [name for cell in cells for name in re.findall(r"`(\w+)`", cell)]
    assert named == [*CASCADE, "vote_disagrees"]


@pytest.mark.parametrize("block", blocks("yaml"))
def test_every_recipe_of_the_page_loads(block: str) -> None:
    body: dict[str, Any] = yaml.safe_load(block)
    recipe = make_recipe(**body)
    assert isinstance(recipe, Recipe)
    assert all(getattr(recipe.synthesis, name) is not None for name in body["synthesis"])


def test_refused_rows_name_the_eval_row_that_they_repeat(pool: Pool) -> None:
    found = pool.sql(
        "SELECT detail->>'prompt' AS refused, detail->>'other' AS other, detail->>'other_id' AS id FROM decisions "
        "WHERE reason = 'stands_in_eval'"
    )
    evaluation = dict(pool.examples(split="eval").select("example_id", "prompt").iter_rows())
    assert found.height
    assert all(evaluation[id_] == other == refused for refused, other, id_ in found.iter_rows())
