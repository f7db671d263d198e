"""Finds a checkpoint's folder and checks it before anything heavy happens; loads no torch."""

from __future__ import annotations

import json
import logging
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal

from mm.errors import ModelUnavailable, first_line

log = logging.getLogger(__name__)

_FLOATS = ("F64", "F32", "F16", "BF16")
BESIDE = ("*.json", "*.jinja", "*.model", "*.txt", "additional_chat_templates/*.jinja")
"""What stands beside weights: configs, tokenizers (merges.txt, vocab.txt), and chat templates."""

_PATTERNS = [*BESIDE, "*.safetensors"]
_CODE = "*.py"
_OTHER_FORMATS = ["consolidated*"]  # the same weights again, for Mistral's own code
_PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt")
_WORDS = ("tokenizer.json", "*.model", "vocab.json", "vocab.txt", "tekken.json")
_SIGHT = ("preprocessor_config.json", "processor_config.json")
"""Files of which one holds a tokenizer, and of which one says how images are processed."""
_BUNDLED = Path(str(files("mm"))) / "bundled"
_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")
_PATIENCE_S = 10  # for the hub's first answer
_asked: set[Path] = set()
"""Folders for which the hub had nothing more, or could not be asked; once a process is enough."""


@dataclass(frozen=True)
class Checkpoint:
    """A folder with a config and whole safetensors files.

    `parameters` counts its floating-point numbers, `bytes` what its weights take as they are
    stored.
    """

    folder: Path
    config: dict[str, Any]
    parameters: int
    bytes: int

    @property
    def model_type(self) -> str:
        return str(self.config.get("model_type", ""))

    @property
    def quantization(self) -> dict[str, Any] | None:
        """How the stored weights are quantised; None where they are not."""
        found = self.config.get("quantization_config")
        return found if isinstance(found, dict) else None


def find(name: str, *, code: bool = False) -> Path:
    """The folder that `name` means: a bundled model's, a local one, or a hub id's once downloaded.

    `code`: the checkpoint's own code belongs to it.

    Raises:
        ModelUnavailable: there is none, or the hub cannot give it.
    """
    bundled = _BUNDLED / name
    kinds = ("config.json", "adapter_config.json")
    if re.fullmatch(r"[\w-]{1,64}", name) and any((bundled / kind).is_file() for kind in kinds):
        return bundled
    path = _path(name)
    if path and path.is_dir():
        return path
    if path and path.is_file():
        raise ModelUnavailable(f"{name} is a file; give the folder of a checkpoint")
    local = path is None or path.is_absolute() or name.startswith((".", "~"))
    if local or not _HUB_ID.fullmatch(name):
        known = ", ".join(bundled_models()) or "none"
        raise ModelUnavailable(
            f"no model {_short(name)!r}: give a bundled one ({known}), a folder, or a hub id "
            "(owner/name)"
        )
    return _from_hub(name, code)


def _path(name: str) -> Path | None:
    """The path that `name` means; None where no file system could have it."""
    try:
        path = Path(name).expanduser()
        path.is_dir()
    except (OSError, RuntimeError, ValueError):  # too long, an unknown user's, a NUL
        return None
    return path


def _short(name: str, most: int = 80) -> str:
    return name if len(name) <= most else f"{name[:most]}..."


def bundled_models() -> tuple[str, ...]:
    """Names of the models in the package that answer questions."""
    return tuple(sorted(p.parent.name for p in _BUNDLED.glob("*/chat_template.jinja")))


def bundled_latents(name: str) -> Path | None:
    """The folder of the module that reads depth for a bundled model; None where it brings none."""
    folder = _BUNDLED / f"{name}-latents"
    known = name in bundled_models() and (folder / "midi.json").is_file()
    return folder if known else None


def bundled_verifier(name: str) -> Path | None:
    """The folder of the trained verifier that a bundled model brings; None where it brings none."""
    folder = _BUNDLED / f"{name}-verifier"
    known = name in bundled_models() and (folder / "adapter_config.json").is_file()
    return folder if known else None


def inspect(folder: Path) -> Checkpoint:
    """What stands in a checkpoint's folder.

    Raises:
        ModelUnavailable: a file is missing, cut off or of a kind that is refused.
    """
    config = read_json(folder / "config.json", f"{folder} is not a checkpoint")
    there = sorted(folder.glob("*.safetensors"))
    if not there and any(any(folder.glob(p)) for p in _PICKLES):
        raise ModelUnavailable(
            f"{folder} has pickled weights only, which can run code when loaded; "
            "save them as safetensors (save_pretrained) first"
        )
    if not there:
        raise ModelUnavailable(f"{folder} has no weights: no *.safetensors file")
    single = {"model.safetensors"} & {path.name for path in there}
    shards = set() if single else _shards(folder)  # beside it an index is left from before
    if missing := shards - {path.name for path in there}:
        raise ModelUnavailable(f"{folder} lacks {min(missing)} of its index; download it again")
    used = single or shards or {path.name for path in there}
    weights = [path for path in there if path.name in used]
    headers = [safetensors_header(path) for path in weights]
    parameters = sum(_parameters(header) for header in headers)
    return Checkpoint(folder, config, parameters, sum(path.stat().st_size for path in weights))


