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


def commands(text: str) -> list[list[str]]:
    """Every command of the shell blocks, in words."""
    lines = "\n".join(block for block in blocks("sh", text)).splitlines()
    said = [each for line in lines for each in line.partition("  #")[0].split(" && ")]
    return [shlex.split(each) for each in said if each.strip()]
