"""A conversation in progress: strategies drive it, the trace records it, an observer watches it."""

from __future__ import annotations

import logging
import queue
import threading
import zlib
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import asdict, replace
from functools import partial
from itertools import count
from typing import Any

from .answers.thought_limit import write_within
from .errors import ModelError, UserError
from .parallel import in_order
from .trace import Branch, Event, Sample, Step, Trace
from .types import Conversation, Cost, Generation, Image, Message, Sampling, assistant
from .vlm import VLM, Cancelled, sampling_of

_log = logging.getLogger(__name__)
_NEXT_REPLY = 1_000_003  # between the seeds of one path's replies

Observer = Callable[[Event], None]


class Session:
    """One path through a trace, and the model to extend it with.

    `shared` is a place for what the paths of one trace hold in common and no record keeps, such as
    an open clip.
    """

    def __init__(
        self,
        trace: Trace,
        vlm: VLM,
        *,
        sampling: Sampling = Sampling(),
        observer: Observer | None = None,
        cancel: Cancelled | None = None,
        leaf: int | None = None,
        seeds: Iterator[int] | None = None,
        shared: dict[str, Any] | None = None,
    ) -> None:
        self.trace = trace
        self.vlm = vlm
        self.sampling = sampling
        self.cancel = cancel
        self.shared = {} if shared is None else shared
        self._observer = observer
        self._leaf = leaf
        self._begun = 0  # so many steps stood when it went apart
        self._seeds = seeds or map(partial(path_seed, sampling.seed), count(1))

    @property
    def sample(self) -> Sample:
        """The question that the session answers."""
        return self.trace.sample

    @property
    def branch(self) -> Branch:
        """The path from the question to where the session stands."""
        return self.trace.branch(self._leaf)

    @property
    def messages(self) -> Conversation:
        """All that has been said on the branch, the question included."""
        return self.branch.messages

    @property
    def images(self) -> tuple[Image, ...]:
        """Every image so far, the prompt's first; `img_idx` of a tool call counts these."""
        return (*self.sample.images, *self.branch.images)

    def say(self, message: Message, *, cost: Cost = Cost()) -> None:
        """Add a message nobody sampled, such as an observation; a system message goes first.

        `cost` is what it took to make.
        """
        self._add(Step(message, self._leaf, cost=cost))

    def reword(self, prompt: Conversation) -> None:
        """Put the question differently, on all branches, while this one has system messages alone.

        Raises:
            UserError: it has others.
        """
        if any(step.message.role != "system" for step in self.branch.steps):
            raise UserError(
                "the question was talked about already, and cannot be put differently: let the "
                "strategy that does so begin"
            )
        self.trace.sample = replace(self.sample, prompt=prompt)

    def note(self, name: str, facts: object) -> None:
        """Keep facts about how the answer was found with the trace; values that JSON can hold."""
        self.trace.settings = {**self.trace.settings, name: facts}

    def generate(self, sampling: Sampling | None = None) -> Generation:
        """Let the model write the next message and record it; its thought as far as is allowed.

        Raises:
            ModelError: the model failed.
        """
        branch, last = self.branch, None
        asked = _seeded(sampling or self.sampling, branch)
        if asked.max_thought_tokens is None:
            return self._record(self._write(branch.messages, asked))
        for said in write_within(self._write, branch.messages, asked):
            if isinstance(said, Message):
                self.say(said)
            else:
                last = self._record(said)
        assert last is not None  # a reply ends with what the model wrote
        return last

    def _write(self, messages: Conversation, sampling: Sampling) -> Generation:
        on_token = self._emit_token if self._observer else None
        (generation,) = self.vlm.generate(
            [messages], sampling, on_token=on_token, cancel=self.cancel
        )
        return generation

    def _record(self, generation: Generation) -> Generation:
        self._add(
            Step(
                generation.message,
                self._leaf,
                sampled=True,
                logprobs=generation.logprobs,
                cost=generation.cost,
                finish=generation.finish,
            )
        )
        return generation

    def choose(self, choices: Sequence[str]) -> str:
        """The choice the model finds likeliest per token as its next words, recorded as said by it.

        Ties go to the earliest.

        Raises:
            ValueError: there is nothing to choose from.
            ModelError: the model failed.
        """
        if not choices:
            raise ValueError("nothing to choose from: choices is empty")
        scores = self.vlm.score(self.messages, choices)
        means = [sum(s) / max(len(s), 1) for s in scores.logprobs]
        best = choices[means.index(max(means))]
        replied = any(step.sampled and step.parent == self._leaf for step in self.trace.steps)
        # a reply from here has entered the images already
        cost = replace(scores.cost, visual_tokens=0) if replied else scores.cost
        self._add(Step(assistant(best), self._leaf, cost=cost))
        return best

    @property
    def watched(self) -> bool:
        """Whether somebody sees the steps as they are made."""
        return self._observer is not None

    @property
    def stopped(self) -> bool:
        """Whether the caller has asked to stop."""
        return bool(self.cancel and self.cancel())

    def fork(self) -> Session:
        """Another path from here in the same trace, with a seed of its own."""
        return self.at(self._leaf)

    def at(self, leaf: int | None) -> Session:
        """Another path, from step `leaf` of the same trace (None: its prompt), its seed its own."""
        return self._path(leaf, replace(self.sampling, seed=next(self._seeds)))

    def _path(self, leaf: int | None, sampling: Sampling) -> Session:
        return Session(
            self.trace,
            self.vlm,
            sampling=sampling,
            observer=self._observer,
            cancel=self.cancel,
            leaf=leaf,
            seeds=self._seeds,
            shared=self.shared,
        )

    def hand_to(self, vlm: VLM) -> None:
        """Let `vlm` go on from here: the same weights with another adapter."""
        self.vlm = vlm

    def apart(self) -> Session:
        """Another path from here in a copy of the trace, so that several may be gone at a time.

        The seeds of paths that it begins are its own. `take` brings back what it did.
        """
        fork = self.fork()
        fork.trace = replace(self.trace, steps=list(self.trace.steps))
        fork._begun = len(self.trace.steps)
        fork._seeds = map(partial(path_seed, fork.sampling.seed), count(1))
        if self._observer:
            fork._observer = partial(self._observe, fork._begun)
        return fork

    def take(self, fork: Session, leaf: int | None) -> Session:
        """The path to step `leaf` of `fork`, which went apart from this one, in this trace."""
        higher = self.trace.graft(fork.trace, fork._begun)
        moved = leaf if leaf is None or leaf < fork._begun else leaf + higher
        return self._path(moved, fork.sampling)

    def _observe(self, begun: int, event: Event) -> None:
        """Pass on what happens to a path that went apart, with the indices of this trace."""
        if event.index is not None and event.index >= begun:
            event = replace(event, index=event.index + len(self.trace.steps) - begun)
        self._emit(event)

    def score(
        self, name: str, value: float | None, *, leaf: int | None = None, cost: Cost = Cost()
    ) -> None:
        """Write a verifier's verdict on step `leaf` of the trace; None is the branch's own leaf.

        `cost` is what it took, which is added to that step's.
        """
        index = self._leaf if leaf is None else leaf
        if index is None:
            raise ValueError("nothing to score: the branch has no step yet")
        self.trace.score(index, name, value, cost)
        self._emit(Event("verdict", text=f"{name}: {value}", index=index))

    def _add(self, step: Step) -> None:
        self._leaf = self.trace.add(step)
        self._emit(Event("step", index=self._leaf, message=step.message))

    def _emit(self, event: Event) -> None:
        if self._observer:
            self._observer(event)

    def _emit_token(self, piece: str) -> None:
        self._emit(Event("token", text=piece))


