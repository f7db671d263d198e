"""A batch in parts that fit into memory: together they train as the whole batch would."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from importlib.util import find_spec

import torch
from torch import Tensor

from vision.midi import SLOT, MidiConfig, with_slots

from .example import Example
from .losses import total

ROOM = 2**30
"""Bytes that the Mamba's scan may take, about, on an accelerator."""

CPU_ROOM = 2**28
"""And on processors, which read what is small about twice as fast."""

LossesOf = Callable[[Sequence[Example]], Mapping[str, Tensor]]
"""From examples to means over their trained tokens, by name."""


def backward(
    losses_of: LossesOf, batch: Sequence[Example], config: MidiConfig, device: torch.device
) -> dict[str, Tensor]:
    """Add the gradients of the sum of `batch`'s losses, part by part.

    Returns:
        The losses of the whole batch: means over all its trained tokens.
    """
    found: dict[str, Tensor] = {}
    trained = sum(trained_tokens(each, config) for each in batch)
    for part in parts_of(batch, config, device):
        share = sum(trained_tokens(each, config) for each in part) / trained
        losses = {name: share * loss for name, loss in losses_of(part).items()}
        total(losses).backward()
        found = {name: found.get(name, 0) + loss.detach() for name, loss in losses.items()}
    return found


def parts_of(
    batch: Sequence[Example], config: MidiConfig, device: torch.device
) -> list[list[Example]]:
    """`batch` in as few parts as the scan has room for, short texts apart from long ones.

    An example that needs more than all the room is a part of its own; one in which nothing trains
    is left out.
    """
    left = [each for each in batch if trained_tokens(each, config)]
    if not left or not _holds_states(config, device):
        return [left] if left else []
    room = CPU_ROOM if device.type == "cpu" else ROOM
    parts: list[list[Example]] = [[]]
    for each in sorted(left, key=lambda example: _length(example, config)):
        more = [*parts[-1], each]  # the last is the longest, to which the others are padded
        if parts[-1] and _bytes(len(more), _length(each, config), config) > room:
            parts.append([each])
        else:
            parts[-1] = more
    return parts


def trained_tokens(example: Example, config: MidiConfig) -> int:
    """Over how many tokens the losses of `example` are means; none tells the first one."""
    if config.stage == 1:
        return sum(each != SLOT for each in with_slots(example.reasoned, config.latents)[1:])
    return sum(example.answered.trained[1:])


def _holds_states(config: MidiConfig, device: torch.device) -> bool:
    """Whether a Mamba runs, and its scan is not the kernel, which holds one state alone."""
    kernel = device.type == "cuda" and find_spec("mamba_ssm") is not None
    return config.kind == "midi" and not kernel


def _length(example: Example, config: MidiConfig) -> int:
    """What the Mamba reads of `example`."""
    text = config.latents
    if config.stage == 1:
        text += sum(map(len, example.reasoned))
    if config.reads == "features":
        text += len(example.image) + len(example.depth) + len(example.asked)
    return text


def _bytes(count: int, length: int, config: MidiConfig) -> int:
    """What the scan of so many texts takes, and its gradients, in float32: about four copies of all
    states that each layer holds, and eight while one is computed. `mambapy` pads lengths to powers
    of two."""
    states = count * (1 << (length - 1).bit_length()) * 2 * config.hidden * config.state
    return 4 * states * (4 * config.layers + 8)
