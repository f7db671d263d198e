"""The judge's table: pairs of a target and a reply, and whether they count as equal.

python tests/judged_pairs.py    # fills its digest into mm/answers/README.md
"""

import json
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

PAIRS = Path(__file__).parent / "mm" / "answers" / "pairs.jsonl"
README = Path(__file__).parents[1] / "mm" / "answers" / "README.md"
START, END = "<!-- judged pairs -->\n", "<!-- end of judged pairs -->"
SHOWN = 5
"""Examples of each verdict that a kind has in the digest."""


@dataclass(frozen=True)
class Pair:
    """`equal` is None where the reply gives no answer; then it is wrong too, and counted apart."""

    kind: str
    truth: str
    reply: str
    choices: tuple[str, ...]
    equal: bool | None
    why: str

    def __str__(self) -> str:
        return f"{self.kind}: {self.truth} / {self.reply}"


def pairs() -> list[Pair]:
    lines = PAIRS.read_text(encoding="utf-8").splitlines()
    return [Pair(**{**row, "choices": tuple(row["choices"])}) for row in map(json.loads, lines)]


def digest() -> str:
    """Examples of each kind as a Markdown table, with how many pairs the kind has."""
    known = sorted(pairs(), key=lambda pair: pair.kind)
    lines = [
        f"{len(known)} pairs are in `tests/mm/answers/pairs.jsonl`; here are some of each kind.",
        "",
        "| target | reply | right | because of |",
        "| --- | --- | --- | --- |",
    ]
    for kind, group in groupby(known, key=lambda pair: pair.kind):
        each = list(group)
        lines.append(f"| **{kind}** ({len(each)}) | | | |")
        for verdict in (True, False, None):
            lines += map(_line, _spread([p for p in each if p.equal is verdict and _fits(p)]))
    return "\n" + "\n".join(lines) + "\n\n"


def filled(text: str) -> str:
    """`text` with the digest between its marks."""
    before, _, rest = text.partition(START)
    return before + START + digest() + END + rest.partition(END)[2]


def _spread(known: list[Pair]) -> list[Pair]:
    """At most `SHOWN` pairs, no two for one reason, from all over the list."""
    known = list({pair.why: pair for pair in reversed(known)}.values())[::-1]
    step = max(len(known) / SHOWN, 1)
    return [known[int(i * step)] for i in range(min(SHOWN, len(known)))]


def _fits(pair: Pair) -> bool:
    shown = pair.truth + pair.reply
    return len(shown) < 70 and not set("`\n|") & set(shown) and bool(pair.reply)


def _line(pair: Pair) -> str:
    asked = f" of {', '.join(f'`{c}`' for c in pair.choices)}" if pair.choices else ""
    said = {True: "yes", False: "no", None: "no answer"}[pair.equal]
    return f"| `{pair.truth}`{asked} | `{pair.reply}` | {said} | {pair.why} |"


if __name__ == "__main__":
    README.write_text(filled(README.read_text(encoding="utf-8")), encoding="utf-8")
