"""What is printed: in any encoding, into what is closed, and into what is full."""

from __future__ import annotations

import errno
import io
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image as pil

import mm
from app.cli.main import main, run
from app.errors import DEBUG, flushed, take_any_text

ROOT = Path(__file__).parents[2]
FULL = Path("/dev/full")


@pytest.mark.parametrize(
    ("encoding", "written"),
    [
        pytest.param("utf-8", "\u4e2d \u2019".encode(), id="utf-8"),
        pytest.param("cp1252", b"\\u4e2d \x92", id="cp1252"),
        pytest.param("ascii", b"\\u4e2d \\u2019", id="ascii"),
    ],
)
@pytest.mark.parametrize("name", ["stdout", "stderr"])
def test_what_an_encoding_lacks_is_written_as_its_escape(monkeypatch, name, encoding, written):
    file = io.BytesIO()
    monkeypatch.setattr(sys, name, io.TextIOWrapper(file, encoding=encoding))
    take_any_text()
    print("\u4e2d \u2019", end="", file=getattr(sys, name), flush=True)
    assert file.getvalue() == written


def test_what_was_closed_takes_nothing(monkeypatch):
    monkeypatch.setattr(sys, "stdout", None)
    take_any_text()
    print("K")
    assert flushed(0) == 0
    sys.stdout.close()


def test_what_is_no_text_stream_is_left_alone(monkeypatch):
    stream = io.StringIO()
    monkeypatch.setattr(sys, "stdout", stream)
    take_any_text()
    print("\u4e2d")
    assert stream.getvalue() == "\u4e2d\n"


@pytest.mark.parametrize(
    ("error", "code", "told"),
    [
        (BrokenPipeError(), 1, ""),
        (OSError(28, "No space left"), 2, "mm: the output cannot be written: No space left\n"),
    ],
    ids=["nobody reads", "full"],
)
def test_output_that_is_lost_has_a_code_and_a_line(monkeypatch, capsys, error, code, told):
    class Full(io.StringIO):
        def flush(self) -> None:
            raise error

    monkeypatch.setattr(sys, "stdout", Full())
    assert flushed(0) == code
    assert capsys.readouterr().err == told


def command(monkeypatch, act):
    """`mm info`, of which `act` is all that it does."""
    monkeypatch.setattr(sys, "argv", ["mm", "info"])
    monkeypatch.setitem(main.__globals__, "hush", take_any_text)  # no more for the whole process
    monkeypatch.setitem(main.__globals__, "run", lambda _: act() or 0)
    main()


@pytest.mark.skipif(not FULL.exists(), reason="no /dev/full here")
@pytest.mark.parametrize("debug", ["", "1"])
@pytest.mark.parametrize("flush", [True, False], ids=["at once", "at the end"])
def test_a_command_whose_output_is_full_is_told_in_a_line(monkeypatch, capsys, flush, debug):
    monkeypatch.setenv(DEBUG, debug)
    monkeypatch.setattr(sys, "stdout", FULL.open("w"))
    with pytest.raises(SystemExit, match="2"):
        command(monkeypatch, lambda: print("K", flush=flush))
    *before, line = capsys.readouterr().err.splitlines()
    assert line == "mm: the output cannot be written: No space left on device"
    assert any("[Errno 28]" in each for each in before) == bool(before) == bool(debug)
    sys.stdout.close()


@pytest.mark.parametrize("number", [errno.EIO, errno.ENOSPC, errno.EDQUOT])
@pytest.mark.parametrize("file", [("rows.jsonl",), ()], ids=["named", "open already"])
def test_a_file_that_fails_is_not_the_output(monkeypatch, number, file):
    def act() -> None:
        raise OSError(number, "It failed", *file)

    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(io.BytesIO(), encoding="utf-8"))
    with pytest.raises(OSError, match="It failed"):
        command(monkeypatch, act)


def test_files_are_written_where_nothing_can_be_printed(monkeypatch, tmp_path):
    class Full(io.StringIO):
        def write(self, s: str) -> int:
            raise OSError(28, "No space left on device")

    pil.new("RGB", (80, 40), "red").save(tmp_path / "a.png")
    monkeypatch.setattr(mm, "load", lambda *_, **__: mm.ScriptedVLM(["K"]))
    monkeypatch.setattr(sys, "stdout", Full())
    flags = ["--draw", str(tmp_path / "out.png"), "--save-trace", str(tmp_path / "traces")]
    with pytest.raises(OSError, match="No space left"):
        run(["ask", str(tmp_path / "a.png"), "What?", *flags])
    assert (tmp_path / "out.png").exists()
    assert len(mm.load_traces(tmp_path / "traces")) == 1


@pytest.mark.skipif(not FULL.exists(), reason="no /dev/full here")
@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_a_full_output_is_one_line_in_a_shell(monkeypatch, unbuffered):
    monkeypatch.setenv("PYTHONUNBUFFERED", unbuffered)
    with FULL.open("w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "app.cli", "--help"],
            cwd=ROOT,
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
        )
    said = "mm: the output cannot be written: No space left on device\n"
    assert (done.returncode, done.stderr) == (2, said)
