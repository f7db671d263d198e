"""Runs a model's vision tower on pictures, one or several in a pass."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import copy
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mm.families.visual_memory import Block

if TYPE_CHECKING:
    from torch import Tensor


Picture = Mapping[str, "Tensor"]
"""What the image processor made of one picture: an `ImageSpan`'s `tensors`."""


def encode(model: Any, tensors: Picture) -> Any:
    """The vision features of one picture, as `mm_encoder_outputs["image"]` takes them.

    Join those of several pictures with `join`.
    """
    takes = {k: v.to(model.device) for k, v in tensors.items()}
    return model.model.get_image_features(**takes, return_dict=True)


def encode_all(model: Any, pictures: Sequence[Picture]) -> Any:
    """The features of several pictures as one `mm_encoder_outputs["image"]`, in order."""
    return join(encode_each(model, pictures))


def encode_each(model: Any, pictures: Sequence[Picture]) -> list[Any]:
    """The features of each picture, as `encode` gives them.

    In one pass of the tower, or in one for each shape where pictures of different shapes would have
    to be padded.
    """
    groups: dict[tuple[Any, ...], list[int]] = {}
    for number, tensors in enumerate(pictures):
        groups.setdefault(tuple(t.shape[1:] for t in tensors.values()), []).append(number)
    found: dict[int, Any] = {}
    for numbers in groups.values():
        together = _together(model, [pictures[n] for n in numbers])
        found.update(zip(numbers, together, strict=True))
    return [found[number] for number in range(len(pictures))]


def join(outputs: Sequence[Any]) -> Any:
    """The features of several pictures as one `mm_encoder_outputs["image"]`, in order."""
    joined = copy(outputs[0])
    joined.pooler_output = _chain([o.pooler_output for o in outputs])
    if getattr(joined, "deepstack_features", None) is not None:
        layers = zip(*(o.deepstack_features for o in outputs), strict=True)
        joined.deepstack_features = [_chain(layer) for layer in layers]
    return joined


def _together(model: Any, pictures: Sequence[Picture]) -> list[Any]:
    """The features of each of `pictures`, from one pass."""
    import torch

    if len(pictures) == 1:
        return [encode(model, pictures[0])]
    output = encode(model, {k: torch.cat([p[k] for p in pictures]) for k in pictures[0]})
    tiles = [len(p["pixel_values"]) for p in pictures]
    return [_only(output, at, tiles) for at in range(len(pictures))]


def _only(output: Any, at: int, tiles: Sequence[int]) -> Any:
    """What `output` says of picture number `at`; nothing of it holds the others in memory."""
    found = type(output)(pooler_output=_part(output.pooler_output, at, tiles))
    if getattr(output, "deepstack_features", None) is not None:
        found.deepstack_features = [_part(f, at, tiles) for f in output.deepstack_features]
    return found


def _part(features: Any, at: int, tiles: Sequence[int]) -> Any:
    """Lists have an entry a picture, tensors one a tile."""
    import torch

    if not torch.is_tensor(features):
        return (features[at].clone(),)
    first = sum(tiles[:at])
    return features[first : first + tiles[at]].clone()


def _chain(values: Sequence[Any]) -> Any:
    import torch

    if torch.is_tensor(values[0]):
        return torch.cat(tuple(values))
    return tuple(feature for value in values for feature in value)


@dataclass(frozen=True)
class ImageFeatures:
    """A picture's visual tokens, (V, D): for the input, and for each early layer that adds more."""

    embeds: Tensor
    deep: tuple[Tensor, ...] = ()

    @property
    def nbytes(self) -> int:
        """Bytes of all its tensors."""
        return sum(t.nbytes for t in (self.embeds, *self.deep))

    def block(self, block: Block) -> ImageFeatures:
        """A part of a memory."""
        return ImageFeatures(block.of(self.embeds), tuple(block.of(layer) for layer in self.deep))


def image_features(output: Any) -> ImageFeatures:
    """Features of what a vision tower returns, without the grid's shape."""
    deep = getattr(output, "deepstack_features", None) or ()
    return ImageFeatures(_flat(output.pooler_output), tuple(_flat(layer) for layer in deep))


def _flat(value: Any) -> Tensor:
    import torch

    tensor = value if torch.is_tensor(value) else torch.cat(tuple(value))
    return tensor.reshape(-1, tensor.shape[-1])
