"""The flags that several commands share, and what they mean together."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Literal

import typer

import mm

if TYPE_CHECKING:
    from collections.abc import Sequence

Model = Annotated[str, typer.Option(help="`tiny`, a hub id, or a local folder.")]
Device = Annotated[
    str | None, typer.Option(help="cpu, cuda, cuda:1, mps; the best there is by default.")
]
DtypeName = Literal["float32", "bfloat16", "float16"]
Dtype = Annotated[
    DtypeName | None, typer.Option(help="Of the weights; the device's best by default.")
]
Adapter = Annotated[str | None, typer.Option(help="A LoRA adapter's folder, put on the model.")]
AbsolutePaths = Annotated[
    bool,
    typer.Option("--allow-absolute-paths", help="Rows may name pictures outside their folder."),
]
Urls = Annotated[
    bool, typer.Option("--allow-urls", help="Rows may name pictures on the web: downloaded.")
]
Strategy = Annotated[
    str,
    typer.Option(
        help="direct, think, zoom, replay, attend, or your own as package.module:function."
    ),
]


@dataclass(frozen=True)
class ModelChoice:
    """Which model, where and how; None leaves it to the model."""

    name: str = "tiny"
    device: str | None = None
    dtype: DtypeName | None = None
    adapter: str | None = None

    def load(self) -> mm.VLM:
        """The model, ready to answer.

        Raises:
            ModelUnavailable: it is missing, gated, offline or too large.
        """
        return mm.load(self.name, device=self.device, dtype=self.dtype, adapter=self.adapter)


def split(names: str | None) -> list[str]:
    """The words between commas, blanks left out."""
    return [name.strip() for name in (names or "").split(",") if name.strip()]


def one_of(names: Sequence[str]) -> str:
    """`names` for an error message: "direct, think or zoom"."""
    return " or ".join(filter(None, [", ".join(names[:-1]), names[-1]]))
