"""The command that writes a recipe for a file of rows: init."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from balkit.cli.show import Json, json_out, prose, say
from balkit.cli.talk import line

if TYPE_CHECKING:
    from balkit.starting.draft import Wishes
    from balkit.starting.looking import Facts

#: Suggested where a provider's key is set, the first of these; else the first of all.
_TEACHERS = (
    ("OPENAI_API_KEY", "openai/gpt-4o-mini"),
    ("ANTHROPIC_API_KEY", "anthropic/claude-haiku-4-5"),
    ("GEMINI_API_KEY", "gemini/gemini-2.5-flash"),
    ("MISTRAL_API_KEY", "mistral/mistral-small-latest"),
    ("DEEPSEEK_API_KEY", "deepseek/deepseek-chat"),
)


def register(app: typer.Typer) -> None:
    """Adds this module's command to the app."""
    app.command()(init)


@dataclass
class Questions:
    """What was not given is asked, or taken as suggested, or noted as missing where nobody can be asked."""

    ask: Callable[[str], str] | None
    take: bool  # what is suggested, without a question
    missing: list[str] = field(default_factory=list)

    def answer(self, flag: str, question: str, *, suggested: str | None, sure: bool = False) -> str | None:
        """What to go by: the suggestion where it is sure; an empty answer to a question takes the suggestion too."""
        if sure or (self.take and suggested is not None):
            return suggested
        if self.ask is None:
            self.missing.append(f"{flag}: {question}{'' if suggested is None else f' (suggested: {suggested})'}")
            return suggested
        return self.ask(f"{question}{'' if suggested is None else f' [{suggested}]'}: ").strip() or suggested

    def complain(self, file: str) -> None:
        """Raise `Problems` where something is missing."""
        from balkit.errors import Problems

        if self.missing:
            also = "" if file == "FILE" else "; --yes takes what is suggested"
            raise Problems(
                f"balkit init {file}: there is no terminal to ask these; give them as flags{also}", self.missing
            )


def init(
    file: Annotated[str | None, typer.Argument(help="The rows: what balkit add takes.", metavar="FILE")] = None,
    out: Annotated[Path, typer.Option(help="The recipe to write.")] = Path("recipe.yaml"),
    pool: Annotated[str | None, typer.Option(help="The pool of the next commands; else pools/NAME.")] = None,
    teacher: Annotated[
        str | None, typer.Option(metavar="MODEL", help="A LiteLLM model: openai/gpt-4o-mini, ollama/llama3.")
    ] = None,
    base_url: Annotated[str | None, typer.Option(help="Of a server of your own.", metavar="URL")] = None,
    price: Annotated[
        str | None, typer.Option(help="free, or dollars per million tokens in and out: 0.15,0.60.", metavar="IN,OUT")
    ] = None,
    student: Annotated[str | None, typer.Option(metavar="MODEL", help="small, a model folder or a hub name.")] = None,
    budget: Annotated[int | None, typer.Option(min=1, help="Rows of the final training set.")] = None,
    stages: Annotated[int, typer.Option(min=1, help="How many.")] = 3,
    kind: Annotated[
        Literal["label", "choice", "number", "math", "text"] | None,
        typer.Option(help="Of the answers; else told from them."),
    ] = None,
    prompt: Annotated[str | None, typer.Option(help="A column, path or template, as balkit add takes.")] = None,
    answer: Annotated[str | None, typer.Option(help="The reference answer.")] = None,
    domain: Annotated[str | None, typer.Option(help="The domain; '' where no column holds it.")] = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Take what is suggested, without questions.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Replace the file that is there.")] = False,
    as_json: bool = Json,
) -> None:
    """Look at a file of rows and write a recipe for it, with a comment on every choice; then name the next commands.

    Asks for what it cannot tell where there is a terminal, and says which flags are missing where there is none.

    Example: balkit init train.jsonl --teacher openai/gpt-4o-mini --budget 500 --yes
    """
    from balkit.starting.draft import Wishes, budget_for, commands, name_of, write

    _free(out, force=force)
    questions = Questions(line if _is_terminal() else None, yes)
    source = file or questions.answer("FILE", "the file with your rows", suggested=None) or ""
    questions.complain(source or "FILE")
    columns = _columns(questions, source, {"prompt": prompt, "answer": answer, "domain": domain})
    facts = _facts(questions, source, columns)
    model = teacher or questions.answer("--teacher", "the teacher, a LiteLLM model", suggested=_teacher()) or ""
    wishes = Wishes(
        file=source,
        columns=columns,
        facts=facts,
        name=name_of(source),
        pool=pool or f"pools/{name_of(source)}",
        out=out,
        teacher=model,
        base_url=base_url,
        price=_price(questions, model, price, base_url),
        student=_student(questions, student, out),
        budget=budget or _rows(questions, budget_for(facts)),
        stages=stages,
        kind=kind or facts.kind,
    )
    questions.complain(source)
    text, _ = write(wishes)
    _store(out, text, force=force)
    if as_json:
        json_out({"file": str(out), "columns": columns, "kind": wishes.kind, "next": commands(wishes)})
    else:
        _say(wishes)


