"""Decoded frames as 8-bit sRGB images; high dynamic range is brought down to what screens show."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    from PIL.Image import Image as Pixels

PQ, HLG = 16, 18
"""Transfer characteristics of ITU-T H.273: SMPTE ST 2084, and ARIB STD-B67."""

_BT2020 = 9
_WHITE_NITS = 203.0
"""Diffuse white of HDR images (ITU-R BT.2408)."""

_PEAK_NITS = {PQ: 4000.0, HLG: 1000.0}
"""What is shown as full white: the brightest that clips are usually mastered to, never a frame's
own brightest, since the rest of a clip would flicker with that."""

_KNEE = 0.8
"""Linear light, 1 for diffuse white, up to which nothing is changed."""

_TO_BT709 = (
    (1.6605, -0.5876, -0.0728),
    (-0.1246, 1.1329, -0.0083),
    (-0.0182, -0.1006, 1.1187),
)
"""Linear BT.2020 to linear BT.709 (ITU-R BT.2087)."""


def to_rgb(frame: Any) -> Pixels:
    """A PyAV frame as an 8-bit RGB image."""
    if frame.color_trc not in (PQ, HLG):
        return frame.to_image()
    from PIL import Image

    signal = frame.to_ndarray(format="rgb48le").astype("float32") / 65535
    light = _pq_light(signal) if frame.color_trc == PQ else _hlg_light(signal)
    if frame.color_primaries == _BT2020:
        light = _to_bt709(light)
    return Image.fromarray(_srgb(_rolled_off(light, _PEAK_NITS[frame.color_trc] / _WHITE_NITS)))


def _pq_light(signal: np.ndarray) -> np.ndarray:
    """Linear light, 1 for diffuse white, of a PQ signal in [0, 1] (SMPTE ST 2084)."""
    m1, m2 = 2610 / 16384, 2523 / 32
    c1, c2, c3 = 3424 / 4096, 2413 / 128, 2392 / 128
    power = signal ** (1 / m2)
    return ((power - c1).clip(0) / (c2 - c3 * power)) ** (1 / m1) * 10000 / _WHITE_NITS


def _hlg_light(signal: np.ndarray) -> np.ndarray:
    """Linear light, 1 for diffuse white, of an HLG signal in [0, 1] (ARIB STD-B67), 1000 nits."""
    import numpy as np

    a, b, c = 0.17883277, 0.28466892, 0.55991073
    scene = np.where(signal <= 0.5, signal**2 / 3, (np.exp((signal - c) / a) + b) / 12)
    luminance = scene @ np.array([0.2627, 0.678, 0.0593], dtype=scene.dtype)
    return scene * luminance[..., None].clip(1e-6) ** 0.2 * 1000 / _WHITE_NITS


def _to_bt709(light: np.ndarray) -> np.ndarray:
    import numpy as np

    return (light @ np.array(_TO_BT709, dtype=light.dtype).T).clip(0)


def _rolled_off(light: np.ndarray, peak: float) -> np.ndarray:
    """Light from 0 to 1: as it is up to `_KNEE`, then ever flatter, and 1 from `peak` on."""
    import numpy as np

    over = ((light - _KNEE) / (peak - _KNEE)).clip(0, 1)
    steep = (peak - _KNEE) / (1 - _KNEE)  # as steep at the knee as below it
    bent = _KNEE + (1 - _KNEE) * steep * over / (1 + (steep - 1) * over)
    return np.where(light <= _KNEE, light, bent)


def _srgb(light: np.ndarray) -> np.ndarray:
    """8-bit sRGB of linear light from 0 to 1."""
    import numpy as np

    gamma = np.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055)
    return (gamma * 255 + 0.5).astype("uint8")
