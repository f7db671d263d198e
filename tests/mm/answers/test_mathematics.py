"""math-verify in a process of its own: from threads, within its limits, and without it."""

import subprocess
import sys
import threading
import time
import warnings
from concurrent.futures import ThreadPoolExecutor

import pytest

from mm.answers import mathematics
from mm.answers.matching import same_answer
from mm.answers.mathematics import is_mathematics, same_mathematics


def test_threads_share_the_process():
    pairs = [(f"(x+{n})^2", f"x^2+{2 * n}x+{n * n}") for n in range(8)]
    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(lambda pair: same_mathematics(*pair), pairs))
        assert not any(pool.map(lambda pair: same_mathematics(pair[0], pair[1] + "+1"), pairs))


def test_a_thread_that_is_not_the_main_one_may_be_the_first():
    mathematics._helper.end()
    mathematics._verified.cache_clear()
    said = []
    thread = threading.Thread(target=lambda: said.append(same_mathematics("2^3", "8")))
    thread.start()
    thread.join()
    assert said == [True]


def test_what_takes_too_long_ends_and_the_next_is_compared(monkeypatch):
    mathematics._helper.end()
    monkeypatch.setattr(mathematics, "CPU_SECONDS", 0.3)
    assert mathematics._helper.ask("9^{9^{9^{9}}}", "7") is None
    mathematics._helper.end()
    monkeypatch.undo()
    assert same_mathematics("2^5", "32") is True


def test_what_nobody_can_compute_is_not_tried(monkeypatch):
    monkeypatch.setattr(mathematics, "_verified", None)
    for huge in ("9^{9^{9^{9}}}", "9^9^9", "2^{100000}", "99999!"):
        assert same_mathematics(huge, "7") is None
        assert same_mathematics(huge, huge) is True


def test_a_process_killed_from_outside_is_started_again():
    assert same_mathematics("2^6", "64") is True
    process = mathematics._helper._process
    assert process is not None
    process.kill()
    process.wait()
    assert same_mathematics("2^7", "128") is True


def test_without_math_verify_formulas_count_as_written(monkeypatch):
    monkeypatch.setattr(mathematics, "find_spec", lambda name: None)
    for cached in (mathematics._available, mathematics._verified):
        cached.cache_clear()
    with pytest.warns(UserWarning, match="pip install math-verify"):
        assert not same_answer("2^3", "8")
    with warnings.catch_warnings():  # once
        warnings.simplefilter("error")
        assert not same_answer("2^4", "16")
        assert same_answer("x^2 + 1", "x^2+1")
    for cached in (mathematics._available, mathematics._verified):
        cached.cache_clear()


@pytest.mark.parametrize(
    ("text", "formula"),
    [
        pytest.param("x + 1", True, id="a sum"),
        pytest.param(r"$\frac{\sqrt{3}}{2}$", True, id="LaTeX"),
        pytest.param("(1, 2)", True, id="a pair"),
        pytest.param("sin(x) + cos(x)", True, id="functions"),
        pytest.param("red + blue", False, id="words"),
        pytest.param("and/or", False, id="a slash between words"),
        pytest.param("A→B", False, id="an arrow"),
        pytest.param("555-1234", False, id="a telephone number"),
        pytest.param("1, 2", False, id="a list"),
        pytest.param("H2O", False, id="chemistry"),
        pytest.param("x+" * 200 + "1", False, id="too long"),
        pytest.param("", False, id="nothing"),
    ],
)
def test_what_is_mathematics(text, formula):
    assert is_mathematics(text) is formula


def endless(*_: object) -> subprocess.Popen[str]:
    """A helper that computes for ever and answers nothing."""
    command = [sys.executable, "-c", "while True: pass"]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


@pytest.mark.parametrize(
    ("timer", "patience"),
    [
        pytest.param(False, 60.0, id="no timer: by its processor time"),
        pytest.param(True, 0.5, id="a timer: by the clock, once"),
        pytest.param(False, 0.5, id="a machine that stands still"),
    ],
)
def test_a_helper_that_gives_no_answer_is_ended_and_not_asked_again(monkeypatch, timer, patience):
    if not timer:
        monkeypatch.delattr("signal.setitimer")
    for name, value in (("PATIENCE", patience), ("CPU_SECONDS", 0.2), ("STARTING_CPU_SECONDS", 0)):
        monkeypatch.setattr(mathematics, name, value)
    helper, started = mathematics._Helper(), []
    monkeypatch.setattr(helper, "_running", lambda: started.append(endless()) or started[-1])
    monkeypatch.setattr(helper, "end", lambda: started[-1].kill())
    began = time.monotonic()
    assert helper.ask("x", "y") is None
    assert len(started) == 1
    assert time.monotonic() - began < 30
    assert started[0].wait() < 0