def _is_terminal() -> bool:
    return sys.stdin is not None and sys.stdin.isatty() and sys.stdout.isatty()


def _free(out: Path, *, force: bool) -> None:
    from balkit.errors import BalkitError

    if out.exists() and not force:
        raise BalkitError(f"{out} exists already: choose another name with --out, or replace it with --force")
    if not out.absolute().parent.is_dir():
        raise BalkitError(f"{out}: its folder is not there; make it first")


def _columns(questions: Questions, file: str, given: Mapping[str, str | None]) -> dict[str, str | None]:
    """The column of each part; None where no column holds it."""
    from balkit.starting.looking import guess

    found = guess(file, given={part: column or None for part, column in given.items()})
    about = {
        "prompt": "the column with the prompt",
        "answer": "the column with the reference answer, - for none",
        "domain": "the column with the domain, whose tail is long, - for none",
    }
    columns: dict[str, str | None] = {}
    for part, question in about.items():
        sure = given[part] is not None or part not in found.unsure
        told = given[part] if given[part] is not None else found.columns[part]
        listed = f"{question} (there are: {', '.join(found.names[:20])})"
        said = questions.answer(f"--{part}", listed, suggested=told, sure=sure)
        columns[part] = None if said in ("-", "", None) else said
    return columns


def _facts(questions: Questions, file: str, columns: Mapping[str, str | None]) -> Facts:
    from balkit.errors import BalkitError
    from balkit.starting.looking import facts

    if columns["prompt"] is None:
        questions.complain(file)
        raise BalkitError(f"{file}: a row needs a prompt; name its column with --prompt")
    found = facts(file, columns=columns)
    if found.kind == "label" and columns["domain"] is None and not found.labels:
        raise BalkitError(f"{file}: no labels could be told from the answers; name the domain's column with --domain")
    return found


def _teacher() -> str:
    return next((model for name, model in _TEACHERS if os.environ.get(name)), _TEACHERS[0][1])


def _student(questions: Questions, given: str | None, out: Path) -> str:
    """The student as the recipe has it: a folder counts from the recipe's own."""
    said = given
    if said is None:
        question = "the student: small, a model folder or a hub name"
        said = questions.answer("--student", question, suggested="small", sure=questions.ask is None) or "small"
    return os.path.relpath(said, out.parent) if said != "small" and Path(said).is_dir() else said


def _rows(questions: Questions, suggested: int) -> int:
    from balkit.errors import BalkitError

    said = questions.answer("--budget", "rows that the training set is to have", suggested=str(suggested)) or ""
    if not said.isdecimal() or int(said) < 1:
        raise BalkitError(f"--budget: {said!r} is no number of rows")
    return int(said)


def _price(
    questions: Questions, model: str, given: str | None, base_url: str | None
) -> Literal["free"] | tuple[float, float] | None:
    """What the recipe says of the price; None where balkit's own table has the model."""
    from balkit.errors import BalkitError, PriceUnknown
    from balkit.starting.draft import is_local
    from balkit.teacher import price_of

    said = given
    if said is None:
        try:
            price_of(model)
            return None
        except PriceUnknown:
            question = f"free, or what {model} costs: dollars per million tokens in and out, as 0.15,0.60"
            own = is_local(model) or base_url is not None
            said = questions.answer("--price", question, suggested="free" if own else None, sure=is_local(model))
    if said is None or said == "free":
        return "free"
    try:
        into, out = (float(part) for part in said.split(","))
    except ValueError:
        raise BalkitError(f"--price: {said!r} is neither free nor two numbers with a comma between") from None
    return into, out


def _store(out: Path, text: str, *, force: bool) -> None:
    from balkit.errors import BalkitError

    try:
        with out.open("w" if force else "x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError:
        raise BalkitError(f"{out} exists already: choose another name with --out, or replace it with --force") from None


def _say(wishes: Wishes) -> None:
    from balkit.starting.draft import commands, key_of

    facts = wishes.facts
    told = ", ".join(f"{part} from {column}" for part, column in wishes.columns.items() if column)
    counted = f"{facts.rows:,}{' or more' if facts.more else ''} rows, {len(facts.domains)} domains"
    prose(f"{wishes.file}: {counted}; {told}; answers of the kind {wishes.kind}")
    say(f"{wishes.out}: {wishes.budget} rows in {wishes.stages} stages, by {wishes.teacher}. Next:")
    say("\n".join(f"  {command}" for command in commands(wishes)))
    key = key_of(wishes.teacher) if wishes.base_url is None else None
    if key is not None and not os.environ.get(key):
        say(f"Before the run: export {key}=...")
    if len(facts.splits) > 1:
        held_out = ", ".join(split for split in facts.splits if split != "train")
        prose(f"The file's split column names rows of {held_out}: put these into a file of their own, --split eval")
