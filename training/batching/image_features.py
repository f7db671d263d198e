"""What a model in training sees: pictures encoded anew each time, or once where the tower rests."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from mm.engine.vision_encoder import encode_all, encode_each, join
from mm.families.registry import family_of
from mm.families.visual_memory import Block
from mm.lru_cache import LRUCache
from mm.tokens.sequence import ImageSpan

if TYPE_CHECKING:
    from torch import Tensor

See = Callable[[Any, Sequence[ImageSpan]], Mapping[str, Any]]
"""From a model and the pictures of a batch, in order, to what `model(**...)` takes for them."""

Seen = tuple[Any, "Tensor | None"]
"""The encoder's output for one picture, or the layers of a memory; and a picture's grid, where
positions are counted from it."""

_GRID = "image_grid_thw"  # positions are counted from it


def see(model: Any, pictures: Sequence[ImageSpan]) -> dict[str, Any]:
    """Encode all of them, with gradients to the vision tower."""
    import torch

    spans = {span.key: span for span in pictures}
    if len(spans) < len(pictures) or any(span.block for span in pictures):
        return _joined(model, pictures, _encoded(model, spans))
    tensors = [span.tensors for span in pictures]
    found: dict[str, Any] = {"mm_encoder_outputs": {"image": encode_all(model, tensors)}}
    if _GRID in tensors[0]:
        found[_GRID] = torch.cat([each[_GRID] for each in tensors]).to(model.device)
    return found


class FrozenFeatureCache:
    """Encodes a picture when it first comes, and keeps that: a tower that rests gives the same.

    Args:
        budget: bytes that may be kept.
    """

    def __init__(self, budget: int) -> None:
        self._kept: LRUCache[str, Seen] = LRUCache(budget)

    def __call__(self, model: Any, pictures: Sequence[ImageSpan]) -> dict[str, Any]:
        seen = self._seen(model, {span.key: span for span in pictures})
        return _joined(model, pictures, seen)

    def _seen(self, model: Any, spans: Mapping[str, ImageSpan]) -> dict[str, Seen]:
        import torch

        found = {key: kept for key in spans if (kept := self._kept.get(key)) is not None}
        new = {key: span for key, span in spans.items() if key not in found}
        if new:
            # in the weights' own precision: rounded to bfloat16, each would have to go alone
            with torch.no_grad(), torch.autocast(model.device.type, enabled=False):
                encoded = _encoded_alike(model, new)
            for key, seen in encoded.items():
                self._kept.put(key, seen, _size(seen[0]))
            found |= encoded
        return found


def _encoded_alike(model: Any, spans: Mapping[str, ImageSpan]) -> dict[str, Seen]:
    """The same for a picture whoever comes with it, so that a resumed training sees the same.

    In 16 bits the rounding depends on how many are encoded together: there each goes alone.
    """
    if model.dtype.itemsize > 2:
        return _encoded(model, spans)
    return {key: _encoded(model, {key: span})[key] for key, span in spans.items()}


def _encoded(model: Any, spans: Mapping[str, ImageSpan]) -> dict[str, Seen]:
    """All of `spans`, pictures in one pass where they can share one."""
    tensors = {key: span.tensors for key, span in spans.items() if not span.block}
    outputs = encode_each(model, list(tensors.values())) if tensors else []
    found: dict[str, Seen] = {}
    for (key, each), output in zip(tensors.items(), outputs, strict=True):
        found[key] = (output, each[_GRID].to(model.device) if _GRID in each else None)
    for key, span in spans.items():
        if span.block:
            found[key] = (_memory(model, span, span.block), None)
    return found


def _memory(model: Any, span: ImageSpan, block: Block) -> tuple[Tensor, ...]:
    """All that a picture is remembered by, whichever block is meant: a tensor for each layer."""
    family = family_of(model.config.model_type)
    assert family
    assert family.recall, "the token builder gives no blocks of such a family"
    layers = family.recall.encode(model, span.tensors)
    return tuple(block.grid.join(layer) for layer in layers)


def _joined(model: Any, pictures: Sequence[ImageSpan], seen: Mapping[str, Seen]) -> dict[str, Any]:
    """What `model(**...)` takes for `pictures`, in their order."""
    import torch

    ordered = [
        _part(model, seen[span.key][0], span.block) if span.block else seen[span.key]
        for span in pictures
    ]
    found: dict[str, Any] = {"mm_encoder_outputs": {"image": join([out for out, _ in ordered])}}
    if ordered[0][1] is not None:
        found[_GRID] = torch.cat([grid for _, grid in ordered if grid is not None])
    return found


def _part(model: Any, memory: Sequence[Tensor], block: Block) -> Seen:
    """A block of `memory`, as if it were a picture."""
    import torch

    made = _output([block.of(layer) for layer in memory])
    family = family_of(model.config.model_type)
    if not (family and family.mrope):
        return made, None
    merge = model.config.vision_config.spatial_merge_size
    columns, rows = block.shape
    return made, torch.tensor([[1, rows * merge, columns * merge]], device=model.device)


def _output(layers: Sequence[Tensor]) -> Any:
    """Visual tokens (V, D), for the input and for each early layer, as an encoder gives them."""
    from transformers.modeling_outputs import BaseModelOutputWithPooling

    made: Any = BaseModelOutputWithPooling()
    made["pooler_output"] = (layers[0],)
    if len(layers) > 1:
        made["deepstack_features"] = [(layer,) for layer in layers[1:]]
    return made


def _size(seen: Any) -> int:
    """Bytes of all tensors in an encoder's output, or of a memory."""
    if hasattr(seen, "nbytes"):
        return seen.nbytes
    inner = seen.values() if isinstance(seen, Mapping) else seen
    return sum(map(_size, inner)) if isinstance(inner, Iterable) else 0
