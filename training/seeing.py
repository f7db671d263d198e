"""What a model in training sees: pictures encoded anew each time, or once where the tower rests."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from mm.encoding import encode_all, encode_each, join
from mm.kept import Kept
from mm.tokens import ImageSpan

if TYPE_CHECKING:
    from torch import Tensor

See = Callable[[Any, Sequence[ImageSpan]], Mapping[str, Any]]
"""From a model and the pictures of a batch, in order, to what `model(**...)` takes for them."""

Seen = tuple[Any, "Tensor | None"]
"""One picture's features, and its grid where positions are counted from it."""

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
        self._kept: Kept[str, Seen] = Kept(budget)

    def __call__(self, model: Any, pictures: Sequence[ImageSpan]) -> dict[str, Any]:
        import torch

        seen = self._seen(model, {span.key: span for span in pictures})
        ordered = [seen[span.key] for span in pictures]
        found: dict[str, Any] = {"mm_encoder_outputs": {"image": join([out for out, _ in ordered])}}
        if ordered[0][1] is not None:
            found[_GRID] = torch.cat([grid for _, grid in ordered if grid is not None])
        return found

    def _seen(self, model: Any, spans: Mapping[str, ImageSpan]) -> dict[str, Seen]:
        import torch

        found = {key: kept for key in spans if (kept := self._kept.get(key)) is not None}
        new = [key for key in spans if key not in found]
        if new:
            tensors = [spans[key].tensors for key in new]
            # in the weights' own precision: in bfloat16 it would matter who is encoded with whom
            with torch.no_grad(), torch.autocast(model.device.type, enabled=False):
                outputs = encode_each(model, tensors)
            for key, output, each in zip(new, outputs, tensors, strict=True):
                grid = each[_GRID].to(model.device) if _GRID in each else None
                found[key] = (output, grid)
                self._kept.put(key, (output, grid), _size(output))
        return found


def _size(output: Any) -> int:
    def count(value: Any) -> int:
        if hasattr(value, "nbytes"):
            return value.nbytes
        return sum(map(count, value)) if isinstance(value, list | tuple) else 0

    return sum(map(count, output.values()))
