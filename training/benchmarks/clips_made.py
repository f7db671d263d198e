"""Long clips made within seconds: the packets of a short one, repeated."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image as Pil

from mm.geometry import Size

if TYPE_CHECKING:
    from av import Packet

_OCTAVES = (4, 16, 64, 256)
"""Blobs across the texture, from coarse to fine."""

_STEP = 5
"""Pixels that the texture moves from one frame to the next."""


@dataclass(frozen=True)
class LongClip:
    """An H.264 clip with B-frames, of constant rate, from 0 s on.

    Attributes:
        seconds: of the whole clip.
        key_s: seconds from one key frame to the next.
        short_s: seconds that are encoded; a multiple of `key_s`.
    """

    seconds: int
    size: Size
    fps: int = 30
    key_s: int = 2
    short_s: int = 4

    @property
    def frames(self) -> int:
        """How many there are."""
        return self.seconds * self.fps

    def spread(self, count: int) -> list[int]:
        """`count` positions of frames, the middle of each of as many equal parts."""
        return [(2 * i + 1) * self.frames // (2 * count) for i in range(count)]

    def write(self, folder: Path) -> Path:
        """The clip as an MP4 in `folder`."""
        short = _encoded(folder / "short.mp4", self)
        return _repeated(short, folder / "long.mp4", self.seconds // self.short_s, self.short_s)


def _encoded(path: Path, clip: LongClip) -> Path:
    import av

    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream("libx264", rate=clip.fps)
        stream.width, stream.height, stream.pix_fmt = *clip.size, "yuv420p"
        stream.options = {"preset": "veryfast", "crf": "23", "sc_threshold": "0", "bf": "2"}
        stream.gop_size = clip.key_s * clip.fps
        for number, pixels in enumerate(_drawn(clip)):
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            frame.pts, frame.time_base = number, Fraction(1, clip.fps)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def _drawn(clip: LongClip) -> Iterator[np.ndarray]:
    """Frames (H, W, 3): a texture that moves, over it a bar that tells the frames apart."""
    texture = _texture(clip.size)
    count = clip.short_s * clip.fps
    for number in range(count):
        pixels = np.roll(texture, number * _STEP, axis=1)
        pixels[:, clip.size[0] * number // count :][:, :16] = 255
        yield pixels


def _texture(size: Size) -> np.ndarray:
    """Colours as uneven as those of photographs: noise of several finenesses, summed."""
    rng, total = np.random.default_rng(0), np.zeros((size[1], size[0], 3), np.float32)
    for blobs in _OCTAVES:
        noise = Pil.fromarray(rng.integers(0, 256, (blobs, blobs, 3), np.uint8))
        total += np.asarray(noise.resize(size, Pil.Resampling.BICUBIC)) / np.float32(len(_OCTAVES))
    return total.clip(0, 255).astype(np.uint8)


def _repeated(short: Path, path: Path, times: int, short_s: int) -> Path:
    """`short`, `short_s` seconds long, `times` after each other, without encoding anew."""
    import av

    with av.open(str(path), "w") as container:
        for number in range(times):
            with av.open(str(short)) as source:
                template = source.streams.video[0]
                stream = container.streams.video[0] if number else None
                stream = stream or container.add_stream_from_template(template)
                for packet in source.demux(template):
                    if packet.size:
                        _move(packet, number * short_s)
                        packet.stream = stream
                        container.mux(packet)
    return path


def _move(packet: Packet, seconds: int) -> None:
    """Let a packet be shown `seconds` later."""
    assert packet.time_base
    assert packet.pts is not None
    assert packet.dts is not None
    later = round(seconds / packet.time_base)
    packet.pts, packet.dts = packet.pts + later, packet.dts + later
