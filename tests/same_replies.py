"""Writes down what `tiny` replies, token for token, or compares with what was written before.

python tests/same_replies.py write FILE     # before a change that must change nothing
python tests/same_replies.py compare FILE   # after it
"""

from __future__ import annotations

import json
import sys
from contextlib import closing
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

import mm
from mm.vlm import VLM, Cancelled
from training import tabletop
from vision import replay, zoom

TASKS = ("read", "same", "search")
STRATEGIES = {"direct": mm.direct, "zoom": zoom, "replay": replay}
THREADS = 16

Replies = list[list[list[int]]]
"""For each item, the token ids of each reply."""


def replies(vlm: VLM, task: str, strategy: str, limit: int) -> Replies:
    """What `vlm` says, greedily, to the first `limit` test items of a task."""
    from mm.parallel import in_order

    items = tabletop.stream(task, 0, limit, tabletop.Level.PERSPECTIVE)
    reply = partial(_reply, vlm, STRATEGIES[strategy])
    with closing(in_order(reply, items, THREADS)) as answered:
        return list(answered)


def _reply(
    vlm: VLM, strategy: mm.Strategy, item: tabletop.Item, cancelled: Cancelled
) -> list[list[int]]:
    trace = mm.run(strategy, item.sample, vlm, cancel=cancelled)
    return [list(step.message.tokens or ()) for step in trace.steps if step.sampled]


def main(mode: str, file: str, limit: str = "500") -> int:
    vlm = mm.load("tiny", dtype="float32")
    before = json.loads(Path(file).read_text()) if mode == "compare" else {}
    made: dict[str, Replies] = {}
    differing = 0
    for task in TASKS:
        for strategy in STRATEGIES:
            name = f"{task} {strategy}"
            made[name] = replies(vlm, task, strategy, int(limit))
            if before:
                pairs = zip(made[name], before[name], strict=True)
                differ = sum(new != old for new, old in pairs)
                differing += differ
                print(f"{name}: {differ} of {len(made[name])} differ", flush=True)
    if mode == "write":
        Path(file).write_text(json.dumps(made))
    return 1 if differing else 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
