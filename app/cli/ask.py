"""`mm ask`: one question about one picture or several."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path

import mm
from app.model_choice import ModelChoice
from app.report import as_json, as_text, failure_json
from app.strategies import strategy_named
from app.terminal import spinner
from mm.errors import UserError
from mm.local.load import no_collecting


@dataclass(frozen=True)
class How:
    """How to answer: the same for one question and for a batch."""

    model: ModelChoice = ModelChoice()
    strategy: str = "direct"
    sampling: mm.Sampling = field(default_factory=mm.Sampling)
    choices: tuple[str, ...] = ()
    save_trace: Path | None = None

    def function(self) -> mm.Strategy:
        """The strategy; with choices, it always gives one of them."""
        strategy = strategy_named(self.strategy)
        return mm.insist(strategy) if self.choices else strategy


def ask(words: list[str], how: How, *, as_program: bool = False, draw: Path | None = None) -> int:
    """Ask the last of `words` about the pictures before it, print what comes back; the exit code.

    As a program, a failure is printed as JSON too.

    Raises:
        UserError: the words, the strategy or an output path cannot be used.
        BadImage, ModelError: the picture or the model cannot.
    """
    try:
        with no_collecting():
            trace = _answer(words, how, draw, quiet=as_program)
    except (UserError, mm.ModelError) as error:
        if not as_program:
            raise
        print(json.dumps(failure_json(error)))
        return 2
    if trace.error and not as_program:
        raise mm.ModelError(trace.error)
    print(json.dumps(as_json(trace)) if as_program else as_text(trace, words))
    return 2 if trace.error else 0


def _answer(words: list[str], how: How, draw: Path | None, *, quiet: bool) -> mm.Trace:
    files, question = _split(words)
    strategy = how.function()
    _check_outputs(how.save_trace, draw)
    sample = mm.question(question, *files, choices=how.choices)
    with spinner(f"loading {how.model.name}", quiet=quiet):
        vlm = how.model.load()
    with spinner("looking", quiet=quiet):
        trace = mm.run(strategy, sample, vlm, sampling=how.sampling)
    keep(trace, how.save_trace)
    if draw:
        _draw(trace, draw)
    return trace


def keep(trace: mm.Trace, folder: Path | None) -> None:
    """Save `trace` in `folder`, where one is wanted."""
    if folder is None:
        return
    try:
        mm.save_traces([trace], folder)
    except OSError as error:
        raise UserError(f"cannot write the trace to {str(folder)!r}: {error.strerror}") from None


def _split(words: list[str]) -> tuple[list[str], str]:
    if not words:
        raise UserError('what about? give a picture and a question: mm ask FILE... "question"')
    *files, question = words
    if Path(question).is_file():
        raise UserError(f"{question!r} is a file: end with the question, in quotes")
    if not files:
        raise UserError(f'no picture before the question {question!r}: mm ask FILE... "question"')
    if not question.strip():
        raise UserError("the question is empty")
    return files, question


def _check_outputs(save_trace: Path | None, draw: Path | None) -> None:
    if save_trace and save_trace.exists() and not save_trace.is_dir():
        raise UserError(f"--save-trace takes a folder, and {str(save_trace)!r} is a file")
    if draw is None:
        return
    if draw.suffix.lower() not in (".png", ".jpg", ".jpeg", ".webp"):
        raise UserError(f"--draw writes .png, .jpg or .webp, not {draw.name!r}")
    if not draw.parent.is_dir():
        raise UserError(f"--draw: there is no folder {str(draw.parent)!r}")


def _draw(trace: mm.Trace, path: Path) -> None:
    from app.demo.view import looked_at

    try:
        looked_at(trace).save(path)
    except OSError as error:
        raise UserError(f"cannot write {str(path)!r}: {error.strerror}") from None
