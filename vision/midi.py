"""MIDI: a small Mamba that reads an image, its depth and a question, and writes what they tell into
a few vectors for a language model (SSR, arXiv 2505.12448, sections 3.2 and 3.3).
"""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from PIL import Image as Pil
from torch import Tensor, nn

from mm.errors import ModelError, ModelUnavailable, first_line
from mm.local.checkpoints import find
from mm.local.hf_vlm import HFVLM
from mm.lru_cache import LRUCache
from mm.origins import Drawn
from mm.types import Image, Latents, user

from .depth import DepthMap, farness

if TYPE_CHECKING:
    from mm.engine.engine import Engine

CONFIG, WEIGHTS = "midi.json", "midi.safetensors"

SLOT = -1
"""Stands among the ids of a text where a latent is."""

NEAREST_M, OCTAVES = 0.25, 8.0
"""The range in metres of depth in colours: from `NEAREST_M`, doubled so often."""

_MARKED = (32, 4)
"""By how many rows of its embeddings, along how many directions, a model is known again."""

_MOVED = 0.005
"""From this share on they are other weights; bfloat16 rounds a number by 0.4 % at most."""

_WAVES = (OCTAVES, 2.0, 0.5)  # octaves of a rise and a fall in each channel


@dataclass(frozen=True)
class MidiConfig:
    """The shape of a `Midi`, and what it was trained for.

    Attributes:
        vision_width: of the features of images and of depth in colours, by the model's own encoder.
        model_width: of the language model's embeddings.
        vocabulary: of the model's tokenizer.
        hidden, layers, state: of the Mamba.
        latents: how many vectors it writes.
        base: tells the weights it was trained for, as `mark_of` does.
        kind: "midi"; as controls, "constant" vectors that were learned, or "none" at all.
        depth_kind: of the maps it was trained on; "" where a module of before does not say.
    """

    vision_width: int
    model_width: int
    vocabulary: int
    hidden: int = 768
    layers: int = 24
    state: int = 16
    latents: int = 10
    base: str = ""
    kind: str = "midi"
    depth_kind: str = ""


class Midi(nn.Module):
    """From features of an image and of its depth, and ids, to vectors for a language model."""

    def __init__(self, config: MidiConfig) -> None:
        from transformers import MambaConfig, MambaModel

        super().__init__()
        self.config = config
        hidden = config.hidden
        self.image_in = _two_layers(config.vision_width, hidden)
        self.depth_in = _two_layers(config.vision_width, hidden)
        self.slot = nn.Parameter(0.02 * torch.randn(hidden))
        self.constant = nn.Parameter(0.02 * torch.randn(config.latents, config.model_width))
        self.out = _two_layers(hidden, config.model_width)
        self.mamba = MambaModel(
            MambaConfig(
                vocab_size=config.vocabulary,
                hidden_size=hidden,
                state_size=config.state,
                num_hidden_layers=config.layers,
                use_cache=False,
                use_mambapy=True,  # where it is installed: training is twenty times as fast
            )
        )

    @property
    def device(self) -> torch.device:
        """Where its weights are, and what it is given must be."""
        return self.slot.device

    def forward(self, image: Tensor, depth: Tensor, ids: Tensor) -> Tensor:
        """Hidden states (B, T, hidden) behind each of `ids` (B, T), in which `SLOT` is a latent.

        `image` and `depth` are (B, N, W) and (B, M, W). Padding may stand on the right.
        """
        words = self.mamba.embeddings(ids.clamp(min=0))  # (B, T, hidden)
        words = torch.where((ids == SLOT)[..., None], self.slot.to(words.dtype), words)
        seen = torch.cat([self.image_in(image), self.depth_in(depth), words], 1)
        read = self.mamba(inputs_embeds=seen).last_hidden_state
        return read[:, -ids.shape[1] :]

    def latents(self, hidden: Tensor, ids: Tensor) -> Tensor:
        """(B, n, D) from hidden states (B, T, hidden), in the order of their slots."""
        if self.config.kind == "constant":
            return self.constant.expand(len(ids), -1, -1)
        return self.out(hidden[ids == SLOT]).view(len(ids), -1, self.config.model_width)

    def logits(self, hidden: Tensor) -> Tensor:
        """Of the next word (B, T, V): the Mamba's own, by its embeddings."""
        return hidden @ self.mamba.embeddings.weight.T


def _two_layers(given: int, made: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(given, made), nn.GELU(), nn.Linear(made, made))


def slots(words: int, count: int) -> list[int]:
    """Before which of so many words each latent stands; `words` is behind the last (SSR, 4.2)."""
    if count == 1:
        return [words]
    return [round(i * words / (count - 1)) for i in range(count)]


def with_slots(pieces: Sequence[Sequence[int]], count: int) -> list[int]:
    """The ids of words, `pieces`, with `count` times `SLOT` spread among them."""
    places = slots(len(pieces), count)
    ids: list[int] = []
    for number in range(len(pieces) + 1):
        ids += [SLOT] * places.count(number)
        ids += pieces[number] if number < len(pieces) else ()
    return ids


def encoder_image(depth: DepthMap, image: Image) -> Image:
    """`depth` as an image in colours, for a vision encoder.

    Metres keep their meaning from image to image: the red channel rises with the logarithm of the
    distance over all of the range, green and blue rise and fall within it, for small differences.
    Where there are no metres, the map's own nearest and farthest are the range's ends. What is not
    known is black.
    """
    octaves = _octaves(depth)
    channels = [1 - np.abs((octaves / wave) % 2 - 1) for wave in _WAVES]
    shade = np.where(depth.valid[..., None], 30 + 225 * np.stack(channels, -1), 0)
    return Image(Pil.fromarray(shade.round().astype(np.uint8)), Drawn(image.id, "depth"))


