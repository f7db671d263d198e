"""Whether an engine's memory stays flat once its caches are full."""

from __future__ import annotations

from collections.abc import Callable

import psutil

from mm.engine.engine import Engine
from mm.local.hf_vlm import HFVLM
from mm.types import Sampling

from .engine_speed import prompts
from .measure import Measured


def memory(
    vlm: HFVLM, requests: int, *, fill: int = 700, tell: Callable[[int], object] = int
) -> Measured:
    """Resident bytes after `requests` requests, against after the `fill` that filled the caches.

    A new engine on the same weights has caches so small that they fill well before; the builder's
    cache of processed images is full at its 256 MB.
    """
    engine = Engine(vlm.engine.model, vlm.builder, context_budget=2**25, feature_budget=2**23)
    full = 0
    for number in range(fill + requests):
        if number == fill:
            full = _resident()
        (tokens,) = prompts(vlm, number, 1)
        engine.generate(tokens, Sampling(max_tokens=8))
        tell(number)
    now, then = (float(_resident()),), (float(full),)
    return Measured(f"memory after {requests} requests", "bytes", now, then)


def _resident() -> int:
    return psutil.Process().memory_info().rss
