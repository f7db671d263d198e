"""A file of rows as a sequence: each is read, its pictures opened, when it is asked for."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from mm.vlm import CropRule
from vision.crop import crop

from .files import BadData, Record, read_records
from .formats import to_native
from .native import read_row
from .pictures import Access, open_picture
from .row import Row

SHOWN = 20
"""How many bad rows an error lists; the rest are counted."""

Test = Callable[[Row], object]
"""Raises ValueError for a row that will not do."""


@dataclass(frozen=True)
class DataSet(Sequence[Row]):
    """The rows of `path`, in its order.

    Attributes:
        dialect: how its rows are written; "auto" tells by their keys.
        crop_rule: how `{"crop_of": ...}` is cut: as the model that reads it was shown crops.
    """

    path: Path
    records: Sequence[Record]
    dialect: str = "auto"
    access: Access = Access()
    crop_rule: CropRule = "vlm_r3"

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return [self[at] for at in range(*index.indices(len(self)))]
        record = self.records[index]
        try:
            return self._row(record)
        except ValueError as error:
            raise BadData(f"{self._place(record)}: {error}") from None

    def faults(self, test: Test | None = None, *, threads: int = 2) -> Iterator[str | None]:
        """What is wrong with each row, in order; None where nothing is."""
        with ThreadPoolExecutor(threads) as pool:
            ahead = 8 * threads
            for start in range(0, len(self), ahead):
                some = range(start, min(start + ahead, len(self)))
                yield from pool.map(partial(self._fault, test), some)

    def check(self, test: Test | None = None) -> None:
        """Read every row, pictures included, and put it to `test`.

        Raises:
            BadData: with a line for each bad row, up to `SHOWN`.
        """
        refuse(self.faults(test))

    def _fault(self, test: Test | None, index: int) -> str | None:
        try:
            row = self[index]
        except BadData as error:
            return str(error)
        try:
            if test:
                test(row)
        except ValueError as error:
            return f"{self._place(self.records[index])}: {error}"
        return None

    def _row(self, record: Record) -> Row:
        if isinstance(record.fields, ValueError):
            raise record.fields
        return read_row(
            to_native(record.fields, self.dialect),
            f"{self.path.stem}-{record.number}",
            open_picture=partial(open_picture, folder=self.path.parent, access=self.access),
            crop=partial(crop, rule=self.crop_rule),
        )

    def _place(self, record: Record) -> str:
        return f"{self.path}, row {record.number}"


def refuse(faults: Iterable[str | None]) -> None:
    """Raise BadData if there are `faults`, a line each, up to `SHOWN`."""
    if bad := [fault for fault in faults if fault]:
        more = [f"... and {len(bad) - SHOWN} more bad rows"] if len(bad) > SHOWN else []
        raise BadData("\n".join([*bad[:SHOWN], *more]))


def read_data(
    path: Path,
    *,
    limit: int | None = None,
    dialect: str = "auto",
    access: Access = Access(),
    crop_rule: CropRule = "vlm_r3",
) -> DataSet:
    """The first `limit` rows of `path`, none of which has been looked at.

    Raises:
        BadData: there is no such file, its form is unknown, or it has no rows.
    """
    records = read_records(path)
    return DataSet(path, records[:limit] if limit else records, dialect, access, crop_rule)
