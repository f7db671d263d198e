"""Calls a model: positions, embeddings, images, adapters, masks, logits; bytes per token."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from typing import TYPE_CHECKING, Any

from mm.errors import ModelError
from mm.tokens.builder import TokenBuilder
from mm.tokens.image_processing import LATENTS
from mm.tokens.sequence import ImageSpan, Tokens

from .adapter_layers import AdapterLayers
from .lm_head import logits_of
from .vision_encoder import ImageFeatures, encode_features, encode_memory, given

if TYPE_CHECKING:
    from torch import Tensor


_BUCKET = 128  # positions


def row_bucket(rows: int) -> int:
    """How many rows a buffer for `rows` has: a power of two."""
    return 1 << max(rows - 1, 0).bit_length()


def length_bucket(length: int, most: int = 0) -> int:
    """How many positions a buffer for `length` has, where it may have to grow up to `most`.

    Doubled from 128, but no more than `most`, which is rounded up to a multiple of 128.
    """
    doubled = _BUCKET * row_bucket(-(-length // _BUCKET))
    return min(doubled, -(-max(most, length) // _BUCKET) * _BUCKET)


class ModelRunner:
    """A transformers model of a listed family, plain or with peft's adapters. For one thread.

    Attributes:
        adapted: the model in peft's wrapper; None where it has no adapters.
        feature_bytes: of an image's features for each visual token, as the latest ones had it.
    """

    def __init__(self, model: Any, builder: TokenBuilder) -> None:
        self.builder = builder
        self.family = builder.family
        self.adapted: Any = model if hasattr(model, "peft_config") else None
        self.model = self.adapted.get_base_model() if self.adapted else model
        self._decoder = self.model.get_decoder()
        self._embed = self.model.get_input_embeddings()
        self.head = self.model.get_output_embeddings()
        self._text = self.model.config.get_text_config()
        self.feature_bytes = self._text.hidden_size * self.model.dtype.itemsize
        self.note_adapters()

    @property
    def device(self) -> Any:
        """Where the weights are."""
        return self.model.device

    @property
    def limit(self) -> int:
        """The longest context, in tokens, that the model's positions reach."""
        return self.builder.positions or self._text.max_position_embeddings

    def room_after(self, length: int) -> int:
        """How many more tokens the model's positions reach after `length`.

        Raises:
            ModelError: `length` tokens are more than the model takes.
        """
        limit = self.limit
        if length > limit:
            raise ModelError(
                f"a conversation of {length} tokens is too long; the model takes {limit}: "
                "use fewer or smaller images, or less text"
            )
        return limit - length

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

    @cached_property
    def kv_bytes(self) -> int:
        """Bytes of keys and values for each token of a context, measured by computing some."""
        import torch

        sizes = []
        for length in (8, 16):
            cache = dynamic_cache(())
            ids = torch.zeros(1, length, dtype=torch.long, device=self.device)
            with torch.inference_mode(), self.using(None):
                self.forward(
                    self._embed(ids), torch.arange(length, device=self.device)[None], cache
                )
            sizes.append(sum(layer.keys.nbytes + layer.values.nbytes for layer in cache.layers))
        return (sizes[1] - sizes[0]) // 8

    def batch_bytes(self, lengths: Sequence[int]) -> int:
        """Bytes of keys and values that rows of `lengths` tokens take, decoded in one batch.

        Padding is included: every row of a buffer is as long as the longest.
        """
        if not self.batches:
            return sum(lengths) * self.kv_bytes
        most = max(lengths)
        return row_bucket(len(lengths)) * length_bucket(most, most) * self.kv_bytes

    @property
    def batches_prompts(self) -> bool:
        """Whether prompts can be computed together: no image has a mask of its own besides."""
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

    def forward_prompt(
        self,
        ids: Sequence[int],
        start: int,
        features: Sequence[ImageFeatures],
        positions: Tensor,
        cache: Any,
    ) -> Tensor:
        """Hidden states (1, T, D) for `ids`, which stand from `start` on, with their images."""
        embeds, extra = self.inputs(ids, start, features)
        return self.forward(embeds, positions, cache, **extra)

    def axes(self, positions: Tensor) -> Tensor:
        """Positions (B, T) on the axes of the family: three, (3, B, T), or none, (B, T)."""
        if self.family.mrope and positions.dim() == 2:
            return positions.expand(3, -1, -1)
        return positions

    def logits(self, hidden: Tensor) -> Tensor:
        """Logits (..., V), in float32, of the tokens after `hidden` (..., D)."""
        if hidden.dtype.itemsize > 2:
            return self.head(hidden).float()
        return logits_of(self.head, hidden)  # 16 bits would be rounded

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
        seen = [self._thw(span) for span in tokens.images if span.encoded]
        types = (ids == self.builder.placeholder_id).int()
        if len(seen) < len(tokens.images):
            types = torch.tensor([tokens.types(self.builder.placeholder_id)])
        positions, _ = self.model.model.get_rope_index(
            ids,
            mm_token_type_ids=types,
            image_grid_thw=torch.tensor(seen) if seen else None,
        )
        return positions.to(self.device)

    def _thw(self, span: ImageSpan) -> tuple[int, int, int]:
        """Frames, rows and columns of patches, as the family counts positions from them."""
        merge = self.model.config.vision_config.spatial_merge_size
        return 1, span.shape[1] * merge, span.shape[0] * merge

    def inputs(
        self, ids: Sequence[int], start: int, features: Sequence[ImageFeatures]
    ) -> tuple[Tensor, dict[str, Any]]:
        """Embeddings (1, T, D) of `ids`, which stand from `start` on, and what images bring."""
        import torch

        new = torch.tensor([ids], device=self.device)  # (1, T)
        visual = new == self.builder.placeholder_id
        # a placeholder may lie outside the vocabulary, and its embedding is replaced anyway
        embeds = self._embed(new.masked_fill(visual, 0))  # (1, T, D)
        if not features:
            return embeds, {}
        tokens = torch.cat([f.embeds for f in features])  # (V, D)
        if len(tokens) != int(visual.sum()):
            raise ModelError(
                f"{int(visual.sum())} placeholders for {len(tokens)} visual tokens: the image "
                "processor does not fit the model; load the checkpoint's own"
            )
        embeds[visual] = tokens.to(embeds.dtype)
        extra: dict[str, Any] = {}
        if features[0].deep:
            layers = zip(*(f.deep for f in features), strict=True)
            deep = [torch.cat(layer) for layer in layers]
            extra = {"visual_pos_masks": visual, "deepstack_visual_embeds": deep}
        if self.family.bidirectional_images:
            latent = [torch.full((len(f.embeds),), f.latent) for f in features]
            seen = visual.masked_scatter(visual, ~torch.cat(latent).to(visual.device))
            masks = _image_masks(seen[0], start, self._text.sliding_window)
            extra["attention_mask"] = {kind: self._mask(mask) for kind, mask in masks.items()}
        return embeds, extra

    def encode_images(self, spans: Sequence[ImageSpan]) -> list[ImageFeatures]:
        """Features of images, in one pass where they can share it, and of memories, each whole."""
        alone = [span.process() for span in spans if span.encoded and not span.block]
        images = iter(encode_features(self.model, alone))
        features = []
        for span in spans:
            if span.block:
                memory = encode_memory(self.model, self.family, span.process(), span.block)
                features.append(memory)
            elif span.encoded:
                features.append(next(images))
            else:
                features.append(given(span.process()[LATENTS], self.model))
        self.feature_bytes = max(f.nbytes // len(f.embeds) for f in features)
        return features

    @property
    def adapters(self) -> tuple[str, ...]:
        """The names of the adapters on the weights; any thread may ask."""
        return tuple(self._layers.changes) if self._layers else ()

    def changes_images(self, adapter: str | None) -> bool:
        """Whether images may become other features with `adapter`; any thread may ask.

        True of an adapter that the model does not have.
        """
        changes = self._layers.changes if self._layers else {}
        return adapter is not None and changes.get(adapter, True)

    def note_adapters(self) -> None:
        """Find the adapters on the weights anew, after one was put in another's place."""
        self._layers = AdapterLayers(self.adapted) if self.adapted else None

    def adapt(self, adapted: Any) -> None:
        """Take `adapted`, the same model in peft's wrapper, for one that has adapters."""
        self.adapted = adapted
        self._embed = self.model.get_input_embeddings()  # peft may have put others in their place
        self.head = self.model.get_output_embeddings()
        self.note_adapters()

    @contextmanager
    def using(self, adapter: str | None) -> Iterator[None]:
        """The weights with `adapter`, or as they were without any.

        Raises:
            ModelError: the model has no such adapter.
        """
        if adapter is not None and adapter not in getattr(self.adapted, "peft_config", ()):
            raise ModelError(f"the model has no adapter {adapter!r}")
        if self._layers and self._layers.stale:
            self.note_adapters()
        if self._layers is None:
            yield
        elif adapter is None:
            with self._layers.off():
                yield
        else:
            self._layers.switch_to(adapter)
            yield


def dynamic_cache(layers: Iterable[tuple[Tensor, Tensor]]) -> Any:
    """transformers' cache for one request; it begins with `layers`, which stay as they are."""
    from transformers.cache_utils import DynamicCache

    return DynamicCache(tuple(layers) or None)


def _image_masks(visual: Tensor, start: int, window: int | None) -> dict[str, Tensor]:
    """Masks (1, 1, T, start + T) for ids whose images attend to themselves in both directions.

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
