"""The one token builder: messages to ids, pictures and training mask, for inference and training.

A conversation is rendered turn by turn, so a longer one begins with the ids of the shorter one and
a cache of them stays good. Words that a model wrote keep the ids it wrote them with.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import partial
from itertools import groupby
from typing import Any, cast

from mm.families.chat_templates import ChatTemplate
from mm.families.image_layouts import Grid
from mm.families.registry import Family, traits_of
from mm.geometry import Size
from mm.markup import parse_parts, render_parts
from mm.types import Features, Image, Message, Part
from mm.vlm import Traits

from .image_processing import Pictures
from .processor_parts import ids_of
from .sequence import ImageSpan, Tokens
from .tokenizer import After, Piece, SafeTokenizer, TokenWriter
from .turn_grouping import Numbered, grouped, observed, system_text


class TokenBuilder:
    """Builds tokens for one checkpoint of a listed family; safe to use from several threads.

    Attributes:
        end_ids: ids that end the assistant's turn.
        banned_ids: placeholders and picture markers, which sampling must never emit.
        placeholder_id: the id that each visual token replaces.
    """

    def __init__(
        self,
        family: Family,
        *,
        config: Any,
        tokenizer: Any,
        image_processor: Any,
        turns: ChatTemplate | None = None,
        traits: Traits | None = None,
        end_ids: Iterable[int] = (),
        words: SafeTokenizer | None = None,
    ) -> None:
        self.family = family
        self.tokenizer = tokenizer
        self.image_processor = image_processor
        self.turns = turns or family.turns[0]
        self.traits = traits or traits_of(family, config)
        self.words = words or SafeTokenizer(tokenizer, family.placeholder, family.markers)
        self.placeholder_id = self.words.ids[family.placeholder]
        marked = (i for m in family.markers if (i := self.words.ids.get(m)) is not None)
        self.banned_ids = frozenset({self.placeholder_id, *marked})
        self._pictures = Pictures(family, config, image_processor, self.traits.memory)
        self._close = self.words.marks(self.turns.assistant[1])
        self._end_id = _end_of(self._close, self.turns)
        self.end_ids = frozenset({self._end_id, *ids_of(tokenizer.eos_token_id), *end_ids})
        self._begin = self.words.marks(self.turns.begin)
        self._first = _first_of(tokenizer, self._begin)

    def build(
        self,
        conversation: Sequence[Message],
        *,
        open_turn: bool = True,
        exclude: frozenset[int] = frozenset(),
    ) -> Tokens:
        """The ids, pictures and training mask of `conversation`.

        Args:
            open_turn: end where the assistant goes on: after the generation prompt, or, where the
                last message is the assistant's, inside its turn. Else every turn is closed.
            exclude: indices of messages that do not train although the assistant wrote them.

        Raises:
            ValueError: a picture is too narrow for the processor, or a message's own tokens hold
                placeholders.
        """
        page = TokenWriter(self.words, self._first)
        page.write(self._begin)
        turns = grouped(conversation, alternates=self.turns.alternates)
        if self.turns.default_system and not (turns and turns[0][0] == "system"):
            turns.insert(0, ("system", [(-1, Message("system", ()))]))
        prefix: list[Piece] = []
        for index, (role, messages) in enumerate(turns):
            if role == "assistant":
                last = index == len(turns) - 1
                self._assistant(page, messages, exclude, closed=not (last and open_turn))
            elif role == "system" and self.turns.system is None:
                prefix += [*self._system(messages), "\n\n"]
            else:
                page.write(self._turn(role, messages, prefix))
                prefix = []
        if prefix:
            page.write(self._turn("user", [], prefix))
        if open_turn and not (turns and turns[-1][0] == "assistant"):
            page.write(self.words.marks(self.turns.assistant[0]))
        page.flush()
        return Tokens(tuple(page.ids), self._spans(page.ids, conversation), tuple(page.trained))

    def continuation(self, text: str, *, begins: bool = True) -> tuple[int, ...]:
        """The ids of the assistant's next words and of its turn's end.

        `begins`: its turn has no words yet.
        """
        header = self.words.marks(self.turns.user[1] + self.turns.assistant[0])
        after: After = "token" if begins and isinstance(header[-1], int) else "words"
        text = self._begun(text) if begins else text
        return (*self.words.encode((text,), after), self._end_id)

    def parse(self, ids: Sequence[int]) -> tuple[Part, ...]:
        """What a model wrote, as parts; a malformed tool call stays text."""
        text = self.decode(ids)
        return parse_parts(text.removeprefix(self.turns.lead))

    def decode(self, ids: Sequence[int]) -> str:
        """The words of `ids`, end tokens left out."""
        return self.words.decode([i for i in ids if i not in self.end_ids])

    def seen_size(self, size: Size) -> Size:
        """The size, in pixels, that a picture of `size` has for the model."""
        return self._pictures.layout(size).seen

    def visual_tokens(self, size: Size) -> int:
        """How many placeholders a picture of `size` takes."""
        return self._pictures.layout(size).marks.count(self.family.placeholder)

    def feature_tokens(self, features: Features) -> int:
        """How many placeholders `features` take.

        Raises:
            ValueError: the family remembers no pictures.
        """
        columns, rows = self._pictures.block(features).shape
        return columns * rows

    def grid(self, size: Size) -> Grid:
        """Which placeholders of a picture of `size` cover the whole of it."""
        return self._pictures.layout(size).grid

    def _turn(self, role: str, messages: Sequence[Numbered], prefix: list[Piece]) -> list[Piece]:
        """A whole turn of the user's or the system's."""
        if role == "system":
            before, after = self.turns.system or self.turns.user
            body = self._system(messages)
        else:
            before, after = self.turns.user
            body = self._said(messages)
        gap = "" if not prefix and _begins_with_picture(messages) else self.turns.gap
        return [*self.words.marks(before), gap, *prefix, *body, *self.words.marks(after)]

    def _system(self, messages: Sequence[Numbered]) -> list[Piece]:
        said = [message for _, message in messages]
        pictures = [p for m in said for image in m.images for p in self._picture(image)]
        text = system_text(said, self.turns.default_system)
        return [*pictures, self.turns.before_text, text]

    def _said(self, messages: Sequence[Numbered]) -> list[Piece]:
        """What the user and the tools said, messages apart by a line."""
        pieces: list[Piece] = []
        for _, message in messages:
            pieces += ["\n"] if pieces else []
            pieces += self._parts(observed(message))
        return pieces

    def _parts(self, message: Message) -> list[Piece]:
        parts = list(message.parts)
        if self.turns.pictures_first:
            parts.sort(key=lambda part: not isinstance(part, Image | Features))
        pieces: list[Piece] = []
        for part in parts:
            seen = isinstance(part, Image | Features)
            pieces += self._picture(part) if seen else [self._text(part)]
        return pieces

    def _text(self, part: Part) -> str:
        text = render_parts([part])
        return self.turns.before_text + (text.strip() if self.turns.strips else text)

    def _picture(self, seen: Image | Features) -> list[Piece]:
        before, after = self.turns.picture
        if isinstance(seen, Image):
            return list(self.words.marks(before + self._pictures.layout(seen.size).marks + after))
        slots = [self.placeholder_id] * self.feature_tokens(seen)
        return [*self.words.marks(before), *slots, *self.words.marks(after)]

    def _assistant(
        self,
        page: TokenWriter,
        messages: Sequence[Numbered],
        exclude: frozenset[int],
        *,
        closed: bool,
    ) -> None:
        page.write(self.words.marks(self.turns.assistant[0]))
        page.flush()
        for place, (index, message) in enumerate(messages):
            last = closed and place == len(messages) - 1
            trained = index not in exclude
            if message.tokens is None:
                self._rendered(page, message, begins=place == 0, trained=trained)
                page.add((self._end_id,) if last else (), trained=trained)
            else:
                self._generated(page, message.tokens, last=last, trained=trained)
        if closed:
            page.write(self._close[self._close.index(self._end_id) + 1 :])

    def _generated(
        self, page: TokenWriter, tokens: tuple[int, ...], *, last: bool, trained: bool
    ) -> None:
        """Tokens as a model wrote them; their end stays only where the turn ends."""
        ended = bool(tokens) and tokens[-1] in self.end_ids
        page.add(tokens[:-1] if ended and not last else tokens, trained=trained)
        if last and not ended:
            page.add((self._end_id,), trained=False)  # the model did not write it

    def _rendered(
        self, page: TokenWriter, message: Message, *, begins: bool, trained: bool
    ) -> None:
        """Words as if the model had written them, and the pictures between, which never train."""
        for seen, run in groupby(message.parts, key=lambda p: isinstance(p, Image | Features)):
            if seen:
                for part in run:
                    page.write(self._picture(cast(Image | Features, part)))
                page.flush()
            else:
                text = render_parts(tuple(run))
                text = self._begun(text) if begins else text
                page.add(self.words.encode((text,), page.after), trained=trained)
                begins = False

    def _begun(self, text: str) -> str:
        """A turn's first words, as they go on from its header."""
        if not self.turns.assistant[0].endswith("<think>\n"):
            return self.turns.lead + text
        return text.removeprefix("<think>") if text.startswith("<think>") else "</think>" + text

    def _count(self, seen: Image | Features) -> int:
        if isinstance(seen, Image):
            return self.visual_tokens(seen.size)
        return self.feature_tokens(seen)

    def _spans(self, ids: Sequence[int], conversation: Sequence[Message]) -> tuple[ImageSpan, ...]:
        places = [at for at, id in enumerate(ids) if id == self.placeholder_id]
        spans: list[ImageSpan] = []
        at = 0
        for seen in (s for message in conversation for s in message.seen):
            if isinstance(seen, Image):
                block, shape = None, self._pictures.cells(seen.size)
            else:
                block = self._pictures.block(seen)
                shape = block.shape
            mine = places[at : (at := at + self._count(seen))]
            patches, process = self._pictures.patches(seen), partial(self._pictures.tensors, seen)
            spans.append(ImageSpan(seen, mine[0], mine[-1] + 1, process, patches, shape, block))
        if at != len(places):
            raise ValueError(
                f"{len(places)} placeholders for pictures that take {at}: "
                "a message's own tokens hold some"
            )
        return tuple(spans)


def _first_of(tokenizer: Any, begin: Sequence[Piece]) -> tuple[int, ...]:
    """The token that the tokenizer itself puts first, unless the template does."""
    bos = tokenizer.bos_token_id
    if bos is None or bos in begin or tokenizer("a").input_ids[0] != bos:
        return ()
    return (bos,)


def _end_of(close: Sequence[Piece], turns: ChatTemplate) -> int:
    ends = [piece for piece in close if isinstance(piece, int)]
    if not ends:
        raise ValueError(f"the tokenizer has no token that ends a turn: {turns.assistant[1]!r}")
    return ends[0]


def _begins_with_picture(messages: Sequence[Numbered]) -> bool:
    if not messages or messages[0][1].role == "tool":
        return False
    parts = messages[0][1].parts
    return bool(parts) and isinstance(parts[0], Image)
