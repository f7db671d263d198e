"""Whether a question gets the same answer alone and in a batch.

In bfloat16 a batch's shape changes the last bits, so now and then a token that was nearly as good
comes first.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import chain

from mm.local.hf_vlm import HFVLM
from mm.types import Sampling
from training.evaluation.tasks import tabletop_suites
from training.tabletop import TASKS

from .measure import Measured

LEVEL = 2
TOKENS = 64


def sameness(
    vlm: HFVLM, *, items: int = 1000, seed: int = 0, tell: Callable[[int], object] = int
) -> Measured:
    """The share of `items` Tabletop questions, of all tasks in turn, that are answered the same.

    Greedily, at most 64 tokens each: one by one with empty caches, against all of them at once.
    """
    each = -(-items // len(TASKS))
    suites = tabletop_suites((), seed=seed, limit=each, level=LEVEL)
    prompts = [i.sample.prompt for i in chain(*zip(*(s.items() for s in suites), strict=True))]
    prompts, sampling = prompts[:items], Sampling(max_tokens=TOKENS)
    alone = []
    for number, prompt in enumerate(prompts):
        vlm.engine.clear_caches()
        alone += vlm.generate([prompt], sampling)
        tell(number)
    vlm.engine.clear_caches()
    together = vlm.generate(prompts, sampling)
    same = sum(a.message.tokens == b.message.tokens for a, b in zip(alone, together, strict=True))
    return Measured("same answer alone and in a batch", "fraction", (same / len(prompts),))
