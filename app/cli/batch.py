"""`mm ask --batch`: one question a row, over many images; what is answered stays answered.

A row is `{"id"?, "image" | "images" | "video", "question", "depth"?, "subtitles"?}`: paths relative
to the rows file, data URIs or bare base64; what else it has is refused by name unless it is known
to be harmless. An answer is the JSON of `mm ask --json` with the row's number, id and question, and
in `asked` what the command said of the model and of how to ask it, by which a later run knows it.
Answers stand in the order of the rows, those that a later run added behind the others until it
ends; one with an "error", which a row without a reply has too, is asked for again by the next run.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterable
from contextlib import closing, suppress
from dataclasses import replace
from functools import partial
from hashlib import blake2b
from pathlib import Path
from typing import Any, TextIO

import mm
from app.errors import check_file, writing
from app.report import as_json, failure_json, with_strategy_text
from app.terminal import progress, spinner
from mm.errors import UserError
from mm.parallel import in_order
from mm.trace_store import check_folder
from mm.vlm import sampling_of
from training.data.formats.declaration import clips_of, images_of
from training.data.images import MAX_PATH
from training.data.readers import brief
from vision.depth_strategies import make_ready

from .ask import UNSAID, How, keep
from .batch_rows import Row, read_rows, sample_of
from .options import refuse_file

Answer = dict[str, Any]


def ask_batch(rows_path: Path, out: Path, how: How, *, threads: int) -> int:
    """Answer the rows of `rows_path` that `out` lacks, in their order, `threads` at a time; how
    many failed.

    Raises:
        UserError: a file cannot be used, two rows share an id, or `out` answers other questions.
        ModelUnavailable: the model cannot be loaded.
    """
    strategy = how.named()
    refuse_file(how.depth)
    check_file("--out", out, [rows_path])
    out = _file(out)
    rows = read_rows(rows_path)
    how = replace(how, latents=make_ready(strategy, how.model.name))
    if how.save_trace:
        check_folder(how.save_trace)
    done = _resume(out, rows, how)
    failed, todo = 0, [row for row in rows if row.key not in done]
    if todo:
        with _opened(out) as lines:
            with spinner(f"loading {how.model.name}"):
                vlm = how.judged.load()
            answer = partial(_answer, rows_path.parent, strategy, vlm, how)
            with closing(in_order(answer, todo, threads)) as answered:
                for said, trace in progress(answered, "asking", len(todo)):
                    failed += _kept(said, trace, lines, how)
        _sort(out, rows)
    print(
        f'{len(todo) - failed} answered, {failed} failed (see "error"), '
        f"{len(done)} answered before: {out}",
        file=sys.stderr,
    )
    return failed


def _kept(said: Answer, trace: mm.Trace | None, lines: TextIO, how: How) -> bool:
    """Write an answer, and its trace where it has one; whether it failed."""
    if trace:
        keep(trace, how.save_trace)
    with writing("--out", Path(lines.name)):
        try:
            lines.write(_line(said))
            lines.flush()
        except OSError:
            with suppress(OSError):
                lines.close()  # which would try once more to write
            raise
    return said["error"] is not None


def _file(out: Path) -> Path:
    """`out`, or the file that it is a link to: files are put in its place.

    Raises:
        UserError: it is there and no file, so that no run could read what an earlier one wrote.
    """
    if os.path.exists(out) and not os.path.isfile(out):
        raise UserError(f"--out: {str(out)!r} is a device or a pipe: name a file")
    return Path(os.path.realpath(out)) if os.path.islink(out) else out


def _opened(out: Path) -> TextIO:
    try:
        return out.open("a", encoding="utf-8")
    except OSError as error:
        raise UserError(f"--out: {str(out)!r} cannot be written: {error.strerror}") from error


def _object(line: str) -> dict[str, Any] | None:
    try:
        fields = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return fields if isinstance(fields, dict) else None


def _resume(out: Path, rows: list[Row], how: How) -> set[str]:
    """The keys that `out` answers. A line cut off by a kill, and failures, leave the file."""
    if not os.path.exists(out):
        return set()
    kept = _answers(out)
    _refuse_others(kept, {row.key: row for row in rows}, out, how)
    _rewrite(out, map(_line, kept.values()))
    return kept.keys() & {row.key for row in rows}


def _sort(out: Path, rows: list[Row]) -> None:
    """Put the answers into the order of the rows."""
    place = {row.key: n for n, row in enumerate(rows)}
    text = _text(out).rstrip("\n")
    lines = [line + "\n" for line in text.split("\n")]  # a reply may hold other ends of lines
    keys = [Row(fields["row"], fields).key for fields in map(json.loads, lines)]
    order = sorted(range(len(lines)), key=lambda n: place.get(keys[n], len(place)))
    if order != [*range(len(lines))]:
        _rewrite(out, (lines[n] for n in order))


def _rewrite(out: Path, lines: Iterable[str]) -> None:
    """Put `lines` in the place of `out`, which stays whole where that fails."""
    unfinished = out.with_name(out.name + ".partial")
    with writing("--out", out):
        try:
            unfinished.write_text("".join(lines), encoding="utf-8")
            os.replace(unfinished, out)
        except OSError:
            with suppress(OSError):
                unfinished.unlink()
            raise


def _text(out: Path) -> str:
    try:
        return out.read_text(encoding="utf-8", errors="replace")
    except OSError as error:
        raise UserError(f"--out: {str(out)!r} cannot be read: {error.strerror}") from error


def _answers(out: Path) -> dict[str, Answer]:
    *lines, last = _text(out).rstrip("\n").split("\n")
    if _object(last) is not None or not last.startswith('{"row": '):
        lines.append(last)
    kept = {}
    for line in filter(str.strip, lines):
        answer = _object(line) or {}
        named = isinstance(answer.get("asked", {}), dict)
        if not (named and {"row", "answer", "error"} <= answer.keys()):
            raise UserError(f"--out {str(out)!r} holds something else than answers: {line[:60]!r}")
        if answer["error"] is None:
            kept[Row(answer["row"], answer).key] = answer
    return kept


def _refuse_others(kept: dict[str, Answer], rows: dict[str, Row], out: Path, how: How) -> None:
    for key in kept.keys() & rows.keys():
        said = {**kept[key], **kept[key].get("asked", {})}  # earlier versions say all side by side
        for name, wanted in {**_row_facts(rows[key]), **how.facts}.items():
            had = said.get(name, wanted if name in UNSAID else None)
            if name != "row" and had != wanted:
                was = f"{name} {brief(had)}"
                raise UserError(
                    f"{str(out)!r} answers {key} with {was}, not {brief(wanted)}:"
                    " give another --out"
                )


def _row_facts(row: Row) -> Answer:
    """What an answer says of its question."""
    fields = row.fields or {}
    return {
        "row": row.number,
        "id": fields.get("id"),
        "images": _named(_shown_in(fields)),
        "videos": clips_of(fields) or None,
        "subtitles": fields.get("subtitles") or None,
        "question": fields.get("question"),
        "row_depth": fields.get("depth"),
    }


def _shown_in(fields: dict[str, Any]) -> Any:
    """The images of a row as answers name them: one by itself, several as a list."""
    for name in ("images", "image"):
        if fields.get(name) not in (None, []):
            return fields[name]
    with suppress(ValueError):  # what cannot be read is refused where it is opened
        found = images_of(fields)
        return found[0] if len(found) == 1 else found or None
    return None


def _named(value: Any) -> Any:
    """What names a row's images; of one that stands in the row itself its beginning and a hash."""
    if isinstance(value, list):
        return [_named(each) for each in value]
    text = value if isinstance(value, str) else json.dumps(value)
    if len(text) <= MAX_PATH:
        return value
    digest = blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).hexdigest()
    return f"{text[:40]}... {len(text)} characters, {digest}"


def _answer(
    folder: Path,
    strategy: mm.Strategy,
    vlm: mm.VLM,
    how: How,
    row: Row,
    cancelled: Callable[[], bool],
) -> tuple[Answer, mm.Trace | None]:
    asked = {**_row_facts(row), "asked": how.facts}
    try:
        sample = sample_of(row, folder, how)
    except UserError as error:
        return {**asked, **failure_json(error)}, None
    strategy = mm.insist(strategy) if sample.choices else strategy
    sampling = sampling_of(vlm.traits, how.sampling)
    trace = mm.run(strategy, sample, vlm, sampling=sampling, cancel=cancelled)
    return {**asked, **as_json(with_strategy_text(trace, how.strategy))}, trace


def _line(answer: Answer) -> str:
    return json.dumps(answer, ensure_ascii=False) + "\n"