def _octaves(depth: DepthMap) -> np.ndarray:
    if depth.kind == "metric":
        metres = np.maximum(depth.values, NEAREST_M)
        return np.clip(np.log2(metres / NEAREST_M), 0, OCTAVES)
    return OCTAVES * farness(depth)


class LatentReader:
    """Reads an image, its depth and a question into latents; safe to use from several threads."""

    def __init__(self, midi: Midi, name: str) -> None:
        self.midi = midi.eval()
        self.name = name
        self._lock = threading.Lock()

    def __call__(self, vlm: Any, image: Image, depth: DepthMap, question: str) -> Latents | None:
        """The latents for `vlm`; None where there are none, as a control.

        Raises:
            ModelError: the model is elsewhere, or another than they were trained for, or the map is
                of another kind.
        """
        engine = _engine_of(vlm)
        config = self.midi.config
        if config.kind == "none":
            return None
        if config.base and not engine.on_thread(is_marked, engine.model, config.base):
            raise ModelError(f"{self.name} was trained for other weights than those of {vlm.name}")
        if config.depth_kind not in ("", depth.kind):
            raise ModelError(
                f"{self.name} was trained on {config.depth_kind} depth, and the map is "
                f"{depth.kind}: give one of the same kind"
            )
        seen = features_of(engine, [image, encoder_image(depth, image)])
        ids = [*engine.builder.safe_tokenizer.encode((question,)), *[SLOT] * config.latents]
        with self._lock:
            midi = self.midi.to(engine.model.device)
            return latents_of(image, _read(midi, seen, ids))


@torch.inference_mode()
def _read(midi: Midi, seen: Sequence[Tensor], ids: Sequence[int]) -> np.ndarray:
    """The latents (n, D) that `ids` ask of what is `seen` of an image and of its depth."""
    text = torch.tensor([ids], device=midi.device)
    image, depth = (each[None].float().to(midi.device) for each in seen)
    return midi.latents(midi(image, depth, text), text)[0].cpu().numpy()


def latents_of(image: Image, vectors: np.ndarray) -> Latents:
    """`vectors` (n, D), which were read in `image`, as a part of a message."""
    digest = hashlib.blake2b(vectors.tobytes(), digest_size=8)
    return Latents(image, f"latents {digest.hexdigest()}", vectors)


def features_of(engine: Engine, images: Sequence[Image]) -> list[Tensor]:
    """What the model's own encoder, without any adapter, sees in each image: (V, W), on the CPU."""
    spans = engine.builder.build((user(*images),)).images
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


def mark_of(model: Any) -> str:
    """Hex digits that tell a model's embeddings from others': how far rows from all over the table
    lie along some directions, in float32. Compare by `is_marked`: a precision moves them a little.
    """
    table = model.get_input_embeddings().weight.detach()
    rows, directions = _MARKED
    at = torch.linspace(0, len(table) - 1, rows).long().to(table.device)
    waves = torch.outer(torch.arange(table.shape[1]), torch.arange(1, directions + 1))
    along = table[at].to("cpu", torch.float32) @ torch.cos(waves.float())
    return along.numpy().astype("<f4").tobytes().hex()


def is_marked(model: Any, mark: str) -> bool:
    """Whether `mark` is that of the model's embeddings, in whatever precision; "" is nobody's."""
    if len(mark) == 16:  # of modules of before: a hash, which float16 seldom keeps
        table = model.get_input_embeddings().weight.detach()[:64].to("cpu", torch.bfloat16)
        return mark == hashlib.blake2b(table.float().numpy().tobytes(), digest_size=8).hexdigest()
    was, now = (np.frombuffer(bytes.fromhex(each), "<f4") for each in (mark, mark_of(model)))
    return len(was) == len(now) and bool(np.linalg.norm(was - now) < _MOVED * np.linalg.norm(now))


def save_midi(midi: Midi, folder: Path) -> None:
    """Write the module beside whatever else `folder` holds."""
    from safetensors.torch import save_file

    folder.mkdir(parents=True, exist_ok=True)
    save_file({k: v.contiguous() for k, v in midi.state_dict().items()}, folder / WEIGHTS)
    (folder / CONFIG).write_text(json.dumps(asdict(midi.config), indent=1) + "\n")


_readers: LRUCache[str, LatentReader] = LRUCache(4)
_lock = threading.Lock()


def load_reader(name: str) -> LatentReader:
    """The latents' module in a folder, or of a hub id, loaded once.

    Raises:
        ModelUnavailable: there is none, or it cannot be loaded.
    """
    with _lock:
        found = _readers.get(name)
        if found is None:
            found = LatentReader(load_midi(name), name)
            _readers.put(name, found, 1)
        return found


def load_midi(name: str) -> Midi:
    """The module that `save_midi` wrote.

    Raises:
        ModelUnavailable: there is none, or it cannot be loaded.
    """
    from safetensors.torch import load_file

    folder = find(name)
    try:
        config = MidiConfig(**json.loads((folder / CONFIG).read_text(encoding="utf-8")))
        midi = Midi(config)
        midi.load_state_dict(load_file(folder / WEIGHTS))
    except (OSError, ValueError, TypeError, RuntimeError) as error:
        raise ModelUnavailable(
            f"{name} holds no latents' module that loads ({first_line(error)}): "
            "`mm train depth` makes one"
        ) from error
    return midi
