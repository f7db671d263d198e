"""What GRPO repairs about clips, by VideoRFT's rewards (arXiv 2505.12434).

`tiny` is taught thoughts, some of which describe another clip, and some of which conclude what is
wrong; then it learns from the rewards of its own answers.

    python -m training.benchmarks.grpo_clips runs/grpo-clips

It is trained by those rewards under three seeds; by the same without their gate; and without the
reward that compares what a thought describes with the frames. All models answer the same held-out
questions, eight times each at temperature 1, and once greedily. Stopped or killed, it goes on where
it was.
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import count, islice
from pathlib import Path
from statistics import mean
from typing import Any

import torch

import mm
from mm.local.hf_vlm import HFVLM
from mm.local.precision import fast_dtype, name_of
from mm.types import Sampling
from training.data import Row, read_data
from training.finetune.recipe import Recipe
from training.rewards.terms import Attempt
from training.rewards.video_rft import consistency, described
from training.tabletop.clip_questions import ClipQuestion, ask_clip
from training.tabletop.examples import write_clip
from training.tabletop.motion import Motion, frames_of, make_motion
from training.tabletop.questions import FIRST_TEST_SEED
from training.tabletop.scene import COLOURS, SHAPES
from training.trainers.rollouts import Explorer, Rollout
from video import uniform

from .grpo_study import Values, from_command_line, kept, rows_file, rows_of, run_study, train_apart

TASKS = ("order", "tally")
WRONG = 0.3
"""The share of thoughts that describe another clip, and of those that conclude what is wrong."""

SIGLIP = "tiny-siglip"
BEGUN = "I look at the clip."
"""The first sentence of each thought, which the reward for what is described leaves out."""

CONSTANT = "There is a lamp, and there are things on the table. Some of them move."
"""A sentence that fits every clip; it must not earn more than a thought that describes this one."""

SEEDS = (0, 1, 2)
COLUMNS = [f"{mode} {what}" for mode in ("sampled", "greedy") for what in ("right", "described")]
AT_ONCE = 32
"""So many questions are answered at a time."""

NO_CONSISTENCY = "typed_accuracy + thought_and_answer"
_FIRST_SEEDS = {"train": 3 << 32, "explore": 3 << 33, "test": FIRST_TEST_SEED + (3 << 38)}
_NAME = re.compile(rf"\b(?:{'|'.join(COLOURS)}) (?:{'|'.join(SHAPES)})\b")


@dataclass(frozen=True)
class Setting:
    """How long and how hard everything is trained; the defaults are those of the table."""

    rows: int = 1600
    explored: int = 240
    questions: int = 250
    samples: int = 8
    sft_steps: int = 160
    steps: int = 25
    rate: float = 1e-4
    prompts: int = 8
    group: int = 8


def write_rows(folder: Path, name: str, number: int, *, wrong: float | None = None) -> Path:
    """`name`.jsonl and its clips in `folder`: so many questions; with thoughts where it is told
    how large a share is `wrong`."""
    return rows_file(folder, name, islice(_rows(folder, name, wrong), number))


def _rows(folder: Path, name: str, wrong: float | None) -> Iterator[dict[str, Any]]:
    for at, (motion, question) in enumerate(_questions(_FIRST_SEEDS[name])):
        clip = f"{name}/{at}.mp4"
        write_clip(frames_of(motion), folder / clip)
        row = {"id": f"{question.task}-{at}", "videos": [clip], "source": question.task}
        if wrong is None:
            yield row | _asked(question)
        else:
            yield row | thought(motion, question, wrong, random.Random(f"{name} {at}"))


def _questions(first: int) -> Iterator[tuple[Motion, ClipQuestion]]:
    """Clips with a question each, the tasks in turn."""
    for made, seed in enumerate(count(first)):
        motion, task = make_motion(seed), TASKS[made % len(TASKS)]
        if question := ask_clip(task, motion, random.Random(f"ask {task} {seed}")):
            yield motion, question


def _asked(question: ClipQuestion) -> dict[str, Any]:
    """What is asked and what is right. Of `tally` no choices: its answers are numbers."""
    choices = {"choices": list(question.choices)} if question.task == "order" else {}
    return {"question": question.text, "answer": question.answer, **choices}


def thought(
    motion: Motion, question: ClipQuestion, wrong: float, rng: random.Random
) -> dict[str, Any]:
    """A thought and an answer; each of what it describes and what it concludes is wrong in a share
    `wrong` of them."""
    shown = make_motion(motion.seed + (1 << 20)) if rng.random() < wrong else motion
    others = [choice for choice in question.choices if choice != question.answer]
    answer = rng.choice(others) if rng.random() < wrong else question.answer
    ended = {"order": f"The {answer} moved first.", "tally": f"The lamp flashed {answer} times."}
    words = f"{BEGUN} {description(shown)} {ended[question.task]}"
    said = f"<think>{words}</think>\n<answer>{answer}</answer>"
    asked = f"<video>{question.text}"
    turns = (("user", asked), ("assistant", said))
    return {"messages": [{"role": role, "content": content} for role, content in turns]}


def description(motion: Motion) -> str:
    """The clip's topmost thing and its lowest."""
    top, bottom = ends(motion)
    return f"There are a {top} and a {bottom}."


def ends(motion: Motion) -> tuple[str, str]:
    """The names of the topmost and the lowest thing."""
    things = sorted(motion.scene.things, key=lambda thing: thing.y)
    return things[0].name, things[-1].name


