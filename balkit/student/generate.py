"""A student's own answers: the greedy ones, or drawn at a temperature."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from balkit.errors import need
from balkit.student import chat, forward, model

log = logging.getLogger(__name__)

#: Called with (rows done, rows in all).
OnRows = Callable[[int, int], None]


@dataclass(frozen=True)
class Answer:
    """Generated tokens without EOS; `finished` is False where the cap or the context ended them."""

    ids: list[int]
    finished: bool


@dataclass(frozen=True)
class Draws:
    """How answers are drawn: from the student's whole distribution at a temperature, each row by a seed of its own.

    The greatest of logits / temperature + Gumbel noise is such a draw (Gumbel 1954), so that a row's answer depends on
    its seed and not on the rows beside it.
    """

    temperature: float
    seeds: tuple[int, ...]


def generate(
    checkpoint: Path,
    prompts: Sequence[str],
    *,
    max_new_tokens: int,
    batch_size: int,
    draws: Draws | None = None,
    progress: OnRows | None = None,
) -> list[str]:
    """The greedy answer to each prompt, or one drawn by its seed, in order, of `max_new_tokens` at most, up to EOS.

    A prompt that fills the student's context is answered with an empty text, and a warning counts them. Prompts
    of similar length are batched with padding on the left, so an answer depends on its batch only as far as
    floats do. Larger batches are faster: every batch runs until its last answer ends.
    """
    loaded = model.load(checkpoint)
    given = chat.prompt_ids(loaded.tokenizer, prompts)
    asked: dict[str, Any] = {"max_new_tokens": max_new_tokens, "batch_size": batch_size}
    found = answered(loaded, given, **asked, draws=draws, progress=progress)
    return [chat.text_of(loaded.tokenizer, answer.ids) for answer in found]


def prompt_tokens(checkpoint: Path, prompts: Sequence[str]) -> list[int]:
    """How many tokens each prompt has as the student reads it, its chat rendering included, in order."""
    return [len(ids) for ids in chat.prompt_ids(model.load_tokenizer(checkpoint), prompts)]


def answered(
    loaded: model.Loaded,
    given: Sequence[list[int]],
    *,
    max_new_tokens: int,
    batch_size: int,
    draws: Draws | None = None,
    progress: OnRows | None = None,
) -> list[Answer]:
    """The answer to each token sequence, in order: the greedy one, or one drawn by its seed."""
    room = [min(max_new_tokens, loaded.context - len(ids)) for ids in given]
    crowded = sum(space < 1 for space in room)
    if crowded:
        log.warning("%d of %d prompts fill the student's context of %d tokens", crowded, len(given), loaded.context)
    found, done = [Answer([], finished=False)] * len(given), crowded
    for chosen in _batches(loaded, given, room=room, size=batch_size):
        longest, mine = max(room[index] for index in chosen), None
        if draws is not None:
            mine = Draws(draws.temperature, tuple(draws.seeds[index] for index in chosen))
        batch = _batch(loaded, [given[index] for index in chosen], max_new_tokens=longest, draws=mine)
        for index, ids in zip(chosen, batch, strict=True):
            found[index] = _cut(ids, stops=_stops(loaded), room=room[index])
        done += len(chosen)
        if progress is not None:
            progress(done, len(given))
    return found


def _batches(loaded: model.Loaded, given: Sequence[list[int]], *, room: list[int], size: int) -> list[list[int]]:
    """Indices of the prompts that have room for an answer, in batches of similar length.

    A batch goes on until its shortest prompt's room ends, which takes its longest beyond the context. Rotary
    positions bear that, and what lies beyond is cut off; learned positions do not, so there such prompts go alone.
    """
    order = sorted((index for index in range(len(given)) if room[index] > 0), key=lambda index: len(given[index]))
    learned = not hasattr(loaded.model.config, "rope_parameters")
    tight = {index for index in order if learned and room[index] < max(room)}
    roomy = [index for index in order if index not in tight]
    return [roomy[start : start + size] for start in range(0, len(roomy), size)] + [[index] for index in sorted(tight)]


def _batch(
    loaded: model.Loaded, given: list[list[int]], *, max_new_tokens: int, draws: Draws | None
) -> list[list[int]]:
    torch = need("torch", extra="train")
    pad = loaded.pad_id
    longest = max(map(len, given))
    ids = torch.tensor([[pad] * (longest - len(row)) + row for row in given], device=loaded.device)
    mask = torch.tensor([[0] * (longest - len(row)) + [1] * len(row) for row in given], device=loaded.device)
    with torch.inference_mode(), forward.cpu_threads(loaded.model):
        full = loaded.model.generate(
            input_ids=ids,
            attention_mask=mask,
            max_new_tokens=max_new_tokens,
            do_sample=False,  # with noise in the logits the greedy answer is a draw
            logits_processor=[] if draws is None else [_noise(draws)],
            pad_token_id=pad,
            eos_token_id=sorted(_stops(loaded)),
        )
    return [list(row) for row in full[:, longest:].tolist()]


def _noise(draws: Draws) -> Callable[[Any, Any], Any]:
    """What makes a step's greatest logit a draw at the temperature."""
    torch = need("torch", extra="train")
    generators = [torch.Generator().manual_seed(seed) for seed in draws.seeds]

    def added(ids: Any, logits: Any) -> Any:
        drawn = [torch.empty(logits.shape[-1]).exponential_(generator=each) for each in generators]
        return logits / draws.temperature - torch.stack(drawn).log().to(logits)

    return added


def _cut(ids: list[int], *, stops: set[int], room: int) -> Answer:
    for place, token in enumerate(ids[:room]):
        if token in stops:
            return Answer(ids[:place], finished=True)
    return Answer(ids[:room], finished=False)


def _stops(loaded: model.Loaded) -> set[int]:
    """What ends an answer: the EOS that training appends, and those that the model came with."""
    own = loaded.model.generation_config.eos_token_id
    return {chat.eos_id(loaded.tokenizer), *([own] if isinstance(own, int) else own or [])}
