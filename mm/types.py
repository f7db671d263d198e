"""The values that go to a model and come back: frozen, equal by content, without storage."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

from .geometry import WHOLE, Region, Size

if TYPE_CHECKING:
    from PIL.Image import Image as Pixels

Role = Literal["system", "user", "assistant", "tool"]


@dataclass(frozen=True)
class Loaded:
    """The picture came from outside: a file path, or "" when it was handed over in memory."""

    source: str = ""


@dataclass(frozen=True)
class Cropped:
    """Cut from image `parent` (its id) at `region`, then resized to `size`."""

    parent: str
    region: Region
    size: Size


@dataclass(frozen=True)
class Drawn:
    """Made from image `parent` (its id); `what` names the drawing: "depth", "tiles", ..."""

    parent: str
    what: str


Origin = Loaded | Cropped | Drawn


@dataclass(frozen=True)
class Image:
    """A picture and where it came from; two images are equal when their pixels and origins are.

    `pixels` is an RGB PIL image; treat it as read-only.
    """

    pixels: Pixels = field(repr=False, compare=False)
    origin: Origin = Loaded()
    id: str = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "id", image_id(self.pixels))

    @property
    def size(self) -> Size:
        return self.pixels.size


def image_id(pixels: Pixels) -> str:
    """Sixteen hex digits of a hash over mode, size and pixels."""
    digest = hashlib.blake2b(f"{pixels.mode} {pixels.size}".encode(), digest_size=8)
    digest.update(pixels.tobytes())
    return digest.hexdigest()


@dataclass(frozen=True)
class Text:
    text: str


@dataclass(frozen=True)
class Thinking:
    """Reasoning, written between <think> and </think>: scored, shown and stripped on its own."""

    text: str


@dataclass(frozen=True)
class ToolCall:
    name: str
    arguments: Mapping[str, Any]


@dataclass(frozen=True)
class ToolSpec:
    """A tool on offer; stands in a system message. `parameters` is a JSON schema."""

    name: str
    description: str
    parameters: Mapping[str, Any]

    @property
    def json(self) -> dict[str, Any]:
        """The tool as chat templates and OpenAI clients expect it."""
        function = {
            "name": self.name,
            "description": self.description,
            "parameters": self.parameters,
        }
        return {"type": "function", "function": function}


@dataclass(frozen=True)
class Features:
    """Visual tokens of `image`, put into the context without its pixels (VGR).

    They come from the picture's memory, its visual tokens at full resolution, of which any region
    can be replayed; or from a snapshot of it, squeezed into one tile of that memory.

    Attributes:
        pool: each square of `pool` x `pool` visual tokens is averaged to one.
    """

    image: Image
    region: Region = WHOLE
    pool: int = 1
    snapshot: bool = False


Part = Text | Thinking | Image | Features | ToolCall | ToolSpec


@dataclass(frozen=True)
class Message:
    """One turn, or a piece of one: assistant messages that follow each other are one turn.

    `tokens` are the ids a model wrote the message with, so that its words are never tokenised
    again; None for a message that no model wrote.
    """

    role: Role
    parts: tuple[Part, ...]
    tokens: tuple[int, ...] | None = field(default=None, repr=False, compare=False)

    @property
    def text(self) -> str:
        """The words outside thinking and tool calls."""
        return "".join(p.text for p in self.parts if isinstance(p, Text))

    @property
    def images(self) -> tuple[Image, ...]:
        return tuple(p for p in self.parts if isinstance(p, Image))

    @property
    def seen(self) -> tuple[Image | Features, ...]:
        """What takes visual tokens, in order."""
        return tuple(p for p in self.parts if isinstance(p, Image | Features))

    @cached_property
    def tool_calls(self) -> tuple[ToolCall, ...]:
        return tuple(p for p in self.parts if isinstance(p, ToolCall))


Conversation = tuple[Message, ...]


def message(role: Role, *parts: Part | str) -> Message:
    """A message; strings become `Text`."""
    return Message(role, tuple(Text(p) if isinstance(p, str) else p for p in parts))


def user(*parts: Part | str) -> Message:
    return message("user", *parts)


def assistant(*parts: Part | str) -> Message:
    return message("assistant", *parts)


@dataclass(frozen=True)
class Sampling:
    """How to generate. `temperature` 0 is greedy; a `stop` string ends the reply and stays in
    it."""

    max_tokens: int = 512
    temperature: float = 0.0
    top_p: float = 1.0
    stop: tuple[str, ...] = ()
    seed: int = 0


@dataclass(frozen=True)
class Cost:
    """What an answer cost.

    Attributes:
        visual_tokens: visual tokens that entered the context.
        patches: patches the vision encoder computed (images it had seen before cost none).
        computed_tokens: prompt tokens the language model computed.
        reused_tokens: prompt tokens taken from the cache.
        generated_tokens: tokens sampled.
        calls: model calls.
        seconds: wall-clock time inside the model.
    """

    visual_tokens: int = 0
    patches: int = 0
    computed_tokens: int = 0
    reused_tokens: int = 0
    generated_tokens: int = 0
    calls: int = 0
    seconds: float = 0.0

    def __add__(self, other: Cost) -> Cost:
        return Cost(**{k: v + getattr(other, k) for k, v in vars(self).items()})


Finish = Literal["stop", "length", "cancelled"]


@dataclass(frozen=True)
class Generation:
    """A model's reply: the message with its tokens, a log-probability per token, and what it cost.

    `finish` is "stop" for an end token or a stop string, "length" at `max_tokens`, "cancelled" when
    asked to.
    """

    message: Message
    logprobs: tuple[float, ...] = field(default=(), repr=False)
    cost: Cost = Cost()
    finish: Finish = "stop"
