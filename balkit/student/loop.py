"""The training loop: which rows a step takes, how they go through the model, and what is kept in case it is stopped.

A step is `batch_size` rows and one change of the weights. Its rows go through the model in passes of similar length,
`pass_tokens` padded tokens each at most; the passes' gradients add up to that of the mean loss over the step's
completion tokens, so that how a step is cut into passes, or over how many processes, changes nothing but rounding.
"""

from __future__ import annotations

import logging
import math
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from balkit import recipe, texts
from balkit.errors import StudentError, need
from balkit.student import forward, resume
from balkit.student.ranks import Ranks

log = logging.getLogger(__name__)

#: Called with (step, steps, loss).
Progress = Callable[[int, int, float], None]

_MAX_GRADIENT_NORM = 1.0
_BUCKET = 32  # batches that are sorted by length together

#: What a pass costs beside its tokens, in tokens, by kind of device.
PASS_COSTS = {"cpu": 256, "cuda": 4096}


@dataclass(frozen=True)
class Encoded:
    """One row as tokens; `weight` multiplies its tokens' losses."""

    row_id: str
    tokens: forward.Row
    weight: float = 1.0


@dataclass
class Course:
    """How far a training is. `losses` has one mean loss a step, `dev` (step, mean loss on dev), in nats per token."""

    losses: list[float] = field(default_factory=list)
    dev: list[tuple[int, float]] = field(default_factory=list)
    stopped: bool = False

    @property
    def step(self) -> int:
        """Steps done."""
        return len(self.losses)

    @property
    def best(self) -> int | None:
        """The step with the lowest loss on dev, the first of equals; None without dev."""
        return min(self.dev, key=lambda found: found[1])[0] if self.dev else None


def plan_batches(lengths: Sequence[int], *, options: recipe.Train, seed: int) -> list[list[int]]:
    """Which rows each step trains on: indices into `lengths`, of similar length within a step.

    An epoch holds every row once. Rows are shuffled, sorted by length inside buckets of 32 batches, cut into
    batches, and the batches shuffled. `epochs` may be a fraction; there is at least one step.
    """
    size = options.batch_size
    steps = max(1, round(options.epochs * _epoch(len(lengths), size)))
    steps = min(steps, options.max_steps or steps)
    planned: list[list[int]] = []
    for epoch in range(steps):  # more than enough epochs
        if len(planned) >= steps:
            break
        draw = random.Random(texts.rank_key(seed, "epoch", epoch))
        order = draw.sample(range(len(lengths)), len(lengths))
        batches = []
        for start in range(0, len(order), size * _BUCKET):
            bucket = sorted(order[start : start + size * _BUCKET], key=lambda row: lengths[row])
            batches += [bucket[at : at + size] for at in range(0, len(bucket), size)]
        draw.shuffle(batches)
        planned += batches
    return planned[:steps]


def _epoch(rows: int, size: int) -> int:
    return math.ceil(rows / size)


def plan_passes(lengths: Sequence[int], *, most: int, fixed: int) -> list[list[int]]:
    """A step's rows cut into passes: indices into `lengths`, so that padding and passes together cost the least.

    most   padded tokens of a pass; a longer row goes alone
    fixed  what a pass costs whatever it holds, in tokens

    Rows are sorted by length, and the cheapest cuts found by dynamic programming over them.
    """
    order = sorted(range(len(lengths)), key=lambda row: lengths[row])
    cost, cut = [0.0] + [math.inf] * len(order), [0] * (len(order) + 1)
    for end in range(1, len(order) + 1):
        longest = lengths[order[end - 1]]
        for start in range(end - 1, -1, -1):
            padded = (end - start) * longest
            if padded > most and end - start > 1:
                break
            if cost[start] + padded + fixed < cost[end]:
                cost[end], cut[end] = cost[start] + padded + fixed, start
    passes, end = [], len(order)
    while end:
        passes.append(order[cut[end] : end])
        end = cut[end]
    return passes[::-1]


def learning_rate(step: int, *, steps: int, options: recipe.Train) -> float:
    """The rate of a step counted from 0: linear warmup to `lr`, then constant, or down to 0 after the last step."""
    if step < options.warmup_steps:
        return options.lr * (step + 1) / options.warmup_steps
    done = (step - options.warmup_steps) / max(1, steps - options.warmup_steps)
    factor = {"constant": 1.0, "linear": 1 - done, "cosine": (1 + math.cos(math.pi * done)) / 2}[options.schedule]
    return options.lr * factor


