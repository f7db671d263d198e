"""Runs a model's vision tower on images, one or several in a pass."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from copy import copy
from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING, Any

from mm.errors import ModelError
from mm.families.registry import Family
from mm.families.visual_memory import Block

if TYPE_CHECKING:
    from torch import Tensor


ImageTensors = Mapping[str, "Tensor"]
"""What the image processor made of one image: an `ImageSpan`'s `tensors`."""


def encode(model: Any, tensors: ImageTensors) -> Any:
    """The vision features of one image, as `mm_encoder_outputs["image"]` takes them.

    Join those of several images with `join`.
    """
    inputs = {k: v.to(model.device) for k, v in tensors.items()}
    return model.model.get_image_features(**inputs, return_dict=True)


def encode_all(model: Any, images: Sequence[ImageTensors]) -> Any:
    """The features of several images as one `mm_encoder_outputs["image"]`, in order."""
    return join(encode_each(model, images))


def encode_each(model: Any, images: Sequence[ImageTensors]) -> list[Any]:
    """The features of each image, as `encode` gives them.

    In one pass of the tower, or in one for each shape where images of different shapes would have
    to be padded.
    """
    groups: dict[tuple[Any, ...], list[int]] = {}
    for number, tensors in enumerate(images):
        groups.setdefault(tuple(t.shape[1:] for t in tensors.values()), []).append(number)
    found: dict[int, Any] = {}
    for numbers in groups.values():
        together = _together(model, [images[n] for n in numbers])
        found.update(zip(numbers, together, strict=True))
    return [found[number] for number in range(len(images))]


def join(outputs: Sequence[Any]) -> Any:
    """The features of several images as one `mm_encoder_outputs["image"]`, in order."""
    joined = copy(outputs[0])
    joined.pooler_output = _chain([o.pooler_output for o in outputs])
    if getattr(joined, "deepstack_features", None) is not None:
        layers = zip(*(o.deepstack_features for o in outputs), strict=True)
        joined.deepstack_features = [_chain(layer) for layer in layers]
    return joined


def _together(model: Any, images: Sequence[ImageTensors]) -> list[Any]:
    """The features of each of `images`, from one pass."""
    import torch

    if len(images) == 1:
        return [encode(model, images[0])]
    output = encode(model, {k: torch.cat([i[k] for i in images]) for k in images[0]})
    tiles = [len(i["pixel_values"]) for i in images]
    return [_only(output, at, tiles) for at in range(len(images))]


def _only(output: Any, at: int, tiles: Sequence[int]) -> Any:
    """The part of `output` of image number `at`; nothing of it holds the others in memory."""
    found = type(output)(pooler_output=_part(output.pooler_output, at, tiles))
    if getattr(output, "deepstack_features", None) is not None:
        found.deepstack_features = [_part(f, at, tiles) for f in output.deepstack_features]
    return found


def _part(features: Any, at: int, tiles: Sequence[int]) -> Any:
    """Lists have an entry an image, tensors one a tile."""
    import torch

    if not torch.is_tensor(features):
        return (features[at].clone(),)
    first = sum(tiles[:at])
    return features[first : first + tiles[at]].clone()


def _chain(values: Sequence[Any]) -> Any:
    """One after another: entries of lists; tensors, flat where latents stand between tiles."""
    import torch

    if not any(map(torch.is_tensor, values)):
        return tuple(feature for value in values for feature in value)
    tensors = [value if torch.is_tensor(value) else torch.cat(tuple(value)) for value in values]
    if len({tensor.shape[1:] for tensor in tensors}) > 1:
        tensors = [tensor.reshape(-1, tensor.shape[-1]) for tensor in tensors]
    return torch.cat(tensors)


@dataclass(frozen=True)
class ImageFeatures:
    """An image's visual tokens, (V, D): for the input, and for each early layer that adds more.

    `latent`: they are latents, which the decoder reads as text is read.
    """

    embeds: Tensor
    deep: tuple[Tensor, ...] = ()
    latent: bool = False

    @property
    def nbytes(self) -> int:
        """Bytes of all its tensors."""
        return sum(t.nbytes for t in (self.embeds, *self.deep))

    def block(self, block: Block) -> ImageFeatures:
        """A part of a memory."""
        return ImageFeatures(block.of(self.embeds), tuple(block.of(layer) for layer in self.deep))


def encode_features(model: Any, images: Sequence[ImageTensors]) -> list[ImageFeatures]:
    """The features of each image, flat."""
    return [_features(feature_layers(output)) for output in encode_each(model, images)]


def encode_memory(model: Any, family: Family, tiles: ImageTensors, block: Block) -> ImageFeatures:
    """The features of the whole memory of which `block` is a part, from its tiles.

    Raises:
        ModelError: the family remembers no images.
    """
    recall = family.recall
    if recall is None:
        raise ModelError(f"{family.name} remembers no images; use zoom in place of replay")
    encoded = recall.encode(model, tiles) if recall.encode else feature_layers(encode(model, tiles))
    return _features([block.grid.join(layer) for layer in encoded])


def given(vectors: Tensor, model: Any) -> ImageFeatures:
    """Latents (V, D) as an image's visual tokens, to which early layers add nothing.

    Raises:
        ModelError: they are not as wide as the model's embeddings.
    """
    import torch

    width = model.get_input_embeddings().weight.shape[1]
    if vectors.shape[-1] != width:
        raise ModelError(
            f"latents are {vectors.shape[-1]} wide, the model's embeddings {width}: they were "
            "trained for another model"
        )
    vectors = vectors.to(model.device)
    nothing = torch.zeros_like(vectors)
    return ImageFeatures(vectors, (nothing,) * deep_layers(model), latent=True)


def changes_features(model: Any, adapter: str) -> bool:
    """Whether peft's `adapter` may change what images of `model`, without its wrapper, become.

    It may where it has weights anywhere but in the decoder, the token embeddings and the head,
    which come after. Their values are not looked at.
    """
    ends = (model.get_decoder(), model.get_input_embeddings(), model.get_output_embeddings())
    language = [part for part in ends if part is not None]
    if any(hasattr(m, "get_image_features") for part in language for m in part.modules()):
        return True  # the family's language model is not told apart from what encodes
    behind = {id(tensor) for part in language for tensor in _tensors(part)}
    named = chain(model.named_parameters(), model.named_buffers())
    return any(adapter in name.split(".") and id(tensor) not in behind for name, tensor in named)


def _tensors(module: Any) -> Iterator[Tensor]:
    return chain(module.parameters(), module.buffers())


def deep_layers(model: Any) -> int:
    """To how many early layers of the decoder images add something."""
    vision = getattr(model.config, "vision_config", None)
    return len(getattr(vision, "deepstack_visual_indexes", None) or ())


def feature_layers(output: Any) -> list[Tensor]:
    """An encoder's output as (V, D) tensors: for the input, then for each deepstack layer."""
    import torch

    layers = [output.pooler_output, *(getattr(output, "deepstack_features", None) or ())]
    tensors = (x if torch.is_tensor(x) else torch.cat(tuple(x)) for x in layers)
    return [tensor.reshape(-1, tensor.shape[-1]) for tensor in tensors]


def _features(layers: Sequence[Tensor]) -> ImageFeatures:
    return ImageFeatures(layers[0], tuple(layers[1:]))
