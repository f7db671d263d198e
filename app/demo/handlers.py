"""What the page calls: answers in the making, whole ones for programs, and what both refuse."""

from __future__ import annotations

import os
import time
from collections.abc import Generator, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import gradio as gr
from gradio.utils import get_upload_folder, is_in_or_equal

import mm
from app.report import as_json, with_strategy_text
from app.strategies import STRATEGIES
from mm.errors import UserError
from mm.samples import instructed
from video.search import over_clips
from vision.depth_source import DepthSource

from . import view
from .waiting import waited

MAX_QUESTION = 2000
"""Characters."""

DEADLINE_S = 600.0
"""After which a program's question is given up: it may have left without a word."""

PAUSE_S = 0.05
"""Between two views of words that are still coming."""

Update = Any
View = tuple[Update, Update, Update, Update]
"""What the page shows: words, the image with regions, crops with captions, the cost."""


@dataclass(frozen=True)
class Handlers:
    """What the page calls, with the model behind it."""

    vlm: mm.VLM
    sampling: mm.Sampling | None = None
    strategies: Mapping[str, mm.Strategy] = field(default_factory=lambda: STRATEGIES)
    system: str | None = None
    depth: DepthSource = DepthSource()

    def first(self, wanted: str) -> str:
        """The strategy `wanted`, else the first that is offered."""
        return wanted if wanted in self.strategies else next(iter(self.strategies))

    def show(
        self, image: dict | None, question: str, strategy: str, video: dict | None = None
    ) -> Generator[View]:
        """Views of an answer in the making. Closing the iterator stops the model."""
        try:
            sample, function = self._sample(image, question, video), self._strategy(strategy)
        except UserError as error:
            yield view.mistake(str(error)), None, [], ""
            return
        first = view.shown(sample.images[0]) if sample.images else None
        yield view.writing("looking"), first, [], ""
        try:
            with closing(mm.stream(function, sample, self.vlm, sampling=self.sampling)) as events:
                yield from _views(sample, events, self.depth)
        except UserError as error:  # an option that the strategy needs
            yield view.mistake(str(error)), gr.skip(), gr.skip(), gr.skip()

    def ask(
        self,
        image: dict | None,
        question: str,
        strategy: str | None = None,
        video: dict | None = None,
    ) -> Generator[dict | None]:
        """Ask `question` about an uploaded `image` or `video`: what `mm ask --json` prints.

        A `strategy` that is not named is zoom, or the first where that is not offered.
        Gives None again and again until the answer is there: only between two values does Gradio
        see that whoever asked has left.
        """
        try:
            name = strategy or self.first("zoom")
            sample, function = self._sample(image, question, video), self._strategy(name)
            work = partial(mm.run, function, sample, self.vlm, sampling=self.sampling)
            with closing(waited(work, DEADLINE_S)) as traces:
                for trace in traces:
                    yield as_json(with_strategy_text(trace, name)) if trace else None
        except UserError as error:
            raise gr.Error(str(error)) from None

    def _sample(self, image: dict | None, question: str, video: dict | None) -> mm.Sample:
        return instructed(_sample(image, question, video), self.system)

    def _strategy(self, name: str) -> mm.Strategy:
        """By name only: a client may not name a module to import."""
        if name not in self.strategies:
            raise UserError(f"no strategy {name!r}: one of {', '.join(self.strategies)}")
        return over_clips(self.strategies[name])


def _views(sample: mm.Sample, events: Iterator[mm.Event], depth: DepthSource) -> Iterator[View]:
    """The page as events come; only what changed is sent, and words no faster than people read."""
    so_far, words, shown_s = mm.Trace(sample), "", 0.0
    for event in events:
        if event.kind == "token":
            words += event.text
            if time.monotonic() - shown_s > PAUSE_S:
                shown_s = time.monotonic()
                yield view.writing(words), gr.skip(), gr.skip(), gr.skip()
        elif event.kind == "step" and event.message:
            words = ""
            last = len(so_far.steps) - 1
            so_far.chosen = so_far.add(mm.Step(event.message, last if last >= 0 else None))
            if event.message.visuals and sample.images:
                yield (
                    gr.skip(),
                    view.image(so_far, depth),
                    _gallery(so_far.best),
                    gr.skip(),
                )
        elif event.kind == "done" and event.trace:
            trace = event.trace
            cost = view.cost_html(trace.cost)
            yield (
                view.answered(trace),
                view.image(trace, depth) if trace.sample.images else gr.skip(),
                _gallery(trace.best),
                cost,
            )


def _gallery(branch: mm.Branch) -> list[tuple[Any, str]]:
    return [(crop.pixels, f"{i}. {crop.words}") for i, crop in enumerate(view.crops(branch), 1)]


def _sample(image: dict | None, question: str, video: dict | None = None) -> mm.Sample:
    if not (image or video):
        raise UserError("drop an image or a clip first")
    if not isinstance(question, str) or not question.strip():
        raise UserError("ask a question about the image")
    if len(question) > MAX_QUESTION:
        raise UserError(
            f"the question has {len(question)} characters; {MAX_QUESTION} are the limit"
        )
    shown: list[str | mm.Clip] = [_uploaded(image, "image")] if image else []
    shown += [mm.Clip(_uploaded(video, "clip"))] if video else []
    return mm.question(question.strip(), *shown)


def _uploaded(file: object, kind: str) -> str:
    """The path of a file that this server was sent; nothing else on the machine is opened."""
    path = file.get("path") if isinstance(file, dict) else None
    if not isinstance(path, str) or not is_in_or_equal(path, get_upload_folder()):
        raise UserError(f"the {kind} must be an uploaded file, not a path or an address")
    if not os.path.isfile(path):  # the page keeps uploads for some hours
        raise UserError(f"the {kind} is no longer here: drop it again")
    return path
