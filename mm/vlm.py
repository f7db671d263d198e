"""What the rest of the code needs from a model, and nothing more."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from .geometry import BoxFormat, Size
from .types import Conversation, Generation, Sampling

OnToken = Callable[[str], None]
Cancelled = Callable[[], bool]
CropRule = Literal["vlm_r3", "square"]


class ModelError(RuntimeError):
    """A model could not answer; `run` records it on the trace. The message is for people."""


class ModelUnavailable(ModelError):
    """A model could not be loaded: missing, gated, offline or too large. It says the remedy."""


@dataclass(frozen=True)
class Traits:
    """How a model wants to be used.

    Attributes:
        box_format: how it writes boxes.
        crop_rule: which crop it was trained on ("vlm_r3" unless its config names another).
        calls_tools: whether it writes tool calls when a tool is on offer; else `zoom` asks where,
            then crops.
    """

    box_format: BoxFormat = BoxFormat()
    crop_rule: CropRule = "vlm_r3"
    calls_tools: bool = True


class VLM(Protocol):
    """A conversation goes in, a generation comes out; reuse between calls is the model's business.

    A conversation that ends with an assistant message leaves that turn open: the model goes on
    writing it.
    """

    name: str
    traits: Traits

    def generate(
        self,
        conversations: Sequence[Conversation],
        sampling: Sampling,
        *,
        on_token: OnToken | None = None,
        cancel: Cancelled | None = None,
    ) -> list[Generation]:
        """One reply per conversation.

        Args:
            on_token: called with each new piece of text; only with a single conversation.
            cancel: asked between tokens; True ends the replies with finish "cancelled".

        Raises:
            ModelError: the model failed, or cannot take what it was given.
        """
        ...

    def score(self, conversation: Conversation, continuations: Sequence[str]) -> list[list[float]]:
        """Log-probabilities of each continuation's tokens as the assistant's next words.

        Its end token is included.
        """
        ...

    def seen_size(self, size: Size) -> Size:
        """What the processor makes of an image of `size`."""
        ...

    def visual_tokens(self, size: Size) -> int:
        """What an image of `size` costs in the context."""
        ...
