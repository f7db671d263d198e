"""Makes `tiny-siglip`, a SigLIP of under two million parameters that knows Tabletop alone: it finds
the frames a question is about, and lets VideoRFT's reward be tried without a download.

The loss is SigLIP's (Zhai et al., arXiv 2303.15343, section 3.2), each image against each text of
the batch; the truth is known, so that a text counts as fitting wherever it is true.
"""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from transformers import (
    AutoTokenizer,
    PreTrainedTokenizerBase,
    SiglipConfig,
    SiglipImageProcessorPil,
    SiglipModel,
)

from video.siglip import WINDOW

from .siglip_pairs import SIDE, Batch, batches
from .stage import Optimizers, learn

RATE = 2e-3
BIAS = -1.6
"""At first: a text fits about one image in six of a batch."""

CHECKPOINT_EVERY = 100
TOKENIZER = ("tokenizer.json", "tokenizer_config.json")

Ids = Callable[[Sequence[str]], Tensor]
"""The ids (N, WINDOW) of texts."""


def make_siglip(tokenizer: PreTrainedTokenizerBase) -> SiglipModel:
    """Untrained, for texts of `tokenizer`."""
    torch.manual_seed(0)
    shape = {"hidden_size": 128, "intermediate_size": 384, "num_attention_heads": 4}
    config = SiglipConfig(
        text_config={
            **shape,
            "num_hidden_layers": 2,
            "vocab_size": len(tokenizer),
            "max_position_embeddings": WINDOW,
            "pad_token_id": tokenizer.pad_token_id,
            "bos_token_id": None,
            "eos_token_id": None,
        },
        vision_config={**shape, "num_hidden_layers": 4, "image_size": SIDE, "patch_size": 16},
    )
    model: Any = SiglipModel(config)
    with torch.no_grad():
        model.logit_scale.fill_(math.log(10))
        model.logit_bias.fill_(BIAS)
    return model


def loss_of(model: SiglipModel, batch: Batch, ids: Tensor) -> Tensor:
    """SigLIP's, the mean over images."""
    found = model(input_ids=ids, pixel_values=batch.pixels)
    sign = 2 * batch.fits.float() - 1  # (image, text)
    return -F.logsigmoid(sign * found.logits_per_image).sum(1).mean()


def train_siglip(model: SiglipModel, ids: Ids, folder: Path, *, steps: int) -> None:
    """Train `model` in place; resumes from `folder`/siglip.pt."""
    optimizers = Optimizers(model, RATE, steps, outer=("embed", "head", "logit"))
    learn(
        model,
        optimizers,
        folder / "siglip.pt",
        lambda first: batches(first, steps),
        lambda batch: loss_of(model, batch, ids(batch.texts)),
        steps=steps,
        every=CHECKPOINT_EVERY,
    )


def load_tokenizer(tiny: Path) -> PreTrainedTokenizerBase:
    """That of the exported model in `tiny`."""
    return AutoTokenizer.from_pretrained(tiny)


def ids_by(tokenizer: PreTrainedTokenizerBase) -> Ids:
    """How `Siglip` reads texts too."""

    def ids(texts: Sequence[str]) -> Tensor:
        return tokenizer(
            list(texts),
            padding="max_length",
            truncation=True,
            max_length=WINDOW,
            return_tensors="pt",
        )["input_ids"]

    return ids


def export_siglip(model: SiglipModel, tiny: Path, folder: Path) -> None:
    """Write the folder that ships: weights, configuration, processor, the tokenizer of `tiny`."""
    folder.mkdir(parents=True, exist_ok=True)
    model.eval().save_pretrained(folder)
    (folder / "model.safetensors").chmod(0o644)
    SiglipImageProcessorPil(size={"height": SIDE, "width": SIDE}).save_pretrained(folder)
    for name in TOKENIZER:
        shutil.copyfile(tiny / name, folder / name)
