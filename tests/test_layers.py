"""Imports point one way: between packages, between their parts, and from file to file."""

import ast
import os
import subprocess
import sys
from functools import cache
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
MAY_IMPORT = {
    "mm": {"mm"},
    "vision": {"mm", "vision"},
    "video": {"mm", "vision", "video"},
    "training": {"mm", "vision", "video", "training"},
    "app": {"mm", "vision", "video", "app"},
}
MAY_IMPORT_TRAINING = ("app/cli", "app/examples")
"""The only folders of app that may import training."""

ORDER = {  # each line may import the lines above it; a part may import itself
    "mm": [
        "errors geometry lru_cache",
        "origins own_functions",
        "types",
        "markup vlm",
        "answers",
        "trace images",
        "parallel",
        "families session trace_store samples scripted",
        "tokens strategies",
        "engine remote",
        "local",
    ],
    "training": [
        "data muon tabletop",
        "evaluation batching",
        "rewards",
        "trainers",
        "finetune latents",
        "bundle",
        "benchmarks",
    ],
    "app": [
        "errors steps terminal strategy_options model_choice",
        "report",
        "strategies",
        "demo",
        "cli",
    ],
}


def files() -> list[Path]:
    return [file for layer in MAY_IMPORT for file in sorted((ROOT / layer).rglob("*.py"))]


@cache
def imported(file: Path) -> frozenset[str]:
    """The modules a file imports, at its top, inside functions or for types alone."""
    package = list(file.relative_to(ROOT).parent.parts)
    found = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            inside = node.level <= len(package)
            module = ".".join([*base, *filter(None, [node.module])]) if inside else node.module
            named = [f"{module}.{a.name}" if module else a.name for a in node.names]
            found |= {name if is_module(name) else module or name for name in named}
    return frozenset(found)


def is_module(name: str) -> bool:
    path = ROOT / name.replace(".", "/")
    return path.with_suffix(".py").is_file() or path.is_dir()


def module_of(file: Path) -> str:
    return ".".join(file.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def arrow_up(file: Path) -> set[str]:
    """The packages that a file imports and may not."""
    here = file.relative_to(ROOT)
    allowed = MAY_IMPORT[here.parts[0]]
    if any(here.is_relative_to(folder) for folder in MAY_IMPORT_TRAINING):
        allowed = allowed | {"training"}
    return {name.partition(".")[0] for name in imported(file)} & MAY_IMPORT.keys() - allowed


@pytest.mark.parametrize("file", files(), ids=lambda file: str(file.relative_to(ROOT)))
def test_no_arrow_points_up_between_packages(file):
    assert arrow_up(file) == set()


RANK = {
    package: {name: floor for floor, line in enumerate(order) for name in line.split()}
    for package, order in ORDER.items()
}
PARTS = [
    file
    for file in files()
    if file.relative_to(ROOT).parts[0] in ORDER and len(module_of(file).split(".")) > 1
]


def test_every_part_has_its_place():
    for package, rank in RANK.items():
        parts = {
            module_of(file).split(".")[1]
            for file in PARTS
            if module_of(file).startswith(f"{package}.")
        }
        assert parts - {"examples"} <= rank.keys(), package


@pytest.mark.parametrize("file", PARTS, ids=lambda file: str(file.relative_to(ROOT)))
def test_no_arrow_points_up_between_parts(file):
    package, mine, *_ = module_of(file).split(".")
    rank = RANK[package]
    others = {name.split(".")[1] for name in imported(file) if name.startswith(f"{package}.")}
    assert {o for o in others - {mine} if rank[o] >= rank[mine]} == set()


def test_no_circle_between_files():
    """Whole modules, TYPE_CHECKING imports included; a package's face is no module of its own."""
    graph = {}
    for file in files():
        if file.name != "__init__.py":
            graph[module_of(file)] = imported(file)
    faces = {module_of(f): imported(f) for f in files() if f.name == "__init__.py"}
    resolved = {
        module: {deep for name in names for deep in (faces.get(name) or {name}) if deep in graph}
        for module, names in graph.items()
    }
    tuple(TopologicalSorter(resolved).static_order())  # raises CycleError with the circle


@pytest.mark.parametrize(
    ("place", "line", "up"),
    [
        pytest.param("mm/x.py", "import vision.crop", {"vision"}, id="import"),
        pytest.param("mm/x.py", "def f():\n    from app import ask", {"app"}, id="in a function"),
        pytest.param("mm/x.py", "from . import trace", set(), id="own package"),
        pytest.param("mm/x.py", "from ..vision import crop", {"vision"}, id="out of the package"),
        pytest.param("video/x.py", "from vision.crop import crop", set(), id="down"),
        pytest.param("app/demo.py", "import training", {"training"}, id="training from app"),
        pytest.param("app/cli/x.py", "import training", set(), id="training from the shell"),
    ],
)
def test_the_rule_can_fail(tmp_path, monkeypatch, place, line, up):
    monkeypatch.setattr(sys.modules[__name__], "ROOT", tmp_path)
    file = tmp_path / place
    file.parent.mkdir(parents=True)
    file.write_text(line)
    assert arrow_up(file) == up


HEAVY = ("torch", "transformers", "numpy", "PIL", "av", "gradio", "trl", "peft")


def python(code: str, **environment: str) -> str:
    """What `code` prints in a fresh interpreter."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), **environment}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    )
    return done.stdout.strip()


def test_importing_mm_is_light():
    loaded = python(f"import sys, mm; print([m for m in {HEAVY} if m in sys.modules])")
    assert loaded == "[]"


def test_importing_mm_is_quick(tmp_path):
    """Against a part of the standard library, in one run: the best of
    three each, the first of which compiles; processor time, as the machine may be busy."""
    clock = "time.process_time()"
    cache = {"PYTHONDONTWRITEBYTECODE": "", "PYTHONPYCACHEPREFIX": str(tmp_path)}
    best = {
        name: min(
            float(
                python(
                    f"import time; began = {clock}; import {name}; print({clock} - began)", **cache
                )
            )
            for _ in range(3)
        )
        for name in ("mm", "asyncio, http.client, unittest.mock, xml.dom.minidom, decimal")
    }
    ours, theirs = best.values()
    assert ours < 3 * theirs, best
