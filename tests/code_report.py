"""Reports lengths of files and functions, comments and docstrings, folder by folder.

`python tests/code_report.py` prints a table; with `--gaps`, the public names without a docstring.
"""

from __future__ import annotations

import ast
import sys
import tokenize
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from graphlib import TopologicalSorter
from itertools import chain
from pathlib import Path
from statistics import median, quantiles

from import_graph import files_of, imports

ROOT = Path(__file__).parents[1]
PACKAGES = ("mm", "vision", "video", "training", "app")

Function = ast.FunctionDef | ast.AsyncFunctionDef
Named = Function | ast.ClassDef


@dataclass(frozen=True)
class File:
    """A Python file, and what can be counted in it."""

    path: Path

    @cached_property
    def text(self) -> str:
        return self.path.read_text(encoding="utf-8")

    @cached_property
    def tree(self) -> ast.Module:
        return ast.parse(self.text)

    @property
    def lines(self) -> int:
        return self.text.count("\n")

    @property
    def written(self) -> int:
        """Lines that are not blank."""
        return sum(bool(line.strip()) for line in self.text.splitlines())

    @property
    def comments(self) -> int:
        with self.path.open("rb") as file:
            return sum(t.type == tokenize.COMMENT for t in tokenize.tokenize(file.readline))

    @property
    def functions(self) -> list[Function]:
        return [node for node in ast.walk(self.tree) if isinstance(node, Function)]

    @property
    def public(self) -> list[tuple[str, Named]]:
        """Public functions and classes, and the public methods of those classes, by name."""
        return list(_public(self.tree, ""))

    @property
    def gaps(self) -> list[str]:
        """Public names without a docstring, but for methods that a protocol describes."""
        bare = [name for name, node in self.public if not ast.get_docstring(node)]
        return [name for name in bare if name.rpartition(".")[2] not in described()]


@cache
def described() -> frozenset[str]:
    """The methods that protocols of the project document, for whoever implements them."""
    files = chain.from_iterable((ROOT / package).rglob("*.py") for package in PACKAGES)
    classes = [
        node
        for file in files
        for node in File(file).tree.body
        if isinstance(node, ast.ClassDef) and "Protocol" in map(ast.unparse, node.bases)
    ]
    methods = [
        name for each in classes for name, node in _public(each, "") if ast.get_docstring(node)
    ]
    return frozenset(methods)


def _public(node: ast.AST, prefix: str) -> Iterator[tuple[str, Named]]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, Named) and not child.name.startswith("_") and not _stub(child):
            yield prefix + child.name, child
            if isinstance(child, ast.ClassDef):
                yield from _public(child, f"{prefix}{child.name}.")


def _stub(node: Named) -> bool:
    """Whether a decorator says that `node` is described elsewhere."""
    names = {ast.unparse(d).rpartition(".")[2] for d in node.decorator_list}
    return bool(names & {"overload", "override", "setter"})


def length(function: Function) -> int:
    """Lines of signature, docstring and body; decorators do not count."""
    return (function.end_lineno or function.lineno) - function.lineno + 1


def body_length(function: Function) -> int:
    """Lines of the body, without the docstring."""
    body = function.body[1:] if ast.get_docstring(function) is not None else function.body
    return (function.end_lineno or function.lineno) - body[0].lineno + 1 if body else 0


def p90(values: Sequence[int]) -> float:
    return quantiles(values, n=10, method="inclusive")[-1] if len(values) > 1 else float(values[0])


@dataclass(frozen=True)
class Report:
    """What the files of one folder have in common."""

    files: tuple[File, ...]

    @classmethod
    def of(cls, folder: Path) -> Report:
        return cls(tuple(File(path) for path in sorted(folder.rglob("*.py"))))

    @property
    def lengths(self) -> list[int]:
        return [length(function) for file in self.files for function in file.functions] or [0]

    @property
    def bodies(self) -> list[int]:
        return [body_length(function) for file in self.files for function in file.functions] or [0]

    @property
    def comments(self) -> float:
        """Comments per line that is not blank."""
        return sum(f.comments for f in self.files) / max(sum(f.written for f in self.files), 1)

    @property
    def documented(self) -> float:
        """The share of public names that have a docstring; 1 of none."""
        public = sum(len(file.public) for file in self.files)
        return 1 - sum(len(file.gaps) for file in self.files) / max(public, 1)

    def row(self) -> list[str]:
        """The cells of a table's line, as `HEAD` names them."""
        lines = [file.lines for file in self.files]
        return [
            f"{len(lines)}",
            f"{median(lines):.0f} / {p90(lines):.0f} / {max(lines)}",
            *(f"{median(v):.0f} / {p90(v):.0f} / {max(v)}" for v in (self.lengths, self.bodies)),
            f"{self.comments:.1%}",
            f"{self.documented:.0%}",
        ]


HEAD = ("folder", "files", "lines of a file", "of a function", "of its body", "comments", "public")


def inner(package: Path) -> list[Path]:
    """The packages that lie in `package`."""
    return sorted(path.parent for path in package.glob("*/__init__.py"))


def rooms(package: Path) -> list[str]:
    """What lies at a package's top: its packages and its modules."""
    modules = [path for path in package.glob("*.py") if path.name != "__init__.py"]
    return sorted(path.stem for path in [*inner(package), *modules])


def floors(package: Path) -> int:
    """How many rooms stand on one another: the longest chain of imports between them."""
    graph = {}
    for room in rooms(package):
        files = (package / room).rglob("*.py") if (package / room).is_dir() else ()
        files = [*files] or [(package / room).with_suffix(".py")]
        modules = chain.from_iterable(imports(file, module_of(file.parent)) for file in files)
        found = {path for module in modules for path, _ in files_of(module)}
        others = {path.relative_to(package).parts[0] for path in found if package in path.parents}
        graph[room] = {other.removesuffix(".py") for other in others} - {room, "__init__"}
    height: dict[str, int] = {}
    for room in TopologicalSorter(graph).static_order():
        height[room] = 1 + max((height[other] for other in graph[room]), default=0)
    return max(height.values(), default=0)


def module_of(folder: Path) -> str:
    return ".".join(folder.relative_to(ROOT).parts)


def folders() -> list[Path]:
    """Each package, and the packages in it."""
    return [
        path
        for package in PACKAGES
        for path in (
            ROOT / package,
            *sorted(f.parent for f in (ROOT / package).glob("*/__init__.py")),
        )
    ]


def table() -> str:
    reports = [(str(folder.relative_to(ROOT)), Report.of(folder)) for folder in folders()]
    cells = [list(HEAD), *([name, *report.row()] for name, report in reports)]
    widths = [max(len(row[i]) for row in cells) for i in range(len(HEAD))]
    return "\n".join("  ".join(c.ljust(w) for c, w in zip(r, widths, strict=True)) for r in cells)


def main() -> None:
    print(table())
    print("\nmedian / 90th percentile / longest; public: names with a docstring")
    for package in PACKAGES:
        print(f"{package}: {len(rooms(ROOT / package))} rooms on {floors(ROOT / package)} floors")
    if "--gaps" in sys.argv[1:]:
        for file in chain.from_iterable(Report.of(ROOT / package).files for package in PACKAGES):
            for gap in file.gaps:
                print(f"{file.path.relative_to(ROOT)}: {gap}")


if __name__ == "__main__":
    main()
