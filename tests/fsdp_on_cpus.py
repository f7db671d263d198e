"""`mm` with weights shared out among CPU processes: accelerate turns FSDP on for accelerators only.

What takes the weights apart, puts them together and saves them is PyTorch's and accelerate's own.
With FLOAT32 in the environment nothing is rounded to bfloat16.
"""

import os
from typing import Any

import torch
from accelerate import PartialState
from accelerate.utils import DistributedType

from app.cli.main import main
from training.finetune import plan

begin = PartialState.__init__


def begin_as_accelerator(self: PartialState, *args: Any, **kwargs: Any) -> None:
    begin(self, *args, **kwargs)
    if self.distributed_type == DistributedType.MULTI_CPU:
        self.distributed_type = DistributedType.MULTI_GPU


PartialState.__init__ = begin_as_accelerator
if os.environ.get("FLOAT32"):
    plan.fast_dtype = lambda device: torch.float32
main()
