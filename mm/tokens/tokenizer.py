"""Text to ids and back; a special token comes from a template, never from a user's text."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import Any, Literal

Piece = int | str
"""A token's id, or text to tokenise."""

After = Literal["start", "token", "text"]
"""What stands before a text: nothing, a special token, or more text."""

_ANCHOR = "\n"  # a vocabulary in the manner of Llama's merges it with nothing


class SafeTokenizer:
    """A tokenizer's rules without its special tokens; safe to use from several threads.

    Args:
        tokenizer: a fast tokenizer of transformers.
        needed: a token that only templates write, though the tokenizer may not call it special.
        others: more of those, as far as the tokenizer knows them.

    Raises:
        ValueError: the tokenizer lacks `needed`.
    """

    def __init__(self, tokenizer: Any, needed: str, others: Sequence[str] = ()) -> None:
        from tokenizers import Tokenizer

        added = tokenizer.added_tokens_decoder.values()
        names = {str(token) for token in added if token.special} | {needed, *others}
        found = {name: tokenizer.convert_tokens_to_ids(name) for name in names}
        self.ids = {n: i for n, i in found.items() if i not in (None, tokenizer.unk_token_id)}
        if needed not in self.ids:
            raise ValueError(f"the tokenizer has no token {needed!r}, which its model needs")
        self.special_ids = frozenset(self.ids.values())
        longest_first = sorted(map(re.escape, self.ids), key=len, reverse=True)
        self._specials = re.compile("|".join(longest_first))
        self._rules = Tokenizer.from_str(tokenizer.backend_tokenizer.to_str())
        self._rules.no_truncation()
        self._rules.no_padding()
        self._spaced = self._prefixed_after(tokenizer.backend_tokenizer)
        self._rules.encode_special_tokens = True
        self.encode = lru_cache(4096)(self._encode)
        self.split_special = lru_cache(1024)(self._split_special)

    def _split_special(self, text: str) -> tuple[Piece, ...]:
        """A template's `text` with its special tokens as ids."""
        pieces: list[Piece] = []
        at = 0
        for found in self._specials.finditer(text):
            pieces += [text[at : found.start()], self.ids[found[0]]]
            at = found.end()
        return tuple(p for p in (*pieces, text[at:]) if p != "")

    def _encode(self, pieces: tuple[Piece, ...], after: After = "start") -> tuple[int, ...]:
        """The ids of `pieces`; texts that touch are tokenised as one.

        `after` says what stands before them, for vocabularies that put a space before a text.
        """
        ids: list[int] = []
        for piece in joined(pieces):
            if isinstance(piece, int):
                ids.append(piece)
                after = "token"
            else:
                ids += self._text(piece, after)
                after = "text"
        return tuple(ids)

    def decode(self, ids: Sequence[int]) -> str:
        """The text of `ids`, special tokens included."""
        return self._rules.decode(list(ids), skip_special_tokens=False)

    def _text(self, text: str, after: After) -> list[int]:
        ids = self._plain(text, after)
        if self.special_ids.isdisjoint(ids):
            return ids
        # a special token that its tokenizer does not call special: taken apart, it is text
        broken = self._specials.sub(lambda m: f"{m[0][0]}\0{m[0][1:]}", text).split("\0")
        contexts: list[After] = [after, *["text" for _ in broken[1:]]]
        return [i for t, c in zip(broken, contexts, strict=True) for i in self._plain(t, c)]

    def _plain(self, text: str, after: After) -> list[int]:
        if after in self._spaced:
            return self._raw(text)
        return self._raw(_ANCHOR + text)[len(self._raw(_ANCHOR)) :]

    def _raw(self, text: str) -> list[int]:
        return self._rules.encode(text, add_special_tokens=False).ids

    def _prefixed_after(self, backend: Any) -> frozenset[After]:
        """After what a text begins as one on its own does; elsewhere it needs an anchor before."""
        alone = self._raw("a")
        spaced: set[After] = {"start"}
        if self._raw(_ANCHOR + "a")[len(self._raw(_ANCHOR)) :] == alone:
            return frozenset({"start", "token", "text"})
        name = min(self.ids)
        if backend.encode(name + "a", add_special_tokens=False).ids[1:] == alone:
            spaced.add("token")
        return frozenset(spaced)


def joined(pieces: Iterable[Piece]) -> list[Piece]:
    """`pieces` with neighbouring texts joined."""
    merged: list[Piece] = []
    for piece in pieces:
        if isinstance(piece, str) and merged and isinstance(merged[-1], str):
            merged[-1] += piece
        elif piece != "":
            merged.append(piece)
    return merged
