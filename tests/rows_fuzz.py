"""Rows of every format, broken in every way: each is read, or refused in a line.

`PYTHONPATH=.:tests python tests/rows_fuzz.py 600` tries for ten minutes, in at most 2 GB of memory.
"""

from __future__ import annotations

import json
import random
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pyarrow
from datasets import Dataset
from pyarrow import parquet

from mm.types import Message
from training.data import BadData, Row, read_data
from training.data.convert import convert
from training.data.formats import FORMATS, WRITABLE

WORDS = (
    *("", " ", "a", "3.0", "nan", "<image>", "<img>red.png</img>", "<video>", "<bbox>", "\n"),
    *("<think>a</think>b", '<tool_call>{"name": "a", "arguments": {}}</tool_call>', "\x00", "é😀"),
    *("red.png", "blue.png", "../red.png", "data:image/png;base64,AAAA", "A" * 400, "http://a/b"),
)
ATOMS = (None, True, False, 0, 1, -1, 3.0, 0.5, float("nan"), float("inf"), 10**30, [], {}, *WORDS)
KEYS = (
    *("messages", "prompt", "completion", "chosen", "rejected", "conversations", "images", "image"),
    *("chosen_images", "rejected_images", "rejected_response", "rejected_messages", "system"),
    *("answer", "choices", "regions", "source", "tools", "objects", "id", "question", "problem"),
    *("role", "content", "from", "value", "loss", "weight", "tool_calls", "type", "text", "bbox"),
    *("image_url", "path", "bytes", "crop_of", "reward_model", "ground_truth", "instruction"),
    *("input", "output", "history", "response_list", "img_crop_list", "image_path", "videos", "x"),
)

Check = Callable[[Row], None]


def mutated(value: Any, rng: random.Random) -> Any:
    """`value` with something in it replaced, dropped, wrapped, doubled or added."""
    if isinstance(value, dict) and value and rng.random() < 0.85:
        key = rng.choice(list(value))
        choice = rng.random()
        if choice < 0.1:
            return {k: v for k, v in value.items() if k != key}
        if choice < 0.2:
            return {**value, rng.choice(KEYS): rng.choice([*ATOMS, value[key]])}
        if choice < 0.3:
            return {rng.choice(KEYS) if k == key else k: v for k, v in value.items()}
        return {**value, key: mutated(value[key], rng)}
    if isinstance(value, list) and value and rng.random() < 0.85:
        at = rng.randrange(len(value))
        choice = rng.random()
        if choice < 0.15:
            return [*value[:at], *value[at + 1 :]]
        if choice < 0.3:
            return [*value, value[at]]
        return [*value[:at], mutated(value[at], rng), *value[at + 1 :]]
    choice = rng.random()
    if choice < 0.1:
        return [value]
    if choice < 0.2:
        return {rng.choice(KEYS): value}
    if choice < 0.3 and isinstance(value, str):
        return value + rng.choice(WORDS)
    return rng.choice(ATOMS)


def read_or_refused(folder: Path, row: Any, dialect: str = "auto") -> bool:
    """Whether `row` is read; a refusal is one short line, and anything else an error."""
    path = folder / "rows.jsonl"
    path.write_text(json.dumps(row), encoding="utf-8")
    return _all_or_refused(path, dialect)


def bytes_read_or_refused(path: Path, content: bytes) -> bool:
    """Whether a file of `content` is read whole."""
    path.write_bytes(content)
    return _all_or_refused(path, "auto")


def _all_or_refused(path: Path, dialect: str) -> bool:
    try:
        rows = list(read_data(path, dialect=dialect))
    except BadData as error:
        _check_line(str(error))
        return False
    for row in rows:
        _check_row(row)
    return True


def converted_or_refused(folder: Path, row: Any, dialect: str, suffix: str) -> bool:
    """Whether `row` is written as `dialect` and says the same there."""
    path, out = folder / "rows.jsonl", folder / f"out{suffix}"
    path.write_text(json.dumps(row), encoding="utf-8")
    out.unlink(missing_ok=True)
    try:
        convert(read_data(path), dialect, out)
    except BadData as error:
        _check_line(str(error))
        return False
    return True


