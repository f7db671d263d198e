"""How well verifiers tell right answers from wrong ones, on traces of `mm collect`.

    mm bench verifier TRACES --model tiny --verifier FOLDER --plot reliability.png --write

Traces must be of other questions than the verifier was trained on.
"""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path

from mm.errors import UserError
from mm.parallel import in_order
from mm.session import Verifier
from mm.strategies import length, likelihood
from mm.strategies.verdict import for_model
from mm.trace import Branch
from mm.trace_store import load_traces
from mm.vlm import VLM, Cancelled
from training.evaluation.collect import RIGHT
from training.evaluation.pairs import slots, wrote_answer
from training.evaluation.results import envelope
from vision.verifier import asked, logratio, read_verifier, score, write_verifier

from .choosing import Judged, curve

BINS = 10


@dataclass(frozen=True)
class Line:
    """One verifier: areas under its ROC curve, averaged over tasks.

    Attributes:
        auc: right against wrong answers, within a task.
        at_length: the same among branches of about equal length.
        steps: enough against not enough at the steps before the answer, within a task.
        n, wrong: branches that it scored, and how many of them are wrong.
    """

    verifier: str
    auc: float | None
    at_length: float | None
    n: int
    wrong: int
    steps: float | None = None


AT_ONCE = 8
"""So many traces are judged at a time."""


def graded_in(folder: Path) -> tuple[list[Branch], int]:
    """The graded branches in `folder` whose answers the model wrote itself, and how many others
    were graded: choices that were made for it.

    Raises:
        BadTrace: the folder cannot be read.
        UserError: there is none such.
    """
    branches = [trace.best for trace in load_traces(folder)]
    graded = [each for each in branches if each.steps and RIGHT in each.steps[-1].scores]
    if not graded:
        raise UserError(f"{folder} holds no graded trace: `mm collect` writes some")
    own = [each for each in graded if wrote_answer(each)]
    if not own:
        raise UserError(f"{folder} holds only choices that were made for the model: collect again")
    return own, len(graded) - len(own)


def judged(
    graded: Sequence[Branch],
    vlm: VLM,
    *,
    trained: bool,
    tell: Callable[[int, int], None] = lambda done, total: None,
) -> list[Judged]:
    """`graded` branches, at the end and at the steps before it, scored by `asked`, `likelihood`,
    `length` and, if there is one, the trained verifier.

    Args:
        tell: told after each branch how many are done, of how many.

    Raises:
        ModelError: the model failed.
    """
    verifiers: dict[str, Verifier] = {"asked": asked, "likelihood": likelihood, "length": length}
    if trained:
        verifiers |= {"score": score, "logratio": logratio}
    found: list[Judged] = []
    with closing(in_order(partial(_judged, verifiers, vlm), graded, AT_ONCE)) as judgements:
        for done, some in enumerate(judgements, 1):
            found += some
            tell(done, len(graded))
    return found


def _judged(
    verifiers: Mapping[str, Verifier], vlm: VLM, branch: Branch, cancelled: Cancelled
) -> list[Judged]:
    task = str(branch.sample.tags.get("task", ""))
    found = []
    for at, enough in slots(branch):
        if cancelled():
            break
        seen = Branch(branch.sample, branch.steps[:at], None)
        scores = {name: for_model(verifier, vlm)(seen) for name, verifier in verifiers.items()}
        tokens = sum(step.cost.generated_tokens for step in seen.steps)
        known = {name: value for name, value in scores.items() if value is not None}
        asked_of = {"question": branch.sample.id, "choices": branch.sample.choices}
        early = at < len(branch.steps)
        told = {"step": early, "answer": None if early else branch.answer}
        found.append(Judged(task, enough, tokens, known, **asked_of, **told))
    return found


def lines(found: Sequence[Judged]) -> list[Line]:
    """A line for each verifier that could tell of any branch."""
    names = dict.fromkeys(name for each in found for name in each.scores)
    return [_line(name, found) for name in names]


def _line(name: str, found: Sequence[Judged]) -> Line:
    tasks: dict[str, list[Judged]] = defaultdict(list)
    alike: dict[str, list[Judged]] = defaultdict(list)
    steps: dict[str, list[Judged]] = defaultdict(list)
    ends = [each for each in found if name in each.scores and not each.step]
    for each in ends:
        tasks[each.task].append(each)
        alike[f"{each.task} {each.tokens // 8}"].append(each)
    for each in found:
        if each.step and name in each.scores:
            steps[each.task].append(each)
    at_end, at_length, at_steps = (_mean_auc(name, each) for each in (tasks, alike, steps))
    wrong = sum(not each.right for each in ends)
    return Line(name, at_end, at_length, len(ends), wrong, at_steps)


