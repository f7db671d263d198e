"""The code stays in the shape that the report counts; and the report counts right."""

from functools import cache
from pathlib import Path

import pytest
from code_report import PACKAGES, ROOT, File, Report, body_length, floors, length, p90, rooms

SOURCE = '''"""A module."""
import os  # for its path

class Shown:
    """Documented."""

    @property
    def size(self) -> int:
        return 1

    def _hidden(self): ...

def told(a,
         b):
    """Documented."""
    # a reason
    def inner(): ...
    return a
'''


@cache
def report(package: str) -> Report:
    return Report.of(ROOT / package)


@pytest.fixture
def file(tmp_path: Path) -> File:
    (tmp_path / "x.py").write_text(SOURCE)
    return File(tmp_path / "x.py")


def test_a_file_is_counted(file: File) -> None:
    told = next(function for function in file.functions if function.name == "told")
    assert (length(told), body_length(told)) == (6, 2)
    assert (file.lines, file.written, file.comments) == (18, 14, 2)
    assert [name for name, _ in file.public] == ["Shown", "Shown.size", "told"]
    assert file.gaps == ["Shown.size"]


def test_the_nineth_tenth_lies_between_values() -> None:
    assert p90([1, 2, 3, 4, 5, 6, 7, 8, 9, 10]) == pytest.approx(9.1)
    assert p90([7]) == 7


@pytest.mark.parametrize("package", PACKAGES)
def test_functions_are_short(package: str) -> None:
    assert p90(report(package).lengths) <= 30


@pytest.mark.parametrize("package", PACKAGES)
def test_public_names_are_documented(package: str) -> None:
    """`python tests/code_report.py --gaps` names what is missing."""
    assert report(package).documented >= 0.95


@pytest.mark.parametrize("package", PACKAGES)
def test_rooms_stand_on_few_floors(package: str) -> None:
    assert floors(ROOT / package) <= 8


def test_mm_has_few_rooms_and_no_long_file() -> None:
    assert len(rooms(ROOT / "mm")) <= 22
    assert [f.path.name for f in report("mm").files if f.lines > 350] == []
