"""What a model in training sees: pictures encoded anew each time, or once where the tower rests."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from mm.families import encode, encode_all, join
from mm.kept import Kept
from mm.tokens import ImageSpan

if TYPE_CHECKING:
    from torch import Tensor

See = Callable[[Any, Sequence[ImageSpan]], Mapping[str, Any]]
"""From a model and the pictures of a batch, in order, to what `model(**...)` takes for them."""

_GRID = "image_grid_thw"  # positions are counted from it


def see(model: Any, pictures: Sequence[ImageSpan]) -> dict[str, Any]:
    """Encode all of them, with gradients to the vision tower."""
    import torch

    tensors = [span.tensors for span in pictures]
    found: dict[str, Any] = {"mm_encoder_outputs": {"image": encode_all(model, tensors)}}
    if _GRID in tensors[0]:
        found[_GRID] = torch.cat([each[_GRID] for each in tensors]).to(model.device)
    return found


class SeenOnce:
    """Encodes a picture when it first comes, and keeps that: a tower that rests gives the same.

    Args:
        budget: bytes that may be kept.
    """

    def __init__(self, budget: int) -> None:
        self._kept: Kept[str, tuple[Any, Tensor | None]] = Kept(budget)

    def __call__(self, model: Any, pictures: Sequence[ImageSpan]) -> dict[str, Any]:
        import torch

        seen = [self._seen(model, span) for span in pictures]
        found: dict[str, Any] = {"mm_encoder_outputs": {"image": join([out for out, _ in seen])}}
        if seen[0][1] is not None:
            found[_GRID] = torch.cat([grid for _, grid in seen if grid is not None])
        return found

    def _seen(self, model: Any, span: ImageSpan) -> tuple[Any, Tensor | None]:
        import torch

        if (kept := self._kept.get(span.key)) is not None:
            return kept
        tensors = span.tensors
        with torch.no_grad():
            output = encode(model, tensors)
        output.last_hidden_state = None  # what the decoder does not take need not be kept
        grid = tensors[_GRID].to(model.device) if _GRID in tensors else None
        self._kept.put(span.key, (output, grid), _size(output))
        return output, grid


def _size(output: Any) -> int:
    def count(value: Any) -> int:
        if hasattr(value, "nbytes"):
            return value.nbytes
        return sum(map(count, value)) if isinstance(value, list | tuple) else 0

    return sum(map(count, output.values()))
