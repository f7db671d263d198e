"""The flags that several commands share, and what they mean together."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

import typer

from app.model_choice import BackendName, DtypeName

if TYPE_CHECKING:
    pass


Model = Annotated[str, typer.Option(help="`tiny`, a hub id, or a local folder.")]
Device = Annotated[
    str | None, typer.Option(help="cpu, cuda, cuda:1, mps; the best there is by default.")
]
Dtype = Annotated[
    DtypeName | None, typer.Option(help="Of the weights; the device's best by default.")
]
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
    typer.Option("--allow-absolute-paths", help="Rows may name images outside their folder."),
]
Ignore = Annotated[
    str | None, typer.Option("--ignore", help="Columns to leave unread, names between commas.")
]
Threads = Annotated[int, typer.Option(min=1, help="Questions asked at a time.")]
Urls = Annotated[
    bool, typer.Option("--allow-urls", help="Rows may name images on the web: downloaded.")
]
Strategy = Annotated[
    str,
    typer.Option(
        help="direct, think, zoom, replay, attend, vote, best_of, or your own as "
        "package.module:function; options in brackets: zoom(max_looks=3)."
    ),
]


def split(names: str | None) -> list[str]:
    """The words between commas, blanks left out."""
    return [name.strip() for name in (names or "").split(",") if name.strip()]
