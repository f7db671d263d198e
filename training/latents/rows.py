"""Rows to train latents on: a question about an image, its depth, a rationale, the answer."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import chain, takewhile
from pathlib import Path
from typing import Any

from rich.progress import track

from mm.parallel import in_order
from mm.types import Conversation, Image, message
from mm.vlm import Cancelled
from training.data import Access, BadData, DataSet, Row, read_data, refuse
from training.data.formats import to_native
from training.data.images import open_row_image, row_file
from training.data.native import Opening, read_row
from training.data.readers import Record
from vision.crop import crop
from vision.depth import BadDepth, DepthMap, Kind, resized
from vision.depth_files import open_depth
from vision.depth_source import RATIONALE

from .opened import OpenedFiles

READERS = 2
"""Threads that read rows."""

RUN = 32
"""Neighbouring rows that one of them reads, since many share a file."""

BESIDE = 8
"""On each side of a row, how many at most are made ready with it where they share its map."""


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
        files: those that were opened last.
    """

    data: DataSet
    scale: float | str | None = None
    kind: Kind = "metric"
    rationales: bool = False
    files: OpenedFiles = field(default_factory=OpenedFiles, repr=False, compare=False)

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, index: int) -> DepthRow:  # type: ignore[override] - no slices
        """Row number `index`, from 0.

        Raises:
            BadData: it cannot be learnt from.
        """
        record = self.data.records[index]
        try:
            return self._row(self._read(record), _rationale(record.fields))
        except (ValueError, BadDepth) as error:
            raise BadData(f"{self.data.path}, row {record.number}: {error}") from None

    def beside(self, index: int) -> list[int]:
        """Number `index`, and then the rows next to it that name the same depth map."""
        own = self._map(index)
        before = range(index - 1, max(index - BESIDE, 0) - 1, -1)
        behind = range(index + 1, min(index + BESIDE + 1, len(self)))
        alike = partial(takewhile, lambda other: own is not None and self._map(other) == own)
        return [index, *alike(before), *alike(behind)]

    def check(self) -> None:
        """Read every row once.

        Raises:
            BadData: with a line for each row that cannot be learnt from.
        """
        runs = [range(at, min(at + RUN, len(self))) for at in range(0, len(self), RUN)]
        found = chain.from_iterable(in_order(self._checked, runs, READERS))
        refuse(track(found, "reading rows", total=len(self)))

    def _checked(self, run: Iterable[int], cancelled: Cancelled) -> list[BadData | None]:
        return [self._fault(index) for index in run if not cancelled()]

    def _fault(self, index: int) -> BadData | None:
        try:
            self[index]
        except BadData as error:
            return error
        return None

    def _map(self, index: int) -> Any:
        fields = self.data.records[index].fields
        return fields.get("depth") if isinstance(fields, dict) else None

    def _read(self, record: Record) -> Row:
        if isinstance(record.fields, ValueError):
            raise record.fields
        data = self.data
        locate = partial(row_file, folder=data.path.parent, access=data.access)
        opening = Opening(self._image, partial(crop, rule="vlm_r3"), locate=locate)
        native = to_native(record.fields, data.dialect, data.ignore)
        return read_row(native, f"{data.path.stem}-{record.number}", opening)

    def _image(self, value: Any) -> Image:
        opened = partial(open_row_image, value, self.data.path.parent, self.data.access)
        return self.files.get(value, Image, opened) if isinstance(value, str) else opened()

    def _depth(self, path: str, image: Image) -> DepthMap:
        def opened() -> DepthMap:
            return resized(open_depth(path, scale=self.scale, kind=self.kind), image.size)

        return self.files.get((path, image.size), DepthMap, opened)

    def _row(self, row: Row, rationale: str) -> DepthRow:
        images = [image for said in row.messages for image in said.images]
        if not row.prompt:
            raise ValueError("expected a user message, found none")
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
        asked = " ".join(row.prompt[-1].text.split())
        depth = self._depth(row.depth, images[0])
        return DepthRow(row.id, talk, images[0], depth, asked, rationale)


def _rationale(fields: Any) -> str:
    said = fields.get(RATIONALE) if isinstance(fields, dict) else None
    if not isinstance(said, str | None):
        raise ValueError(f"expected text in {RATIONALE!r}, found {type(said).__name__}")
    return (said or "").strip()


def read_depth_rows(
    path: Path,
    *,
    scale: float | str | None,
    kind: Kind,
    rationales: bool,
    access: Access = Access(),
    dialect: str = "auto",
    ignore: Iterable[str] = (),
) -> DepthRows:
    """The rows of `path`, checked, without the columns to `ignore`.

    Raises:
        BadData: there is no such file, or a row cannot be learnt from.
    """
    data = read_data(path, dialect=dialect, access=access, ignore=[*ignore, RATIONALE])
    rows = DepthRows(data, scale, kind, rationales)
    rows.check()
    return rows
