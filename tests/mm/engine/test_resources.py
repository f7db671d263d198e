"""How much processor time containers give."""

from __future__ import annotations

from pathlib import Path

import pytest

from mm.engine.resources import cpu_quotas

V2 = {"a/b/cpu.max": "150000 100000\n", "a/cpu.max": "max 100000\n", "cpu.max": "400000 100000\n"}
V1 = {
    "cpu/a/cpu.cfs_quota_us": "50000\n",
    "cpu/a/cpu.cfs_period_us": "100000\n",
    "cpu/cpu.cfs_quota_us": "-1\n",
    "cpu/cpu.cfs_period_us": "100000\n",
}


@pytest.mark.parametrize(
    ("own", "files", "expected"),
    [
        pytest.param("0::/a/b\n", V2, [1.5, 4.0], id="version 2"),
        pytest.param("4:cpu,cpuacct:/a\n", V1, [0.5], id="version 1"),
        pytest.param("4:memory:/a\n", V1, [], id="another controller"),
        pytest.param("0::/\n", {"cpu.max": "many\n"}, [], id="not a limit"),
        pytest.param("0::/a\n", {}, [], id="no files"),
        pytest.param(None, {}, [], id="not Linux"),
    ],
)
def test_each_group_above_counts(
    tmp_path: Path, own: str | None, files: dict[str, str], expected: list[float]
) -> None:
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    if own is not None:
        (tmp_path / "own").write_text(own)
    assert cpu_quotas(tmp_path, tmp_path / "own") == expected
