"""How much memory and CPU time there is for this process, also in a container, whose control groups
limit it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

_SPARE = 256 * 2**20  # bytes of a CPU's memory left to activations and to other processes
_LEAST = 64 * 2**20

CGROUPS = Path("/sys/fs/cgroup")
OWN = Path("/proc/self/cgroup")


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

    return min([psutil.virtual_memory().total, *(limit for limit, _ in _memory_limits())])


def control_group_free(root: Path = CGROUPS, own: Path = OWN) -> list[int]:
    """Free bytes of each control group that limits this process: its own and all above it.

    Both versions are read; file pages that can be dropped count as free.
    """
    return [free for _, free in _memory_limits(root, own)]


def _memory_limits(root: Path = CGROUPS, own: Path = OWN) -> list[tuple[int, int]]:
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


def control_groups(
    controller: str, root: Path = CGROUPS, own: Path = OWN
) -> Iterator[tuple[Path, int]]:
    """The folder of each group of this process that may limit `controller`, its own and all above
    it, and its version, 1 or 2; none where there are no control groups."""
    try:
        lines = own.read_text().splitlines()
    except OSError:  # not Linux
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if not controllers:
            yield from ((folder, 2) for folder in _upwards(root, path))
        elif controller in controllers.split(","):
            yield from ((folder, 1) for folder in _upwards(root / controller, path))


def cpu_quotas(root: Path = CGROUPS, own: Path = OWN) -> list[float]:
    """How many cores' time each group gives this process, where it limits that."""
    found = []
    for folder, version in control_groups("cpu", root, own):
        try:
            quota, period = _v2(folder) if version == 2 else _v1(folder)
        except (OSError, ValueError):  # no such controller, or "max": no limit
            continue
        if quota > 0 and period > 0:  # -1: no limit
            found.append(quota / period)
    return found


def _v2(folder: Path) -> tuple[int, int]:
    quota, period = (folder / "cpu.max").read_text().split()
    return int(quota), int(period)


def _v1(folder: Path) -> tuple[int, int]:
    names = ("cpu.cfs_quota_us", "cpu.cfs_period_us")
    quota, period = (int((folder / name).read_text()) for name in names)
    return quota, period


def _upwards(root: Path, path: str) -> Iterator[Path]:
    """The folder of the group at `path`, and those above it up to `root`."""
    group = root / path.lstrip("/")
    for folder in (group, *group.parents):
        yield folder
        if folder == root:
            return