def recipes(folder: Path, setting: Setting) -> dict[str, Recipe]:
    """What is trained, by the name of its folder; the first is where the others begin."""
    shared = Recipe(device="cpu", lora=False, batch_tokens=8192)
    taught = replace(
        shared,
        method="sft",
        data=str(folder / "train.jsonl"),
        output=str(folder / "sft"),
        max_steps=setting.sft_steps,
    )
    explored = replace(
        shared,
        method="grpo",
        data=str(folder / "explore.jsonl"),
        model=taught.output,
        max_steps=setting.steps,
        learning_rate=setting.rate,
        prompts=setting.prompts,
        group=setting.group,
        strategy="uniform",
        siglip=SIGLIP,
        max_tokens=80,
        clip_high=0.28,
    )
    rewards = {f"video-rft, seed {seed}": ("video-rft", seed) for seed in SEEDS}
    rewards |= {"no gate": ("video-rft-no-gate", 0), "no consistency": (NO_CONSISTENCY, 0)}
    return {"sft": taught} | {
        name: replace(explored, rewards=reward, seed=seed, output=str(folder / _slug(name)))
        for name, (reward, seed) in rewards.items()
    }


def _slug(name: str) -> str:
    return name.replace(", ", "-").replace(" ", "-")


def measured(model: str, rows: Sequence[Row], things: Mapping[str, set[str]], n: int) -> Values:
    """Of each question: how many of `n` sampled answers are right, and how many describe just its
    `things`; the same of the greedy one."""
    explorer = Explorer(_loaded(model), uniform, {"": ()}, Sampling(80, temperature=1.0))
    found: dict[str, list[float]] = {column: [] for column in COLUMNS}
    for at in range(0, len(rows), AT_ONCE):  # few, for their frames to fit into the memory
        some = rows[at : at + AT_ONCE]
        drawn = explorer.explore([row for row in some for _ in range(n)], step=at)
        greedy = explorer.explore(some, step=at, greedy=True)
        for mode, rollouts, k in (("sampled", drawn, n), ("greedy", greedy, 1)):
            found[f"{mode} right"] += _means([_is_right(each) for each in rollouts], k)
            found[f"{mode} described"] += _means([_fits(each, things) for each in rollouts], k)
    return found


def _means(values: Sequence[float], k: int) -> list[float]:
    """The mean of each `k` that follow each other."""
    return [sum(values[at : at + k]) / k for at in range(0, len(values), k)]


def _loaded(model: str) -> HFVLM:
    dtype = name_of(fast_dtype(torch.device("cpu")))
    vlm = mm.load(model, device="cpu", dtype=dtype)
    assert isinstance(vlm, HFVLM)
    return vlm


def _is_right(rollout: Rollout) -> float:
    return rollout.measures["accuracy"]


def _fits(rollout: Rollout, things: Mapping[str, set[str]]) -> float:
    """Whether the sentence that describes names just the things that it should."""
    said, _, _ = described(rollout.attempt).partition(".")
    return float(named(said) == things[rollout.id])


def named(text: str) -> set[str]:
    """The things that `text` names."""
    return set(_NAME.findall(text))


def earned(model: str, rows: Sequence[Row]) -> Values:
    """What the thoughts that `model` writes greedily earn for fitting the frames, from 0 to 1, and
    what `CONSTANT` in their place does: of each of `rows`."""
    explorer = Explorer(_loaded(model), uniform, {"": ()}, Sampling(80))
    fits = partial(consistency, siglip=SIGLIP)
    honest: list[float] = []
    constant: list[float] = []
    for at in range(0, len(rows), AT_ONCE):
        for rollout in explorer.explore(rows[at : at + AT_ONCE], step=at, greedy=True):
            honest.append(fits(rollout.attempt))
            constant.append(fits(_saying(rollout.attempt, f"{BEGUN} {CONSTANT}")))
    return {"thoughts": honest, "constant": constant}


def _saying(attempt: Attempt, thought: str) -> Attempt:
    """The attempt with `thought` in the place of all that was written."""
    last = attempt.branch.steps[-1]
    said = replace(last.message, parts=(mm.Thinking(thought),))
    steps = (*attempt.branch.steps[:-1], replace(last, message=said))
    return replace(attempt, branch=replace(attempt.branch, steps=steps))


table = partial(rows_of, columns=COLUMNS, start="sft")


def main(folder: Path, setting: Setting) -> None:
    """Write the rows, train every condition, print the table, and write it as results.json."""
    write_rows(folder, "train", setting.rows, wrong=WRONG)
    write_rows(folder, "explore", setting.explored)
    questions = list(read_data(write_rows(folder, "test", setting.questions)))
    motions = islice(_questions(_FIRST_SEEDS["test"]), setting.questions)
    names = [set(ends(motion)) for motion, _ in motions]
    things = {row.id: each for row, each in zip(questions, names, strict=True)}
    trained = recipes(folder, setting)
    train_apart(trained["sft"], uniform)
    earning = kept(folder / "earned.json", partial(earned, trained["sft"].output, questions))
    mean_of = {name: mean(values) for name, values in earning.items()}
    about = {"model": "tiny", "n": setting.questions, "earned": mean_of}
    answered = partial(measured, rows=questions, things=things, n=setting.samples)
    run_study(folder, trained, uniform, answered, table, **about)


if __name__ == "__main__":
    main(*from_command_line(__doc__, Setting()))
