"""Waiting for an answer whose asker may leave."""

from __future__ import annotations

import subprocess
import sys
import time
from functools import partial

import pytest

from app.demo.waiting import waited
from mm.errors import UserError
from mm.trace import Sample, Trace

FOUND = Trace(Sample("q", ()))

LEAVES = """
import time
from app.demo.waiting import waited

def work(*, cancel):
    time.sleep(60)

asked = waited(work, 60)
next(asked)
"""


def slowly(asked: list[bool], *, cancel) -> Trace:
    while not cancel():
        time.sleep(0.005)
    asked.append(True)
    return FOUND


@pytest.fixture(autouse=True)
def fast(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.demo.waiting.BEAT_S", 0.01)


def test_the_answer_comes_last() -> None:
    assert [each for each in waited(lambda *, cancel: FOUND, 9) if each] == [FOUND]


def test_a_mistake_is_the_askers() -> None:
    def mistaken(*, cancel) -> Trace:
        raise UserError("no")

    with pytest.raises(UserError, match="no"):
        list(waited(mistaken, 9))


@pytest.mark.parametrize("late", [False, True], ids=["the asker leaves", "the time is up"])
def test_the_model_is_stopped(late: bool) -> None:
    stopped: list[bool] = []
    asked = waited(partial(slowly, stopped), 0.03 if late else 9)
    if late:
        with pytest.raises(UserError, match="no answer within"):
            list(asked)
    else:
        assert next(asked) is None
        asked.close()
    ends = time.monotonic() + 2
    while not stopped and time.monotonic() < ends:
        time.sleep(0.005)
    assert stopped


def test_an_answer_that_is_waited_for_does_not_keep_the_program() -> None:
    subprocess.run([sys.executable, "-c", LEAVES], check=True, timeout=20)
