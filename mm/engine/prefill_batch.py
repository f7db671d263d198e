"""Short prompts computed in one forward, each from its own start on."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

from .model_runner import ModelRunner, dynamic_cache

if TYPE_CHECKING:
    from torch import Tensor

    from .prompt import Prompt


def companions(
    first: Prompt,
    others: Iterable[Prompt],
    budget: int,
    start: Callable[[Prompt], int],
    positions: int,
) -> list[Prompt]:
    """`first` and the prompts that can be prefilled in the same forward.

    They have its adapter and its priority, and with their padding come to at most `budget` ids and
    `positions` keys and values. A prompt that shares more with one of the group than is computed of
    it (`start`) waits, so that what they share is computed once.
    """
    group, begun = [first], [start(first)]
    for other in others:
        if other is first or other.prefix.adapter != first.prefix.adapter:
            continue
        if other.priority != first.priority:
            continue
        at = start(other)
        if not _fits([*group, other], [*begun, at], budget, positions):
            break
        if all(other.prefix.common_prefix(member.prefix) <= at for member in group):
            group.append(other)
            begun.append(at)
    return group


def _fits(prompts: Sequence[Prompt], starts: Sequence[int], budget: int, positions: int) -> bool:
    """Whether a forward has room for the rest of all `prompts`."""
    rest = max(len(p.tokens.ids) - at for p, at in zip(prompts, starts, strict=True))
    fits = len(prompts) * rest <= budget
    return fits and len(prompts) * (max(starts) + rest) <= positions


def compute_batch(runner: ModelRunner, prompts: Sequence[Prompt]) -> None:
    """Compute `prompts`, whose prefixes and features are there, to their ends.

    A prompt is changed only once all are computed.
    """
    from .kv_slots import Slots

    slots = Slots(runner.depth)
    for prompt in prompts:
        slots.add(prompt.layers)
    counts = [len(p.tokens.ids) - p.done for p in prompts]
    at = slots.begin(0, len(prompts), max(counts), runner.device)
    embeds, positions, extra = _padded(runner, prompts, counts)  # (B, T, D), (B, T) or (3, B, T)
    mask = runner.row_mask(at, slots.view)  # (B, 1, T, view)
    hidden = runner.forward(embeds, positions, slots, attention_mask=mask, **extra)
    slots.advance(counts)  # what lies behind a row's own count is padding: never read
    last = [count - 1 for count in counts]
    logits = runner.logits(hidden[range(len(prompts)), last])  # (B, V)
    caches = [dynamic_cache(slots.read(row)) for row in range(len(prompts))]
    for prompt, cache, row in zip(prompts, caches, logits, strict=True):
        prompt.cache, prompt.logits, prompt.done = cache, row, len(prompt.tokens.ids)


def _padded(
    runner: ModelRunner, prompts: Sequence[Prompt], counts: Sequence[int]
) -> tuple[Tensor, Tensor, dict[str, Any]]:
    """Embeddings (B, T, D), positions (B, T) or (3, B, T), and what images bring."""
    import torch
    from torch.nn.functional import pad

    width = max(counts)
    inputs = [runner.inputs(p.tokens.ids[p.done :], p.done, p.features_until()) for p in prompts]
    embeds = [pad(e, (0, 0, 0, width - e.shape[1])) for e, _ in inputs]
    at = [runner.axes(p.positions[..., p.done :]) for p in prompts]
    positions = [pad(row, (0, width - row.shape[-1])) for row in at]
    extra = _join_deepstack([brings for _, brings in inputs], counts, width)
    return torch.cat(embeds), torch.cat(positions, dim=-2), extra


def _join_deepstack(
    brought: Sequence[dict[str, Any]], counts: Sequence[int], width: int
) -> dict[str, Any]:
    """What images bring to the early layers, as if all rows were one prompt."""
    import torch
    from torch.nn.functional import pad

    deep = [brings["deepstack_visual_embeds"] for brings in brought if brings]
    if not deep:
        return {}
    device = deep[0][0].device
    none = (torch.zeros(1, count, dtype=torch.bool, device=device) for count in counts)
    masks = [b.get("visual_pos_masks", n) for b, n in zip(brought, none, strict=True)]
    visual = torch.cat([pad(mask, (0, width - mask.shape[1])) for mask in masks])
    layers = [torch.cat(layer) for layer in zip(*deep, strict=True)]
    return {"visual_pos_masks": visual, "deepstack_visual_embeds": layers}