def _mean_auc(name: str, groups: Mapping[str, Sequence[Judged]]) -> float | None:
    """Of all groups that have right and wrong ones, weighted by their pairs."""
    total = pairs = 0.0
    for group in groups.values():
        good = [each.scores[name] for each in group if each.right]
        bad = [each.scores[name] for each in group if not each.right]
        if good and bad:
            total += auc(good, bad) * len(good) * len(bad)
            pairs += len(good) * len(bad)
    return total / pairs if pairs else None


def auc(good: Sequence[float], bad: Sequence[float]) -> float:
    """How often one of `good` is larger than one of `bad`; ties count half."""
    wins = sum((g > b) + 0.5 * (g == b) for g in good for b in bad)
    return wins / (len(good) * len(bad))


def threshold(name: str, found: Sequence[Judged]) -> float:
    """The score from which on most answers are sorted rightly; the middle of its gap.

    Raises:
        UserError: none has that score.
    """
    scored = sorted((each.scores[name], each.right) for each in found if name in each.scores)
    if not scored:
        raise UserError(f"{name} can tell nothing of these traces: collect some of its own model")
    wrong_above = sum(not right for _, right in scored)
    errors, best, at = wrong_above, wrong_above, scored[0][0]
    for (value, right), (after, _) in zip(scored, [*scored[1:], scored[-1]], strict=True):
        errors += 1 if right else -1
        if errors < best and after > value:
            best, at = errors, (value + after) / 2
    return at


def matched(name: str, found: Sequence[Judged], at: float) -> dict[str, float]:
    """What makes each control say "enough" as often as `name` does from `at` on: a threshold of
    `length` and of `likelihood`, a rate of "random-stop"."""
    of = [each.scores for each in found if name in each.scores]
    rate = sum(scores[name] >= at for scores in of) / len(of)
    ranked = {}
    for control in ("length", "likelihood"):
        values = sorted((s[control] for s in of if control in s), reverse=True)
        if values:
            ranked[control] = values[max(round(rate * len(values)) - 1, 0)]
    return {"random-stop": round(rate, 6), **{k: round(v, 6) for k, v in ranked.items()}}


def write_threshold(folder: Path, at: float, controls: Mapping[str, float]) -> None:
    """Keep beside its adapter from where on the verifier in `folder` has seen enough, and what
    matches that."""
    known = read_verifier(folder)
    write_verifier(folder, replace(known, threshold=round(at, 6), matched=dict(controls)))


def calibration_split(found: Sequence[Judged], seed: int = 0) -> tuple[list[Judged], list[Judged]]:
    """Two halves of the questions by chance, with all that was drawn of each: one to choose the
    threshold on, the other to report."""
    questions = list(dict.fromkeys((each.task, each.question) for each in found))
    random.Random(seed).shuffle(questions)
    first = set(questions[: (len(questions) + 1) // 2])
    one = [each for each in found if (each.task, each.question) in first]
    return one, [each for each in found if (each.task, each.question) not in first]


def accuracy(name: str, found: Sequence[Judged], at: float) -> float | None:
    """How many of the answers are sorted rightly by "from `at` on it is right"; None where `name`
    could tell of none."""
    of = [each for each in found if name in each.scores]
    return sum((each.scores[name] >= at) == each.right for each in of) / len(of) if of else None


def reliability_plot(name: str, found: Sequence[Judged], path: Path) -> None:
    """How many answers are right among those of about one score, as PNG or SVG."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    bins: dict[int, list[bool]] = defaultdict(list)
    for each in found:
        if name in each.scores:
            bins[min(int(each.scores[name] * BINS), BINS - 1)].append(each.right)
    at = sorted(bins)
    figure, axes = pyplot.subplots(figsize=(5, 5))
    axes.plot([0, 1], [0, 1], color="grey", linestyle=":", label="as it should be")
    shares = [sum(bins[b]) / len(bins[b]) for b in at]
    axes.plot([(b + 0.5) / BINS for b in at], shares, marker="o", label=name)
    for b, share in zip(at, shares, strict=True):
        axes.annotate(f"{len(bins[b])}", ((b + 0.5) / BINS, share), fontsize=8)
    axes.set(xlabel="score", ylabel="share of right answers", xlim=(0, 1), ylim=(0, 1))
    axes.legend()
    figure.savefig(path, bbox_inches="tight")
    pyplot.close(figure)


def as_json(found: Sequence[Judged], **about: object) -> dict[str, object]:
    """The report for programs: a row a verifier in `rows`, a row a way to choose in `choosing`;
    `about` is the command and what else should be known."""
    choosing = [asdict(choice) for choice in curve(found)]
    return {**envelope(map(asdict, lines(found)), [], **about), "choosing": choosing}
