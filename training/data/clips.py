"""A row's clips, and their frames as a model is shown them."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from mm.types import Clip, Conversation
from video.context import Showing, with_frames

if TYPE_CHECKING:
    from mm.tokens.builder import TokenBuilder


def clipped(messages: Conversation, clips: list[Clip]) -> Conversation:
    """`messages` with `clips` before what the user says first.

    Raises:
        ValueError: no user speaks.
    """
    at = next((i for i, m in enumerate(messages) if m.role == "user"), None)
    if at is None:
        raise ValueError("expected a user message for the row's clips, found none")
    first = replace(messages[at], parts=(*clips, *messages[at].parts))
    return (*messages[:at], first, *messages[at + 1 :])


AS_UNIFORM = Showing()
"""How many frames of a clip rows show: as many as the strategy `uniform` does."""


def shown_frames(
    builder: TokenBuilder, conversation: Conversation, *, showing: Showing = AS_UNIFORM
) -> Conversation:
    """`conversation` with frames in the place of its clips.

    Raises:
        BadVideo: a clip cannot be read.
    """
    return with_frames(conversation, showing=showing, tokens_of=builder.visual_tokens)
