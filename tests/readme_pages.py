"""The project's Markdown pages, and the code blocks and commands in them."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
PAGES = [
    page
    for page in sorted(ROOT.rglob("*.md"))
    if not {".venv", "runs", "build"} & set(page.relative_to(ROOT).parts)
]


def blocks(language: str, text: str = README) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)


def commands_of(block: str) -> list[list[str]]:
    """Every command of a shell block, in words."""
    lines = (line.partition("  #")[0] for line in block.splitlines())
    return [shlex.split(each) for line in lines for each in line.split(" && ") if each.strip()]


def commands(text: str) -> list[list[str]]:
    """Every command of the shell blocks of `text`, in words."""
    return [words for block in blocks("sh", text) for words in commands_of(block)]
