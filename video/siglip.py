"""How well images fit a text, by a SigLIP checkpoint: for choosing frames, and for rewards."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from functools import lru_cache
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from mm.errors import ModelUnavailable, first_line
from mm.local.precision import fast_dtype
from mm.lru_cache import LRUCache
from mm.origins import image_id

if TYPE_CHECKING:
    import torch
    from PIL.Image import Image as Pixels

WINDOW = 64
"""Tokens that SigLIP's text encoder reads; what comes after them is cut off."""

BATCH = 32

CACHED_BYTES = 2**24
"""Of embeddings of images: the answers of one group, and draws of one question, share their
frames."""

TINY = "tiny-siglip"
"""The bundled checkpoint, which knows Tabletop alone."""


class Siglip:
    """Embeddings of texts and images, of length one, so that their product is a cosine; on the CPU
    in float32, wherever the model is.

    Any number of threads may ask; one is served at a time.
    """

    def __init__(self, model: Any, tokenizer: Any, process: Any) -> None:
        self._model = model.eval()
        self._tokenizer = tokenizer
        self._process = process
        self._lock = threading.Lock()
        self._cache: LRUCache[str, torch.Tensor] = LRUCache(CACHED_BYTES)

    def texts(self, texts: Sequence[str]) -> torch.Tensor:
        """(N, D) of `texts`, each cut to `WINDOW` tokens."""
        import torch

        window = min(WINDOW, self._model.config.text_config.max_position_embeddings)
        ids = self._tokenizer(
            list(texts),
            padding="max_length",  # as it was trained
            truncation=True,
            max_length=window,
            return_tensors="pt",
        ).input_ids
        with self._lock, torch.inference_mode():
            return _unit(self._model.get_text_features(input_ids=ids.to(self._model.device)))

    def images(self, images: Sequence[Pixels]) -> torch.Tensor:
        """(N, D) of `images`, PIL images in 8-bit RGB; one seen lately is not encoded again."""
        import torch

        names = [image_id(image) for image in images]
        with self._lock, torch.inference_mode():
            found = {n: vector for n in names if (vector := self._cache.get(n)) is not None}
            new = {n: i for n, i in zip(names, images, strict=True) if n not in found}
            for name, vector in zip(new, self._encoded(list(new.values())), strict=True):
                found[name] = vector
                self._cache.put(name, vector, vector.nbytes)
        return torch.stack([found[name] for name in names])

    def _encoded(self, images: Sequence[Pixels]) -> Iterator[torch.Tensor]:
        for at in range(0, len(images), BATCH):
            some = [image.convert("RGB") for image in images[at : at + BATCH]]
            pixels = self._process(images=some, return_tensors="pt").pixel_values
            there = pixels.to(self._model.device, self._model.dtype)
            found = _unit(self._model.get_image_features(pixel_values=there))
            yield from (vector.clone() for vector in found)  # a view would hold the whole batch

    def score(self, images: Sequence[Pixels], text: str) -> list[float]:
        """The cosine of each image with `text`: a `Scorer` for choosing frames."""
        return (self.images(images) @ self.texts([text])[0]).tolist()


_LOADING = threading.Lock()  # neither a cache nor transformers' imports bear two threads at once


def load_siglip(name: str) -> Siglip:
    """The bundled SigLIP, or the checkpoint in a folder or of a hub id; loaded once a process.

    Raises:
        ModelUnavailable: it cannot be loaded, or is none.
    """
    with _LOADING:
        return _loaded(name)


@lru_cache(maxsize=2)
def _loaded(name: str) -> Siglip:
    from transformers import AutoConfig, AutoImageProcessor, AutoModel, AutoTokenizer

    name = str(files("mm") / "bundled" / TINY) if name == TINY else name
    try:
        config = AutoConfig.from_pretrained(name)
        if config.model_type not in ("siglip", "siglip2"):
            raise ModelUnavailable(
                f"{name}: model type {config.model_type!r} is no SigLIP: give siglip or siglip2"
            )
        process = AutoImageProcessor.from_pretrained(name, backend="pil")
        model = _placed(AutoModel.from_pretrained(name))
        return Siglip(model, AutoTokenizer.from_pretrained(name), process)
    except (OSError, ValueError, ImportError) as error:
        raise ModelUnavailable(f"SigLIP model {name}: {first_line(error)}") from error


def _placed(model: Any) -> Any:
    """`model` on the GPU in 16 bits, where there is one; else as it is."""
    import torch

    if not torch.cuda.is_available():
        return model
    device = torch.device("cuda")
    return model.to(device, fast_dtype(device))


def _unit(found: Any) -> torch.Tensor:
    features = getattr(found, "pooler_output", found).float().cpu()
    return features / features.norm(dim=-1, keepdim=True).clamp(min=1e-12)
