"""Weights that processes share out: the same losses, gradients, answers and files as whole ones."""

from __future__ import annotations

import copy
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import new_domain
import psutil
import pytest
import torch
from accelerate import PartialState
from tiny_models import FAMILIES
from torch.distributed import destroy_process_group, init_process_group
from torch.distributed.tensor import DTensor
from training_rows import SEEN, TEXT, gradients, pairs_of, rows_in
from training_runs import SMALL, logged, mm

from training.batching.collator import Collator, forward_inputs
from training.batching.image_features import FrozenFeatureCache
from training.data import BadData
from training.finetune.plan import make_plan
from training.finetune.recipe import Recipe
from training.finetune.setup import load_trainable
from training.trainers.fsdp import gathered, shard
from training.trainers.model_parts import is_tower

ROOT = Path(__file__).parents[3]


@pytest.fixture
def alone(tmp_path) -> Iterator[None]:
    """A group of one process: its part is the whole, but is taken apart and put together."""
    init_process_group("gloo", init_method=f"file://{tmp_path}/met", rank=0, world_size=1)
    yield
    destroy_process_group()


@pytest.mark.parametrize("family", FAMILIES)
def test_what_is_shared_out_learns_and_answers_the_same(family, alone):
    """The tower stays whole: it is asked outside of the model's forward."""
    tiny = FAMILIES[family]()
    batch = Collator(tiny.builder)(SEEN + TEXT)
    plain = copy.deepcopy(tiny.model)
    for name, weights in plain.named_parameters():
        weights.requires_grad_(not is_tower(name))
    model = shard(copy.deepcopy(plain), bf16=False)
    wanted = gradients(plain, batch)
    inputs = forward_inputs(plain, batch, FrozenFeatureCache(10**8))
    with gathered(model), torch.no_grad():  # before any forward of its own, as GRPO does
        assert not any(isinstance(weights, DTensor) for weights in model.parameters())
        torch.testing.assert_close(model(**inputs).logits, plain(**inputs).logits)
    apart = {n for n, weights in model.named_parameters() if isinstance(weights, DTensor)}
    assert apart == {n for n, _ in model.named_parameters() if not is_tower(n)}
    found = gradients(model, batch)
    assert found.keys() == wanted.keys()
    for name, gradient in found.items():
        torch.testing.assert_close(gradient.full_tensor(), wanted[name], msg=name)


def test_weights_that_are_whole_are_left_alone():
    model = torch.nn.Linear(2, 2)
    before = dict(model.named_parameters())
    with gathered(model):
        assert all(model.get_parameter(name) is weights for name, weights in before.items())


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        pytest.param({"vision": True}, "--vision", id="the tower trains"),
        pytest.param({"quantize": "4bit"}, "--quantize", id="weights of few bits"),
        pytest.param({"optimizer": "muon"}, "--optimizer muon", id="whole matrices"),
        pytest.param({"box_loss": 1.0, "looks": "replay"}, "--box-loss", id="a head not always"),
    ],
)
def test_what_fsdp_cannot_have_is_refused(monkeypatch, options, complaint):
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    with pytest.raises(BadData, match=f"FSDP cannot have {complaint}"):
        make_plan(Recipe(data="x", output="y", **options), FAMILIES["qwen3_vl"]().model)


@pytest.mark.parametrize(
    ("environment", "complaint"),
    [
        pytest.param(
            {"ACCELERATE_DEEPSPEED_ZERO_STAGE": "3"}, r"ZeRO-3 is not supported.*fsdp\.yaml", id="3"
        ),
        pytest.param(
            {"ACCELERATE_USE_FSDP": "true", "FSDP_VERSION": "1"}, "FSDP: expected version 2", id="1"
        ),
    ],
)
def test_a_launcher_that_takes_weights_apart_otherwise_is_refused(
    monkeypatch, environment, complaint
):
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(BadData, match=complaint):
        load_trainable(Recipe(data="x", output="y"), PartialState(cpu=True))


def test_fsdp_without_accelerators_is_refused(monkeypatch):
    """accelerate would share nothing out, and stumble over weights that are."""
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    monkeypatch.setenv("FSDP_VERSION", "2")
    with pytest.raises(BadData, match="FSDP: expected accelerators, found cpu"):
        load_trainable(Recipe(data="x", output="y"), PartialState(cpu=True))


