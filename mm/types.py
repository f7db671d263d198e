"""The values that go to a model and come back: frozen, equal by content, without storage."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal, SupportsIndex

from .errors import UserError
from .geometry import WHOLE, Region, Size
from .origins import Cropped, Loaded, Origin, image_id

if TYPE_CHECKING:
    from PIL.Image import Image as Pixels

_TAG = re.compile(r"</?\w+>")

Role = Literal["system", "user", "assistant", "tool"]

ImageKind = Literal["overview", "look"]
"""What an image is to a model that sees it: each kind has its own budget of visual tokens."""


@dataclass(frozen=True, eq=False)
class Image:
    """An image and where it came from; two are equal when their pixels and origins are.

    Attributes:
        pixels: an RGB PIL image; treat it as read-only.
        second: a frame of the same size that is read in the same visual tokens, behind `pixels`, by
            a model whose traits say that it packs frames.
    """

    pixels: Pixels = field(repr=False)
    origin: Origin = Loaded()
    second: Pixels | None = field(default=None, repr=False)

    @cached_property
    def id(self) -> str:
        """`image_id` of the pixels, computed when it is first asked for."""
        return image_id(self.pixels, *(() if self.second is None else (self.second,)))

    @property
    def key(self) -> str:
        """Equal for images that a vision encoder reads alike."""
        return self.id

    @property
    def source(self) -> Image:
        """The image whose visual tokens enter a context: this one."""
        return self

    @property
    def size(self) -> Size:
        """Width and height in pixels."""
        return self.pixels.size

    @property
    def kind(self) -> ImageKind:
        """A "look" where the image was cut from another, else an "overview"."""
        return "look" if isinstance(self.origin, Cropped) else "overview"

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Image):
            return NotImplemented
        return self is other or (self.origin == other.origin and self.id == other.id)

    def __hash__(self) -> int:
        return hash((self.id, self.origin))


@dataclass(frozen=True)
class Text:
    """A piece of text in a message."""

    text: str


@dataclass(frozen=True)
class Thinking:
    """Reasoning, written between <think> and </think>: scored, shown and stripped on its own.

    `closed` is False where the model stopped before it wrote </think>.
    """

    text: str
    closed: bool = field(default=True, compare=False)


@dataclass(frozen=True)
class ToolCall:
    """A call of a tool that an assistant wrote."""

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
        function = {"name": self.name, "description": self.description}
        return {"type": "function", "function": {**function, "parameters": self.parameters}}


@dataclass(frozen=True)
class Features:
    """Visual tokens of `image`, put into the context without its pixels (VGR).

    They come from the image's memory, its visual tokens at full resolution, of which any region
    can be replayed; or from a snapshot of it, squeezed into one tile of that memory.

    Attributes:
        pool: each square of `pool` x `pool` visual tokens is averaged to one.
        copy: which of the images of the same pixels that one prompt shows, from 0.
    """

    image: Image
    region: Region = WHOLE
    pool: int = 1
    snapshot: bool = False
    copy: int = 0

    @property
    def key(self) -> str:
        """Equal for features of one memory, whatever their regions and poolings."""
        return f"{self.image.id} {'snapshot' if self.snapshot else 'memory'}"

    @property
    def source(self) -> Image:
        """The image whose visual tokens enter a context."""
        return self.image


@dataclass(frozen=True)
class Latents:
    """What a small network read in `image` and its depth (SSR): `vectors` (n, D) in the context, D
    being the width of the model's embeddings. Those of equal `key` are equal."""

    image: Image
    key: str
    vectors: Any = field(repr=False, compare=False)

    @property
    def source(self) -> Image:
        """The image that was read."""
        return self.image


Visual = Image | Features | Latents
"""What takes visual tokens."""


@dataclass(frozen=True)
class Clip:
    """A clip that a question is about; a strategy chooses the frames that a model is shown.

    Attributes:
        source: the file, or the folder of frames; a name for frames in memory.
        video: those in memory, a `video.decode.Video`; None opens `source`.
    """

    source: str
    video: Any = field(default=None, repr=False, compare=False)


Part = Text | Thinking | Visual | ToolCall | ToolSpec | Clip


