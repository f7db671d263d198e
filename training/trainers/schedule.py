"""How much of a training is done, by steps and by the clock, and its learning rate there."""

from __future__ import annotations

import math
import time

WARMUP = 0.03
"""The share of a training in which the learning rate rises."""


class Pace:
    """The share of a training that is done: of its steps, or of its time if that runs out first.

    The time until a process's first step is over, in which it loads, reads and compiles, counts
    against the limit and not for the share: else the learning rate's warm-up passes in it.

    Args:
        limit_s: seconds it may take; None for as long as its steps take.
    """

    def __init__(self, limit_s: float | None = None) -> None:
        self.limit_s = limit_s
        self._began = time.monotonic()
        self._agreed_s: float | None = None
        self._earlier_s = self._preparing_s = 0.0
        self._prepared = self._paced = False

    def spend(self, seconds: float, preparing_s: float = 0.0) -> None:
        """Count the `seconds` of earlier processes; `preparing_s` of these went by before the first
        step of each was over."""
        self._began -= seconds
        self._earlier_s, self._preparing_s = seconds, preparing_s
        self._paced = seconds > preparing_s

    def stepped(self) -> None:
        """A step of this process is over: the first ends its preparation, others tell the pace."""
        self._paced = self._paced or self._prepared
        if not self._prepared:
            self._preparing_s, self._prepared = self.preparing_s, True

    def agree(self) -> None:
        """Where there are several processes, use the first one's clock until the next call.

        Else they would log, check and stop at different steps, and wait for each other for ever.
        """
        from accelerate import PartialState
        from accelerate.utils import broadcast_object_list

        if PartialState().num_processes > 1:
            (self._agreed_s,) = broadcast_object_list([time.monotonic() - self._began])

    @property
    def spent_s(self) -> float:
        """Seconds of training so far, earlier runs included."""
        live = time.monotonic() - self._began
        return live if self._agreed_s is None else self._agreed_s

    @property
    def preparing_s(self) -> float:
        """Seconds of `spent_s` that went by until the first step of each process was over."""
        return self._preparing_s + (0.0 if self._prepared else self.spent_s - self._earlier_s)

    def done(self, step: int, steps: int) -> float:
        """The share of the training that is done: 0 at its start, 1 at its end."""
        by_steps = step / steps if steps > 0 else 1.0
        return min(max(by_steps, self._by_time()), 1.0)

    def _by_time(self) -> float:
        if not self.limit_s:
            return 0.0
        if self.spent_s >= self.limit_s:
            return 1.0
        preparing = self.preparing_s
        return (self.spent_s - preparing) / (self.limit_s - preparing)

    def rate_share(self, step: int, steps: int) -> float:
        """The share of the full learning rate at `step`."""
        return rate_share(self.done(step, steps))

    def left_s(self, step: int, steps: int) -> float | None:
        """Seconds until the end at this pace; until a second step tells it, what the limit leaves,
        None where there is none."""
        if not self._paced:
            return max(self.limit_s - self.spent_s, 0.0) if self.limit_s else None
        done = self.done(step, steps)
        return (self.spent_s - self.preparing_s) * (1 - done) / done if done else None


def rate_share(done: float) -> float:
    """The share of the full learning rate when a share `done` of the training is: a linear warmup,
    then half a cosine down to a hundredth."""
    if done < WARMUP:
        return max(done / WARMUP, 0.01)
    return max(0.5 * (1 + math.cos(math.pi * (done - WARMUP) / (1 - WARMUP))), 0.01)
