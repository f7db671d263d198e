"""Which model, where and how; one choice for every command."""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import mm
from mm.errors import UserError
from mm.families.image_budgets import ImageBudgets
from mm.local.adapters import is_adapter
from mm.local.fingerprint import fingerprint
from mm.remote.connect import BASE_URL, connect
from mm.remote.responses import shown

if TYPE_CHECKING:
    from collections.abc import Mapping

DtypeName = Literal["float32", "bfloat16", "float16"]
BackendName = Literal["local", "openai"]


@dataclass(frozen=True)
class ModelChoice:
    """Which model, where and how; None leaves it to the model.

    `judge` is the folder of the verifier that the model itself brings, where a strategy wants one
    (`app.strategies.judging`).
    """

    name: str = "tiny"
    device: str | None = None
    dtype: DtypeName | None = None
    adapter: str | None = None
    backend: BackendName = "local"
    base_url: str | None = None
    processor: str | None = None
    quantize: str | None = None
    max_pixels: int | None = None
    min_pixels: int | None = None
    visual_tokens: int | None = None
    look_visual_tokens: int | None = None
    verifier: str | None = None
    judge: str | None = None

    @property
    def verifier_folder(self) -> str | None:
        """The folder of a trained verifier, where `verifier` is one and not a name."""
        return self.verifier if self.verifier and os.path.isdir(self.verifier) else None

    @property
    def verifier_name(self) -> str | None:
        """Who judges, for records: the verifier that was named, or the one the model brings."""
        return self.verifier or (self.judge and Path(self.judge).name)

    @property
    def place(self) -> dict[str, str]:
        """Who runs the model and how, for records that must not mix; `backend` is always there."""
        server = {"base_url": shown(self.base_url or BASE_URL).rstrip("/")}
        chosen = {"processor": self.processor, "quantize": self.quantize, **self._fingerprints}
        said = {name: value for name, value in chosen.items() if value}
        return {"backend": self.backend, **(server if self.backend == "openai" else {}), **said}

    @property
    def _fingerprints(self) -> dict[str, str | None]:
        """What tells the weights of its adapter and verifier from others in the same folders."""
        adapter = self.adapter or (self.name if is_adapter(Path(self.name)) else None)
        folders = {"adapter": adapter, "verifier": self.verifier_folder or self.judge}
        return {f"{name}_weights": weights_of(folder) for name, folder in folders.items() if folder}

    @property
    def budgets(self) -> ImageBudgets:
        """How much of an image the model is shown.

        Raises:
            UserError: a number is not positive, or the bounds cross.
        """
        return ImageBudgets(
            self.max_pixels, self.min_pixels, self.visual_tokens, self.look_visual_tokens
        )

    def load(self) -> mm.VLM:
        """The model, ready to answer.

        Raises:
            UserError: flags that do not go together.
            ModelUnavailable: it is missing, gated, offline or too large, or its server is.
        """
        self.check()
        if self.backend == "local":
            return mm.load(
                self.name,
                device=self.device,
                dtype=self.dtype,
                adapter=self.adapter,
                quantize=self.quantize,
                max_pixels=self.max_pixels,
                min_pixels=self.min_pixels,
                visual_tokens=self.visual_tokens,
                look_visual_tokens=self.look_visual_tokens,
                verifier=self.verifier_folder or self.judge,
            )
        return connect(self.name, base_url=self.base_url or BASE_URL, processor=self.processor)

    def check(self) -> None:
        """Refuse flags that would do nothing.

        Raises:
            UserError: there are some.
        """
        here = {
            "device": self.device,
            "dtype": self.dtype,
            "adapter": self.adapter,
            "quantize": self.quantize,
            "verifier": self.verifier_folder,
            **self.budgets.given,
        }
        there = {"base-url": self.base_url, "processor": self.processor}
        if self.backend == "local" and any(there.values()):
            raise UserError(f"{_flags(there)}: only with --backend openai")
        if self.backend == "openai" and any(here.values()):
            raise UserError(f"{_flags(here)}: with --backend openai that is the server's to choose")


@cache
def weights_of(folder: str) -> str | None:
    """The fingerprint of the weights in a folder; None where they are elsewhere."""
    here = os.path.isdir(folder) and any(Path(folder).glob("*.safetensors"))
    return fingerprint(Path(folder)) if here else None


def _flags(values: Mapping[str, object]) -> str:
    return ", ".join(f"--{name.replace('_', '-')}" for name, value in values.items() if value)
