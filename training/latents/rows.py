"""Rows to train latents on: a question about an image, its depth, a rationale, the answer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.progress import track

from mm.parallel import in_order
from mm.types import Conversation, Image, message
from mm.vlm import Cancelled
from training.data import Access, BadData, DataSet, Row, read_data, refuse
from vision.depth import BadDepth, DepthMap, Kind, resized
from vision.depth_files import open_depth
from vision.depth_source import RATIONALE

READERS = 2
"""Threads that read rows."""


@dataclass(frozen=True)
class DepthRow:
    """A row to learn from.

    Attributes:
        messages: the question and its answer.
        depth: of the question's first image.
    """

    id: str
    messages: Conversation
    image: Image
    depth: DepthMap
    question: str
    rationale: str


@dataclass(frozen=True)
class DepthRows(Sequence[DepthRow]):
    """The rows of a file; each is opened when it is asked for.

    Attributes:
        scale, kind: of the depth files, as `open_depth` has them.
        rationales: whether each row must have one.
    """

    data: DataSet
    scale: float | str | None = None
    kind: Kind = "metric"
    rationales: bool = False

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, index: int) -> DepthRow:  # type: ignore[override] - no slices
        fields = self.data.records[index].fields
        said = fields.get(RATIONALE) if isinstance(fields, dict) else None
        if not isinstance(said, str | None):
            raise ValueError(f"expected text in {RATIONALE!r}, found {type(said).__name__}")
        return self._row(self.data[index], (said or "").strip())

    def check(self) -> None:
        """Read every row once.

        Raises:
            BadData: with a line for each row that cannot be learnt from.
        """
        found = in_order(self._checked, range(len(self)), READERS)
        refuse(track(found, "reading rows", total=len(self)))

    def _checked(self, index: int, cancelled: Cancelled) -> BadData | None:
        try:
            self[index]
        except BadData as error:
            return error
        except (ValueError, BadDepth) as error:
            number = self.data.records[index].number
            return BadData(f"{self.data.path}, row {number}: {error}")
        return None

    def _row(self, row: Row, rationale: str) -> DepthRow:
        images = [image for said in row.messages for image in said.images]
        if not images:
            raise ValueError("expected an image, found none")
        if not row.depth:
            raise ValueError("expected a file in 'depth', found nothing")
        if self.rationales and not rationale:
            raise ValueError("expected text in 'rationale', found nothing: stage 1 learns from it")
        talk = row.messages
        if talk[-1].role != "assistant":
            if row.answer is None:
                raise ValueError("expected an answer, found none")
            talk = (*row.prompt, message("assistant", row.answer))
        depth = resized(open_depth(row.depth, scale=self.scale, kind=self.kind), images[0].size)
        asked = " ".join(row.prompt[-1].text.split())
        return DepthRow(row.id, talk, images[0], depth, asked, rationale)


def read_depth_rows(
    path: Path,
    *,
    scale: float | str | None,
    kind: Kind,
    rationales: bool,
    access: Access = Access(),
) -> DepthRows:
    """The rows of `path`, checked.

    Raises:
        BadData: there is no such file, or a row cannot be learnt from.
    """
    data = read_data(path, access=access, ignore=[RATIONALE])
    rows = DepthRows(data, scale, kind, rationales)
    rows.check()
    return rows
