"""Each recipe that comes along, from rows of its own kind to a model that answers, on `tiny`."""

from __future__ import annotations

import json
import random
import re
from pathlib import Path

import new_domain
import pytest
import yaml
from accelerate.commands.config.config_args import load_config_from_file
from accelerate.commands.launch import launch_command_parser
from accelerate.utils import FullyShardedDataParallelPlugin
from training_runs import killed, logged, mm

from mm.types import Image
from training.tabletop.questions import ask
from training.tabletop.render import render
from training.tabletop.scene import make_scene
from vision.crop import crop

ROOT = Path(__file__).parents[3]
QUICK = ("--max-steps", "4", "--batch-tokens", "600", "--accumulate", "1")


def told(*arguments: object, folder: Path) -> str:
    """What the command says on stderr; it must succeed."""
    done = mm(*arguments, folder=folder)
    assert done.returncode == 0, done.stderr
    return done.stderr


def scenes(folder: Path, count: int):
    """Pictures with a question about one thing's letter: number, file, question, region."""
    for seed in range(count):
        scene = make_scene(seed)
        question = ask("read", scene, random.Random(seed))
        if question is not None:
            name = f"{seed}.png"
            picture = render(scene, 256)
            picture.save(folder / name)
            yield picture, name, question, scene.things[question.looks[0]].region


def write_vlm_r3(folder: Path, count: int) -> Path:
    rows = []
    for picture, name, question, region in scenes(folder, count):
        cut = crop(Image(picture), region, rule="square")
        cut.pixels.save(folder / f"crop-{name}")
        box = [round(1000 * v) for v in (region.x0, region.y0, region.x1, region.y1)]
        call = json.dumps({"bbox_2d": box})
        said = [f"<think>Look: {call}", f"A letter.</think><answer>{question.answer}</answer>"]
        rows.append(
            {
                "image_path": name,
                "question": question.text,
                "response_list": said,
                "img_crop_list": [f"crop-{name}"],
                "answer": question.answer,
            }
        )
    path = folder / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def write_vgr(folder: Path, count: int) -> Path:
    rows = []
    for _, name, question, region in scenes(folder, count):
        box = ", ".join(f"{v:.2f}" for v in (region.x0, region.y0, region.x1, region.y1))
        said = f"<think>The letter is here <sot>[{box}]<eot>.</think>\nFinal answer: "
        turns = [
            {"from": "human", "value": f"<image>\n{question.text}"},
            {"from": "gpt", "value": said + question.answer},
        ]
        rows.append({"id": name, "image": name, "conversations": turns, "answer": question.answer})
    path = folder / "rows.json"
    path.write_text(json.dumps(rows), encoding="utf-8")
    return path


@pytest.mark.slow
@pytest.mark.parametrize(
    ("recipe", "write", "strategy"),
    [
        pytest.param("vlm-r3-sft", write_vlm_r3, "zoom", id="vlm-r3-sft"),
        pytest.param("vgr-sft", write_vgr, "replay", id="vgr-sft"),
    ],
)
def test_a_recipe_runs_end_to_end(tmp_path, recipe, write, strategy):
    path = write(tmp_path, 24)
    (tmp_path / "held").mkdir()
    given = ("--data", path, "--eval-data", write(tmp_path / "held", 2), "--output", "out", *QUICK)
    assert "held out:" in told("train", "sft", recipe, *given, folder=tmp_path)
    assert logged(tmp_path / "out", "loss")
    assert bool(logged(tmp_path / "out", "box_loss")) == (recipe == "vgr-sft")
    assert "box_head" not in (tmp_path / "out/model.safetensors").read_bytes()[: 2**16].decode(
        "latin-1"
    )
    told("ask", "0.png", "What letter?", "--model", "out", "--strategy", strategy, folder=tmp_path)


@pytest.mark.slow
def test_ones_own_data_runs_end_to_end(tmp_path):
    for name in ("train", "test"):
        new_domain.write(tmp_path, name, pictures=20, questions=1, seed=0)
    assert "held out:" in told("train", "sft", "my-data-sft", *QUICK, folder=tmp_path)
    told("ask", "test/0.png", "Is there a boat?", "--model", "out", folder=tmp_path)


@pytest.mark.slow
def test_a_cut_off_box_loss_goes_on_with_its_head(tmp_path):
    """Killed after a checkpoint and resumed: the losses of a whole training."""
    path = write_vgr(tmp_path, 24)
    (tmp_path / "held").mkdir()
    held = write_vgr(tmp_path / "held", 2)
    given = ("--data", path, "--eval-data", held, "--batch-tokens", 400, "--learning-rate", 1e-3)
    train = ("train", "sft", "vgr-sft", *given, "--max-steps", 10)
    told(*train, "--output", "whole", folder=tmp_path)
    cut = (*train, "--output", "cut")
    killed(*cut, folder=tmp_path, when=lambda line: bool(re.match("step 5 .*held-out", line)))
    told(*cut, "--resume", folder=tmp_path)
    ends = [logged(tmp_path / name, "eval_loss")[10] for name in ("whole", "cut")]
    assert ends[0] == pytest.approx(ends[1], abs=1e-5)


@pytest.mark.parametrize(
    "path",
    sorted((ROOT / "training/recipes/accelerate").glob("*.yaml")),
    ids=lambda path: path.stem,
)
def test_accelerate_takes_its_files_as_they_are(path):
    """Every key is one of accelerate's own, and means what the file's name says."""
    config = load_config_from_file(str(path))
    asked = yaml.safe_load(path.read_text(encoding="utf-8"))
    assert config.distributed_type == path.stem.upper()
    arguments = launch_command_parser().parse_args(["--config_file", str(path), "x.py"])
    fields = {f"fsdp_{name}" for name in FullyShardedDataParallelPlugin.__dataclass_fields__}
    known = vars(arguments).keys() | vars(config).keys() | fields
    for inner in (asked.get("fsdp_config", {}), asked.get("deepspeed_config", {})):
        assert inner.keys() <= known