@dataclass(frozen=True)
class Message:
    """One turn, or a piece of one: assistant messages that follow each other are one turn.

    `tokens` are the ids a model wrote the message with, so that its text is never tokenised
    again; None for a message that no model wrote.
    """

    role: Role
    parts: tuple[Part, ...]
    tokens: tuple[int, ...] | None = field(default=None, repr=False, compare=False)

    @property
    def text(self) -> str:
        """The text outside thinking and tool calls."""
        return "".join(p.text for p in self.parts if isinstance(p, Text))

    @property
    def images(self) -> tuple[Image, ...]:
        """The message's images in order, without remembered features."""
        return tuple(p for p in self.parts if isinstance(p, Image))

    @property
    def visuals(self) -> tuple[Visual, ...]:
        """The parts that take visual tokens, in order."""
        return tuple(p for p in self.parts if isinstance(p, Visual))

    @property
    def clips(self) -> tuple[Clip, ...]:
        """The message's clips, in order."""
        return tuple(p for p in self.parts if isinstance(p, Clip))

    @cached_property
    def tool_calls(self) -> tuple[ToolCall, ...]:
        """The tool calls in the message, in order."""
        return tuple(p for p in self.parts if isinstance(p, ToolCall))


Conversation = tuple[Message, ...]


def message(role: Role, *parts: Part | str) -> Message:
    """A message; strings become `Text`."""
    return Message(role, tuple(Text(p) if isinstance(p, str) else p for p in parts))


def user(*parts: Part | str) -> Message:
    """A message from the user; a str becomes `Text`."""
    return message("user", *parts)


def assistant(*parts: Part | str) -> Message:
    """A message from the assistant; a str becomes `Text`."""
    return message("assistant", *parts)


@dataclass(frozen=True)
class Sampling:
    """How to generate; names and meanings are those of transformers and OpenAI.

    Attributes:
        temperature: 0 is greedy.
        top_p, top_k, min_p: which tokens may be drawn: the smallest set that holds `top_p` of the
            probability, the `top_k` likeliest (0: all), those of at least `min_p` times the
            likeliest one's probability.
        repetition_penalty: divides or multiplies logits of tokens in the prompt or the reply (CTRL,
            arXiv 1909.05858); 1 changes nothing.
        presence_penalty, frequency_penalty: taken off the logits of tokens in the reply, once, and
            for each time they occur in it.
        stop: strings, or one alone, that end the reply, and stay in it.
        max_thought_tokens: a longer thought is closed there and the answer opened, by a session;
            None for no bound.

    Raises:
        UserError: a number is out of its bounds, or no whole one where it must be.
    """

    max_tokens: int = 512
    temperature: float = 0.0
    top_p: float = 1.0
    stop: tuple[str, ...] = ()
    seed: int = 0
    top_k: int = 0
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    max_thought_tokens: int | None = None

    def __post_init__(self) -> None:
        stop = self.stop or ()
        object.__setattr__(self, "stop", (stop,) if isinstance(stop, str) else tuple(stop))
        for name in ("max_tokens", "seed", "top_k", "max_thought_tokens"):
            value, optional = getattr(self, name), name == "max_thought_tokens"
            if isinstance(value, float) and value.is_integer():
                object.__setattr__(self, name, int(value))
            elif not isinstance(value, SupportsIndex) and not (value is None and optional):
                raise UserError(f"{name} must be a whole number, got {value}")
        bounds = {  # name: (least, most), as OpenAI and vLLM have them
            "temperature": (0.0, math.inf),
            "seed": (-(2**63), 2**63 - 1),
            "top_p": (math.ulp(0.0), 1.0),
            "top_k": (0, math.inf),
            "min_p": (0.0, 1.0),
            "repetition_penalty": (math.ulp(0.0), math.inf),
            "presence_penalty": (-2.0, 2.0),
            "frequency_penalty": (-2.0, 2.0),
        }
        for name, (low, high) in bounds.items():
            if not low <= (value := getattr(self, name)) <= high or value == math.inf:
                least = "over 0" if 0 < low < 1e-9 else f"{low:g} or more"
                most = f", {high:g} or less" if high < math.inf else ""
                raise UserError(f"{name} must be {least}{most}, got {value}")


@dataclass(frozen=True)
class Cost:
    """What an answer cost.

    Attributes:
        visual_tokens: visual tokens that entered the context.
        patches: patches the vision encoder computed (images whose features are cached cost none).
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


@dataclass(frozen=True)
class Scores:
    """Log-probabilities of each token of each continuation, and what they cost."""

    logprobs: tuple[tuple[float, ...], ...]
    cost: Cost = Cost()


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

    @property
    def speaks(self) -> bool:
        """Whether there is text outside of thoughts, calls and tags; most replies have some."""
        texts = (p.text for p in self.message.parts if isinstance(p, Text))
        return any(_TAG.sub("", text).strip() for text in texts)
