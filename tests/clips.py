"""Small clips whose every frame is known, written by PyAV's encoders."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np

MS = Fraction(1, 1000)
QUIET = {"x265-params": "log-level=none"}


def drawing(index: int, width: int, height: int) -> np.ndarray:
    """A frame that tells its index: a bar moves over a shade that changes."""
    pixels = np.zeros((height, width, 3), np.uint8)
    pixels[..., 0] = index * 5 % 256
    pixels[..., 1] = np.linspace(0, 255, width, dtype=np.uint8)
    at = index * 3 % width
    pixels[:, at : at + 8, 2] = 255
    return pixels


def write_clip(
    path: Path,
    codec: str = "libx264",
    *,
    frames: int = 48,
    size: tuple[int, int] = (96, 64),
    fps: int = 24,
    pixels: str = "yuv420p",
    key_every: int = 12,
    times_ms: Sequence[int] | None = None,
    rotation: int = 0,
    sound: bool = False,
    options: Mapping[str, str] = {},
) -> Path:
    """A clip at `path`; `times_ms` gives each frame its own time."""
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream(codec, rate=fps)
        stream.width, stream.height, stream.pix_fmt = *size, pixels
        stream.options = {**(QUIET if codec == "libx265" else {}), **options}
        stream.gop_size = key_every
        if times_ms:
            stream.codec_context.time_base = MS
        if rotation:
            stream.set_display_rotation(rotation)
        voice: Any = container.add_stream("aac", rate=8000) if sound else None
        for index in range(frames):
            frame = av.VideoFrame.from_ndarray(drawing(index, *size), format="rgb24")
            frame.pts = times_ms[index] if times_ms else index
            frame.time_base = MS if times_ms else Fraction(1, fps)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
        if voice:
            container.mux(voice.encode(_silence()))
            container.mux(voice.encode())
    return path


def write_sound(path: Path) -> Path:
    """A file with sound and no video."""
    with av.open(str(path), "w") as container:
        voice: Any = container.add_stream("aac", rate=8000)
        container.mux(voice.encode(_silence()))
        container.mux(voice.encode())
    return path


def write_cut_at_start(path: Path, source: Path, hidden: int) -> Path:
    """`source` without decoding anew, its first `hidden` frames hidden by an edit list."""
    with av.open(str(source)) as old, av.open(str(path), "w") as new:
        stream: Any = new.add_stream_from_template(old.streams.video[0])
        step = 0
        for packet in old.demux(video=0):
            if packet.size == 0 or packet.pts is None or packet.dts is None:
                continue
            step = step or packet.duration or 0
            packet.pts -= hidden * step
            packet.dts -= hidden * step
            packet.stream = stream
            new.mux(packet)
    return path


def _silence() -> av.AudioFrame:
    frame = av.AudioFrame.from_ndarray(
        np.zeros((1, 1024), np.float32), format="fltp", layout="mono"
    )
    frame.sample_rate = 8000
    return frame
