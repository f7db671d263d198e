"""How much is decoded for frames of a clip: counts, which no other work on a machine changes."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from video.pyav_reader import read_frames, read_index


def given_packets(path: Path, wanted: Sequence[int]) -> int:
    """Packets that our reader gives its decoder for the frames at the positions `wanted`; those
    that the decoder drops, since no frame refers to theirs, are counted too."""
    given: list[Any] = []
    for _ in read_frames(
        path, read_index(path), wanted, sent=lambda packet: given.append(packet.pts)
    ):
        pass
    return len(given)


def needed_packets(path: Path, wanted: Sequence[int]) -> int:
    """Packets from the key frame before each wanted frame to its own, in the order of decoding,
    each once."""
    import av

    with av.open(str(path)) as container:
        packets = [(p.pts, p.is_keyframe) for p in container.demux(video=0) if p.size]
    place = {pts: at for at, (pts, _) in enumerate(packets) if pts is not None}
    keys = [at for at, (_, key) in enumerate(packets) if key]
    shown, needed = sorted(place), set[int]()
    for at in (place[shown[number]] for number in wanted):
        needed.update(range(keys[bisect_right(keys, at) - 1], at + 1))
    return len(needed)
