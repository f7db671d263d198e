"""What tells images apart: a hash of what they show."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from PIL.Image import Image as Pixels


def image_id(*frames: Pixels) -> str:
    """Sixteen hex digits of a hash over mode, size and pixels."""
    digest = hashlib.blake2b(digest_size=8)
    for pixels in frames:
        digest.update(f"{pixels.mode} {pixels.size}".encode())
        digest.update(pixels.tobytes())
    return digest.hexdigest()
