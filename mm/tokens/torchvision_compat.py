"""A torchvision that cannot be imported counts as absent: nothing here needs one."""

from __future__ import annotations

import sys
from importlib.util import find_spec


def hide_broken_torchvision() -> None:
    """Make transformers do without torchvision where importing it fails.

    A torchvision built for another torch (a CUDA wheel beside a CPU torch) fails with a
    RuntimeError, and transformers, which sees it installed, would fail with it.
    """
    if sys.modules.get("torchvision") is not None or find_spec("torchvision") is None:
        return
    try:
        import torchvision  # noqa: F401  # pyright: ignore[reportMissingImports]
    except Exception:
        for name in [n for n in sys.modules if n.startswith("torchvision.")]:
            del sys.modules[name]
        sys.modules["torchvision"] = None  # pyright: ignore[reportArgumentType]
        _forget_availability()


def _forget_availability() -> None:
    """Let a transformers that was imported before look again."""
    known = sys.modules.get("transformers.utils.import_utils")
    for name in ("is_torchvision_available", "is_torchvision_v2_available"):
        if known is not None:
            getattr(known, name).cache_clear()
