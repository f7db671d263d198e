"""Conversations as the tensors that a model of an unlisted family takes."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from itertools import islice
from typing import TYPE_CHECKING, Any

from mm.types import Conversation, Message, assistant, user

from .chat_messages import FORMS, ChatMessages, Json, bared, lost, shape

if TYPE_CHECKING:
    from torch import Tensor

_OPEN, _CLOSE = "<think>", "</think>"
_CLOSING = f"\n{_CLOSE}\n\n"  # as Qwen3.5's template ends a thought that it leaves empty
_WORD = "Yes"
_CONTEXT = 64  # characters before a text that decide how it is tokenised, and many more
_SHAPES = 256  # of conversations, whose forms are remembered


@dataclass(frozen=True)
class GenericPrompt:
    """What a model goes on from.

    Attributes:
        inputs: what its processor makes of the conversation, and the ids of the assistant's turn so
            far.
        begins: nothing stands in the assistant's turn yet.
        text: what the prompt ends with.
    """

    inputs: dict[str, Tensor]
    begins: bool
    text: str

    @property
    def length(self) -> int:
        """In tokens."""
        return self.inputs["input_ids"].shape[1]

    @property
    def opens_thought(self) -> bool:
        """Whether the template opened a thought, which the reply goes on with."""
        return self.begins and _opens(self.text)

    def followed_by(self, ids: Sequence[int]) -> dict[str, Tensor]:
        """The inputs with more tokens of the assistant's."""
        return _extended(self.inputs, ids)


class GenericPrompts:
    """Puts conversations to one processor.

    An assistant's turn that is left open is no business of its chat template, which may write it
    anew: what the model wrote stands behind the generation prompt as it was written.
    """

    def __init__(self, processor: Any, *, native_tools: bool, end_ids: frozenset[int]) -> None:
        self._processor = processor
        self._tokenizer = processor.tokenizer
        self._end_ids = end_ids
        self._chat = ChatMessages(_controls(processor), native_tools)
        self._understood: dict[tuple[str, str], int] = {}

    def of(self, conversation: Conversation, *, answers: bool = False) -> GenericPrompt:
        """What the next words follow; `answers`: they are no thought, so one that the template
        opens is closed. An error is whatever the template or the processor raises."""
        said, turn = _open_turn(conversation)
        if answers and not turn and _CLOSE in self.start:
            turn = (assistant(""),)
        if any(message.images for message in turn):  # only the template can place them
            return self._prompt(conversation, (), goes_on=True)
        return self._prompt(said, turn, goes_on=False)

    @cached_property
    def start(self) -> str:
        """What the template writes between its generation prompt and an assistant's first words:
        nothing, a blank, or the end of a thought that it opened."""
        try:
            prompt, _ = self._rendered((user("?"),), goes_on=False)
            whole, _ = self._rendered((user("?"), assistant(_WORD)), closed=True)
        except Exception:  # it wants more than a question
            return ""
        gap = whole[len(prompt) :].partition(_WORD)[0] if whole.startswith(prompt) else ""
        if _opens(prompt):
            return gap if gap.strip() == _CLOSE else _CLOSING
        return gap if gap.isspace() else ""

    def ids_after(self, before: str, text: str) -> list[int]:
        """The ids of `text` where it follows `before`: some tokenizers put a blank before a text
        that stands alone."""
        first, both = (self._ids(before[-_CONTEXT:] + more) for more in ("", text))
        return both[len(first) :] if both[: len(first)] == first else self._ids(text)

    def _ids(self, text: str) -> list[int]:
        return list(self._tokenizer(text, add_special_tokens=False).input_ids)

    def _prompt(
        self, said: Conversation, turn: Sequence[Message], *, goes_on: bool
    ) -> GenericPrompt:
        text, asked = self._rendered(said, goes_on=goes_on)
        made = self._processor.apply_chat_template(
            **asked, tokenize=True, return_dict=True, return_tensors="pt"
        )
        ids: list[int] = []
        for place, message in enumerate(turn):
            more = self._written(message, text, begins=place == 0)
            ids += more
            text = (text + self._tokenizer.decode(more))[-_CONTEXT:]
        return GenericPrompt(_extended(made, ids), not (turn or goes_on), text)

    def _written(self, message: Message, before: str, *, begins: bool) -> list[int]:
        """The ids of a message of the assistant's, in a turn that goes on behind it."""
        if message.tokens is not None:
            ended = message.tokens[-1:] and message.tokens[-1] in self._end_ids
            return [*(message.tokens[:-1] if ended else message.tokens)]
        text = self._chat.spelt(message.parts)
        if begins and _opens(before) and text.startswith(_OPEN):
            text = text.removeprefix(_OPEN).removeprefix("\n" if before.endswith("\n") else "")
        elif begins:
            text = self.start + text
        return self.ids_after(before, text)

    def _rendered(
        self, conversation: Conversation, *, goes_on: bool = False, closed: bool = False
    ) -> tuple[str, Json]:
        """A conversation as text, and what the template is given for it.

        That is the first form in which all words of the conversation stand in the text; else the
        one in which most do.
        """
        options = {
            "tools": self._chat.tools(conversation),
            "add_generation_prompt": not (goes_on or closed),
            "continue_final_message": goes_on,
        }
        render = partial(self._processor.apply_chat_template, tokenize=False, **options)
        messages = self._chat.messages(conversation)
        asked = (shape(messages), repr(options))
        forms = self._forms(messages, conversation)
        if (at := self._understood.get(asked)) is not None:
            form = next(islice(forms, at, None))
        else:
            at, form = _understood(forms, render)
            if len(self._understood) >= _SHAPES:
                self._understood = {}
            self._understood[asked] = at
        return render(form), {"conversation": form, **options}

    def _forms(self, messages: list[Json], conversation: Conversation) -> Iterator[list[Json]]:
        """The messages in each form; then without a system's role, which some templates refuse.

        Each is made when it is asked for: the first is nearly always right.
        """
        made: list[list[Json]] = []
        for way in self._ways(messages, conversation):
            for bare in FORMS:
                form = bared(way, bare)
                if form and form not in made:
                    made.append(form)
                    yield form

    def _ways(self, messages: list[Json], conversation: Conversation) -> Iterator[list[Json]]:
        yield messages
        if (folded := self._chat.folded(conversation)) is not conversation:
            yield self._chat.messages(folded)


