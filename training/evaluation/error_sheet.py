"""Where the misses are: a sheet of wrong answers for people to look at."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from itertools import chain, zip_longest
from pathlib import Path
from typing import TYPE_CHECKING

from mm.trace import Trace
from mm.vlm import VLM

from .controls import Condition
from .evaluate import Outcome, Watch
from .grade import read_box
from .tasks import Item

if TYPE_CHECKING:
    from PIL.Image import Image as Pixels

SHOWN = 10
"""How many wrong answers a sheet shows."""


@dataclass(frozen=True)
class WrongAnswer:
    """A wrong answer of `condition`."""

    condition: Condition
    item: Item
    trace: Trace

    def caption(self) -> str:
        """Who was asked what, what is true, and last, as it may be long, what was said."""
        sample = self.item.sample
        asked = " ".join(m.text for m in sample.prompt if m.role == "user")
        best = self.trace.best
        said = self.trace.error or best.reply or f"nothing: {best.silence}"
        return f"{self.condition.name}: {asked} True: {sample.target}. Said: {said}."

    def image(self, vlm: VLM) -> Pixels | None:
        """The first image with what was looked at, or with the box given and the true one; of a
        clip the strip of its frames."""
        from video.strip import strip
        from vision.draw import draw

        if self.item.sample.clips and self.trace.sample.images:
            return strip(self.trace.best)
        if not self.item.sample.images:
            return None
        first = self.item.sample.images[0]
        if self.item.box is None:
            return draw(first, self.trace.best)
        given = read_box(self.trace.answer, self.item, vlm)
        boxes = {"true": self.item.box, **({"said": given} if given else {})}
        return draw(first, list(boxes.values()), labels=list(boxes))


@dataclass
class ErrorSheet:
    """The first wrong answers of every strategy on every task, with images; none of controls."""

    found: dict[tuple[str, Condition], list[WrongAnswer]] = field(default_factory=dict)

    def watch(self, task: str, condition: Condition) -> Watch | None:
        """What sees the answers of `condition`."""
        if condition.control:
            return None
        return partial(self._see, condition, self.found.setdefault((task, condition), []))

    def chosen(self) -> list[WrongAnswer]:
        """Up to `SHOWN`, one of each strategy and task in turn."""
        turns = chain.from_iterable(zip_longest(*self.found.values()))
        return [each for each in turns if each is not None][:SHOWN]

    def save(self, path: Path, vlm: VLM) -> int:
        """Write the sheet as PNG and return how many it shows; nothing is written for none."""
        from vision.draw import sheet

        drawn = [(m.image(vlm), m.caption()) for m in self.chosen()]
        panels = [(image, caption) for image, caption in drawn if image]
        if panels:
            images, captions = zip(*panels, strict=True)
            sheet(images, captions, columns=5, cell=320).save(path, format="PNG")
        return len(panels)

    @staticmethod
    def _see(
        condition: Condition, wrong: list[WrongAnswer], item: Item, trace: Trace, outcome: Outcome
    ) -> None:
        if not outcome.correct and len(wrong) < SHOWN:
            wrong.append(WrongAnswer(condition, item, trace))
