"""What is to be trained, on what and how: a YAML file, and flags that override it."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, get_args, get_type_hints

from training.data import BadData

MethodName = Literal["sft", "dpo", "grpo"]
Loss = Literal["grpo", "dapo", "dr_grpo", "gspo", "gppo"]
Looks = Literal["tool", "inline", "replay"]

SHIPPED = Path(__file__).parent.parent / "recipes"


@dataclass(frozen=True)
class Recipe:
    """A training. None leaves a choice to the toolkit, which prints it.

    Attributes:
        data: rows to learn from.
        eval_data: rows held out: for the loss that chooses the best checkpoint, and for the final
            accuracy. None holds out a share of `data`, if that has enough rows.
        output: the folder for the trained model; a folder named checkpoints stands in it meanwhile.
        epochs: how often each row is seen; None for 3, or for as often as `max_minutes` allow.
        max_minutes: stop then, at the end of the learning rate's fall, with everything saved.
        learning_rate: at its highest.
        batch_tokens: padded tokens in a step's batch, visual ones too.
        accumulate: batches that a step adds up.
        optimizer: "muon" learns small models, all of whose weights train, in fewer steps; None
            for that where it is so, in sft.
        quantize: the language model's weights in "4bit" or "8bit" under an adapter (QLoRA), through
            bitsandbytes.
        lora: train an adapter of `lora_rank`; else all weights.
        vision: train the vision tower too.
        compile: compile the decoder's blocks; None for where that pays.
        blind: show grey pictures, as a control of what is learnt from the words alone.
        beta: how close to stay to where it began; None for 0.1 (dpo), or 0, no reference (grpo).
        strategy: grpo: how an answer is sampled.
        rewards: grpo: a name, a sum of terms, or a mapping, see mixes.py; for rows from a source
            that `rewards_by_source` names, what stands there.
        prompts, group: grpo: questions in a step, and answers to each.
        iterations: grpo: how often a step's answers are learnt from.
        temperature: grpo: of the answers.
        max_looks, max_tokens: grpo: in an answer, and in each of its replies.
        loss, clip_low, clip_high: grpo: see grpo.py.
        report_to: log to that too, besides log.jsonl.
        format: how the rows are written; "auto" tells by their columns.
        ignore: columns of the rows to leave unread, names between commas.
        looks: how replies look again, in rows, in answers that are sampled, and to held-out
            questions: "tool" calls, VLM-R3's crops "inline", or "replay": what VGR's signals point
            at follows them. None: by the strategy's own way.
        box_loss: sft: the weight of VGR's box loss, for rows that are replayed.
    """

    method: MethodName = "sft"
    data: str = ""
    eval_data: str | None = None
    model: str = "tiny"
    output: str = ""
    epochs: float | None = None
    max_minutes: float | None = None
    max_steps: int | None = None
    learning_rate: float | None = None
    batch_tokens: int | None = None
    accumulate: int = 1
    optimizer: Literal["adamw", "muon"] | None = None
    quantize: Literal["4bit", "8bit"] | None = None
    lora: bool | None = None
    lora_rank: int = 16
    vision: bool | None = None
    compile: bool | None = None
    blind: bool = False
    beta: float | None = None
    strategy: str = "zoom"
    rewards: str | dict | None = "accuracy"
    rewards_by_source: dict | None = None
    prompts: int = 8
    group: int = 8
    iterations: int = 1
    temperature: float = 1.0
    max_looks: int = 6
    max_tokens: int = 512
    loss: Loss = "grpo"
    clip_low: float = 0.2
    clip_high: float = 0.2
    seed: int = 0
    device: str | None = None
    report_to: Literal["tensorboard", "trackio"] | None = None
    format: str = "auto"
    ignore: str | None = None
    looks: Looks | None = None
    box_loss: float = 0.0
    allow_absolute_paths: bool = False
    allow_urls: bool = False


def shipped() -> dict[str, str]:
    """The recipes that come along: their names, and what each says of itself first."""
    return {
        path.stem: path.read_text(encoding="utf-8").partition("\n")[0].removeprefix("# ")
        for path in sorted(SHIPPED.glob("*.yaml"))
    }


def find_recipe(name: Path) -> Path:
    """The file `name`, or the shipped recipe of that name.

    Raises:
        BadData: there is neither.
    """
    ours = SHIPPED / f"{name}.yaml"
    if not name.is_file() and not ours.is_file():
        raise BadData(f"{name}: no such file, and none of the recipes {', '.join(shipped())}")
    return name if name.is_file() else ours


def load_recipe(path: Path | None, overrides: Mapping[str, Any]) -> Recipe:
    """The recipe in the YAML file `path`, or shipped under that name, if one is given, under those
    `overrides` that are given.

    Paths in the file are relative to where the command runs, as flags are.

    Raises:
        BadData: the file cannot be read, or a key or value in it is none of a recipe's.
    """
    written = _read(find_recipe(path)) if path else {}
    given = {
        key: _checked(f"--{key.replace('_', '-')}", key, value)
        for key, value in overrides.items()
        if value is not None
    }
    method = written.get("method")
    if method and given.get("method", method) != method:
        raise BadData(f"{path} is a recipe for {method}: mm train {method} {path}")
    recipe = replace(Recipe(), **{**written, **given})
    for needed in ("data", "output"):
        if not getattr(recipe, needed):
            raise BadData(f"give --{needed}: what to learn from, and the folder for the result")
    return recipe


def _read(path: Path) -> dict[str, Any]:
    import yaml

    try:
        found = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise BadData(f"{path} cannot be read as YAML: {' '.join(str(error).split())}") from None
    if not isinstance(found, dict):
        raise BadData(f"{path}: expected keys and values, found {found!r}")
    return {key: _checked(str(path), key, value) for key, value in found.items()}


def _checked(place: str, key: Any, value: Any) -> Any:
    types = get_type_hints(Recipe)
    if key not in types:
        near = difflib.get_close_matches(str(key), types, 1) or [", ".join(types)]
        raise BadData(f"{place}: expected a recipe's key, found {key!r}; is it {near[0]}?")
    if not _fits(value, types[key]):
        raise BadData(f"{place}: expected {key} to be {_said(types[key])}, found {value!r}")
    return value


def _fits(value: Any, kind: Any) -> bool:
    kinds = [each for each in _parts(kind) if isinstance(each, type)]
    words = [each for each in _parts(kind) if isinstance(each, str)]
    if isinstance(value, bool):
        return bool in kinds
    return value in words or isinstance(value, (*kinds, *([int] if float in kinds else [])))


def _parts(kind: Any) -> list[Any]:
    """The types, and the words of literals, that `kind` allows."""
    inner = get_args(kind)
    return [part for each in inner for part in _parts(each)] if inner else [kind]


def _said(kind: Any) -> str:
    names = {type(None): "empty", str: "text", bool: "true or false", int: "int", float: "number"}
    names[dict] = "a mapping"
    return " or ".join(names.get(part, str(part)) for part in _parts(kind))
