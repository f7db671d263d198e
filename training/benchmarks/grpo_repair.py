"""What GRPO repairs: `tiny` is taught wrong boxes, then learns from the rewards of its own answers.

    python -m training.benchmarks.grpo_repair runs/rgrpo

A fifth of the rows that it is fine-tuned on look at a random box, their answer kept. From that
state it is trained by VLM-R3's rewards, by the answer alone, and by those rewards without their
gate; all models answer the same held-out questions. Stopped or killed, it goes on where it was.
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import count, islice
from pathlib import Path
from typing import Any

import torch

import mm
from mm.geometry import BoxFormat, Region
from mm.local.hf_vlm import HFVLM
from mm.tokens.builder import TokenBuilder
from mm.trace import Sample
from mm.types import Sampling
from training.batching.collator import IGNORED, Collator, forward_inputs
from training.data import Row as DataRow
from training.data import read_data
from training.finetune.recipe import Recipe
from training.rewards.presets import MIXES
from training.tabletop.questions import FIRST_TEST_SEED, Question, ask
from training.tabletop.render import render
from training.tabletop.scene import SIDE, Level, Scene, make_scene
from training.tabletop.traces import ZOOM
from training.trainers.rollouts import Explorer, Rollout
from vision import zoom
from vision.controls import random_region
from vision.zoom_tool import zoom_tool

from .grpo_study import Values, from_command_line, kept, rows_file, rows_of, run_study

TASKS = ("read", "same")
WRONG = 0.2
"""The share of the rows whose boxes are random."""

GRID = 20
"""Boxes are written in multiples of so many thousandths of the image."""

CONDITIONS = ("r-grpo", "accuracy", "r-grpo-no-gate")
_LEVEL = Level.PERSPECTIVE
_TEST = FIRST_TEST_SEED + (1 << 38)
_FIRST_SEEDS = {"train": 1 << 32, "explore": 1 << 33, "test": _TEST, "solved": _TEST}


@dataclass(frozen=True)
class Setting:
    """How long and how hard everything is trained; the defaults are those of the table."""

    rows: int = 800
    explored: int = 192  # so few that none of them is held out
    questions: int = 240
    sft_steps: int = 60
    sft_rate: float = 3e-4
    steps: int = 25
    rate: float = 1e-4
    prompts: int = 8
    group: int = 8
    seed: int = 0


def write_rows(folder: Path, name: str, number: int, *, wrong: float | None = None) -> Path:
    """`name`.jsonl in `folder`: so many questions; with looks where a share of them is `wrong`."""
    return rows_file(folder, name, islice(_rows(folder, name, wrong), number))


def _rows(folder: Path, name: str, wrong: float | None) -> Iterator[dict[str, Any]]:
    for at, (scene, question) in enumerate(_questions(_FIRST_SEEDS[name])):
        image = f"{name}/{at}.png"
        render(scene).save(folder / image)
        rng = random.Random(f"{name} {at}")
        row = {"id": f"{question.task}-{at}", **_asked(scene, question, image)}
        if wrong is not None:
            row |= _solved(scene, question, image, wrong=rng.random() < wrong)
        yield row


def _questions(first: int) -> Iterator[tuple[Scene, Question]]:
    """Scenes with a question each, the tasks in turn."""
    made = 0
    for seed in count(first):
        scene, task = make_scene(seed, _LEVEL), TASKS[made % len(TASKS)]
        if question := ask(task, scene, random.Random(f"ask {task} {seed}")):
            yield scene, question
            made += 1


def _asked(scene: Scene, question: Question, image: str) -> dict[str, Any]:
    """A row for answers that are sampled: what is asked, what is right, where it is to be seen."""
    return {
        "question": question.text,
        "images": [image],
        "answer": question.answer,
        "choices": list(question.choices),
        "regions": [list(scene.things[i].region.to_pixels((SIDE, SIDE))) for i in question.looks],
        "source": question.task,
    }


def _solved(scene: Scene, question: Question, image: str, *, wrong: bool) -> dict[str, Any]:
    """What makes it a conversation: a look at each box, what was read there, and the answer."""
    asked = [{"type": "image"}, {"type": "text", "text": question.text}]
    messages: list[dict[str, Any]] = [{"role": "user", "content": asked}]
    images: list[Any] = [image]
    said = ""
    for index in question.looks:
        thing = scene.things[index]
        box = _box(_elsewhere(thing.region, scene.seed) if wrong else thing.region)
        arguments = {"label": thing.name, "bbox_2d": box}
        call = {"type": "function", "function": {"name": ZOOM, "arguments": arguments}}
        messages.append({"role": "assistant", "content": said or None, "tool_calls": [call]})
        messages.append({"role": "tool", "content": [{"type": "image"}]})
        images.append({"crop_of": 0, "bbox": [v * SIDE / 1000 for v in box]})
        said = f"{thing.letter}.\n"
    last = said if len(question.looks) > 1 else ""
    answer = f"{last}<answer>{question.answer}</answer>"
    messages.append({"role": "assistant", "content": answer})
    return {"tools": [zoom_tool(BoxFormat()).json], "messages": messages, "images": images}


def _elsewhere(region: Region, seed: int) -> Region:
    return random_region(Sample(str(seed), ()), region)


def _box(region: Region) -> list[int]:
    """In thousandths, on the grid, inside the image and never empty."""
    x0, y0, x1, y1 = (
        GRID * round(v * 1000 / GRID) for v in (region.x0, region.y0, region.x1, region.y1)
    )
    return [x0, y0, max(x1, x0 + GRID), max(y1, y0 + GRID)]


def recipes(folder: Path, setting: Setting) -> dict[str, Recipe]:
    """What is trained, by the name of its folder; the first is where the others begin."""
    shared = Recipe(
        seed=setting.seed, device="cpu", lora=False, optimizer="adamw", batch_tokens=8192
    )
    wrong = replace(
        shared,
        method="sft",
        data=str(folder / "train.jsonl"),
        output=str(folder / "sft"),
        max_steps=setting.sft_steps,
        learning_rate=setting.sft_rate,
        batch_tokens=4096,
    )
    explored = replace(
        shared,
        method="grpo",
        data=str(folder / "explore.jsonl"),
        model=wrong.output,
        max_steps=setting.steps,
        learning_rate=setting.rate,
        prompts=setting.prompts,
        group=setting.group,
        max_looks=4,
        max_tokens=64,
        clip_high=0.28,
    )
    conditions = {
        condition: replace(explored, rewards=condition, output=str(folder / condition))
        for condition in CONDITIONS
    }
    return {"sft": wrong, **conditions}


def answers(model: str, rows: Sequence[DataRow], *, greedy: bool) -> list[Rollout]:
    """What `model` answers to `rows` by zooming: as it samples, or greedily."""
    vlm = mm.load(model, device="cpu")
    assert isinstance(vlm, HFVLM)
    explorer = Explorer(vlm, zoom, {"": MIXES["r-grpo"]}, Sampling(64, temperature=1.0))
    return explorer.explore(rows, step=0, greedy=greedy)


@torch.no_grad()
def first_numbers(model: str, rows: Sequence[DataRow]) -> tuple[float, float]:
    """How sure `model` is where each box of `rows` begins: the first number's mean probability,
    and the share of boxes whose first number is the likeliest token."""
    vlm = mm.load(model, device="cpu")
    assert isinstance(vlm, HFVLM)
    collator = Collator(vlm.builder)
    mass, likeliest = [], []
    for row in rows:
        batch = collator([row])
        ids = batch.inputs["input_ids"][0].tolist()
        scores = vlm.engine.model(**forward_inputs(vlm.engine.model, batch)).logits[0].softmax(-1)
        for at in _begun(vlm.builder, ids, batch.labels[0].tolist()):
            mass.append(scores[at, ids[at + 1]].item())
            likeliest.append(scores[at].argmax().item() == ids[at + 1])
    return sum(mass) / len(mass), sum(likeliest) / len(likeliest)


def _begun(builder: TokenBuilder, ids: Sequence[int], labels: Sequence[int]) -> list[int]:
    """Where a box that trains has just been opened: the next token is its first number."""
    texts = (builder.decode(ids[: at + 1]) for at in range(len(ids) - 1))
    opened = [at for at, text in enumerate(texts) if re.search(r'"bbox_2d": ?\[$', text)]
    return [at for at in opened if labels[at + 1] != IGNORED]


MEASURES = ("accuracy", "box_recall", "box_iou", "looks")


COLUMNS = [f"{mode} {name}" for mode in ("sampled", "greedy") for name in MEASURES[:2]]


def measured(model: str, rows: Sequence[DataRow]) -> Values:
    """Each measure of each row's answer, sampled and greedy, in order."""
    found = {}
    for mode in ("sampled", "greedy"):
        rollouts = answers(model, rows, greedy=mode == "greedy")
        for name in MEASURES:
            found[f"{mode} {name}"] = [rollout.measures[name] for rollout in rollouts]
    return found


table = partial(rows_of, columns=COLUMNS, start="sft", before=["tiny"])


def main(folder: Path, setting: Setting) -> None:
    """Write the rows, train every condition, print the table, and write it as results.json."""
    write_rows(folder, "train", setting.rows, wrong=WRONG)
    write_rows(folder, "explore", setting.explored)
    questions = list(read_data(write_rows(folder, "test", setting.questions)))
    solved = write_rows(folder, "solved", setting.questions, wrong=0.0)
    shown = list(read_data(solved, crop_rule="square"))
    found = {"tiny": kept(folder / "tiny.json", partial(measured, "tiny", questions))}
    about = {"model": "tiny", "n": setting.questions, "seed": setting.seed}
    answered = partial(measured, rows=questions)
    run_study(folder, recipes(folder, setting), zoom, answered, table, before=found, **about)
    for name in ("tiny", str(folder / "sft")):
        mass, likeliest = first_numbers(name, shown)
        print(f"{name}: true boxes' first numbers get {mass:.1%}, likeliest in {likeliest:.1%}")


if __name__ == "__main__":
    main(*from_command_line(__doc__, Setting()))
