"""What importing a file imports, read from the source: nothing is imported to know it."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

TESTS = Path(__file__).parent
IMPORT_TORCH = {"torch", "transformers", "trl", "peft", "accelerate"}


def statements(body: list[ast.stmt]) -> Iterator[ast.stmt]:
    """What runs when a module is imported: `body` and its blocks, but for TYPE_CHECKING."""
    for node in body:
        yield node
        for block in ("body", "orelse", "handlers", "finalbody"):
            checking = isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
            if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and not checking:
                yield from statements(getattr(node, block, []))


@cache
def imports(file: Path, package: str = "") -> frozenset[str]:
    """The modules that importing `file` imports; of `from a import b`, both a and a.b."""
    found = set()
    for node in statements(ast.parse(file.read_text()).body):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = package.split(".")[: len(package.split(".")) - node.level + 1]
            module = ".".join([*(base if node.level else []), *filter(None, [node.module])])
            found |= {module, *(f"{module}.{alias.name}" for alias in node.names)}
    return frozenset(found)


@cache
def files_of(module: str) -> tuple[tuple[Path, str], ...]:
    """The project's files that importing `module` runs, each with the package it lies in."""
    package = module.rpartition(".")[0]
    above = files_of(package) if package else ()
    for root in (TESTS.parent, TESTS):
        path = root.joinpath(*module.split("."))
        if (path / "__init__.py").is_file():
            return *above, (path / "__init__.py", module)
        if path.with_suffix(".py").is_file():
            return *above, (path.with_suffix(".py"), package)
    return above


@cache
def imports_torch(file: Path) -> bool:
    """Whether importing `file` imports torch, by itself or through modules of the project."""
    waiting, seen = [(file, "")], {file}
    while waiting:
        names = imports(*waiting.pop())
        if any(name.partition(".")[0] in IMPORT_TORCH for name in names):
            return True
        more = {found for name in names for found in files_of(name) if found[0] not in seen}
        seen |= {path for path, _ in more}
        waiting += more
    return False
