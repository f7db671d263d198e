"""Finds a checkpoint's folder and looks it over before anything heavy happens; loads no torch."""

from __future__ import annotations

import json
import math
import re
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

from mm.errors import ModelUnavailable, first_line

_BYTES = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2}
_PATTERNS = ["*.json", "*.jinja", "*.model", "*.txt", "*.safetensors"]
_PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt")
_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")
_PATIENCE_S = 10  # for the hub's first answer


@dataclass(frozen=True)
class Checkpoint:
    """A folder with a config and whole safetensors files.

    `parameters` counts its floating-point numbers.
    """

    folder: Path
    config: dict[str, Any]
    parameters: int


def find(name: str) -> Path:
    """The folder that `name` means: a bundled model's, a local one, or a hub id's once downloaded.

    Raises:
        ModelUnavailable: there is none, or the hub cannot give it.
    """
    bundled = Path(str(files("mm"))) / "bundled" / name
    if re.fullmatch(r"[\w-]+", name) and (bundled / "config.json").is_file():
        return bundled
    path = Path(name).expanduser()
    if path.is_dir():
        return path
    if path.is_file():
        raise ModelUnavailable(f"{name} is a file; give the folder of a checkpoint")
    if path.is_absolute() or name.startswith((".", "~")) or not _HUB_ID.fullmatch(name):
        known = ", ".join(bundled_models()) or "none"
        raise ModelUnavailable(
            f"no model {name!r}: give a bundled one ({known}), a folder, or a hub id (owner/name)"
        )
    return _from_hub(name)


def bundled_models() -> tuple[str, ...]:
    """Names of the models in the package."""
    folder = Path(str(files("mm"))) / "bundled"
    return tuple(sorted(p.parent.name for p in folder.glob("*/config.json")))


def inspect(folder: Path) -> Checkpoint:
    """What stands in a checkpoint's folder.

    Raises:
        ModelUnavailable: a file is missing, cut off or of a kind that is refused.
    """
    config = read_json(folder / "config.json", f"{folder} is not a checkpoint")
    weights = sorted(folder.glob("*.safetensors"))
    if not weights and any(any(folder.glob(p)) for p in _PICKLES):
        raise ModelUnavailable(
            f"{folder} has pickled weights only, which can run code when loaded; "
            "save them as safetensors (save_pretrained) first"
        )
    if not weights:
        raise ModelUnavailable(f"{folder} has no weights: no *.safetensors file")
    missing = _shards(folder) - {p.name for p in weights}
    if missing:
        raise ModelUnavailable(f"{folder} lacks {min(missing)} of its index; download it again")
    return Checkpoint(folder, config, sum(_parameters(p) for p in weights))


def read_json(path: Path, trouble: str) -> dict[str, Any]:
    """The object in a JSON file.

    Raises:
        ModelUnavailable: it is missing or not a JSON object; the message begins with `trouble`.
    """
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ModelUnavailable(f"{trouble}: it has no {path.name}") from None
    except (OSError, ValueError) as error:
        raise ModelUnavailable(f"{trouble}: {path.name} cannot be read ({error})") from None
    if not isinstance(value, dict):
        raise ModelUnavailable(f"{trouble}: {path.name} is not a JSON object")
    return value


def _shards(folder: Path) -> set[str]:
    index = folder / "model.safetensors.index.json"
    if not index.is_file():
        return set()
    return set(read_json(index, f"{folder} is damaged").get("weight_map", {}).values())


def _parameters(path: Path) -> int:
    """How many floating-point numbers a safetensors file holds."""
    try:
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            size = path.stat().st_size
            header = json.loads(file.read(length)) if length < size else {}
        header.pop("__metadata__", None)
        end = max(t["data_offsets"][1] for t in header.values())
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ModelUnavailable(f"{path} is not a safetensors file ({error})") from None
    if 8 + length + end != size:
        raise ModelUnavailable(f"{path} is cut off: {size} of {8 + length + end} bytes")
    return sum(math.prod(t["shape"]) for t in header.values() if t["dtype"] in _BYTES)


def _from_hub(name: str) -> Path:
    """A hub model's folder: what is on this machine already, else downloaded."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    try:
        folder = Path(snapshot_download(name, allow_patterns=_PATTERNS, local_files_only=True))
    except LocalEntryNotFoundError:
        return _downloaded(name)
    return folder if _complete(folder) else _downloaded(name)


def _downloaded(name: str) -> Path:
    from huggingface_hub import HfApi, snapshot_download
    from huggingface_hub.errors import (
        GatedRepoError,
        HTTPError,  # pyright: ignore[reportPrivateImportUsage] - of whichever client the hub uses
        RepositoryNotFoundError,
    )

    try:
        # asked first, for a download retries half a minute where nobody can be reached
        siblings = HfApi().model_info(name, timeout=_PATIENCE_S).siblings or ()
        if not any(s.rfilename.endswith(".safetensors") for s in siblings):
            raise ModelUnavailable(f"{name} has no safetensors weights; choose another checkpoint")
        return Path(snapshot_download(name, allow_patterns=_PATTERNS))
    except GatedRepoError:
        remedy = f"accept its terms at https://huggingface.co/{name}, then run `hf auth login`"
        raise ModelUnavailable(f"{name} is gated: {remedy}") from None
    except RepositoryNotFoundError:
        remedy = "check its name, or run `hf auth login` if it is private"
        raise ModelUnavailable(f"no model {name} on the hub: {remedy}") from None
    except (HTTPError, OSError) as error:
        raise ModelUnavailable(
            f"{name} is not on this machine and the hub does not give it "
            f"({first_line(error)}): go online, or give a local folder"
        ) from None


def _complete(folder: Path) -> bool:
    """Whether an interrupted download left nothing out."""
    try:
        inspect(folder)
    except ModelUnavailable:
        # an adapter's folder has no config of a model
        return (folder / "adapter_config.json").is_file()
    return True
