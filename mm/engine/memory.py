"""How many bytes keys, values and features may take: what is free once the weights are loaded."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

_SPARE = 256 * 2**20  # bytes of a CPU's memory left to activations and to other processes
_LEAST = 64 * 2**20

_CGROUPS = Path("/sys/fs/cgroup")
_OWN = Path("/proc/self/cgroup")


def free_memory(device: torch.device) -> int:
    """Bytes to plan with on `device`: half of what a CPU has free, nine tenths of what a GPU has.

    A CPU's memory is shared with other processes; a GPU's with what torch allocates for
    activations.
    """
    import torch

    if device.type == "cuda":
        unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return int(0.9 * (torch.cuda.mem_get_info(device)[0] + unused))
    import psutil

    free = min([psutil.virtual_memory().available, *control_group_free()])
    return max(free // 2 - _SPARE, _LEAST)


def control_group_free(root: Path = _CGROUPS, own: Path = _OWN) -> list[int]:
    """Free bytes of each control group that limits this process: its own and all above it.

    Both versions are read; file pages that can be dropped count as free.
    """
    try:
        lines = own.read_text().splitlines()
    except OSError:  # not Linux
        return []
    found: list[int] = []
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if not controllers:
            found += _free(root, path, "memory.max", "memory.current", "inactive_file")
        elif "memory" in controllers.split(","):
            names = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
            found += _free(root / "memory", path, *names)
    return found


def _free(root: Path, path: str, limit: str, usage: str, inactive: str) -> Iterator[int]:
    group = root / path.lstrip("/")
    for folder in (group, *group.parents):
        try:
            bound = int((folder / limit).read_text())
            used = int((folder / usage).read_text())
            stat = dict(s.split() for s in (folder / "memory.stat").read_text().splitlines())
        except (OSError, ValueError):  # no such controller, or "max": no limit
            pass
        else:
            yield max(bound - used + int(stat.get(inactive, 0)), 0)
        if folder == root:
            return


def out_of_memory(error: BaseException) -> str:
    """The line that reports `error`."""
    first = str(error).splitlines()[0][:200] if str(error) else "no memory left"
    return f"out of memory: {first}; use fewer or smaller images, or a smaller model"


def mb(size: int) -> str:
    """`size` bytes for a message."""
    return f"{size / 2**20:,.{0 if size >= 10 * 2**20 else 1}f} MB"
