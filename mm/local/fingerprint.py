"""Which weights an adapter was trained on: written beside it, and compared where it is loaded."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from mm.errors import ModelUnavailable

from .checkpoints import read_json, safetensors_header

FILE = "base.json"
"""The file, beside an adapter, that holds the fingerprint of its base."""

_BYTES = 4096
"""So much of each tensor is read: training changes every part of what it changes."""


def fingerprint(folder: Path) -> str:
    """Sixteen hex digits that tell the weights in `folder` from others of the same shapes.

    Names, types, shapes and the first bytes of every tensor; a fraction of a second for any size.

    Raises:
        ModelUnavailable: there are no safetensors in it, or one is damaged.
    """
    if not any(folder.glob("*.safetensors")):
        raise ModelUnavailable(f"{folder} holds no safetensors, by which an adapter knows its base")
    found = hashlib.sha256()
    for name, told in sorted(
        tensor for file in folder.glob("*.safetensors") for tensor in _of(file)
    ):
        found.update(f"{name} {told}".encode())
    return found.hexdigest()[:16]


def _of(file: Path) -> list[tuple[str, str]]:
    """Each tensor's name, and a digest of the rest."""
    header = safetensors_header(file)
    tensors = []
    with file.open("rb") as opened:
        start = 8 + int.from_bytes(opened.read(8), "little")
        for name, about in header.items():
            begin, end = about["data_offsets"]
            opened.seek(start + begin)
            values = hashlib.sha256(opened.read(min(end - begin, _BYTES))).hexdigest()
            tensors.append((name, f"{about['dtype']} {about['shape']} {values}"))
    return tensors


def write_base(adapter: Path, base: Path) -> None:
    """Note in the folder `adapter` which weights it was trained on: those in the folder `base`."""
    (adapter / FILE).write_text(json.dumps({"fingerprint": fingerprint(base)}) + "\n")


def check_base(adapter: Path, base: Path) -> None:
    """Refuse an adapter on other weights than those it was trained on; one without a note passes.

    Raises:
        ModelUnavailable: it was trained on others.
    """
    if not (adapter / FILE).is_file():
        return
    noted = read_json(adapter / FILE, f"{adapter} is damaged").get("fingerprint")
    if noted != (found := fingerprint(base)):
        raise ModelUnavailable(
            f"{adapter} was trained on other weights ({noted}) than those in {base} ({found}): "
            f"train it again, or delete {adapter / FILE} if a changed base is what you want"
        )
