"""Rows to train on, with and without images, and the gradients that a batch of them gives."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import PIL.Image
from images import plain

from mm.types import assistant, user
from training.batching.built_rows import Build, BuiltRows, facts_of
from training.batching.collator import forward_inputs
from training.data import DataSet, Row
from training.trainers.course import Rows


class Given(DataSet):
    """Rows that are there already."""

    def __init__(self, rows: list[Row]) -> None:
        object.__setattr__(self, "records", rows)

    def __getitem__(self, index):
        return self.records[index]


def given(rows: list[Row], build: Build) -> Rows:
    """`rows` to train on, built by `build`."""
    facts = [facts_of(build(row)) for row in rows]
    built = BuiltRows(Given(rows), build, 10**8)
    return Rows(
        built,
        range(len(rows)),
        [each[0] for each in facts],
        [each[1] for each in facts],
        [0] * len(rows),
    )


TEXT = [
    Row("a", (user("And?"), assistant("No."))),
    Row("b", (user("What is here?"), assistant("A long reply, word by word."))),
]
SEEN = [
    Row("c", (user(plain("red"), "?"), assistant("Red, yes."))),
    Row("d", (user(plain("blue"), plain("green"), "Which?"), assistant("K"))),
]
PAIRS = [
    Row(
        "e",
        (user(plain("red"), "?"), assistant("Let me see."), user("Well?")),
        chosen=(assistant("look"), user(plain("green")), assistant("Good.")),
        rejected=(assistant("No."),),
    ),
    Row("f", (user("Say."),), chosen=(assistant("x"),), rejected=(assistant("y z"),)),
]


def gradients(model, batch):
    model.zero_grad()
    model(**forward_inputs(model, batch)).loss.backward()
    return {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}


def rows_in(folder: Path, count: int) -> Path:
    """Questions whose answers are known, with the region and the source of each."""
    with (folder / "rows.jsonl").open("w", encoding="utf-8") as file:
        for at in range(count):
            colour = ("red", "blue")[at % 2]
            PIL.Image.new("RGB", (64, 64), colour).save(folder / f"{at}.png")
            row = {"question": "What colour?", "images": [f"{at}.png"], "answer": colour}
            row |= {"regions": [[0, 0, 32, 32]], "source": ("geometry", "counting")[at % 2]}
            file.write(json.dumps(row) + "\n")
    return folder / "rows.jsonl"


def pairs_of(rows: Path) -> Path:
    """The questions in a CSV as pairs: what is right, over what is not."""
    path = rows.with_suffix(".jsonl")
    with rows.open(encoding="utf-8") as file, path.open("w", encoding="utf-8") as out:
        for row in csv.DictReader(file):
            parts = [{"type": "image"}, {"type": "text", "text": row["question"]}]
            asked = {"role": "user", "content": parts}
            sides = {"chosen": row["answer"], "rejected": "a word"}
            told = {k: [{"role": "assistant", "content": v}] for k, v in sides.items()}
            out.write(json.dumps({"prompt": [asked], "images": [row["image"]], **told}) + "\n")
    return path