def _understood(
    forms: Iterable[list[Json]], render: Callable[[list[Json]], str]
) -> tuple[int, list[Json]]:
    """The first of `forms` of which a template loses least, and its place among them. An error is
    what it raises for all."""
    refused: Exception = ValueError("there is nothing to answer")
    losses: list[tuple[int, int]] = []
    tried: list[list[Json]] = []
    for at, form in enumerate(forms):
        tried.append(form)
        try:
            losses.append((lost(form, render), at))
        except Exception as error:  # a template's author may raise anything
            refused = error
            continue
        if losses[-1][0] == 0:
            break
    if not losses:
        raise refused
    at = min(losses)[1]
    return at, tried[at]


def _open_turn(conversation: Conversation) -> tuple[Conversation, Conversation]:
    """What was said, and the assistant's messages at the end."""
    said = tuple(conversation)
    at = len(said)
    while at and said[at - 1].role == "assistant":
        at -= 1
    return said[:at], said[at:]


def _opens(text: str) -> bool:
    return text.rstrip().endswith(_OPEN)


def _extended(inputs: Mapping[str, Tensor], ids: Sequence[int]) -> dict[str, Tensor]:
    """What the processor gave for a prompt, for `ids` more."""
    asked = inputs["input_ids"].shape[1]
    by_token = {k for k, v in inputs.items() if v.shape[:2] == (1, asked) and "pixel" not in k}
    return {k: _longer(k, v, ids) if k in by_token else v for k, v in inputs.items()}


def _longer(key: str, value: Tensor, ids: Sequence[int]) -> Tensor:
    """One row for each token (1, T, ...), with `ids` behind them."""
    import torch

    if key == "input_ids":
        more = value.new_tensor([ids])
    elif value.dim() > 2:  # which images a token sees: all before it, as the last one does
        more = value[:, -1:].repeat_interleave(len(ids), 1)
    else:
        more = value.new_full((1, len(ids)), 1 if key == "attention_mask" else 0)
    return torch.cat([value, more], 1)


def _controls(processor: Any) -> re.Pattern[str]:
    """Spellings that the tokenizer or the processor would take for special tokens."""
    added = processor.tokenizer.added_tokens_decoder.values()
    names = {str(token) for token in added if token.special}
    names |= {t for k in ("image", "video", "audio") if (t := getattr(processor, f"{k}_token", ""))}
    return re.compile("|".join(sorted(map(re.escape, names), key=len, reverse=True)) or r"(?!)")
