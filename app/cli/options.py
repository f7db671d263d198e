"""The flags that several commands share, and what they mean together."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from inspect import Parameter, Signature, signature
from typing import Annotated, Any, Literal

import typer

from app.model_choice import BackendName, DtypeName, ModelChoice
from mm.errors import UserError
from mm.types import Sampling
from vision.depth_source import DepthSource

Model = Annotated[str, typer.Option(help="`tiny`, a hub id, or a local folder.")]
Device = Annotated[
    str | None,
    typer.Option(help="cpu, cuda, cuda:1 or mps; cuda where there is one by default."),
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
Verifier = Annotated[
    str | None,
    typer.Option(
        help="Of scale, beam and best_of: asked, logratio, likelihood, ..., or the folder of one "
        "that was trained."
    ),
]
Quantize = Annotated[
    Literal["4bit", "8bit"] | None,
    typer.Option(help="The decoder's weights in fewer bits; needs bitsandbytes."),
]
MaxPixels = Annotated[
    int | None, typer.Option(min=1, help="The largest area, in pixels, an image is seen in.")
]
MinPixels = Annotated[
    int | None, typer.Option(min=1, help="The smallest; smaller images are enlarged.")
]
VisualTokens = Annotated[
    int | None, typer.Option(min=1, help="About so many for each image, but not for looks.")
]
LookVisualTokens = Annotated[int | None, typer.Option(min=1, help="About so many for each look.")]
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
System = Annotated[str | None, typer.Option(help="A system message before each question.")]
Strategy = Annotated[
    str,
    typer.Option(
        help="direct, think, zoom, replay, attend, act, scale, depth, depth-zoom, depth-latent, "
        "uniform, watch, vote, best_of, beam, or "
        "your own as package.module:function; options in brackets: zoom(max_looks=3)."
    ),
]


_MODEL_FLAGS: dict[str, Any] = {
    "model": Model,
    "device": Device,
    "dtype": Dtype,
    "quantize": Quantize,
    "adapter": Adapter,
    "verifier": Verifier,
    "backend": Backend,
    "base_url": BaseUrl,
    "processor": Processor,
    "max_pixels": MaxPixels,
    "min_pixels": MinPixels,
    "visual_tokens": VisualTokens,
    "look_visual_tokens": LookVisualTokens,
}
BUDGETS = ("max_pixels", "min_pixels", "visual_tokens", "look_visual_tokens")
_DEFAULTS = {"model": ModelChoice.name, "backend": ModelChoice.backend}


_SAMPLING_FLAGS: dict[str, Any] = {
    "temperature": Annotated[
        float | None, typer.Option(min=0.0, help="0 is greedy. These: the checkpoint's own, else.")
    ],
    "top_p": Annotated[float | None, typer.Option(help="The likeliest of this probability.")],
    "top_k": Annotated[int | None, typer.Option(help="The so many likeliest; 0 for all.")],
    "min_p": Annotated[float | None, typer.Option(help="Of so much of the likeliest one's.")],
    "repetition_penalty": Annotated[float | None, typer.Option(help="1 changes nothing.")],
    "presence_penalty": Annotated[float | None, typer.Option(help="-2 to 2; 0 changes nothing.")],
    "max_thought_tokens": Annotated[
        int | None, typer.Option(min=1, help="A longer thought is closed, the answer opened.")
    ],
    "frequency_penalty": Annotated[float | None, typer.Option(help="-2 to 2; 0 changes nothing.")],
}


def takes_sampling(command: Callable[..., Any]) -> Callable[..., Any]:
    """Gives a command the flags of sampling; it gets those that were given as one `sampling`."""

    @wraps(command)
    def run(**given: Any) -> Any:
        said = {name: given.pop(name) for name in _SAMPLING_FLAGS}
        chosen = {name: value for name, value in said.items() if value is not None}
        Sampling(**chosen)  # out of bounds: told before a model is loaded
        return command(sampling=chosen, **given)

    own = signature(command, eval_str=True).parameters.values()
    own = [p.replace(kind=p.KEYWORD_ONLY) for p in own if p.name != "sampling"]
    flags = [
        Parameter(name, Parameter.KEYWORD_ONLY, default=None, annotation=kind)
        for name, kind in _SAMPLING_FLAGS.items()
    ]
    made: Any = run
    made.__signature__ = Signature([*own, *flags])
    made.__annotations__ = {}
    return made


DepthScale = Annotated[
    str | None, typer.Option(help="Its units a metre: a number, nyu, tum or kitti.")
]
DepthKind = Annotated[
    Literal["metric", "relative", "inverse"] | None,
    typer.Option(help="What its numbers mean: metres; larger is farther; is nearer."),
]

_DEPTH_FLAGS: dict[str, tuple[str, Any]] = {
    "depth": (
        "file",
        Annotated[str | None, typer.Option(help="The depth map of the image: PNG, NPY, TIFF.")],
    ),
    "depth_scale": ("scale", DepthScale),
    "depth_kind": ("kind", DepthKind),
    "depth_model": (
        "model",
        Annotated[str | None, typer.Option(help="Or a depth-estimation checkpoint.")],
    ),
}


def takes_depth(command: Callable[..., Any]) -> Callable[..., Any]:
    """Gives a command the flags of depth maps; it gets one `depth`, a `DepthSource`."""

    @wraps(command)
    def run(**given: Any) -> Any:
        said = {field: given.pop(name) for name, (field, _) in _DEPTH_FLAGS.items()}
        if said["file"] == "":
            raise UserError("--depth: the path is empty")
        if said["file"] and said["model"]:
            raise UserError("--depth is a map, --depth-model makes one: give one of them")
        return command(depth=DepthSource(**said), **given)

    own = signature(command, eval_str=True).parameters.values()
    own = [p.replace(kind=p.KEYWORD_ONLY) for p in own if p.name != "depth"]
    flags = [
        Parameter(name, Parameter.KEYWORD_ONLY, default=None, annotation=kind)
        for name, (_, kind) in _DEPTH_FLAGS.items()
    ]
    made: Any = run
    made.__signature__ = Signature([*own, *flags])
    made.__annotations__ = {}
    return made


def refuse_file(depth: DepthSource) -> None:
    """Refuse a map of one image where many are asked about.

    Raises:
        UserError: there is one.
    """
    if depth.file:
        raise UserError(
            f"--depth {depth.file} is the map of one image: give each row its own in a column "
            "'depth'; --depth-scale and --depth-kind are for all"
        )


def takes_model(*flags: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Gives a command the flags that choose a model, all or those named; it gets one `choice`."""
    names = flags or tuple(_MODEL_FLAGS)

    def decorate(command: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(command)
        def run(**given: Any) -> Any:
            chosen = {"name" if name == "model" else name: given.pop(name) for name in names}
            return command(choice=ModelChoice(**chosen), **given)

        own = signature(command, eval_str=True).parameters.values()
        own = [p.replace(kind=p.KEYWORD_ONLY) for p in own if p.name != "choice"]
        made: Any = run
        made.__signature__ = Signature([*own, *map(_flag, names)])  # which typer reads
        made.__annotations__ = {}
        return made

    return decorate


def _flag(name: str) -> Parameter:
    kind, default = _MODEL_FLAGS[name], _DEFAULTS.get(name)
    return Parameter(name, Parameter.KEYWORD_ONLY, default=default, annotation=kind)


def split(names: str | None) -> list[str]:
    """The words between commas, blanks left out."""
    return [name.strip() for name in (names or "").split(",") if name.strip()]
