"""The one token builder: messages to ids, images and training mask, for inference and training.

A conversation is rendered turn by turn, so a longer one begins with the ids of the shorter one and
a cache of them stays valid. Text that a model wrote keeps the ids it wrote it with.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import groupby
from typing import Any, cast

from mm.families.chat_templates import ChatTemplate
from mm.families.image_budgets import ImageBudgets
from mm.families.image_layouts import Grid
from mm.families.registry import Family, traits_of
from mm.geometry import Size
from mm.markup import parse_parts, render_parts
from mm.types import Features, Image, ImageKind, Latents, Message, Part, Visual
from mm.vlm import Traits

from .image_processing import ImageProcessing
from .processor_parts import ids_of
from .sequence import Tokens
from .tokenizer import After, Piece, SafeTokenizer
from .turn_grouping import Numbered, grouped, observed, system_text


class TokenWriter:
    """Collects ids; a text is tokenised only once the text next to it is known."""

    def __init__(self, tokenizer: SafeTokenizer, first: Sequence[int]) -> None:
        self.ids: list[int] = [*first]
        self.trained: list[bool] = [False] * len(first)
        self.after: After = "start"
        self._tokenizer = tokenizer
        self._waiting: list[Piece] = []

    def write(self, pieces: Iterable[Piece]) -> None:
        """Add text and special tokens, to be tokenized together at the next `flush`."""
        self._waiting += pieces

    def flush(self) -> None:
        """Tokenize the collected text; it does not train."""
        pieces = tuple(p for p in self._waiting if p != "")
        self._waiting = []
        self._put(self._tokenizer.encode(pieces, self.after), trained=False)
        if pieces:
            self.after = "token" if isinstance(pieces[-1], int) else "text"

    def add(self, ids: Sequence[int], *, trained: bool) -> None:
        """Ids that the assistant wrote."""
        self._put(ids, trained=trained)
        if ids:
            self.after = "text" if ids[-1] not in self._tokenizer.special_ids else "token"

    def _put(self, ids: Sequence[int], *, trained: bool) -> None:
        self.ids += ids
        self.trained += [trained] * len(ids)


class TokenBuilder:
    """Builds tokens for one checkpoint of a listed family; safe to use from several threads.

    Attributes:
        end_ids: ids that end the assistant's turn.
        banned_ids: placeholders and image markers, which sampling must never emit.
        placeholder_id: the id that each visual token replaces.
        positions: the longest context, in tokens, that the model's positions reach; None where its
            config does not say.
    """

    def __init__(
        self,
        family: Family,
        *,
        config: Any,
        tokenizer: Any,
        image_processor: Any,
        template: ChatTemplate | None = None,
        traits: Traits | None = None,
        end_ids: Iterable[int] = (),
        safe_tokenizer: SafeTokenizer | None = None,
        budgets: ImageBudgets = ImageBudgets(),
    ) -> None:
        self.family = family
        self.tokenizer = tokenizer
        self.image_processor = image_processor
        self.positions = positions_of(config)
        self.template = template or family.templates[0]
        self._opens_thought = self.template.opens_thought
        self.traits = traits or traits_of(family, config)
        self.safe_tokenizer = safe_tokenizer or SafeTokenizer(
            tokenizer, family.placeholder, family.markers
        )
        ids = self.safe_tokenizer.ids
        self.placeholder_id = ids[family.placeholder]
        self.banned_ids = frozenset(
            {self.placeholder_id, *(ids[m] for m in family.markers if m in ids)}
        )
        self.image_processing = ImageProcessing(
            family, config, image_processor, self.traits.memory, budgets
        )
        self._split = self.safe_tokenizer.split_special
        self._close = self._split(self.template.assistant[1])
        self._end_id = _end_of(self._close, self.template)
        self.end_ids = frozenset({self._end_id, *ids_of(tokenizer.eos_token_id), *end_ids})
        self._begin = self._split(self.template.begin)
        self._first = _first_of(tokenizer, self._begin)

    def build(
        self,
        conversation: Sequence[Message],
        *,
        open_turn: bool = True,
        exclude: frozenset[int] = frozenset(),
    ) -> Tokens:
        """The ids, images and training mask of `conversation`.

        Args:
            open_turn: end where the assistant goes on: after the generation prompt, or, where the
                last message is the assistant's, inside its turn. Else every turn is closed.
            exclude: indices of messages that do not train although the assistant wrote them.

        Raises:
            ValueError: an image is too narrow for the processor, or a message's own tokens hold
                placeholders.
        """
        writer = TokenWriter(self.safe_tokenizer, self._first)
        writer.write(self._begin)
        turns = grouped(conversation, alternates=self.template.alternates)
        if self.template.default_system and not (turns and turns[0][0] == "system"):
            turns.insert(0, ("system", [(-1, Message("system", ()))]))
        prefix: list[Piece] = []
        for index, (role, messages) in enumerate(turns):
            if role == "assistant":
                last = index == len(turns) - 1
                self._assistant(writer, messages, exclude, closed=not (last and open_turn))
            elif role == "system" and self.template.system is None:
                prefix += [*self._system(messages), "\n\n"]
            else:
                writer.write(self._turn(role, messages, prefix))
                prefix = []
        if prefix:
            writer.write(self._turn("user", [], prefix))
        if open_turn and not (turns and turns[-1][0] == "assistant"):
            writer.write(self._split(self.template.assistant[0]))
        writer.flush()
        spans = self.image_processing.spans(writer.ids, self.placeholder_id, conversation)
        return Tokens(tuple(writer.ids), spans, tuple(writer.trained))

    def continuation(self, text: str, *, begins: bool = True) -> tuple[int, ...]:
        """The ids of `text` as the assistant's next, and of its turn's end.

        `begins`: nothing stands in its turn yet.
        """
        header = self._split(self.template.user[1] + self.template.assistant[0])
        after: After = "token" if begins and isinstance(header[-1], int) else "text"
        text = self._begun(text) if begins else text
        return (*self.safe_tokenizer.encode((text,), after), self._end_id)

    def parse(self, ids: Sequence[int], *, begins: bool = False) -> tuple[Part, ...]:
        """What a model wrote, as parts; a malformed tool call stays text.

        `begins`: nothing stood in its turn, so it goes on with a thought that the template opened.
        """
        text = self.decode(ids).removeprefix(self.template.lead)
        opened = begins and self._opens_thought and not text.startswith("<think>")
        return parse_parts("<think>" + text if opened else text)

    def decode(self, ids: Sequence[int]) -> str:
        """The text of `ids`, end tokens left out."""
        return self.safe_tokenizer.decode([i for i in ids if i not in self.end_ids])

    def seen_size(self, size: Size, kind: ImageKind = "overview") -> Size:
        """The size, in pixels, that an image of `size` has for the model."""
        return self.image_processing.layout(size, kind).seen

    def visual_tokens(self, size: Size, kind: ImageKind = "overview") -> int:
        """How many placeholders an image of `size` takes."""
        return self.image_processing.layout(size, kind).tokens

    def feature_tokens(self, features: Features) -> int:
        """How many placeholders `features` take.

        Raises:
            ValueError: the family remembers no images.
        """
        return self.image_processing.footprint(features).tokens

    def grid(self, size: Size, kind: ImageKind = "overview") -> Grid:
        """Which placeholders of an image of `size` cover the whole of it."""
        return self.image_processing.layout(size, kind).grid

    def _turn(self, role: str, messages: Sequence[Numbered], prefix: list[Piece]) -> list[Piece]:
        """A whole turn of the user's or the system's."""
        if role == "system":
            before, after = self.template.system or self.template.user
            body = self._system(messages)
        else:
            before, after = self.template.user
            body = self._said(messages)
        gap = "" if not prefix and _begins_with_image(messages) else self.template.gap
        return [*self._split(before), gap, *prefix, *body, *self._split(after)]

    def _system(self, messages: Sequence[Numbered]) -> list[Piece]:
        said = [message for _, message in messages]
        images = [p for m in said for image in m.images for p in self._visual(image)]
        text = system_text(said, self.template.default_system)
        return [*images, self.template.before_text, text]

    def _said(self, messages: Sequence[Numbered]) -> list[Piece]:
        """What the user and the tools said, messages apart by a line."""
        pieces: list[Piece] = []
        for _, message in messages:
            pieces += ["\n"] if pieces else []
            pieces += self._parts(observed(message))
        return pieces

    def _parts(self, message: Message) -> list[Piece]:
        parts = list(message.parts)
        if self.template.images_first:
            parts.sort(key=lambda part: not isinstance(part, Image | Features))
        pieces: list[Piece] = []
        for part in parts:
            pieces += self._visual(part) if isinstance(part, Visual) else [self._text(part)]
        return pieces

    def _text(self, part: Part) -> str:
        text = render_parts([part])
        return self.template.before_text + (text.strip() if self.template.strips else text)

    def _visual(self, visual: Visual) -> list[Piece]:
        """Placeholders, with the text and the markers around and between them."""
        before, after = ("", "") if isinstance(visual, Latents) else self.template.image
        pieces: list[Piece] = []
        for run in (before, *self.image_processing.footprint(visual).runs, after):
            pieces += self._split(run) if isinstance(run, str) else [self.placeholder_id] * run
        return pieces

    def _assistant(
        self,
        writer: TokenWriter,
        messages: Sequence[Numbered],
        exclude: frozenset[int],
        *,
        closed: bool,
    ) -> None:
        writer.write(self._split(self.template.assistant[0]))
        writer.flush()
        for place, (index, message) in enumerate(messages):
            last = closed and place == len(messages) - 1
            trained = index not in exclude
            if message.tokens is None:
                self._rendered(writer, message, begins=place == 0, trained=trained)
                writer.add((self._end_id,) if last else (), trained=trained)
            else:
                self._generated(writer, message.tokens, last=last, trained=trained)
        if closed:
            writer.write(self._close[self._close.index(self._end_id) + 1 :])

    def _generated(
        self, writer: TokenWriter, tokens: tuple[int, ...], *, last: bool, trained: bool
    ) -> None:
        """Tokens as a model wrote them; their end stays only where the turn ends."""
        ended = bool(tokens) and tokens[-1] in self.end_ids
        writer.add(tokens[:-1] if ended and not last else tokens, trained=trained)
        if last and not ended:
            writer.add((self._end_id,), trained=False)  # the model did not write it

    def _rendered(
        self, writer: TokenWriter, message: Message, *, begins: bool, trained: bool
    ) -> None:
        """Text as if the model had written it, and the images between, which never train."""
        for visual, run in groupby(message.parts, key=lambda p: isinstance(p, Visual)):
            if visual:
                for part in run:
                    writer.write(self._visual(cast(Visual, part)))
                writer.flush()
            else:
                text = render_parts(tuple(run))
                text = self._begun(text) if begins else text
                writer.add(self.safe_tokenizer.encode((text,), writer.after), trained=trained)
                begins = False

    def _begun(self, text: str) -> str:
        """A turn's first text, as it goes on from the turn's header."""
        if not self._opens_thought:
            return self.template.lead + text
        if not text.startswith("<think>"):
            return "</think>" + text
        return text.removeprefix("<think>").removeprefix("\n")  # the header has that break too


def positions_of(config: Any) -> int | None:
    """The longest context, in tokens, that a model's positions reach; None where its config is
    silent.

    Rotary positions may be stretched (YaRN): the config's number can be the one before.
    """
    text = config.get_text_config() if hasattr(config, "get_text_config") else config
    limit = getattr(text, "max_position_embeddings", None)
    rope = getattr(text, "rope_parameters", None) or {}
    before, factor = rope.get("original_max_position_embeddings"), rope.get("factor")
    return max(limit, int(before * factor)) if limit and before and factor else limit


def _first_of(tokenizer: Any, begin: Sequence[Piece]) -> tuple[int, ...]:
    """The token that the tokenizer itself puts first, unless the template does."""
    bos = tokenizer.bos_token_id
    if bos is None or bos in begin or tokenizer("a").input_ids[0] != bos:
        return ()
    return (bos,)


def _end_of(close: Sequence[Piece], template: ChatTemplate) -> int:
    ends = [piece for piece in close if isinstance(piece, int)]
    if not ends:
        raise ValueError(f"the tokenizer has no token that ends a turn: {template.assistant[1]!r}")
    return ends[0]


def _begins_with_image(messages: Sequence[Numbered]) -> bool:
    if not messages or messages[0][1].role == "tool":
        return False
    parts = messages[0][1].parts
    return bool(parts) and isinstance(parts[0], Image)
