"""Replies being written together: a forward computes the next token of every row."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from mm.types import Cost, Finish, Sampling

from .detokenizer import StreamDetokenizer
from .model_runner import ModelRunner
from .prefix_cache import PrefixCache, PrefixKey
from .prompt import Prompt
from .request import Request
from .sampler import Sampler, pick_rows

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Reply:
    """What the engine wrote: `ids` with a log-probability each; `cost` lacks the visual tokens."""

    ids: tuple[int, ...]
    logprobs: tuple[float, ...]
    finish: Finish
    cost: Cost


@dataclass(eq=False)
class Row:
    """A reply in progress.

    Attributes:
        context: the prompt's.
        position: the position of the next token to compute, which is the last one written.
        room: how many tokens the reply may have.
    """

    request: Request
    context: PrefixKey
    position: int
    cost: Cost
    room: int
    sampler: Sampler
    text: StreamDetokenizer
    ids: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)

    def push(self, id: int, logprob: float, ends: frozenset[int]) -> Finish | None:
        """Take the next token; how the reply ended, if it did."""
        self.ids.append(id)
        self.logprobs.append(logprob)
        if id in ends or self.text.push(id):
            return "stop"
        return "length" if len(self.ids) >= self.room else None

    def reply(self, finish: Finish) -> Reply:
        """What the row has written so far, with its cost; ends the stream of text."""
        self.text.end()
        seconds = time.perf_counter() - self.request.began
        cost = replace(self.cost, generated_tokens=len(self.ids), calls=1, seconds=seconds)
        return Reply(tuple(self.ids), tuple(self.logprobs), finish, cost)


class DecodeBatch:
    """The rows of one adapter.

    Args:
        relieve: called with an error; where memory ran out it gives some back, and it returns the
            error to tell.
    """

    def __init__(
        self,
        weights: ModelRunner,
        adapter: str | None,
        contexts: PrefixCache,
        relieve: Callable[[Exception], Exception],
    ) -> None:
        import torch

        from .kv_slots import BatchedRows, SeparateRows

        self.rows: list[Row] = []
        self._weights = weights
        self._adapter = adapter
        self._contexts = contexts
        self._relieve = relieve
        self._store = BatchedRows(weights) if weights.batches else SeparateRows(weights)
        self._banned = torch.tensor(sorted(weights.builder.banned_ids), device=weights.device)

    def join(self, prompt: Prompt) -> None:
        """Begin the replies to `prompt`: write their first tokens, and decode the rest from now."""
        rows = [self._row(prompt, place) for place in range(len(prompt.requests))]
        picked = self._pick(rows, prompt.logits.expand(len(rows), -1))
        for row, pick in zip(rows, picked, strict=True):
            try:
                if row.room <= 0:
                    row.request.answer(row.reply("length"))
                elif finish := row.push(*pick, self._weights.builder.end_ids):
                    row.request.answer(row.reply(finish))
                else:
                    self._store.add(prompt.layers)
                    self.rows.append(row)
            except Exception as error:
                row.request.fail(self._relieve(error))

    def step(self) -> None:
        """Write one more token of every reply."""
        self.leave_stopped()
        if not self.rows:
            return
        with self._weights.using(self._adapter):
            logits = self._logits()
        if logits is None:
            return
        picked = self._pick(self.rows, logits)
        for place in reversed(range(len(self.rows))):
            row = self.rows[place]
            row.position += 1
            try:
                finish = row.push(*picked[place], self._weights.builder.end_ids)
            except Exception as error:
                self.fail(place, error)
                continue
            if finish:
                self._finish(place, finish)

    def leave_stopped(self) -> None:
        """Let go the rows that were cancelled, and those whose deadline has passed."""
        for place in reversed(range(len(self.rows))):
            try:
                if self.rows[place].request.check():
                    self._finish(place, "cancelled")
            except Exception as error:
                self.fail(place, error)

    def fail(self, place: int, error: BaseException) -> None:
        """Remove the row at `place`, whose request raises `error`."""
        self._remove(place).request.fail(error)

    def _row(self, prompt: Prompt, place: int) -> Row:
        request = prompt.requests[place]
        sampling = request.sampling or Sampling()
        length = len(prompt.tokens.ids)
        return Row(
            request,
            prompt.context,
            prompt.next_position,
            prompt.cost(place),
            min(sampling.max_tokens, self._weights.limit - length),
            Sampler(sampling, prompt=prompt.tokens.ids),
            StreamDetokenizer(
                self._weights.builder.decode,
                sampling.stop,
                request.emit if request.streams else None,
            ),
        )

    def _pick(self, rows: Sequence[Row], logits: Tensor) -> list[tuple[int, float]]:
        return pick_rows([row.sampler for row in rows], logits, self._banned)

    def _logits(self) -> Tensor | None:
        """Logits (B, V) after every row's last token; None where no row is left.

        Where they cannot be computed together, each is tried alone, and fails alone.
        """
        import torch

        try:
            return self._compute(0, len(self.rows))
        except Exception as error:
            self._relieve(error)
        found = [self._attempt(place) for place in range(len(self.rows))]
        for place in reversed(range(len(found))):
            if isinstance(error := found[place], Exception):
                self.fail(place, error)
                found[place] = found[-1]  # as the last row took the failed one's place
                found.pop()
        logits = [f for f in found if not isinstance(f, Exception)]
        return torch.cat(logits) if logits else None

    def _attempt(self, place: int) -> Tensor | Exception:
        try:
            return self._compute(place, place + 1)
        except Exception as error:
            return self._relieve(error)

    def _compute(self, first: int, stop: int) -> Tensor:
        import torch

        rows = self.rows[first:stop]
        device = self._weights.device
        ids = torch.tensor([[row.ids[-1]] for row in rows], device=device)
        positions = torch.tensor([[row.position] for row in rows], device=device)
        return self._store.compute(ids, positions, first, stop)

    def _finish(self, place: int, finish: Finish) -> None:
        row = self.rows[place]
        try:
            self._keep(place)
        except Exception as error:
            self._relieve(error)  # what is not kept is computed again
        self._remove(place)
        row.request.answer(row.reply(finish))

    def _keep(self, place: int) -> None:
        """Keep what was computed: the prompt and all but the last token of the reply."""
        row = self.rows[place]
        context = replace(row.context, ids=(*row.context.ids, *row.ids[:-1]))
        self._contexts.keep(context, self._store.read(place))

    def _remove(self, place: int) -> Row:
        row = self.rows[place]
        self.rows[place] = self.rows[-1]
        self.rows.pop()
        self._store.remove(place)
        return row
