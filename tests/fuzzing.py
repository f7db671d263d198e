"""How long broken input is tried at each door: a little in the suite, more by command."""

from __future__ import annotations

import os
import random

_TIMES = int(os.environ.get("MM_FUZZ_TIMES", "1"))


def rounds(usual: int) -> int:
    """How many broken inputs to try: `usual`, or `MM_FUZZ_TIMES` times as many."""
    return usual * _TIMES


def mutated(data: bytes, rng: random.Random) -> bytes:
    """`data` with a few bytes, a piece or its end changed."""
    changed = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 8, 40))):
        at = rng.randrange(len(changed) or 1)
        match rng.randrange(5):
            case 0 if changed:
                changed[at : at + 1] = bytes([rng.randrange(256)])
            case 1:
                changed[at:at] = rng.randbytes(rng.choice((1, 4, 64)))
            case 2:
                del changed[at : at + rng.choice((1, 4, 64))]
            case 3:
                changed[at : at + 4] = rng.choice((b"\xff" * 4, b"\0" * 4, b"\x7f\xff\xff\xff"))
            case _:
                del changed[max(at, 1) :]
    return bytes(changed)
