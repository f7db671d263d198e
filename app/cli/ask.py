"""`mm ask`: one question about one image or several."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import mm
from app.errors import DEBUG, check_file, tell, writing
from app.model_choice import ModelChoice
from app.report import as_json, as_text, error_of, failure_json, with_strategy_text
from app.strategies import judged_by, judging, strategy_named, with_depth
from app.terminal import spinner
from mm.errors import UserError, quote
from mm.local.load import no_collecting
from mm.samples import is_clip
from mm.trace_store import append_trace, check_folder
from mm.vlm import sampling_of
from video.search import over_clips
from video.subtitles import subtitled
from vision.depth_source import DepthSource

UNSAID = ("base_url", "processor", "adapter_weights", "verifier_weights")
"""Facts that answers of earlier versions do not say."""


@dataclass(frozen=True)
class How:
    """How to answer: the same for one question and for a batch.

    `sampling` is what was said of it; what was not is the checkpoint's own. `latents` tells the
    weights of the strategy's modules of latents, by their folders.
    """

    model: ModelChoice = ModelChoice()
    strategy: str = "direct"
    sampling: Mapping[str, Any] = field(default_factory=dict)
    choices: tuple[str, ...] = ()
    save_trace: Path | None = None
    system: str | None = None
    depth: DepthSource = DepthSource()
    latents: Mapping[str, str] = field(default_factory=dict)

    @property
    def judged(self) -> ModelChoice:
        """The model, with the verifier it brings where the strategy wants one.

        Raises:
            UserError: there is no such strategy.
        """
        return judging(self.model, self.strategy)

    @property
    def facts(self) -> dict[str, object]:
        """What an answer depends on besides its question, for answers that are continued."""
        model = self.judged
        return {
            "model": model.name,
            **dict.fromkeys((*UNSAID, "quantize")),
            **model.place,
            "adapter": model.adapter,
            "verifier": model.verifier_name,
            "dtype": model.dtype,
            "strategy": self.strategy,
            "choices": list(self.choices),
            "system": self.system,
            "sampling": dict(self.sampling),
            "budgets": model.budgets.given,
            "depth_map": {k: v for k, v in vars(self.depth).items() if v is not None},
            "latents_weights": dict(self.latents) or None,
        }

    def function(self) -> mm.Strategy:
        """The strategy; with choices, it always gives one of them."""
        strategy = self.named()
        return mm.insist(strategy) if self.choices else strategy

    def named(self) -> mm.Strategy:
        """The strategy, with its verifier and its depth; over frames where there are clips."""
        judged = judged_by(strategy_named(self.strategy), self.model.verifier, self.judged.judge)
        return over_clips(with_depth(judged, self.source))

    @property
    def source(self) -> DepthSource:
        """Where depth comes from: of a model, one that runs where the other does."""
        return replace(self.depth, device=self.model.device)


def ask(
    words: list[str],
    how: How,
    *,
    as_program: bool = False,
    draw: Path | None = None,
    subtitles: str | None = None,
) -> int:
    """Ask the last of `words` about the images before it, print what comes back; the exit code.

    As a program, a failure is printed as JSON too. `subtitles` is a file of those of the one clip.

    Raises:
        UserError: the words, an image, the strategy or an output path cannot be used.
        ModelError: the model cannot.
    """
    try:
        with no_collecting():
            trace = _answer(words, how, draw, subtitles, quiet=as_program)
    except (UserError, mm.ModelError) as error:
        if not as_program:
            raise
        if os.environ.get(DEBUG):
            tell(error)
        print(json.dumps(failure_json(error)))
        return 2
    if trace.error and not as_program:
        keep(trace, how.save_trace)
        raise mm.ModelError(trace.error)
    try:
        print(json.dumps(as_json(trace)) if as_program else as_text(trace, words))
    finally:  # where nothing can be printed, what was asked for is still written
        keep(trace, how.save_trace)
        if draw:
            _draw(trace, draw, how.source)
    return 2 if error_of(trace) else 0


def _answer(
    words: list[str], how: How, draw: Path | None, subtitles: str | None, *, quiet: bool
) -> mm.Trace:
    files, question = _split(words)
    strategy = how.function()
    _check_outputs(how.save_trace, draw, [*files, subtitles, how.depth.file])
    if how.depth.scale is not None and how.depth.file is None:
        raise UserError("--depth-scale is the scale of a file: give it with --depth")
    seen = _seen(files, subtitles)
    sample = mm.question(question, *seen, choices=how.choices, system=how.system)
    with spinner(f"loading {how.model.name}", quiet=quiet):
        vlm = how.judged.load()
    with spinner("looking", quiet=quiet):
        trace = mm.run(strategy, sample, vlm, sampling=sampling_of(vlm.traits, how.sampling))
    return with_strategy_text(trace, how.strategy)


def keep(trace: mm.Trace, folder: Path | None) -> None:
    """Add `trace` to those in `folder`, where one is wanted.

    Raises:
        BadTrace: it cannot be written.
    """
    if folder is not None:
        append_trace(trace, folder)


def clips_with(clips: Sequence[str], subtitles: str | None) -> list[mm.Clip]:
    """The clips, the only one with its subtitles, where there are any.

    Raises:
        UserError: there are, and not one clip; or one of both cannot be read.
    """
    if subtitles is None:
        return [mm.Clip(clip) for clip in clips]
    if len(clips) != 1:
        raise UserError(
            f"subtitles are those of one clip, and here are {len(clips)}: give just one"
        )
    return [subtitled(clips[0], subtitles)]


def _seen(files: Sequence[str], subtitles: str | None) -> list[str | mm.Clip]:
    if subtitles is None:
        return [*files]
    clips = iter(clips_with([file for file in files if is_clip(file)], subtitles))
    return [next(clips) if is_clip(file) else file for file in files]


def _split(words: list[str]) -> tuple[list[str], str]:
    if not words:
        raise UserError('what about? give an image and a question: mm ask FILE... "question"')
    *files, question = words
    if os.path.isfile(question):  # Path.is_file raises on a long question
        raise UserError(f"{question!r} is a file: end with the question, in quotes")
    if not files:
        asked = quote(question)
        raise UserError(f'no image or clip before the question {asked}: mm ask FILE... "question"')
    if not question.strip():
        raise UserError("the question is empty")
    try:
        question.encode()
    except UnicodeEncodeError as error:
        broken = ascii(error.object[error.start])
        raise UserError(f"the question holds {broken}, which is half a character") from None
    return files, question


def _check_outputs(save_trace: Path | None, draw: Path | None, read: Sequence[str | None]) -> None:
    if save_trace:
        check_folder(save_trace)
    if draw is None:
        return
    if draw.suffix.lower() not in (".png", ".jpg", ".jpeg", ".webp"):
        raise UserError(f"--draw writes .png, .jpg or .webp, not {draw.name!r}")
    check_file("--draw", draw, read)
    if any(each and _lies_in(draw, each) for each in read):
        raise UserError(
            f"--draw: {str(draw)!r} would be a frame of the clip in its folder, which is read: "
            "name another folder"
        )


def _lies_in(file: Path, folder: str) -> bool:
    """Whether `folder` is one, and `file` stands in it itself."""
    return os.path.isdir(folder) and os.path.samefile(file.parent, folder)


def _draw(trace: mm.Trace, path: Path, depth: DepthSource) -> None:
    from app.demo.view import looked_at

    if not trace.sample.images:
        raise UserError(f"--draw {str(path)!r}: no image or frame was shown")
    drawn = looked_at(trace, depth)
    with writing("--draw", path):
        drawn.save(path)
