"""Weights sharded among processes by FSDP 2: each holds a shard, and gathers a layer while it runs.

accelerate would shard the vision tower too, which runs outside of the model's forward, where
nothing gathers it. So sharding is done here, and accelerate goes on with what it finds.
"""

from __future__ import annotations

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


def shard(model: Any, *, bf16: bool) -> Any:
    """Shard all weights of `model`, in place, but those of its vision tower, which must be frozen.

    Each decoder layer is all-gathered when it runs, the rest for the whole forward; `bf16`: in
    bfloat16, while the shards that train stay in their own precision. Gradients are summed in
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
def gathered(model: Any) -> Iterator[None]:
    """Each process holds all weights of `model` meanwhile, to answer questions with.

    Where they are sharded, all processes must enter; each may then do something else.
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