def read_json(path: Path, trouble: str) -> dict[str, Any]:
    """The object in a JSON file.

    Raises:
        ModelUnavailable: it is missing or not a JSON object; the message begins with `trouble`.
    """
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ModelUnavailable(f"{trouble}: it has no {path.name}") from None
    except (OSError, ValueError, RecursionError) as error:
        raise ModelUnavailable(f"{trouble}: {path.name} cannot be read ({error})") from None
    if not isinstance(value, dict):
        raise ModelUnavailable(f"{trouble}: {path.name} is not a JSON object")
    return value


def why(error: Exception) -> str:
    """What an error from reading foreign files says, in a line that can be understood alone."""
    line = first_line(error)
    plain = isinstance(error, OSError | ValueError | RuntimeError | ImportError)
    return line if plain or type(error).__name__ in line else f"{type(error).__name__}: {line}"


def safetensors_header(path: Path) -> dict[str, Any]:
    """What a safetensors file says of its tensors, by their names.

    Raises:
        ModelUnavailable: it is not a safetensors file, or is cut off.
    """
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            header = json.loads(file.read(length)) if length < size else {}
        header.pop("__metadata__", None)
        end = max(int(tensor["data_offsets"][1]) for tensor in header.values())
        _parameters(header)
    except Exception as error:  # what a damaged header makes of itself is anybody's guess
        raise ModelUnavailable(f"{path} is not a safetensors file ({why(error)})") from None
    if 8 + length + end != size:
        raise ModelUnavailable(
            f"{path} is cut off: {size} of {8 + length + end} bytes; download it again"
        )
    return header


def _parameters(header: dict[str, Any]) -> int:
    """How many floating-point numbers a safetensors file holds."""
    return sum(math.prod(t["shape"]) for t in header.values() if t["dtype"] in _FLOATS)


def _shards(folder: Path) -> set[str]:
    """The files that an index names; none without an index."""
    index = folder / "model.safetensors.index.json"
    if not index.is_file():
        return set()
    named = read_json(index, f"{folder} is damaged").get("weight_map")
    if not isinstance(named, dict) or not all(isinstance(n, str) for n in named.values()):
        raise ModelUnavailable(f"{folder} is damaged: {index.name} maps no weights to files")
    return set(named.values())


def _from_hub(name: str, code: bool) -> Path:
    """A hub model's folder: what is on this machine already, else downloaded."""
    from huggingface_hub import constants, snapshot_download
    from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError

    wanted: dict[str, Any] = {
        "allow_patterns": _PATTERNS + [_CODE] * code,
        "ignore_patterns": _OTHER_FORMATS,
    }
    try:
        folder = Path(snapshot_download(name, local_files_only=True, **wanted))
    except LocalEntryNotFoundError:
        return _downloaded(name, wanted)
    except HFValidationError as error:
        raise ModelUnavailable(f"no model {name!r} on the hub: {first_line(error)}") from None
    lacks = _lacks(folder, code)
    settled = constants.HF_HUB_OFFLINE or folder in _asked
    if not lacks or (lacks == "processor" and settled):
        return folder
    try:
        folder = _downloaded(name, wanted)
    except ModelUnavailable as error:
        if lacks == "weights":
            raise
        log.warning("%s; taking what is here", error)
    _asked.add(folder)
    return folder


def _downloaded(name: str, wanted: Mapping[str, Any]) -> Path:
    from huggingface_hub import HfApi, snapshot_download
    from huggingface_hub.errors import (
        GatedRepoError,
        HTTPError,  # pyright: ignore[reportPrivateImportUsage] - of whichever client the hub uses
        RepositoryNotFoundError,
    )

    _check_proxies()
    try:
        # asked first, because a download retries for half a minute where no hub can be reached
        siblings = HfApi().model_info(name, timeout=_PATIENCE_S).siblings or ()
        if not any(s.rfilename.endswith(".safetensors") for s in siblings):
            raise ModelUnavailable(f"{name} has no safetensors weights; choose another checkpoint")
        return Path(snapshot_download(name, **wanted))
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


def _check_proxies() -> None:
    """Have the hub's client made, before it is asked anything.

    Raises:
        ModelUnavailable: the environment names a proxy that it cannot use.
    """
    from httpx2 import InvalidURL
    from huggingface_hub import get_session

    from mm.remote.http_client import BAD_PROXY

    try:
        get_session()
    except (ImportError, ValueError, InvalidURL) as error:
        raise ModelUnavailable(BAD_PROXY) from error


def _lacks(folder: Path, code: bool) -> Literal["", "weights", "code", "processor"]:
    """What an interrupted download, or another program's, left out; the worst of it.

    Without a tokenizer or a processor a folder may be all that its repository has.
    """
    if not (folder / "config.json").is_file():  # an adapter's: its base has the rest
        names = ("adapter_config.json", "adapter_model.safetensors")
        return "" if all((folder / name).is_file() for name in names) else "weights"
    try:
        config = inspect(folder).config
    except ModelUnavailable:
        return "weights"
    if code and not all((folder / file).is_file() for file in code_files(config)):
        return "code"
    whole = all(any(any(folder.glob(name)) for name in names) for names in (_WORDS, _SIGHT))
    return "" if whole else "processor"


def code_files(config: Mapping[str, Any]) -> set[str]:
    """The files of a checkpoint's own code that its config names."""
    named = config.get("auto_map")
    values = [v for v in named.values() if isinstance(v, str)] if isinstance(named, dict) else []
    return {f"{v.partition('.')[0]}.py" for v in values if "--" not in v}
