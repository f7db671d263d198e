"""Which tests run: torch and slow ones are told apart without importing them; one thread each.

`pytest -m "not torch"` is the loop of seconds: it imports no module that imports torch.
Slow tests run only where `-m` names them.
"""

from __future__ import annotations

import gc
import os
import sys
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from hypothesis import settings
from import_graph import imports_torch

# a case may take long where the machine is busy; pytest-timeout ends what hangs
settings.register_profile("patient", deadline=None)
settings.load_profile("patient")

os.environ.setdefault("OMP_NUM_THREADS", "1")  # tiny models are quickest so, in subprocesses too


def expression(config: pytest.Config) -> str:
    """What `-m` says."""
    return str(config.getoption("markexpr") or "")


def without_torch(config: pytest.Config) -> bool:
    return "not torch" in expression(config)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """Two processes for the whole suite; none for files by name, whose start would cost more."""
    return 2 if config.args_source is pytest.Config.ArgsSource.TESTPATHS else 0


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    test = collection_path.name.startswith("test_") and collection_path.suffix == ".py"
    return True if test and without_torch(config) and imports_torch(collection_path) else None


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    for item in items:
        if imports_torch(item.path):
            item.add_marker("torch")
    if "slow" not in expression(config):
        slow = [item for item in items if item.get_closest_marker("slow")]
        config.hook.pytest_deselected(items=slow)
        items[:] = [item for item in items if not item.get_closest_marker("slow")]


def pytest_collection_finish() -> None:
    gc.freeze()  # what is imported stays: the collector need not look through it again


class NoTorch(MetaPathFinder, Loader):
    """In a process that runs no test of torch, whatever imports it fails; it may be looked for."""

    def find_spec(self, fullname: str, path: object = None, target: object = None) -> Any:
        return ModuleSpec(fullname, self) if fullname == "torch" else None

    def exec_module(self, module: ModuleType) -> None:
        raise RuntimeError("this test imports torch: mark it so, or its module by `pytestmark`")


def pytest_configure(config: pytest.Config) -> None:
    if without_torch(config) and "torch" not in sys.modules:
        sys.meta_path.insert(0, NoTorch())