class Loop:
    """One training, from wherever it stands to its end. All processes of a launch run it side by side.

    After a kill it goes on from what `memory` holds: the same weights, optimizer and course. Dropout is drawn anew by
    (seed, step, process), so that on a CPU the result is that of a training that was never stopped.
    """

    def __init__(
        self,
        learner: Any,
        *,
        rows: list[Encoded],
        dev: list[Encoded],
        options: recipe.Train,
        seed: int,
        pad: int,
        ranks: Ranks,
        memory: resume.Memory,
    ) -> None:
        torch = need("torch", extra="train")
        self.learner, self.rows, self.dev, self.options = learner, rows, dev, options
        self.seed, self.pad, self.ranks, self.memory = seed, pad, ranks, memory
        self.weights = {name: weight for name, weight in learner.named_parameters() if weight.requires_grad}
        matrices = [weight for weight in self.weights.values() if weight.ndim > 1]
        others = [weight for weight in self.weights.values() if weight.ndim <= 1]  # norms and biases do not decay
        groups = [{"params": matrices, "weight_decay": options.weight_decay}, {"params": others, "weight_decay": 0.0}]
        self.optimizer = torch.optim.AdamW([group for group in groups if group["params"]], lr=options.lr)
        self.plan = plan_batches([row.tokens.length for row in rows], options=options, seed=seed)
        self.course = Course()
        self.best: dict[str, Any] | None = None
        self.whole = True  # False while the weights change

    def run(self, progress: Progress | None = None) -> Course:
        """Train to the end, and leave the weights that did best on dev, or the last ones. Returns how it went."""
        self._take_up()
        self.learner.train()
        kept, kept_step = time.monotonic(), self.course.step
        try:
            while self.course.step < len(self.plan) and not self.course.stopped:
                self._step()
                if progress is not None:
                    progress(self.course.step, len(self.plan), self.course.losses[-1])
                if time.monotonic() - kept >= self.memory.every_s:
                    self._keep()
                    kept, kept_step = time.monotonic(), self.course.step
        except KeyboardInterrupt:
            if self.whole and self.course.step > kept_step:
                self._keep()
            raise
        self.learner.eval()
        if self.best is not None:
            resume.put(self.weights, self.best)
        return self.course

    def _step(self) -> None:
        torch, at = need("torch", extra="train"), self.course.step
        torch.manual_seed(int(texts.rank_key(self.seed, "step", at, self.ranks.rank)[:15], 16))
        self.optimizer.zero_grad()
        batch = [self.rows[index] for index in self.plan[at]]
        loss = self._backward(batch)
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(at, steps=len(self.plan), options=self.options)
        norm = torch.nn.utils.clip_grad_norm_(self.weights.values(), _MAX_GRADIENT_NORM)
        self._finite("the gradients' norm", float(norm), batch)
        self.whole = False
        self.optimizer.step()
        self.course.losses.append(loss)
        self._look()
        self.whole = True

    def _backward(self, batch: list[Encoded]) -> float:
        """The mean loss of a step's completion tokens, the same in every process; its gradients in the weights."""
        tokens = sum(len(row.tokens.response) for row in batch)  # weights are 1 on average over all rows, not these
        mine = 0.0
        for part in self._passes(batch):
            loss = self._loss(part) / tokens
            mine += loss.item()
            loss.backward()
        mean = self.ranks.total(mine)
        self._finite("the loss", mean, batch)
        self.ranks.add_gradients(list(self.weights.values()))
        return mean

    def _finite(self, what: str, value: float, batch: list[Encoded]) -> None:
        if not math.isfinite(value):
            raise StudentError(
                f"{what} is {value} at step {self.course.step + 1}; lower train.lr, or look at this batch's rows: "
                f"{', '.join(row.row_id for row in batch)}"
            )

    def _loss(self, rows: list[Encoded]) -> Any:
        """The sum of the rows' token losses, times the rows' weights, in nats."""
        torch = need("torch", extra="train")
        with self.ranks.precision(self.options.precision):
            nll = forward.response_nll(self.learner, [row.tokens for row in rows], pad_id=self.pad)
        weights = torch.tensor([row.weight for row in rows], device=nll.device)
        lengths = torch.tensor([len(row.tokens.response) for row in rows], device=nll.device)
        return nll @ weights.repeat_interleave(lengths)

    def _passes(self, rows: list[Encoded]) -> list[list[Encoded]]:
        """This process's share of rows, cut into passes."""
        mine = self.ranks.share(sorted(rows, key=lambda row: row.tokens.length))
        lengths = [row.tokens.length for row in mine]
        cuts = plan_passes(lengths, most=self.options.pass_tokens, fixed=PASS_COSTS[self.ranks.kind])
        return [[mine[index] for index in cut] for cut in cuts]

    def _look(self) -> None:
        """The loss on dev, where it is time: remembers the best weights, and stops when they get no better."""
        stopping, course = self.options.early_stopping, self.course
        if stopping is None:
            return
        every = stopping.every_steps or _epoch(len(self.rows), self.options.batch_size)
        if course.step % every and course.step < len(self.plan):
            return
        loss = self._dev_loss()
        if not math.isfinite(loss):
            raise StudentError(f"the loss on dev is {loss} after step {course.step}; lower train.lr")
        course.dev.append((course.step, loss))
        if course.best == course.step:
            self.best = resume.copied(self.weights)
        since = sum(step > (course.best or 0) for step, _ in course.dev)
        course.stopped = since >= stopping.patience

    def _dev_loss(self) -> float:
        torch = need("torch", extra="train")
        self.learner.eval()
        with torch.no_grad():
            mine = sum(self._loss(part).item() for part in self._passes(self.dev))
        self.learner.train()
        return self.ranks.total(mine) / sum(len(row.tokens.response) for row in self.dev)

    def _keep(self) -> None:
        state = {
            "weights": resume.copied(self.weights),
            "optimizer": self.optimizer.state_dict(),
            "losses": self.course.losses,
            "dev": self.course.dev,
            "stopped": self.course.stopped,
            "best": self.best,
        }
        self.memory.keep(state, step=self.course.step)

    def _take_up(self) -> None:
        state = self.memory.load()
        if state is None:
            return
        resume.put(self.weights, state["weights"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.course = Course(state["losses"], [(step, loss) for step, loss in state["dev"]], state["stopped"])
        self.best = state["best"]
        log.info("training goes on after step %d of %d", self.course.step, len(self.plan))
