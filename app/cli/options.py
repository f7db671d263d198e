"""The flags that several commands share, and what they mean together."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from functools import partial, wraps
from inspect import Parameter, Signature, signature
from typing import Annotated, Any, Literal

import typer

from app.model_choice import BackendName, DtypeName, ModelChoice
from mm.errors import UserError, quote
from mm.types import Sampling
from training.finetune.recipe import KEYS, Recipe
from training.finetune.recipe_keys import flag_of, kinds_of
from vision.depth_source import DepthSource

Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]

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
UNJUDGED = tuple(name for name in _MODEL_FLAGS if name != "verifier")
"""All of them where nobody judges."""

BUDGETS = ("max_pixels", "min_pixels", "visual_tokens", "look_visual_tokens")
_DEFAULTS = {"model": ModelChoice.name, "backend": ModelChoice.backend}


SAMPLING = (
    "temperature",
    "top_p",
    "top_k",
    "min_p",
    "repetition_penalty",
    "presence_penalty",
    "frequency_penalty",
    "max_thought_tokens",
)
"""Flags of sampling, which are keys of recipes too."""

OWN = "the checkpoint's own"
_KINDS = kinds_of(Recipe)

DepthScale = Annotated[
    str | None, typer.Option(help="Units a metre of depth maps: a number, nyu, tum or kitti.")
]
DepthKind = Annotated[
    Literal["metric", "relative", "inverse"] | None,
    typer.Option(help="What a depth map's numbers mean: metres; larger is farther; is nearer."),
]

_DEPTH_FLAGS: dict[str, Any] = {
    "depth": Annotated[
        str | None, typer.Option(help="The depth map of the image: PNG, NPY, TIFF.")
    ],
    "depth_scale": DepthScale,
    "depth_kind": DepthKind,
    "depth_model": Annotated[
        str | None, typer.Option(help="A depth-estimation checkpoint, for images without a map.")
    ],
}
OF_ROWS = ("depth_scale", "depth_kind", "depth_model")
"""Flags of depth maps where each row names its own."""

_DEPTH_FIELDS = {
    "depth": "file",
    "depth_scale": "scale",
    "depth_kind": "kind",
    "depth_model": "model",
}


def with_flags(
    name: str,
    flags: Sequence[Parameter],
    gather: Callable[..., Any],
    command: Callable[..., Any],
) -> Callable[..., Any]:
    """`command` with `flags`, of whose values `gather` makes its parameter `name`."""

    @wraps(command)
    def run(**given: Any) -> Any:
        made = gather(**{flag.name: given.pop(flag.name) for flag in flags})
        return command(**{name: made}, **given)

    own = signature(command, eval_str=True).parameters.values()
    own = [p.replace(kind=p.KEYWORD_ONLY) for p in own if p.name != name]
    made: Any = run
    made.__signature__ = Signature([*own, *flags])  # which typer reads
    made.__annotations__ = {}
    return made


def key_flag(name: str, rule: str | None = None, **options: Any) -> Parameter:
    """The flag of a recipe's key `name`, whose `rule` may be another here; None is not given."""
    known = KEYS[name]
    kind: Any = next((each for each in (bool, int, float) if each in _KINDS[name]), str)
    rule = known.rule if rule is None else rule
    about = f"{known.help} ({rule})" if rule else known.help
    option = typer.Option(None, flag_of(name, known), help=about, **options)
    return Parameter(name, Parameter.KEYWORD_ONLY, default=option, annotation=kind | None)


def takes_sampling(usual: Sampling | None = None) -> Decorator:
    """Gives a command the flags of sampling; it gets those that were given as one `sampling`.

    `usual` is what holds where one is not given; None for what the checkpoint's authors recommend.
    """
    return partial(with_flags, "sampling", [_sampling_flag(n, usual) for n in SAMPLING], _said)


def _sampling_flag(name: str, usual: Sampling | None) -> Parameter:
    default = OWN if usual is None else f"{getattr(usual, name) or 0:g}"
    greedy = name == "temperature" and not (usual and usual.temperature)
    rule = "0 is greedy" if greedy else None
    if name == "max_thought_tokens":
        return key_flag(name, rule, min=1, show_default="no limit")
    return key_flag(name, rule, show_default=default)


def _said(**given: Any) -> dict[str, Any]:
    chosen = {name: value for name, value in given.items() if value is not None}
    Sampling(**chosen)  # out of bounds: told before a model is loaded
    return chosen


def takes_model(*flags: str) -> Decorator:
    """Gives a command the flags that choose a model, all or those named; it gets one `choice`."""
    names = flags or tuple(_MODEL_FLAGS)
    made = [_flag(name, _MODEL_FLAGS[name], _DEFAULTS.get(name)) for name in names]
    return partial(with_flags, "choice", made, _choice)


def _choice(*, model: str, **given: Any) -> ModelChoice:
    return ModelChoice(name=model, **given)


def _flag(name: str, kind: Any, default: Any = None) -> Parameter:
    return Parameter(name, Parameter.KEYWORD_ONLY, default=default, annotation=kind)


def takes_depth(*flags: str) -> Decorator:
    """Gives a command the flags of depth maps, all or those named; it gets one `depth`, a
    `DepthSource`."""
    made = [_flag(name, _DEPTH_FLAGS[name]) for name in flags or _DEPTH_FLAGS]
    return partial(with_flags, "depth", made, _depth_source)


def _depth_source(**given: Any) -> DepthSource:
    said = {_DEPTH_FIELDS[name]: value for name, value in given.items()}
    if said.get("file") == "":
        raise UserError("--depth: the path is empty")
    if said.get("file") and said["model"]:
        raise UserError("--depth is a map, --depth-model makes one: give one of them")
    return DepthSource(**said)


def refuse_file(depth: DepthSource) -> None:
    """Refuse a map of one image where many are asked about.

    Raises:
        UserError: there is one.
    """
    if depth.file:
        raise UserError(
            f"--depth {depth.file!r} is the map of one image: give each row its own in a column "
            "'depth'; --depth-scale and --depth-kind are for all"
        )


_CHOICE = re.compile(r"""\s*(?:"([^"]*)"|'([^']*)'|([^,]*?))\s*(?:,|$)""")


def choices_in(text: str | None) -> tuple[str, ...]:
    """The answers to choose from between commas; in one that stands in quotes a comma is its own.

    Raises:
        UserError: they are fewer than two, or two are equal.
    """
    if text is None:
        return ()
    found = [next(filter(None, groups), "").strip() for groups in _CHOICE.findall(text)]
    choices = tuple(filter(None, found))
    if len(choices) < 2 or len(set(choices)) < len(choices):
        raise UserError(
            f"--choices {quote(text)}: give two or more different answers with commas between, "
            "one that holds a comma in quotes"
        )
    return choices


def split(names: str | None) -> list[str]:
    """The words between commas, blanks left out."""
    return [name.strip() for name in (names or "").split(",") if name.strip()]
