"""Rows of `mm train depth`: which files are opened, how often, and what is refused."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest

import mm
from mm.types import Image
from training.data import BadData
from training.latents import rows as module
from training.latents.examples import Examples
from training.latents.opened import OpenedFiles
from training.latents.recipe import LatentsRecipe
from training.latents.rows import DepthRows, read_depth_rows
from training.latents.setup import module_for

SCENES, EACH = 3, 4


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Rows of which four in a row share an image and its map."""
    lines = []
    for number in range(SCENES):
        PIL.Image.new("RGB", (64, 64), (80 * number, 40, 90)).save(tmp_path / f"{number}.png")
        np.save(tmp_path / f"{number}.npy", np.linspace(1, 3, 64)[None].repeat(64, 0) + number)
        files = {"image": f"{number}.png", "depth": f"{number}.npy", "rationale": "It is near."}
        lines += [{**files, "question": f"Which {n}?", "answer": "left"} for n in range(EACH)]
    path = tmp_path / "rows.jsonl"
    path.write_text("\n".join(map(json.dumps, lines)))
    return path


def read(path: Path) -> DepthRows:
    return read_depth_rows(path, scale=None, kind="metric", rationales=True)


@pytest.fixture
def opened(monkeypatch) -> Counter[str]:
    """How often each file was opened."""
    counts: Counter[str] = Counter()

    def counted(function: Any) -> Any:
        def open_it(source: Any, *args: Any, **options: Any) -> Any:
            counts[Path(str(source)).name] += 1
            return function(source, *args, **options)

        return open_it

    for name in ("open_row_image", "open_depth"):
        monkeypatch.setattr(module, name, counted(getattr(module, name)))
    return counts


FILES = {f"{n}.{kind}": 1 for n in range(SCENES) for kind in ("png", "npy")}


def test_rows_that_share_a_file_open_it_once(data: Path, opened: Counter[str]) -> None:
    rows = read(data)
    assert len(rows) == SCENES * EACH
    assert opened == FILES
    assert rows[0].image is rows[3].image
    assert rows[0].image is not rows[4].image
    assert [row.question for row in rows][:2] == ["Which 0?", "Which 1?"]
    assert opened == FILES


def test_rows_drawn_in_any_order_open_a_file_once(data: Path, opened: Counter[str]) -> None:
    vlm: Any = mm.load("tiny")
    midi = module_for(LatentsRecipe(data, data.parent / "out", latents=2), vlm)
    rows = DepthRows(read(data).data, files=OpenedFiles(40_000))  # room for one image, one map
    opened.clear()
    examples = Examples(rows, vlm, midi)
    for index in (7, 2, 9, 4, 0, 11, 5, 1, 8, 3, 10, 6):
        question = (f"Which {index % EACH}?",)
        assert examples(index).asked == vlm.builder.safe_tokenizer.encode(question)
    assert opened == FILES
    alone = Examples(DepthRows(rows.data), vlm, midi)
    assert all((examples(n).depth == alone(n).depth).all() for n in (0, 5, 11))


def test_rows_beside_wait_for_room(data: Path, monkeypatch) -> None:
    vlm: Any = mm.load("tiny")
    midi = module_for(LatentsRecipe(data, data.parent / "out", latents=2), vlm)
    rows = read(data)
    monkeypatch.setattr("training.latents.examples.CACHE", 1)
    examples = Examples(rows, vlm, midi)
    assert examples(1).asked != examples(2).asked
    assert not list(examples._cached)


@pytest.mark.parametrize(
    ("maps", "index", "beside"),
    [
        pytest.param("aaaabb", 0, [0, 1, 2, 3], id="the first"),
        pytest.param("aaaabb", 2, [2, 1, 0, 3], id="itself first"),
        pytest.param("aaaabb", 5, [5, 4], id="the last"),
        pytest.param("abaaaa", 0, [0], id="another map ends it"),
        pytest.param("--", 0, [0], id="no map is shared by none"),
        pytest.param("a" * 30, 15, [15, *range(14, 6, -1), *range(16, 24)], id="not all of many"),
    ],
)
def test_rows_beside(tmp_path: Path, maps: str, index: int, beside: list[int]) -> None:
    lines = [json.dumps({"depth": each} if each != "-" else {}) for each in maps]
    path = tmp_path / "rows.jsonl"
    path.write_text("\n".join(lines))
    assert DepthRows(module.read_data(path)).beside(index) == beside


def test_what_is_held_is_bound_in_bytes() -> None:
    files = OpenedFiles(2 * 3 * 8 * 8)
    images = [Image(PIL.Image.new("RGB", (8, 8), (n, 0, 0))) for n in range(3)]
    for number, image in enumerate(images):
        assert files.get(number, Image, lambda image=image: image) is image
    again = Image(PIL.Image.new("RGB", (80, 80)))
    assert files.get(2, Image, lambda: again) is images[2]
    assert files.get(0, Image, lambda: again) is again, "the oldest had to go"
    assert files.get(1, Image, lambda: images[1]) is images[1]
    assert files.get(2, Image, lambda: again) is images[2], "one that is too large evicts none"


@pytest.mark.parametrize(
    ("change", "told"),
    [
        pytest.param({"image": "9.png"}, "'.*9.png' does not exist", id="image"),
        pytest.param({"depth": "9.npy"}, "expected a file, found none at '9.npy'", id="depth"),
        pytest.param({"rationale": 3}, "expected text in 'rationale', found int", id="rationale"),
        pytest.param({"image": "/etc/a.png"}, "inside the file's folder", id="elsewhere"),
        pytest.param({"mood": "sad"}, "column 'mood' would be lost", id="a column"),
    ],
)
def test_each_bad_row_of_many_is_told(data: Path, change, told) -> None:
    lines = [json.loads(line) for line in data.read_text().splitlines()]
    lines[1] = {**lines[1], **change}
    lines[6] = {**lines[6], **change}
    data.write_text("\n".join(map(json.dumps, lines)))
    with pytest.raises(BadData) as error:
        read(data)
    first, second = str(error.value).split("\n")
    assert "row 2: " in first
    assert "row 7: " in second
    with pytest.raises(BadData, match=told):
        read(data)


def test_a_row_in_which_no_user_speaks_is_refused(data: Path) -> None:
    said = [{"role": "assistant", "content": "<image>It is red."}]
    row = {"messages": said, "images": ["0.png"], "depth": "0.npy", "rationale": "It is near."}
    data.write_text(json.dumps(row))
    with pytest.raises(BadData, match="row 1: expected a user message, found none"):
        read(data)


def test_a_file_that_went_is_told_in_one_line(data: Path) -> None:
    rows = DepthRows(read(data).data, rationales=True)
    (data.parent / "1.png").unlink()
    with pytest.raises(BadData, match=r"row 5: expected an image, found that .*1.png"):
        rows[4]
