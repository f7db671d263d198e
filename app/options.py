"""The flags that several commands share, and what they mean together."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Literal

import typer

import mm
from mm.served import BASE_URL, connect

from .mistakes import Mistake

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

Model = Annotated[str, typer.Option(help="`tiny`, a hub id, or a local folder.")]
Device = Annotated[
    str | None, typer.Option(help="cpu, cuda, cuda:1, mps; the best there is by default.")
]
DtypeName = Literal["float32", "bfloat16", "float16"]
Dtype = Annotated[
    DtypeName | None, typer.Option(help="Of the weights; the device's best by default.")
]
BackendName = Literal["local", "openai"]
Backend = Annotated[
    BackendName,
    typer.Option(help="Where the model is: here, or behind any OpenAI-compatible server."),
]
BaseUrl = Annotated[
    str | None,
    typer.Option(
        help="The server's address, http://localhost:8000/v1 by default; its key, if any, "
        "is taken from OPENAI_API_KEY."
    ),
]
Processor = Annotated[
    str | None,
    typer.Option(help="For a server's model: a folder or hub id with its config and processor."),
]
Adapter = Annotated[str | None, typer.Option(help="A LoRA adapter's folder, put on the model.")]
Quantize = Annotated[
    Literal["4bit", "8bit"] | None,
    typer.Option(help="The decoder's weights in fewer bits; needs bitsandbytes."),
]
AbsolutePaths = Annotated[
    bool,
    typer.Option("--allow-absolute-paths", help="Rows may name pictures outside their folder."),
]
Threads = Annotated[int, typer.Option(min=1, help="Questions asked at a time.")]
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
    backend: BackendName = "local"
    base_url: str | None = None
    processor: str | None = None
    quantize: str | None = None

    def load(self) -> mm.VLM:
        """The model, ready to answer.

        Raises:
            Mistake: flags that do not go together.
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
            )
        return connect(self.name, base_url=self.base_url or BASE_URL, processor=self.processor)

    def check(self) -> None:
        """Refuse flags that would do nothing.

        Raises:
            Mistake: there are some.
        """
        here = {
            "device": self.device,
            "dtype": self.dtype,
            "adapter": self.adapter,
            "quantize": self.quantize,
        }
        there = {"base-url": self.base_url, "processor": self.processor}
        if self.backend == "local" and any(there.values()):
            raise Mistake(f"{_flags(there)}: only with --backend openai")
        if self.backend == "openai" and any(here.values()):
            raise Mistake(f"{_flags(here)}: with --backend openai that is the server's to choose")


def _flags(values: Mapping[str, str | None]) -> str:
    return ", ".join(f"--{name}" for name, value in values.items() if value)


def split(names: str | None) -> list[str]:
    """The words between commas, blanks left out."""
    return [name.strip() for name in (names or "").split(",") if name.strip()]


def one_of(names: Sequence[str]) -> str:
    """`names` for an error message: "direct, think or zoom"."""
    return " or ".join(filter(None, [", ".join(names[:-1]), names[-1]]))
