"""MIDI: a small Mamba that reads an image, its depth and a question, and writes what they tell into
a few vectors for a language model (SSR, arXiv 2505.12448, sections 3.2 and 3.3).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from PIL import Image as Pil
from torch import Tensor, nn

from mm.errors import ModelUnavailable, first_line
from mm.local.checkpoints import find
from mm.origins import Drawn
from mm.types import Image

from .depth import DepthMap, farness

CONFIG, WEIGHTS = "midi.json", "midi.safetensors"

READER = "reader"
"""The adapter with which the language model reads for the Mamba, and its folder in the module's."""

SLOT = -1
"""Stands among the ids of a text where a latent is."""

NEAREST_M, OCTAVES = 0.25, 8.0
"""The range in metres of depth in colours: from `NEAREST_M`, doubled so often."""

_MARKED = (32, 4)
"""By how many rows of its embeddings, along how many directions, a model is known again."""

_MOVED = 0.005
"""From this share on they are other weights; bfloat16 rounds a number by 0.4 % at most."""

_SHADES = 2048
"""Of an octave: more than a channel of 8 bits tells apart."""

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
        reads: "features", the Mamba reads those of image and depth and the question's words, as in
            the paper; "model", the language model reads them first, with an adapter of the module's
            own, the depth added to the image's visual tokens, and the Mamba reads its states.
        stage: of the training that wrote it.
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
    reads: Literal["features", "model"] = "features"
    stage: int = 2


class Midi(nn.Module):
    """From features of an image and of its depth, and ids, to vectors for a language model."""

    def __init__(self, config: MidiConfig) -> None:
        from transformers import MambaConfig, MambaModel

        super().__init__()
        self.config = config
        hidden = config.hidden
        width = hidden if config.reads == "features" else config.vision_width
        self.depth_in = _two_layers(config.vision_width, width)
        if config.reads == "features":
            self.image_in = _two_layers(config.vision_width, hidden)
        else:
            self.states_in = _two_layers(config.model_width, hidden)
            _still(self.depth_in)
        self.slot = nn.Parameter(0.02 * torch.randn(hidden))
        self.constant = nn.Parameter(0.02 * torch.randn(config.latents, config.model_width))
        self.out = _two_layers(hidden, config.model_width)
        if config.reads == "model":
            self.size = nn.Parameter(torch.ones(()))
            _still(self.out)
        self.mamba = MambaModel(
            MambaConfig(
                vocab_size=config.vocabulary if config.reads == "features" else 1,
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
        return self._read(seen)[:, -ids.shape[1] :]

    def over(self, states: Tensor, ids: Tensor) -> Tensor:
        """What stands (B, T, D) behind each of `ids` (B, T): the language model's states (B, T, D),
        which has read for them all that stands before, and what the Mamba adds to them.
        """
        read = self.states_in(states)
        read = torch.where((ids == SLOT)[..., None], read + self.slot, read)
        return states + self.out(self._read(read))

    def _read(self, embeds: Tensor) -> Tensor:
        return self.mamba(inputs_embeds=embeds).last_hidden_state

    def latents(self, hidden: Tensor, ids: Tensor) -> Tensor:
        """(B, n, D) from hidden states (B, T, hidden), or those of `over`, in the order of their
        slots; those of `over` are as long as `size` says."""
        if self.config.kind == "constant":
            return self.constant.expand(len(ids), -1, -1)
        width = self.config.model_width
        found = hidden[ids == SLOT].view(len(ids), -1, hidden.shape[-1])
        if self.config.reads == "features":
            return self.out(found)
        return self.size * nn.functional.rms_norm(found, (width,))

    def logits(self, hidden: Tensor) -> Tensor:
        """Of the next word (B, T, V): the Mamba's own, by its embeddings."""
        return hidden @ self.mamba.embeddings.weight.T


def places(before: int, text: Sequence[int]) -> list[int]:
    """Which of the model's states each id of `text` has, where the ids of the text that are not
    `SLOT` follow `before` others.

    The model reads no slot: so many slots side by side have the states of the so many ids before.
    """
    found, read = [], before
    for number, each in enumerate(text):
        if each != SLOT:
            read += 1
            found.append(read - 1)
            continue
        more = next((n for n, other in enumerate(text[number:]) if other != SLOT), None)
        left = len(text) - number if more is None else more  # this slot and those behind it
        found.append(max(read - left, 0))
    return found


def behind(states: Tensor, at: Tensor) -> Tensor:
    """Those (B, T, D) of `states` (B, L, D) at the places `at` (B, T)."""
    return states.gather(1, at[..., None].expand(-1, -1, states.shape[-1]))


def _two_layers(given: int, made: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(given, made), nn.GELU(), nn.Linear(made, made))


def _still(layers: nn.Sequential) -> None:
    """Let `layers` make zeros until they learn."""
    for parameter in layers[-1].parameters():
        nn.init.zeros_(parameter)


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
    shades = _shades()[(_octaves(depth) * _SHADES).astype(np.int32)]
    shades[~depth.valid] = 0
    return Image(Pil.fromarray(shades), Drawn(image.id, "depth"))


@cache
def _shades() -> np.ndarray:
    """The colours (N, 3) of depths from 0 to `OCTAVES` on, `_SHADES` of them an octave."""
    octaves = np.arange(int(OCTAVES) * _SHADES + 1) / _SHADES
    channels = [1 - np.abs((octaves / wave) % 2 - 1) for wave in _WAVES]
    return (30 + 225 * np.stack(channels, -1)).round().astype(np.uint8)


def _octaves(depth: DepthMap) -> np.ndarray:
    if depth.kind == "metric":
        metres = np.maximum(depth.values, NEAREST_M)
        return np.clip(np.log2(metres / NEAREST_M), 0, OCTAVES)
    return OCTAVES * farness(depth)


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