LAUNCHED = (
    *("-m", "accelerate.commands.accelerate_cli", "launch", "--num_processes", 2),
    *("--config_file", ROOT / "training/recipes/accelerate/fsdp.yaml"),
)


def begun(*arguments: object, folder: Path, shares: bool = True, **more: str) -> subprocess.Popen:
    """`mm train`, in two processes that share out weights and are launched as on GPUs, or in one;
    `more` for its environment."""
    command = (*(LAUNCHED if shares else ()), ROOT / "tests/fsdp_on_cpus.py", "train", *arguments)
    return subprocess.Popen(
        [sys.executable, *map(str, command)],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT), **more},
        stderr=subprocess.PIPE,
        text=True,
    )


def ended(process: subprocess.Popen) -> None:
    said = process.communicate()[1]
    assert process.returncode == 0, said


@pytest.mark.slow
@pytest.mark.parametrize(
    ("method", "weights"), [("sft", "--full"), ("sft", "--lora"), ("dpo", "--full")]
)
def test_processes_that_share_weights_learn_what_one_does(tmp_path, method, weights):
    path = new_domain.write(tmp_path, "train", pictures=60, questions=1, seed=0)
    path = pairs_of(path) if method == "dpo" else path
    train = (method, "--data", path, "--eval-data", path, "--batch-tokens", 300, weights)
    train = (*train, "--max-steps", 10, "--learning-rate", 1e-4, "--optimizer", "adamw")
    one = (*train, "--output", "one", "--accumulate", 2)
    ended(begun(*one, folder=tmp_path, shares=False, FLOAT32="1"))
    ended(begun(*train, "--output", "two", folder=tmp_path, FLOAT32="1"))
    losses = [logged(tmp_path / name, "loss") for name in ("one", "two")]
    assert len(losses[0]) == 10
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)
    asked = [
        mm("ask", "train/0.png", "Is there a boat?", "--model", each, folder=tmp_path)
        for each in ("one", "two")
    ]
    assert asked[0].stdout.splitlines()[0] == asked[1].stdout.splitlines()[0]


@pytest.mark.slow
def test_a_killed_training_with_shared_weights_goes_on_to_the_same_end(tmp_path):
    path = new_domain.write(tmp_path, "train", pictures=60, questions=1, seed=0)
    train = ("sft", "--data", path, "--eval-data", path, "--batch-tokens", 300, "--full")
    train = (*train, "--max-steps", 20)
    ended(begun(*train, "--output", "whole", folder=tmp_path))
    cut = begun(*train, "--output", "cut", folder=tmp_path)
    assert cut.stderr
    for line in cut.stderr:
        if line.startswith("step 10 ") and "held-out" in line:
            for worker in psutil.Process(cut.pid).children(recursive=True):
                worker.kill()
            cut.kill()
    assert cut.wait() == -signal.SIGKILL
    assert 20 not in logged(tmp_path / "cut", "eval_loss")
    ended(begun(*train, "--output", "cut", "--resume", folder=tmp_path))
    ends = [logged(tmp_path / name, "eval_loss")[20] for name in ("whole", "cut")]
    assert ends[0] == pytest.approx(ends[1], abs=1e-5)
    assert not list(tmp_path.glob("cut/checkpoints/checkpoint-20/model*"))  # its parts alone


@pytest.mark.slow
def test_processes_that_share_weights_sample_and_learn(tmp_path):
    """Answers come before the first forward that learns, and after each; by whole weights."""
    rows = rows_in(tmp_path, 12)
    train = ("grpo", "--data", rows, "--eval-data", rows, "--strategy", "direct", *SMALL)
    train = (*train, "--reward", "length", "--max-steps", 1)
    ended(begun(*train, "--output", "one", folder=tmp_path, shares=False, FLOAT32="1"))
    ended(begun(*train, "--output", "two", folder=tmp_path, FLOAT32="1"))
    for key in ("reward", "accuracy", "grad_norm", "eval_reward"):
        found = [logged(tmp_path / name, key) for name in ("one", "two")]
        assert found[0][1] > 0
        assert found[0] == pytest.approx(found[1], rel=1e-3)
