"""Where a model looks: attention of a prompt's text over the visual tokens of its images.

Only the rows of attention asked for are ever held (one for the last token, a few for a question's
text), so memory grows with the layers asked for and the length of the prompt, not with its square.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from mm.tokens.builder import TokenBuilder
from mm.tokens.sequence import Tokens
from mm.types import Cost
from mm.vlm import AttentionMaps, Query

from .vision_encoder import encode_all

if TYPE_CHECKING:
    from torch import Tensor

_NAME = "mm_rows"
_active = threading.local()


@dataclass
class _Recorder:
    """Rows of attention (heads, N, T) by layer, as the forward passes them."""

    layers: frozenset[int]
    queries: Sequence[int]
    gradient: bool
    rows: dict[int, Tensor] = field(default_factory=dict)


def attention_maps(
    model: Any,
    builder: TokenBuilder,
    tokens: Tokens,
    layers: Sequence[int],
    *,
    query: Query = "last",
    gradient: bool = False,
) -> AttentionMaps:
    """Attention over the images of `tokens`, mean over heads, in each of `layers`.

    Args:
        model: a transformers model of a listed family; it is left as it was.
        query: whose attention: the last token's, or that of all text after the last image.
        gradient: weigh each head's attention with the positive part of the gradient of the
            likeliest next token's log-probability (ViCrop's variant).

    Raises:
        ValueError: the decoder has no such layer.
    """
    import torch

    depth = model.config.get_text_config().num_hidden_layers
    if wrong := [layer for layer in layers if not 0 <= layer < depth]:
        raise ValueError(f"layers must lie in 0..{depth - 1}, got {wrong[0]}")
    recorder = _Recorder(frozenset(layers), _queries(builder, tokens, query), gradient)
    with torch.inference_mode(False), torch.no_grad(), _recording(model, recorder):
        inputs = _inputs(model, builder, tokens)
        logits = model(**inputs, use_cache=False, logits_to_keep=1).logits
        rows = dict(recorder.rows)
        if gradient:
            likeliest = logits[0, -1].float().log_softmax(-1).max()
            slopes = torch.autograd.grad(likeliest, list(rows.values()))
            rows = {k: a * g.relu() for (k, a), g in zip(rows.items(), slopes, strict=True)}
    means = [rows[layer].detach().float().mean((0, 1)).cpu() for layer in layers]
    cost = Cost(
        patches=sum(span.patches for span in tokens.images),
        computed_tokens=len(tokens.ids),
        calls=1,
    )
    return AttentionMaps(tuple(_maps(builder, tokens, mean) for mean in means), cost)


def _queries(builder: TokenBuilder, tokens: Tokens, query: Query) -> Sequence[int]:
    """Indices of the tokens whose attention is wanted; never none."""
    last = len(tokens.ids) - 1
    if query == "last" or not tokens.images:
        return [last]
    ends = [i for i, id in enumerate(tokens.ids) if id in builder.end_ids]
    begin = tokens.images[-1].stop
    stop = next((i for i in ends if i >= begin), last)
    words = [i for i in range(begin, stop) if tokens.ids[i] not in builder.banned_ids]
    return words or [last]


def _maps(builder: TokenBuilder, tokens: Tokens, row: Tensor) -> tuple[Any, ...]:
    """`row` (T,) as one map (rows, columns) per image, each covering its whole image."""
    maps = []
    for span in tokens.images:
        slots = [i for i in range(span.start, span.stop) if tokens.ids[i] == builder.placeholder_id]
        grid = builder.grid(span.image.size, span.image.kind)
        here = slots[grid.first : grid.first + grid.columns * grid.rows]
        maps.append(row[here].view(grid.rows, grid.columns).numpy())
    return tuple(maps)


def _inputs(model: Any, builder: TokenBuilder, tokens: Tokens) -> dict[str, Any]:
    import torch

    ids = torch.tensor([tokens.ids], device=model.device)
    visual = ids == builder.placeholder_id
    inputs: dict[str, Any] = {"input_ids": ids}
    if tokens.images:
        encoded = encode_all(model, [span.tensors for span in tokens.images])
        inputs["mm_encoder_outputs"] = {"image": encoded}
    if builder.family.mrope:
        inputs["mm_token_type_ids"] = visual.int()
        if tokens.images:
            grids = [span.tensors["image_grid_thw"] for span in tokens.images]
            inputs["image_grid_thw"] = torch.cat(grids).to(model.device)
    if builder.family.bidirectional_images:
        inputs["token_type_ids"] = visual.int()
    return inputs


@contextmanager
def _recording(model: Any, recorder: _Recorder) -> Iterator[None]:
    """The decoder with an attention function that gives `recorder` its rows."""
    import torch

    _register()
    config = model.get_decoder().config
    before, grads = config._attn_implementation, torch.is_grad_enabled()
    config._attn_implementation = _NAME
    _active.recorder = recorder
    try:
        yield
    finally:
        _active.recorder = None
        config._attn_implementation = before
        torch.set_grad_enabled(grads)


def _register() -> None:
    from transformers import AttentionInterface
    from transformers.masking_utils import AttentionMaskInterface, sdpa_mask

    AttentionInterface.register(_NAME, _attention)
    AttentionMaskInterface.register(_NAME, sdpa_mask)


def _attention(
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    **options: Any,
) -> tuple[Tensor, None]:
    """The library's sdpa attention; at a recorded layer, the rows asked for on their own.

    Shapes: query (1, heads, T, width), key and value (1, groups, T, width), output
    (1, T, heads, width).
    """
    import torch
    from transformers.integrations.sdpa_attention import repeat_kv, sdpa_attention_forward

    out, _ = sdpa_attention_forward(
        module, query, key, value, attention_mask, scaling=scaling, **options
    )
    recorder: _Recorder | None = getattr(_active, "recorder", None)
    if recorder is None or module.layer_idx not in recorder.layers:
        return out, None
    groups = query.shape[1] // key.shape[1]
    rows = _rows(query, repeat_kv(key, groups), attention_mask, recorder.queries, scaling)
    if not recorder.gradient:
        recorder.rows[module.layer_idx] = rows
        return out, None
    torch.set_grad_enabled(True)  # from the first recorded layer on; `_recording` sets it back
    rows = rows if rows.requires_grad else rows.detach().requires_grad_()
    recorder.rows[module.layer_idx] = rows
    through = (rows[None].to(value.dtype) @ repeat_kv(value, groups)).transpose(1, 2)
    at = torch.tensor(recorder.queries, device=out.device)
    return out.index_copy(1, at, through.to(out.dtype)), None


def _rows(
    query: Tensor,
    key: Tensor,
    mask: Tensor | None,
    queries: Sequence[int],
    scaling: float | None,
) -> Tensor:
    """Attention (heads, N, T), in float32, of the tokens `queries`."""
    import torch

    at = torch.tensor(queries, device=query.device)
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    scores = (query[0, :, at].float() @ key[0].float().transpose(1, 2)) * scale
    later = torch.arange(key.shape[2], device=query.device)[None] > at[:, None]
    scores = scores.masked_fill(later, float("-inf"))
    if mask is not None:
        part = mask[0, :, at, : key.shape[2]]
        hidden = ~part if part.dtype == torch.bool else part < -1
        scores = scores.masked_fill(hidden, float("-inf"))
    return scores.softmax(-1)
