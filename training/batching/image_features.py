"""Image features: recomputed each step, or cached while the vision tower is frozen."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from mm.engine.vision_encoder import encode_all, encode_each, encode_memory, given, join
from mm.families.registry import family_of
from mm.families.visual_memory import Block
from mm.lru_cache import LRUCache
from mm.tokens.image_processing import LATENTS
from mm.tokens.sequence import ImageSpan

if TYPE_CHECKING:
    from torch import Tensor

EncodeImages = Callable[[Any, Sequence[ImageSpan]], Mapping[str, Any]]
"""From a model and the images of a batch, in order, to what `model(**...)` takes for them."""

Encoded = tuple[Any, "Tensor | None"]
"""The encoder's output for one image, or the layers of a memory; and an image's grid, where
positions are counted from it."""

_GRID = "image_grid_thw"  # positions are counted from it


def encode_images(model: Any, images: Sequence[ImageSpan]) -> dict[str, Any]:
    """Encode all of them, with gradients to the vision tower."""
    import torch

    keys = [span.key for span in images]
    spans = dict(zip(keys, images, strict=True))
    if len(spans) < len(images) or any(span.block or not span.encoded for span in images):
        return _joined(model, images, keys, _encoded(model, spans))
    tensors = [span.tensors for span in images]
    found: dict[str, Any] = {"mm_encoder_outputs": {"image": encode_all(model, tensors)}}
    if _GRID in tensors[0]:
        found[_GRID] = torch.cat([each[_GRID] for each in tensors]).to(model.device)
    return found


class FrozenFeatureCache:
    """Encodes an image once: a frozen vision tower gives the same features each time.

    Args:
        budget: bytes of features that may be cached.
    """

    def __init__(self, budget: int) -> None:
        self._cache: LRUCache[str, Encoded] = LRUCache(budget)

    def __call__(self, model: Any, images: Sequence[ImageSpan]) -> dict[str, Any]:
        keys = [span.key for span in images]
        spans = zip(keys, images, strict=True)
        encoded = self._encoded(model, {key: span for key, span in spans if span.encoded})
        return _joined(model, images, keys, encoded)

    def _encoded(self, model: Any, spans: Mapping[str, ImageSpan]) -> dict[str, Encoded]:
        import torch

        found = {key: hit for key in spans if (hit := self._cache.get(key)) is not None}
        new = {key: span for key, span in spans.items() if key not in found}
        if new:
            # in the weights' own precision: rounded to bfloat16, each would have to go alone
            with torch.no_grad(), torch.autocast(model.device.type, enabled=False):
                encoded = _encoded_alike(model, new)
            for key, each in encoded.items():
                self._cache.put(key, each, _size(each[0]))
            found |= encoded
        return found


def _encoded_alike(model: Any, spans: Mapping[str, ImageSpan]) -> dict[str, Encoded]:
    """The same for an image whatever it is batched with, so that a resumed training sees the same.

    In 16 bits the rounding depends on how many are encoded together: there each goes alone.
    """
    if model.dtype.itemsize > 2:
        return _encoded(model, spans)
    return {key: _encoded(model, {key: span})[key] for key, span in spans.items()}


def _encoded(model: Any, spans: Mapping[str, ImageSpan]) -> dict[str, Encoded]:
    """All of `spans`, images in one pass where they can share one."""
    tensors = {k: span.tensors for k, span in spans.items() if span.encoded and not span.block}
    outputs = encode_each(model, list(tensors.values())) if tensors else []
    found: dict[str, Encoded] = {}
    for (key, each), output in zip(tensors.items(), outputs, strict=True):
        found[key] = (output, each[_GRID].to(model.device) if _GRID in each else None)
    for key, span in spans.items():
        if span.block:
            found[key] = (_memory(model, span, span.block), None)
    return found


def _memory(model: Any, span: ImageSpan, block: Block) -> tuple[Tensor, ...]:
    """All of an image's memory, whichever block is meant: a tensor for each layer."""
    family = family_of(model.config.model_type)
    if family is None:
        raise ValueError(f"no family is known for type {model.config.model_type!r}")
    memory = encode_memory(model, family, span.tensors, block)
    return (memory.embeds, *memory.deep)


def _joined(
    model: Any, images: Sequence[ImageSpan], keys: Sequence[str], encoded: Mapping[str, Encoded]
) -> dict[str, Any]:
    """What `model(**...)` takes for `images`, in their order."""
    import torch

    ordered = []
    for key, span in zip(keys, images, strict=True):
        if not span.encoded:
            latents = given(span.tensors[LATENTS], model)
            ordered.append((_output([latents.embeds, *latents.deep]), None))
        else:
            found = encoded[key]
            ordered.append(_part(model, found[0], span.block) if span.block else found)
    made: dict[str, Any] = {"mm_encoder_outputs": {"image": join([out for out, _ in ordered])}}
    if grids := [grid for _, grid in ordered if grid is not None]:
        made[_GRID] = torch.cat(grids)
    return made


def _part(model: Any, memory: Sequence[Tensor], block: Block) -> Encoded:
    """A block of `memory`, as if it were an image."""
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


def _size(encoded: Any) -> int:
    """Bytes of all tensors in an encoder's output, or of a memory."""
    if hasattr(encoded, "nbytes"):
        return encoded.nbytes
    inner = encoded.values() if isinstance(encoded, Mapping) else encoded
    return sum(map(_size, inner)) if isinstance(inner, Iterable) else 0
