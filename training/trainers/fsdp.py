"""Weights shared out among processes by FSDP 2: each keeps a part, and has a layer whole while it
runs.

accelerate would share out the vision tower too, which runs outside of the model's forward, where
nothing puts it together. So that is done here, and accelerate goes on with what it finds.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from types import MethodType
from typing import Any

import torch
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import (
    FSDPModule,
    MixedPrecisionPolicy,
    fully_shard,
    register_fsdp_forward_method,
)

from .model_parts import bare, is_tower


def is_sharded() -> bool:
    """Whether this process was launched to share out weights."""
    return os.environ.get("ACCELERATE_USE_FSDP", "").lower() == "true"


def shard(model: Any, *, bf16: bool) -> Any:
    """Share out all weights of `model`, in place, but those of its vision tower, which must rest.

    Each decoder layer is put together when it runs, the rest for the whole forward; `bf16`: in
    bfloat16, while what is kept and trained stays in its own precision. Gradients are summed in
    float32.
    """
    policy = MixedPrecisionPolicy(
        param_dtype=torch.bfloat16 if bf16 else None,
        reduce_dtype=torch.float32,
        cast_forward_inputs=False,  # positions stay exact; the rest is autocast's
    )
    mesh = init_device_mesh(model.device.type, (torch.distributed.get_world_size(),))
    tower = {weights for name, weights in model.named_parameters() if is_tower(name)}
    for module in (*bare(model).get_decoder().layers, model):
        fully_shard(module, mesh=mesh, mp_policy=policy, ignored_params=tower)
    _make_root(model)
    return model


@contextmanager
def whole(model: Any) -> Iterator[None]:
    """Each process has all weights of `model` meanwhile: what a question is answered with.

    Where they are shared out, all processes must come here; what each then does is its own affair.
    """
    units = [module for module in model.modules() if isinstance(module, FSDPModule)]
    for unit in units:
        unit.set_reshard_after_forward(False, recurse=False)
        unit.unshard()
    try:
        yield
    finally:
        if units:
            model.reset_iter_state()  # a backward follows the order of forwards, the same for all
        for unit in units:
            unit.reshard()
            unit.set_reshard_after_forward(unit is not model, recurse=False)


def _make_root(model: Any) -> None:
    """FSDP takes what runs first for the outermost module: that must be no layer that answers."""
    model.begin = MethodType(_nothing, model)
    register_fsdp_forward_method(model, "begin")
    model.begin()
    model.reshard()
    del model.begin


def _nothing(model: Any) -> None:
    pass
