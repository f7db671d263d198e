"""Reading latents of depth for a model that runs here, with a trained `Midi`."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from mm.engine.model_runner import dynamic_cache
from mm.errors import ModelError
from mm.local.adapters import is_adapter
from mm.local.checkpoints import find
from mm.local.hf_vlm import HFVLM
from mm.lru_cache import LRUCache
from mm.tokens.builder import TokenBuilder
from mm.tokens.sequence import ImageSpan, Tokens
from mm.types import Image, Latents, user
from mm.vlm import VLM

from .depth import DepthMap
from .midi import READER, SLOT, WEIGHTS, Midi, behind, encoder_image, is_marked, load_midi, places

if TYPE_CHECKING:
    from mm.engine.engine import Engine


class LatentReader:
    """Reads an image, its depth and a question into latents; safe to use from several threads.

    Args:
        name: of the module's folder, or its hub id.
        folder: where its adapters are; None where it has none.
    """

    def __init__(self, midi: Midi, name: str, folder: Path | None = None) -> None:
        self.midi = midi.eval()
        self.name = name
        self.folder = folder
        self._lock = threading.Lock()

    def __call__(self, vlm: Any, image: Image, depth: DepthMap, question: str) -> Latents | None:
        """The latents for `vlm`; None where there are none, as a control.

        Raises:
            ModelError: the model is elsewhere, or another than they were trained for, or the map is
                of another kind.
        """
        engine, config = _engine_of(vlm), self.midi.config
        self._check(vlm)
        if config.kind == "none":
            return None
        if config.depth_kind not in ("", depth.kind):
            raise ModelError(
                f"{self.name} was trained on {config.depth_kind} depth, and the map is "
                f"{depth.kind}: give one of the same kind"
            )
        shown = encoder_image(depth, image)
        with self._lock:
            midi = self.midi.to(engine.model.device)
            if config.reads == "model" and config.kind == "midi":
                read = self._through(vlm, midi, image, shown, question)
            else:
                read = _alone(engine, midi, image, shown, question)
        return latents_of(image, read)

    def _check(self, vlm: Any) -> None:
        """Refuse other weights than those that the module was trained for."""
        engine, base = _engine_of(vlm), self.midi.config.base
        if base and not engine.on_thread(is_marked, engine.model, base):
            raise ModelError(f"{self.name} was trained for other weights than those of {vlm.name}")

    def answering(self, vlm: Any) -> VLM:
        """`vlm` as it answers behind the latents: with the adapter of stage 2, if there is one.

        Raises:
            ModelError: the model is elsewhere, or another, or answers with an adapter already.
        """
        self._check(vlm)
        if self.folder is None or not is_adapter(self.folder):
            return vlm
        other = vlm.with_adapter(str(self.folder))
        if vlm.adapter not in (None, other.adapter):
            raise ModelError(
                f"{self.name} answers with an adapter of its own, and the model has one: leave "
                "--adapter out, or give the base as --model"
            )
        return other

    def _through(
        self, vlm: HFVLM, midi: Midi, image: Image, shown: Image, question: str
    ) -> np.ndarray:
        """What `midi` makes of the states of `vlm`, which reads with the module's adapter."""
        engine, builder = vlm.engine, vlm.builder
        prompt = reading_of(builder, image, question)
        (depth,) = builder.build((user(shown),)).images
        engine.runner.room_after(len(prompt.ids))
        reader = self.folder / READER if self.folder else None
        adapter = vlm.with_adapter(str(reader)).adapter if reader and is_adapter(reader) else None
        work = (_states, engine, midi, prompt, depth, adapter)
        states = engine.on_thread(*work).to(midi.device, torch.float32)
        slots = [SLOT] * midi.config.latents
        at = torch.tensor([places(len(prompt.ids), slots)], device=midi.device)
        text = torch.tensor([slots], device=midi.device)
        with torch.inference_mode():
            return midi.latents(midi.over(behind(states, at), text), text)[0].cpu().numpy()


def _states(
    engine: Engine, midi: Midi, tokens: Tokens, depth: ImageSpan, adapter: str | None
) -> Tensor:
    """The decoder's states (1, L, D) over `tokens`, whose one image has its depth added."""
    runner = engine.runner
    with torch.inference_mode():
        with runner.using(None):
            image, shown = runner.encode_images([*tokens.images, depth])
        added = midi.depth_in(shown.embeds.to(midi.device, torch.float32)).to(image.embeds)
        fused = replace(image, embeds=image.embeds + added)
        with runner.using(adapter):
            at = runner.positions(tokens)
            return runner.forward_prompt(tokens.ids, 0, [fused], at, dynamic_cache(()))


@torch.inference_mode()
def _alone(engine: Engine, midi: Midi, image: Image, shown: Image, question: str) -> np.ndarray:
    """What `midi` itself reads in an image, in one that shows its depth, and in a question."""
    seen, depth = (
        each[None].to(midi.device, torch.float32) for each in features_of(engine, [image, shown])
    )
    asked = engine.builder.safe_tokenizer.encode((question,))
    text = torch.tensor([[*asked, *[SLOT] * midi.config.latents]], device=midi.device)
    hidden = midi(seen, depth, text) if midi.config.kind == "midi" else seen
    return midi.latents(hidden, text)[0].cpu().numpy()


def reading_of(builder: TokenBuilder, image: Image, question: str) -> Tokens:
    """The prompt in which the model reads an image with its depth, and a question."""
    return builder.build((user(image, question),))


def followed_by(prompt: Tokens, text: Sequence[int]) -> Tokens:
    """`prompt` and the ids of `text`, without its slots."""
    ids = [each for each in text if each != SLOT]
    return replace(prompt, ids=(*prompt.ids, *ids), trained=(*prompt.trained, *[False] * len(ids)))


def latents_of(image: Image, vectors: np.ndarray) -> Latents:
    """`vectors` (n, D), which were read in `image`, as a part of a message."""
    digest = hashlib.blake2b(vectors.tobytes(), digest_size=8)
    return Latents(image, f"latents {digest.hexdigest()}", vectors)


def features_of(engine: Engine, images: Sequence[Image]) -> list[Tensor]:
    """What the model's own encoder, without any adapter, sees in each image alone: (V, W), on the
    CPU."""
    spans = [span for image in images for span in engine.builder.build((user(image),)).images]
    return engine.on_thread(_features, engine, spans)


def _features(engine: Engine, spans: Any) -> list[Tensor]:
    with torch.inference_mode(), engine.runner.using(None):
        return [found.embeds.cpu() for found in engine.runner.encode_images(spans)]


def _engine_of(vlm: Any) -> Engine:
    if not isinstance(vlm, HFVLM):
        raise ModelError(
            f"{vlm.name}: latents go into the context of a model of a listed family that runs "
            "here, over no server: use depth-text"
        )
    return vlm.engine


_readers: LRUCache[str, LatentReader] = LRUCache(4)
_lock = threading.Lock()


def load_reader(name: str) -> LatentReader:
    """The latents' module in a folder, or of a hub id, loaded once, and anew when it was trained
    anew.

    Raises:
        ModelUnavailable: there is none, or it cannot be loaded.
    """
    folder = find(name)
    weights = folder / WEIGHTS
    written = weights.stat().st_mtime_ns if weights.is_file() else 0
    with _lock:
        found = _readers.get(f"{name} {written}")
        if found is None:
            found = LatentReader(load_midi(name), name, folder)
            _readers.put(f"{name} {written}", found, 1)
        return found
