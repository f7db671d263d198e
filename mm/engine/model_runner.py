"""A model's weights and how to call them: positions, embeddings, pictures, adapters, logits."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from mm.errors import ModelError
from mm.families.visual_memory import Block
from mm.tokens.builder import TokenBuilder
from mm.tokens.sequence import ImageSpan, Tokens

from .lm_head import logits_of
from .vision_encoder import ImageFeatures, encode_each, image_features

if TYPE_CHECKING:
    from torch import Tensor


class ModelRunner:
    """A transformers model of a listed family, plain or with peft's adapters. For one thread."""

    def __init__(self, model: Any, builder: TokenBuilder) -> None:
        self.builder = builder
        self.family = builder.family
        self._peft = model if hasattr(model, "peft_config") else None
        self.model = self._peft.get_base_model() if self._peft else model
        self._decoder = self.model.get_decoder()
        self._embed = self.model.get_input_embeddings()
        self.head = self.model.get_output_embeddings()
        self._text = self.model.config.get_text_config()

    @property
    def device(self) -> Any:
        """Where the weights are."""
        return self.model.device

    @property
    def limit(self) -> int:
        """The longest context, in tokens, that the model's positions reach."""
        return self._text.max_position_embeddings

    def check_length(self, length: int) -> None:
        """Raise `ModelError` where `length` ids are more than the model takes."""
        if length > self.limit:
            raise ModelError(
                f"a conversation of {length} tokens is too long; the model takes {self.limit}"
            )

    @property
    def depth(self) -> int:
        """How many layers the decoder has."""
        return self._text.num_hidden_layers

    @property
    def batches(self) -> bool:
        """Whether rows can be decoded together: every layer's mask is one `row_mask` knows."""
        kinds = set(getattr(self._text, "layer_types", None) or ())
        if self.family.slides:
            return kinds <= {"full_attention", "sliding_attention"}
        window = getattr(self._text, "sliding_window", None)
        return kinds <= {"full_attention"} and (bool(kinds) or window is None)

    @property
    def batches_prompts(self) -> bool:
        """Whether prompts can be computed together: no picture has a mask of its own besides."""
        return self.batches and not self.family.bidirectional_images

    def forward(self, embeds: Tensor, positions: Tensor, cache: Any, **extra: Any) -> Tensor:
        """Hidden states (B, T, D) for `embeds` (B, T, D); `positions` are (B, T), or (3, B, T).

        The decoder is called without its wrapper, which would fill in positions from `rope_deltas`:
        what the last request left on the module, whoever's it was.
        """
        out = self._decoder(
            inputs_embeds=embeds,
            position_ids=self.axes(positions),
            past_key_values=cache,
            use_cache=True,
            **extra,
        )
        return out.last_hidden_state

    def axes(self, positions: Tensor) -> Tensor:
        """Positions (B, T) on the axes of the family: three, (3, B, T), or none, (B, T)."""
        if self.family.mrope and positions.dim() == 2:
            return positions.expand(3, -1, -1)
        return positions

    def logits(self, hidden: Tensor) -> Tensor:
        """Logits (..., V), in float32, of the tokens after `hidden` (..., D)."""
        return logits_of(self.head, hidden)

    def embed(self, ids: Tensor) -> Tensor:
        """Token embeddings (N, D) of `ids` (N,)."""
        return self._embed(ids)

    def row_mask(self, at: Tensor, view: int) -> Any:
        """What tokens that are written at `at` (B, T) attend to, of `view` positions.

        (B, 1, T, view), by the kind of layer where kinds differ, as `forward` takes it.
        """
        import torch

        every, at = torch.arange(view, device=at.device), at[:, None, :, None]
        full = every <= at
        if not self.family.slides:
            return self._mask(full)
        near = full & (every > at - self._text.sliding_window)
        return {"full_attention": self._mask(full), "sliding_attention": self._mask(near)}

    def _mask(self, counts: Tensor) -> Tensor:
        """`counts`, True where a key counts, as the attention in use takes it."""
        import torch

        if self._text._attn_implementation != "eager":
            return counts
        nothing = torch.zeros(counts.shape, device=counts.device)  # eager attention adds its mask
        return nothing.masked_fill(~counts, float("-inf"))

    def positions(self, tokens: Tokens) -> Tensor:
        """Positions of all ids: (1, T), or (3, 1, T) where the family has three axes."""
        import torch

        if not (self.family.mrope and tokens.images):
            return torch.arange(len(tokens.ids), device=self.device)[None]
        ids = torch.tensor([tokens.ids])
        positions, _ = self.model.model.get_rope_index(
            ids,
            mm_token_type_ids=(ids == self.builder.placeholder_id).int(),
            image_grid_thw=torch.tensor([self._thw(span) for span in tokens.images]),
        )
        return positions.to(self.device)

    def _thw(self, span: ImageSpan) -> tuple[int, int, int]:
        """Frames, rows and columns of patches, as the family counts positions from them."""
        merge = self.model.config.vision_config.spatial_merge_size
        return 1, span.shape[1] * merge, span.shape[0] * merge

    def inputs(
        self, ids: Sequence[int], start: int, features: Sequence[ImageFeatures]
    ) -> tuple[Tensor, dict[str, Any]]:
        """Embeddings (1, T, D) of `ids`, which stand from `start` on, and what pictures bring."""
        import torch

        new = torch.tensor([ids], device=self.device)
        visual = new == self.builder.placeholder_id
        # a placeholder may lie outside the vocabulary, and its embedding is replaced anyway
        embeds = self._embed(new.masked_fill(visual, 0))
        if not features:
            return embeds, {}
        seen = torch.cat([f.embeds for f in features])
        if len(seen) != int(visual.sum()):
            raise ModelError(f"{int(visual.sum())} placeholders for {len(seen)} visual tokens")
        embeds[visual] = seen.to(embeds.dtype)
        extra: dict[str, Any] = {}
        if features[0].deep:
            layers = zip(*(f.deep for f in features), strict=True)
            deep = [torch.cat(layer) for layer in layers]
            extra = {"visual_pos_masks": visual, "deepstack_visual_embeds": deep}
        if self.family.bidirectional_images:
            masks = _joined_masks(visual[0], start, self._text.sliding_window)
            extra["attention_mask"] = {kind: self._mask(mask) for kind, mask in masks.items()}
        return embeds, extra

    def see(self, spans: Sequence[ImageSpan]) -> list[ImageFeatures]:
        """Encode pictures, in one pass where they can share it, and memories, the whole of each."""
        pictures = [span for span in spans if not span.block]
        outputs = iter(encode_each(self.model, [span.tensors for span in pictures]))
        return [
            self._recalled(s, s.block) if s.block else image_features(next(outputs)) for s in spans
        ]

    def _recalled(self, span: ImageSpan, block: Block) -> ImageFeatures:
        assert self.family.recall
        layers = self.family.recall.encode(self.model, span.tensors)
        embeds, *deep = (block.grid.join(layer) for layer in layers)
        return ImageFeatures(embeds, tuple(deep))

    @contextmanager
    def using(self, adapter: str | None) -> Iterator[None]:
        """The weights with `adapter`, or as they were without any.

        Raises:
            ModelError: the model has no such adapter.
        """
        if adapter is not None and adapter not in getattr(self._peft, "peft_config", ()):
            raise ModelError(f"the model has no adapter {adapter!r}")
        if self._peft is None:
            yield
        elif adapter is None:
            with self._peft.disable_adapter():
                yield
        else:
            self._peft.set_adapter(adapter)
            yield


def _joined_masks(visual: Tensor, start: int, window: int | None) -> dict[str, Tensor]:
    """Masks (1, 1, T, start + T) for ids whose pictures attend to themselves in both directions.

    `visual` (T,) marks placeholders; each run of them is one block, as the family's model reads it.
    """
    import torch

    new = torch.arange(start, start + len(visual), device=visual.device)
    every = torch.arange(start + len(visual), device=visual.device)
    begins = visual & ~torch.nn.functional.pad(visual[:-1], (1, 0))
    block = torch.where(visual, begins.cumsum(0), -1)
    same = (block[:, None] == block[None]) & visual[:, None]
    joined = torch.nn.functional.pad(same, (start, 0))
    causal = every[None] <= new[:, None]
    near = causal if window is None else causal & (every[None] > new[:, None] - window)
    masks = {"full_attention": causal | joined, "sliding_attention": near | joined}
    return {name: mask[None, None] for name, mask in masks.items()}