def _check_line(text: str) -> None:
    assert len(text.encode("utf-8")) < 2000, f"a refusal of {len(text)} characters: {text[:200]}"
    assert "\n" not in text, f"a refusal of several lines: {text!r}"


def _check_row(row: Row) -> None:
    talk = (*row.messages, *row.chosen, *row.rejected)
    assert all(isinstance(m, Message) and m.parts for m in talk), f"an empty message: {row}"
    assert all(0 <= at < len(row.messages) for at in row.untrained), f"no such message: {row}"
    assert not row.chosen or row.chosen != row.rejected, f"equal sides: {row}"
    for text in (m.text for m in talk):
        text.encode("utf-8")


def try_once(folder: Path, rows: list[Any], rng: random.Random) -> bool:
    """One broken row, or one broken file of sound ones."""
    row = rng.choice(rows)
    for _ in range(rng.randrange(4)):
        row = mutated(row, rng)
    choice = rng.random()
    if choice < 0.5:
        return read_or_refused(folder, row, rng.choice(["auto", "auto", *FORMATS]))
    if choice < 0.7:
        suffix = rng.choice([".jsonl", ".json", ".parquet"])
        return converted_or_refused(folder, row, rng.choice(WRITABLE), suffix)
    if choice < 0.85:
        return _table(folder, [row, rng.choice(rows)], rng)
    name, content = rng.choice(sorted(_files(folder, rows).items()))
    return bytes_read_or_refused(folder / f"broken{Path(name).suffix}", _damaged(content, rng))


def _table(folder: Path, rows: list[Any], rng: random.Random) -> bool:
    try:
        table = pyarrow.Table.from_pylist([r for r in rows if isinstance(r, dict)])
        parquet.write_table(table, folder / "table.parquet")
    except (pyarrow.ArrowException, OverflowError, TypeError, ValueError, AttributeError):
        return False  # no such table exists
    return _all_or_refused(folder / "table.parquet", rng.choice(["auto", *FORMATS]))


def _files(folder: Path, rows: list[Any]) -> dict[str, bytes]:
    """Sound files to damage, made once."""
    sound = folder / "sound"
    if not sound.exists():
        sound.mkdir()
        short = [{"image": "red.png", "question": f"a {n}?", "answer": "b"} for n in range(9)]
        Dataset.from_list(short).to_parquet(str(sound / "a.parquet"))
        Dataset.from_list(short).to_csv(str(sound / "a.csv"), index=False)
        (sound / "a.json").write_text(json.dumps(rows))
        (sound / "a.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return {path.name: path.read_bytes() for path in sound.iterdir()}


def _damaged(content: bytes, rng: random.Random) -> bytes:
    for _ in range(rng.randrange(1, 5)):
        at, length = rng.randrange(len(content) + 1), rng.choice([0, 1, 1, 4, 30])
        new = rng.choice([b"", rng.randbytes(length), b'"', b"\n", b"[" * 99, b"\xff", b"\\ud800"])
        content = content[:at] + new + content[at + length :]
    return content[: rng.randrange(len(content) + 1)] if rng.random() < 0.1 else content


def main(seconds: float, rows: list[Any], seed: int = 0) -> None:
    """Break rows for `seconds`, from `seed` on; that of a failure is printed with it."""
    from row_files import make_images

    resource.setrlimit(resource.RLIMIT_DATA, (2 * 2**30, 2 * 2**30))
    tried = read = slowest = 0
    end = time.monotonic() + seconds
    with TemporaryDirectory() as name:
        folder = make_images(Path(name))
        while time.monotonic() < end:
            seed, began = seed + 1, time.monotonic()
            try:
                read += try_once(folder, rows, random.Random(seed))
            except BaseException:
                print(f"seed {seed}, after {tried} rows", file=sys.stderr)
                raise
            tried, slowest = tried + 1, max(slowest, time.monotonic() - began)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(f"{tried:,} tried, {read:,} read, the rest refused in a line;", end=" ")
    print(f"slowest {slowest:.2f} s, peak {peak:.2f} GB")


if __name__ == "__main__":
    from row_samples import SAMPLES

    seconds = float(sys.argv[1]) if len(sys.argv) > 1 else 60
    main(seconds, SAMPLES, int(sys.argv[2]) if len(sys.argv) > 2 else 0)
