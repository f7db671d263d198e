"""The control groups of this process: by them containers limit what it may use."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

CGROUPS = Path("/sys/fs/cgroup")
OWN = Path("/proc/self/cgroup")


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
