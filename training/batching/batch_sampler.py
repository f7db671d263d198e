"""Batches of about as many tokens each, of rows of about one length: little padding."""

from __future__ import annotations

import math
import random
from collections.abc import Iterator, Sequence

WINDOW = 50
"""Rows are sorted by length within windows of so many batches, so that epochs differ."""

LENGTH_CLASS = 1.5
"""Rows are sorted into classes of lengths within this factor, whose edges are drawn anew for each
row: were they sorted to the token, a batch would hold one kind of question only, and the model
would learn the kinds in turns."""


class TokenBatches:
    """Indices of rows, batch by batch, for a `DataLoader`.

    A batch's padded size, its rows times its longest, is at most `budget` tokens; a row longer than
    that is a batch of its own. The `together` consecutive batches of a step have the same number
    of rows, so that a mean over them is a mean over rows; a few rows are repeated for that.

    Args:
        lengths: of each row, in tokens.
        rows: the most rows a batch may have.
        shuffle: a new order each epoch, which follows from `seed` and the epoch; else the file's
            own, sorted by length.
    """

    def __init__(
        self,
        lengths: Sequence[int],
        budget: int,
        *,
        rows: int = 256,
        shuffle: bool = True,
        seed: int = 0,
        together: int = 1,
    ) -> None:
        if budget < 1:
            raise ValueError(f"a batch must hold at least 1 token, got {budget}")
        self.lengths = lengths
        self.budget = budget
        self.rows = rows
        self.shuffle = shuffle
        self.seed = seed
        self.together = together
        self.epoch = 0
        self._count = len(self._epoch(0))

    def __len__(self) -> int:
        return self._count

    def set_epoch(self, epoch: int) -> None:
        """Use the order of `epoch` from now on."""
        self.epoch = epoch

    def __iter__(self) -> Iterator[list[int]]:
        yield from self._epoch(self.epoch)

    def _epoch(self, epoch: int) -> list[list[int]]:
        rng = random.Random(f"{self.seed} {epoch}")
        order = list(range(len(self.lengths)))
        if self.shuffle:
            rng.shuffle(order)
            order = self._grouped(order, rng)
        else:
            order.sort(key=self.lengths.__getitem__)
        steps = list(self._cut(order))
        if self.shuffle:
            rng.shuffle(steps)
        return self._even([batch for step in steps for batch in step])

    def _grouped(self, order: list[int], rng: random.Random) -> list[int]:
        mean = max(sum(self.lengths) // max(len(order), 1), 1)
        size = max(WINDOW * min(self.budget // mean, self.rows), 1)
        classes = [
            math.floor(math.log(max(n, 1), LENGTH_CLASS) + rng.random()) for n in self.lengths
        ]
        windows = (order[at : at + size] for at in range(0, len(order), size))
        return [i for window in windows for i in sorted(window, key=classes.__getitem__)]

    def _cut(self, order: Sequence[int]) -> Iterator[list[list[int]]]:
        """The batches of each step, rows dealt to them in turn."""
        step: list[int] = []
        longest = 0
        for at in range(0, len(order), self.together):
            layer = [order[(at + k) % len(order)] for k in range(self.together)]
            longest = max(longest, *(self.lengths[index] for index in layer))
            rows = len(step) // self.together + 1
            if step and (longest * rows > self.budget or rows > self.rows):
                yield self._dealt(step)
                step, longest = [], max(self.lengths[index] for index in layer)
            step += layer
        if step:
            yield self._dealt(step)

    def _dealt(self, step: Sequence[int]) -> list[list[int]]:
        return [list(step[at :: self.together]) for at in range(self.together)]

    def _even(self, batches: list[list[int]]) -> list[list[int]]:
        """The same number of batches each epoch."""
        count = getattr(self, "_count", len(batches))
        return [batches[at % len(batches)] for at in range(count)]