def path_seed(seed: int, number: int | str) -> int:
    """Of path `number` from where `seed` is; hashed, so that neighbouring seeds share none.

    It has 30 bits: replies add to it, and some servers take no more than 31.
    """
    return zlib.crc32(f"{seed} {number}".encode()) >> 2


def _seeded(sampling: Sampling, branch: Branch) -> Sampling:
    """`sampling` with a seed of its own for each reply, which one seed would draw alike."""
    written = sum(step.sampled for step in branch.steps)
    return replace(sampling, seed=sampling.seed + _NEXT_REPLY * written) if written else sampling


Strategy = Callable[[Session], Branch]
"""Drives a session and returns the branch it chooses."""

Verifier = Callable[[Branch], float | None]
"""Scores a branch; None means it cannot tell. Changes nothing."""


def run(
    strategy: Strategy,
    sample: Sample,
    vlm: VLM,
    *,
    sampling: Sampling | None = None,
    observer: Observer | None = None,
    cancel: Cancelled | None = None,
) -> Trace:
    """Answer `sample` with `strategy`; a model's failure becomes `trace.error`, bugs are raised.

    `sampling` None takes the checkpoint's own, which is greedy where its authors recommend nothing.
    """
    sampling = sampling_of(vlm.traits) if sampling is None else sampling
    trace = Trace(sample, strategy=name_of(strategy), settings=_settings(vlm, sampling))
    session = Session(trace, vlm, sampling=sampling, observer=observer, cancel=cancel)
    try:
        trace.chosen = strategy(session).leaf
    except ModelError as error:
        _log.debug("%s: the model failed", sample.id, exc_info=error)
        trace.error = str(error)
    if observer:
        observer(Event("done", trace=trace))
    return trace


def _settings(vlm: VLM, sampling: Sampling) -> dict[str, object]:
    return {
        "model": vlm.name,
        "sampling": {**asdict(sampling), "stop": list(sampling.stop)},
        "budgets": dict(vlm.traits.budgets),
    }


def run_many(
    strategy: Strategy, samples: Iterable[Sample], vlm: VLM, *, threads: int = 4, **options: Any
) -> Generator[Trace, None, None]:
    """Traces of `samples` in order, several at a time so that an engine can batch its passes.

    Samples are drawn as they are needed. Closing the iterator, an error or Ctrl-C stop the model
    within a token; `options` are those of `run`.
    """
    cancel: Cancelled | None = options.pop("cancel", None)

    def answer(sample: Sample, cancelled: Cancelled) -> Trace:
        stopped = (lambda told=cancel: told() or cancelled()) if cancel else cancelled
        return run(strategy, sample, vlm, cancel=stopped, **options)

    with closing(in_order(answer, samples, threads)) as traces:
        yield from traces


def stream(
    strategy: Strategy, sample: Sample, vlm: VLM, *, sampling: Sampling | None = None
) -> Generator[Event]:
    """Events as they happen, the last one "done" with the trace; closing it stops the model."""
    events: queue.SimpleQueue[Event | BaseException] = queue.SimpleQueue()
    stopped = threading.Event()

    def work() -> None:
        try:
            run(
                strategy, sample, vlm, sampling=sampling, observer=events.put, cancel=stopped.is_set
            )
        except BaseException as error:  # handed to the caller's thread below
            events.put(error)

    threading.Thread(target=work, daemon=True).start()
    try:
        while True:
            event = events.get()
            if isinstance(event, BaseException):
                raise event
            yield event
            if event.kind == "done":
                return
    finally:
        stopped.set()


def name_of(function: Callable) -> str:
    """The name people know a strategy or verifier by, through any `partial`."""
    while isinstance(function, partial):
        function = function.func
    return getattr(function, "__name__", type(function).__name__).lstrip("_")
