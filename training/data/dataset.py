"""A file of rows as a sequence: each is read, its images opened, when it is asked for."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from mm.geometry import Region
from mm.types import Conversation, Image
from mm.vlm import CropRule
from video.frames import BadVideo
from vision.crop import crop

from .boxes import WriteBox, box_writer
from .clips import shown_frames
from .formats import to_native
from .images import Access, open_row_image, row_file
from .native import Opening, read_row
from .readers import BadData, Record, read_records
from .row import Row

if TYPE_CHECKING:
    from mm.tokens.builder import TokenBuilder

SHOWN = 20
"""How many bad rows an error lists; the rest are counted."""

T = TypeVar("T")

Test = Callable[[Row], object]
"""Raises ValueError for a row that will not do."""


@dataclass(frozen=True)
class DataSet(Sequence[Row]):
    """The rows of `path`, in its order.

    Attributes:
        dialect: how its rows are written; "auto" tells by their keys.
        ignore: columns that are left unread.
        crop_rule: how `{"crop_of": ...}` is cut: as the model that reads it was shown crops; or
            what tells it, asked where there is a crop.
        write_box: how the model writes a box of ms-swift's `objects`; None where none is known.
        change: what is made of each row.
        frames: puts frames in the place of clips; None leaves the clips.
    """

    path: Path
    records: Sequence[Record]
    dialect: str = "auto"
    access: Access = Access()
    ignore: frozenset[str] = frozenset()
    crop_rule: CropRule | Callable[[], CropRule] = "vlm_r3"
    write_box: WriteBox | None = None
    change: Callable[[Row], Row] | None = None
    frames: Callable[[Conversation], Conversation] | None = None

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return [self[at] for at in range(*index.indices(len(self)))]
        record = self.records[index]
        try:
            return self._row(record)
        except (BadVideo, ValueError) as error:
            raise BadData(f"{self._place(record)}: {error}") from None

    def shown_to(self, builder: TokenBuilder) -> DataSet:
        """These rows as the model of `builder` is shown crops and clips, and writes boxes."""
        return replace(
            self,
            crop_rule=builder.traits.crop_rule,
            write_box=box_writer(builder),
            frames=partial(shown_frames, builder),
        )

    def asked_of(self, builder: Callable[[], TokenBuilder]) -> DataSet:
        """As `shown_to`, but clips stay clips, which strategies open; the builder is made where a
        row has a crop or a box."""
        made = cache(builder)
        return replace(
            self,
            crop_rule=lambda: made().traits.crop_rule,
            write_box=lambda region, image: box_writer(made())(region, image),
        )

    def each(self, function: Callable[[Row], T], *, threads: int = 2) -> Iterator[T | BadData]:
        """What `function` makes of each row, in order, read and worked on by several threads.

        A row that cannot be read, or of which `function` says ValueError, is an error as a value.
        """
        ahead = 8 * threads  # rows hold images: few at a time
        with ThreadPoolExecutor(threads) as pool:
            for start in range(0, len(self), ahead):
                some = range(start, min(start + ahead, len(self)))
                yield from pool.map(partial(self._one, function), some)

    def check(self, test: Test | None = None) -> None:
        """Read every row, images included, and put it to `test`.

        Raises:
            BadData: with a line for each bad row, up to `SHOWN`.
        """
        refuse(self.each(test or _nothing))

    def _one(self, function: Callable[[Row], T], index: int) -> T | BadData:
        try:
            return function(self[index])
        except BadData as error:
            return error
        except (BadVideo, ValueError) as error:
            return BadData(f"{self._place(self.records[index])}: {error}")

    def _row(self, record: Record) -> Row:
        if isinstance(record.fields, ValueError):
            raise record.fields
        opening = Opening(
            partial(open_row_image, folder=self.path.parent, access=self.access),
            partial(_cut, self.crop_rule),
            self.write_box,
            partial(row_file, folder=self.path.parent, access=self.access),
            self.frames,
        )
        native = to_native(record.fields, self.dialect, self.ignore)
        row = read_row(native, f"{self.path.stem}-{record.number}", opening)
        return self.change(row) if self.change else row

    def _place(self, record: Record) -> str:
        return f"{self.path}, row {record.number}"


def refuse(results: Iterable[object]) -> None:
    """Raise BadData if any of `results` is one, a line each, up to `SHOWN`."""
    if bad := [str(each) for each in results if isinstance(each, BadData)]:
        more = [f"... and {len(bad) - SHOWN} more bad rows"] if len(bad) > SHOWN else []
        raise BadData("\n".join([*bad[:SHOWN], *more]))


def split_names(names: str | None) -> list[str]:
    """The names between commas, blanks left out."""
    return [name.strip() for name in (names or "").split(",") if name.strip()]


def _cut(rule: CropRule | Callable[[], CropRule], image: Image, region: Region) -> Image:
    return crop(image, region, rule=rule() if callable(rule) else rule)


def _nothing(row: Row) -> None:
    """For rows that need only be readable."""


def read_data(
    path: Path,
    *,
    limit: int | None = None,
    dialect: str = "auto",
    access: Access = Access(),
    ignore: Iterable[str] = (),
    crop_rule: CropRule = "vlm_r3",
) -> DataSet:
    """The first `limit` rows of `path`, none of which has been looked at.

    Raises:
        BadData: there is no such file, its form is unknown, or it has no rows.
    """
    records = read_records(path)
    chosen = records[:limit] if limit else records
    return DataSet(path, chosen, dialect, access, frozenset(ignore), crop_rule)
