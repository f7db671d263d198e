"""What a training takes of a machine: one GPU, and as many threads as it has cores for."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from accelerate import PartialState
from tiny_models import FAMILIES
from trl.trainer.sft_config import SFTConfig

from training.data import BadData
from training.finetune import plan as plans
from training.finetune.plan import cpu_threads, make_plan
from training.finetune.recipe import Recipe
from training.finetune.setup import training_arguments


@pytest.mark.parametrize("visible", [1, 2, 8])
def test_one_process_trains_on_one_gpu_however_many_it_sees(tmp_path, monkeypatch, visible):
    monkeypatch.setattr("torch.cuda.device_count", lambda: visible)
    plan = make_plan(Recipe(data="x", output="y"), FAMILIES["qwen3_vl"]().model)
    plan = replace(plan, device="cuda", autocast=False)  # transformers counts them on a CPU too
    made = training_arguments(SFTConfig, plan, tmp_path, best_metric=None)
    assert made.n_gpu == 1


@pytest.mark.parametrize(
    ("device", "own", "processes", "complaint"),
    [
        pytest.param("cuda:1", "cuda", 1, "set CUDA_VISIBLE_DEVICES to that one alone", id="2nd"),
        pytest.param("cuda:0", "cuda:1", 2, "leave it out, the launcher gives", id="launched"),
        pytest.param("cuda:0", "cuda", 1, None, id="first"),
        pytest.param("cuda:1", "cuda:1", 2, None, id="the launcher's"),
        pytest.param("cpu", "cpu", 1, None, id="no GPU"),
    ],
)
def test_a_gpu_that_the_trainer_would_leave_is_refused(
    monkeypatch, device, own, processes, complaint
):
    state = PartialState(cpu=True)
    monkeypatch.setattr(state, "device", torch.device(own))
    monkeypatch.setattr(state, "num_processes", processes)
    if complaint is None:
        plans._check_device(torch.device(device))
        return
    with pytest.raises(BadData, match=complaint):
        plans._check_device(torch.device(device))


@pytest.mark.parametrize(
    ("environment", "allowed", "quotas", "expected"),
    [
        pytest.param({}, 8, [], 8, id="no limit"),
        pytest.param({}, 64, [4.0, 16.0], 4, id="a container's quota"),
        pytest.param({}, 64, [1.5], 2, id="part of a core"),
        pytest.param({}, 64, [0.2], 1, id="less than one"),
        pytest.param({"OMP_NUM_THREADS": "3"}, 8, [2.0], 3, id="as the user says"),
        pytest.param({"OMP_NUM_THREADS": "1"}, 8, [], 1, id="one, as the user says"),
        pytest.param({"OMP_NUM_THREADS": "6,2"}, 8, [], 6, id="nested"),
        pytest.param({"OMP_NUM_THREADS": "many"}, 8, [], 8, id="no number"),
        pytest.param({"LOCAL_WORLD_SIZE": "4"}, 16, [], 4, id="a share"),
        pytest.param({"LOCAL_WORLD_SIZE": "4"}, 2, [], 1, id="more processes than cores"),
        pytest.param(
            {"LOCAL_WORLD_SIZE": "2", "OMP_NUM_THREADS": "1"}, 16, [], 8, id="as torchrun says"
        ),
        pytest.param(
            {"ACCELERATE_MIXED_PRECISION": "no", "OMP_NUM_THREADS": "1"},
            *(16, [], 16),
            id="as accelerate says",
        ),
    ],
)
def test_threads_are_what_the_process_may_use(monkeypatch, environment, allowed, quotas, expected):
    for name in ("OMP_NUM_THREADS", "LOCAL_WORLD_SIZE", "ACCELERATE_MIXED_PRECISION"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(plans, "_allowed", lambda: allowed)
    monkeypatch.setattr(plans, "cpu_quotas", lambda: quotas)
    assert cpu_threads() == expected
