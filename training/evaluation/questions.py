"""A person's own questions, read from their file of rows.

All rows are checked, images included, before any is answered; images are then opened again one at
a time, so that a large set needs little memory.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from mm.answers.extraction import extract_answer, shown_reply
from mm.answers.matching import choice_error
from mm.trace import Sample
from training.data import Access, DataSet, Row, read_data
from training.data.formats.declaration import CLIPS, IMAGES
from training.data.images import MAX_PATH
from vision.depth_source import TAG

from .tasks import Item


@dataclass(frozen=True)
class Questions:
    """The rows of a file that will be asked.

    Attributes:
        chosen: their indices; None for all of them.
    """

    data: DataSet
    chosen: Sequence[int] | None = None

    def __iter__(self) -> Iterator[Item]:
        for index in self._indices:
            row, record = self.data[index], self.data.records[index]
            yield _item(row, self.data.path, record.number)

    def __len__(self) -> int:
        return len(self._indices)

    def fields(self, item: Item, *, beside: Path) -> dict[str, object]:
        """The columns of the item's row that name images and clips, as paths from the folder
        `beside`; nothing else of it."""
        number = item.sample.tags["row"]
        (record,) = (r for r in self.data.records if r.number == number)
        kept = {k: v for k, v in record.fields.items() if k in (*IMAGES, *CLIPS)}
        return {name: _beside(value, self.data.path.parent, beside) for name, value in kept.items()}

    @property
    def _indices(self) -> Sequence[int]:
        return range(len(self.data)) if self.chosen is None else self.chosen


def read_questions(
    path: Path,
    *,
    limit: int | None = None,
    access: Access = Access(),
    ignore: Iterable[str] = (),
) -> Questions:
    """The first `limit` questions of `path`, checked, without the columns to `ignore`.

    A row is asked up to its last user message. What is right is its `answer`, else what its last
    reply says.

    Raises:
        BadData: there is no such file, its form is unknown, or a row cannot be asked.
    """
    data = read_data(path, limit=limit, access=access, ignore=ignore)
    data.check(target_of)
    return Questions(data)


def _beside(value: object, folder: Path, beside: Path) -> object:
    if isinstance(value, list):
        return [_beside(each, folder, beside) for each in value]
    there = isinstance(value, str) and len(value) < MAX_PATH and (folder / value).exists()
    return os.path.relpath(folder / str(value), beside) if there else value


def _item(row: Row, path: Path, number: int) -> Item:
    tags: dict[str, object] = {"task": path.stem, "row": number}
    if row.depth:
        tags[TAG] = row.depth
    name = f"{path.stem}-{number}"
    return Item(Sample(name, row.prompt, target_of(row), row.choices, tags))


def target_of(row: Row) -> str:
    """What is right: the row's answer, else that of its last reply, whole where it marks none.

    Raises:
        ValueError: the row does not say, or asks nothing; or it is none of the row's choices.
    """
    if not row.prompt:
        raise ValueError("expected a user message, found none")
    if row.answer is not None:
        return row.answer
    replies = (*row.chosen, *row.messages[len(row.prompt) :])
    said = [m.text for m in replies if m.role == "assistant"]
    answer = (extract_answer(said[-1]) or shown_reply(said[-1])) if said else ""
    if not answer:
        raise ValueError("expected text in 'answer', found nothing")
    if error := choice_error(answer, row.choices):
        raise ValueError(error)
    return answer
