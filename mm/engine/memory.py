"""How much memory a device has, how much of it is free, and how much an engine plans with."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from .control_groups import CGROUPS, OWN, control_groups

if TYPE_CHECKING:
    import torch

_SPARE = 256 * 2**20  # bytes of a CPU's memory left to activations and to other processes
_LEAST = 64 * 2**20


def free_memory(device: torch.device) -> int:
    """Bytes to plan with on `device`: half of what a CPU has free, nine tenths of what a GPU has.

    A CPU's memory is shared with other processes; a GPU's with what torch allocates for
    activations.
    """
    import torch

    free = free_bytes(device)
    if device.type == "cuda":
        unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return int(0.9 * (free + unused))
    return max(free // 2 - _SPARE, _LEAST)


def free_bytes(device: torch.device) -> int:
    """Bytes that `device` can still give, a CPU's within this process's control groups."""
    if device.type == "cuda":
        import torch

        return torch.cuda.mem_get_info(device)[0]
    import psutil

    return min([psutil.virtual_memory().available, *control_group_free()])


def total_bytes(device: torch.device) -> int:
    """Bytes that `device` has, a CPU's within this process's control groups."""
    if device.type == "cuda":
        import torch

        return torch.cuda.get_device_properties(device).total_memory
    import psutil

    return min([psutil.virtual_memory().total, *(limit for limit, _ in _control_groups())])


def control_group_free(root: Path = CGROUPS, own: Path = OWN) -> list[int]:
    """Free bytes of each control group that limits this process: its own and all above it.

    Both versions are read; file pages that can be dropped count as free.
    """
    return [free for _, free in _control_groups(root, own)]


def _control_groups(root: Path = CGROUPS, own: Path = OWN) -> list[tuple[int, int]]:
    """The limit and the free bytes of each control group of this process."""
    names = {
        2: ("memory.max", "memory.current", "inactive_file"),
        1: ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
    }
    groups = control_groups("memory", root, own)
    found = (_limit(folder, *names[version]) for folder, version in groups)
    return [each for each in found if each]


def _limit(folder: Path, limit: str, usage: str, inactive: str) -> tuple[int, int] | None:
    try:
        bound = int((folder / limit).read_text())
        used = int((folder / usage).read_text())
        stat = dict(s.split() for s in (folder / "memory.stat").read_text().splitlines())
    except (OSError, ValueError):  # no such controller, or "max": no limit
        return None
    return bound, max(bound - used + int(stat.get(inactive, 0)), 0)


def ran_out(error: BaseException) -> bool:
    """Whether `error` says that there was too little memory."""
    import torch

    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return "allocate memory" in str(error)  # what the CPU's allocator says


def out_of_memory(error: BaseException) -> str:
    """The line that reports `error`."""
    first = str(error).splitlines()[0][:200] if str(error) else "no memory left"
    return f"out of memory: {first}; use fewer or smaller images, or a smaller model"


def mb(size: int) -> str:
    """`size` bytes for a message."""
    return f"{size / 2**20:,.{0 if size >= 10 * 2**20 else 1}f} MB"
