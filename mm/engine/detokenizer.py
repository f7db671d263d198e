"""From tokens to the text a person reads as it comes."""

from __future__ import annotations

from collections.abc import Callable, Sequence


class StreamDetokenizer:
    """The text of a growing reply, in pieces that split no character; watches for stop strings."""

    def __init__(
        self,
        decode: Callable[[Sequence[int]], str],
        stop: Sequence[str] = (),
        on_text: Callable[[str], None] | None = None,
    ) -> None:
        self._decode = decode
        self._stop = stop
        self._on_text = on_text
        self._ids: list[int] = []
        # a token's text can depend on the one before it (spaces, bytes of one character), so each
        # piece is the difference between two decodings that start at the same place
        self._from = 0
        self._upto = 0
        self._tail = ""

    def push(self, id: int) -> bool:
        """Take the next token; True when the text now holds a stop string."""
        self._ids.append(id)
        if not (self._stop or self._on_text):
            return False
        piece = self._piece()
        return False if piece.endswith("\ufffd") else self._emit(piece)

    def end(self) -> None:
        """Emit what was held back as the start of an unfinished character."""
        if self._on_text and self._upto < len(self._ids):
            self._emit(self._piece())

    def _piece(self) -> str:
        known = self._decode(self._ids[self._from : self._upto])
        return self._decode(self._ids[self._from :])[len(known) :]

    def _emit(self, piece: str) -> bool:
        self._from, self._upto = self._upto, len(self._ids)
        if piece and self._on_text:
            self._on_text(piece)
        self._tail += piece
        found = any(s in self._tail for s in self._stop)
        longest = max(map(len, self._stop), default=0)
        self._tail = self._tail[-longest:] if longest else ""
        return found
