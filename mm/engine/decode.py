"""Replies decoded in one batch: a forward computes the next token of every row."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
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

    from .kv_slots import BatchedRows, SeparateRows


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
        prefix: the prompt's.
        position: the position of the next token to compute, which is the last one written.
        text: None where the text is not streamed and there are no stop strings.
    """

    request: Request
    prefix: PrefixKey
    position: int
    cost: Cost
    sampler: Sampler
    text: StreamDetokenizer | None
    ids: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)

    @property
    def most(self) -> int:
        """The length that the row will not exceed, in tokens."""
        return len(self.request.tokens.ids) + self.request.room

    def push(self, id: int, logprob: float, ends: frozenset[int]) -> Finish | None:
        """Take the next token; how the reply ended, if it did."""
        self.ids.append(id)
        self.logprobs.append(logprob)
        if id in ends or (self.text and self.text.push(id)):
            return "stop"
        return "length" if len(self.ids) >= self.request.room else None

    def reply(self, finish: Finish) -> Reply:
        """What the row has written so far, with its cost; ends the stream of text."""
        if self.text:
            self.text.end()
        seconds = time.perf_counter() - self.request.began
        cost = replace(self.cost, generated_tokens=len(self.ids), calls=1, seconds=seconds)
        return Reply(tuple(self.ids), tuple(self.logprobs), finish, cost)


class DecodeBatch:
    """The rows of one adapter.

    Args:
        on_error: called with an error; where memory ran out it frees some. Returns the error
            to report.
    """

    def __init__(
        self,
        runner: ModelRunner,
        adapter: str | None,
        prefixes: PrefixCache,
        on_error: Callable[[Exception], Exception],
    ) -> None:
        import torch

        self.rows: list[Row] = []
        self._runner = runner
        self._adapter = adapter
        self._prefixes = prefixes
        self._on_error = on_error
        self._banned = torch.tensor(sorted(runner.builder.banned_ids))

    @cached_property
    def _kv(self) -> BatchedRows | SeparateRows:
        from .kv_slots import BatchedRows, SeparateRows

        return BatchedRows(self._runner) if self._runner.batches else SeparateRows(self._runner)

    def bytes_with(self, lengths: Sequence[int]) -> int:
        """Bytes of keys and values of the rows, and of new ones up to `lengths` tokens long.

        What they take at most, padding included; no less than what the buffers take now.
        """
        lengths = [*(row.most for row in self.rows), *lengths]
        if not lengths:
            return 0
        held = self._kv.nbytes if self.rows else 0
        return max(self._runner.batch_bytes(lengths), held)

    def join(self, prompt: Prompt) -> None:
        """Sample the first tokens of the replies to `prompt`; decode the rest from now on."""
        rows = [self._row(prompt, place) for place in range(len(prompt.requests))]
        picked = self._pick(rows, prompt.logits.expand(len(rows), -1))
        for row, pick in zip(rows, picked, strict=True):
            try:
                if row.request.room <= 0:
                    row.request.answer(row.reply("length"))
                elif finish := row.push(*pick, self._runner.builder.end_ids):
                    row.request.answer(row.reply(finish))
                else:
                    self._kv.add(prompt.layers, max(r.most for r in (row, *self.rows)))
                    self.rows.append(row)
            except Exception as error:
                row.request.fail(self._on_error(error))

    def step(self) -> None:
        """Write one more token of every reply."""
        self._remove_stopped()
        if not self.rows:
            return
        with self._runner.using(self._adapter):
            logits = self._logits()
        if logits is None:
            return
        picked = self._picked(logits)
        for place in reversed(range(len(self.rows))):
            if isinstance(pick := picked[place], Exception):
                self._fail(place, pick)
                continue
            row = self.rows[place]
            row.position += 1
            try:
                finish = row.push(*pick, self._runner.builder.end_ids)
            except Exception as error:
                self._fail(place, error)
                continue
            if finish:
                self._finish(place, finish)

    def _remove_stopped(self) -> None:
        """Remove the rows that were cancelled, and those whose deadline has passed."""
        for place in reversed(range(len(self.rows))):
            try:
                if self.rows[place].request.check():
                    self._finish(place, "cancelled")
            except Exception as error:
                self._fail(place, error)

    def _fail(self, place: int, error: BaseException) -> None:
        self._remove(place).request.fail(error)

    def _row(self, prompt: Prompt, place: int) -> Row:
        request = prompt.requests[place]
        sampling = request.sampling or Sampling()
        watch = request.emit if request.options.on_text else None
        text = None
        if watch or sampling.stop:
            text = StreamDetokenizer(self._runner.builder.decode, sampling.stop, watch)
        return Row(
            request,
            prompt.prefix,
            prompt.next_position,
            prompt.cost(place),
            Sampler(sampling, prompt=prompt.tokens.ids),
            text,
        )

    def _pick(self, rows: Sequence[Row], logits: Tensor) -> list[tuple[int, float]]:
        return pick_rows([row.sampler for row in rows], logits, self._banned)

    def _picked(self, logits: Tensor) -> list[tuple[int, float] | Exception]:
        """The next token of every row; where they cannot be sampled together, all rows fail, as
        their cached keys and values are already one token ahead of their ids."""
        try:
            return [*self._pick(self.rows, logits)]
        except Exception as error:
            return [self._on_error(error)] * len(self.rows)

    def _logits(self) -> Tensor | None:
        """Logits (B, V) after every row's last token; None where no row is left.

        Where they cannot be computed together, each is tried alone, and fails alone.
        """
        import torch

        try:
            return self._compute(0, len(self.rows))
        except Exception as error:
            self._on_error(error)
        outcomes = {row: self._attempt(place) for place, row in enumerate(self.rows)}
        for place in reversed(range(len(self.rows))):
            if isinstance(error := outcomes[self.rows[place]], Exception):
                self._fail(place, error)
        # in the order that the rows have now: removing one moves the last into its place
        logits = [found for row in self.rows if isinstance(found := outcomes[row], torch.Tensor)]
        return torch.cat(logits) if logits else None

    def _attempt(self, place: int) -> Tensor | Exception:
        try:
            return self._compute(place, place + 1)
        except Exception as error:
            return self._on_error(error)

    def _compute(self, first: int, stop: int) -> Tensor:
        import torch

        rows = self.rows[first:stop]
        device = self._runner.device
        ids = torch.tensor([[row.ids[-1]] for row in rows], device=device)  # (B, 1)
        positions = torch.tensor([[row.position] for row in rows], device=device)  # (B, 1)
        return self._kv.compute(ids, positions, first, stop)

    def _finish(self, place: int, finish: Finish) -> None:
        row = self.rows[place]
        try:
            self._cache(place)
        except Exception as error:
            self._on_error(error)  # what is not cached is computed again
        self._remove(place)
        row.request.answer(row.reply(finish))

    def _cache(self, place: int) -> None:
        """Cache what was computed: the prompt and all but the last token of the reply."""
        row = self.rows[place]
        context = replace(row.prefix, ids=(*row.prefix.ids, *row.ids[:-1]))
        self._prefixes.store(context, self._kv.read(place))

    def _remove(self, place: int) -> Row:
        row = self.rows[place]
        self.rows[place] = self.rows[-1]
        self.rows.pop()
        self._kv.remove(place)
        return row
