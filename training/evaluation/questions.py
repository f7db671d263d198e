"""A person's own questions, read from their file of rows.

All rows are checked, images included, before any is answered; images are then opened again one at
a time, so that a large set needs little memory.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple, cast

from mm.answers.extraction import extract_answer, shown_reply
from mm.answers.matching import choice_error
from mm.trace import Sample
from training.data import Access, DataSet, Row, read_data, refuse
from training.data.convert import native_row
from training.data.formats.declaration import CLIPS
from vision.depth_source import RATIONALE, TAG

from .tasks import Item

if TYPE_CHECKING:
    from mm.tokens.builder import TokenBuilder

AT = "at"
"""The tag that says where in its file a question stands, counted from 0."""


@dataclass(frozen=True)
class Questions:
    """The rows of a file that will be asked.

    Attributes:
        chosen: their indices; None for all of them.
        total: how many rows the file has, whether they are asked or not.
        located: whether each row says where to look.
        clips, images: whether some are about a clip, and some about none.
    """

    data: DataSet
    chosen: Sequence[int] | None = None
    total: int = 0
    located: bool = False
    clips: bool = False
    images: bool = True

    def __iter__(self) -> Iterator[Item]:
        for index in self._indices:
            item = _item(self.data[index], self.data, index)
            yield item if self.located else replace(item, regions=())

    def __len__(self) -> int:
        return len(self._indices)

    def fields(self, item: Item, *, out: Path) -> dict[str, Any]:
        """The images and clips of the item's question, as a row of the file `out` names them;
        nothing else of its row."""
        record = self.data.records[cast(int, item.sample.tags[AT])]
        native = native_row(self.data, record, out)
        images = native.get("images", ())[: len(item.sample.images)]  # a reply's own come behind
        clips = {key: native[key] for key in CLIPS if key in native}
        return {**({"images": images} if images else {}), **clips}

    @property
    def _indices(self) -> Sequence[int]:
        return range(len(self.data)) if self.chosen is None else self.chosen


def read_questions(
    path: Path,
    *,
    limit: int | None = None,
    dialect: str = "auto",
    access: Access = Access(),
    ignore: Iterable[str] = (),
    builder: Callable[[], TokenBuilder] | None = None,
) -> Questions:
    """The first `limit` questions of `path`, checked, without the columns to `ignore` and the
    rationales that `mm train depth` learns from.

    A row is asked up to its last user message. What is right is its `answer`, else what its last
    reply says. `builder` is that of the model to ask, for rows with boxes or crops.

    Raises:
        BadData: there is no such file, its form is unknown, or a row cannot be asked.
    """
    data = read_data(path, dialect=dialect, access=access, ignore=[*ignore, RATIONALE])
    total = len(data)
    data = replace(data, records=data.records[:limit]) if limit else data
    data = data.asked_of(builder) if builder else data
    found = list(data.each(_traits_of))
    refuse(found)
    traits = [each for each in found if isinstance(each, _Traits)]
    clips, images = (any(each.clip is kind for each in traits) for kind in (True, False))
    located = not clips and all(each.located for each in traits)
    return Questions(data, None, total, located, clips, images)


class _Traits(NamedTuple):
    """Whether a row is about a clip, and whether it says where to look."""

    clip: bool
    located: bool


def _traits_of(row: Row) -> _Traits:
    target_of(row)
    return _Traits(any(said.clips for said in row.prompt), bool(row.regions))


def _item(row: Row, data: DataSet, index: int) -> Item:
    stem, number = data.path.stem, data.records[index].number
    tags = {"task": stem, "row": number, AT: index}
    return Item(sample_of(replace(row, id=f"{stem}-{number}"), tags), row.regions)


def sample_of(row: Row, tags: Mapping[str, object] = MappingProxyType({})) -> Sample:
    """The question of `row` as a strategy is asked it, with `tags`; its depth map is one of them.

    Raises:
        ValueError: as `target_of` does.
    """
    depth = {TAG: row.depth} if row.depth else {}
    return Sample(row.id, row.prompt, target_of(row), row.choices, {**tags, **depth})


def target_of(row: Row) -> str:
    """What is right: the row's answer, else that of its last reply, whole where it marks none.

    A pair's is that of its chosen side.

    Raises:
        ValueError: the row does not say, or asks nothing, or its chosen side asks something else;
            or it is none of the row's choices.
    """
    if not row.prompt:
        raise ValueError("expected a user message, found none")
    if row.answer is not None:
        return row.answer
    if any(m.role == "user" and m.text.strip() for m in row.chosen):
        raise ValueError("expected 'answer' beside a 'chosen' in which the user speaks, found none")
    replies = (*row.messages[len(row.prompt) :], *row.chosen)
    said = [m.text for m in replies if m.role == "assistant"]
    answer = (extract_answer(said[-1]) or shown_reply(said[-1])) if said else ""
    if not answer:
        raise ValueError("expected text in 'answer', found nothing")
    if error := choice_error(answer, row.choices):
        raise ValueError(error)
    return answer
