"""Imports point down, and `import mm` stays light."""

import ast
import os
import subprocess
import sys
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
COMMAND_LINE = ("app/cli.py", "app/bench.py", "app/data.py", "app/train.py")
"""The only places of app that may import training."""


def packages_imported(file: Path) -> set[str]:
    """The top-level packages a file imports, at its top or anywhere inside."""
    names = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            depth = len(file.relative_to(ROOT).parts) - 1
            own = file.relative_to(ROOT).parts[0]
            if node.level == 0:
                names.add((node.module or "").partition(".")[0])
            elif node.level <= depth:
                names.add(own)
            else:
                names.add((node.module or node.names[0].name).partition(".")[0])
    return names


def files() -> list[Path]:
    return [file for layer in MAY_IMPORT for file in sorted((ROOT / layer).rglob("*.py"))]


def arrow_up(file: Path) -> set[str]:
    allowed = MAY_IMPORT[file.relative_to(ROOT).parts[0]]
    if file.relative_to(ROOT).as_posix() in COMMAND_LINE:
        allowed = allowed | {"training"}
    return packages_imported(file) & set(MAY_IMPORT) - allowed


@pytest.mark.parametrize("file", files(), ids=lambda file: str(file.relative_to(ROOT)))
def test_no_arrow_points_up(file):
    assert arrow_up(file) == set()


@pytest.mark.parametrize(
    ("place", "line", "up"),
    [
        pytest.param("mm/x.py", "import vision.crop", {"vision"}, id="import"),
        pytest.param("mm/x.py", "def f():\n    from app import ask", {"app"}, id="in a function"),
        pytest.param("mm/x.py", "from . import trace", set(), id="own package"),
        pytest.param("mm/x.py", "from ..vision import crop", {"vision"}, id="out of the package"),
        pytest.param("video/x.py", "from vision.crop import crop", set(), id="down"),
        pytest.param("app/demo.py", "import training", {"training"}, id="training from app"),
        pytest.param("app/cli.py", "import training", set(), id="training from the command line"),
    ],
)
def test_the_rule_can_fail(tmp_path, monkeypatch, place, line, up):
    monkeypatch.setattr(sys.modules[__name__], "ROOT", tmp_path)
    file = tmp_path / place
    file.parent.mkdir()
    file.write_text(line)
    assert arrow_up(file) == up


def test_answers_know_no_trace():
    """Traces read answers, so nothing that reads answers may need a trace."""
    for name in ("answers", "numerals", "harness"):
        tree = ast.parse((ROOT / "mm" / f"{name}.py").read_text())
        modules = {n.module for n in ast.walk(tree) if isinstance(n, ast.ImportFrom)}
        assert not modules & {"trace", "session", "types", "mm.trace", "mm.session"}


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
    """Best of three, the first of which compiles; processor time, as the machine may be busy."""
    clock = "time.process_time()"
    code = f"import time; began = {clock}; import mm; print({clock} - began)"
    cache = {"PYTHONDONTWRITEBYTECODE": "", "PYTHONPYCACHEPREFIX": str(tmp_path)}
    seconds = [float(python(code, **cache)) for _ in range(3)]
    assert min(seconds) < 0.2
