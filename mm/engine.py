"""The engine owns a model's weights: it computes contexts, keeps them, and writes replies.

All work on the model happens on one thread, a request at a time, so any number of threads may ask.
A request starts from the longest kept context that it begins with; what is kept is never written in
place, so any number of replies may start from the same one.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, TypeVar

from .decoding import Sampler, TextStream, log_probs
from .families import encode
from .kept import Context, Contexts, Kept
from .tokens import ImageSpan, TokenBuilder, Tokens
from .types import Cost, Finish, Sampling
from .vlm import Cancelled, ModelError, OnToken

if TYPE_CHECKING:
    from torch import Tensor

T = TypeVar("T")

_ROWS = 16  # continuations scored in one pass


@dataclass(frozen=True)
class Reply:
    """What the engine wrote: `ids` with a log-probability each; `cost` lacks the visual tokens."""

    ids: tuple[int, ...]
    logprobs: tuple[float, ...]
    finish: Finish
    cost: Cost


@dataclass(frozen=True)
class _Features:
    """A picture's visual tokens, (V, D): for the input, and for each early layer that adds more."""

    embeds: Tensor
    deep: tuple[Tensor, ...] = ()

    @property
    def nbytes(self) -> int:
        return sum(t.nbytes for t in (self.embeds, *self.deep))


@dataclass
class _Row:
    """A request in progress.

    Attributes:
        context: the prompt that was computed.
        cache: transformers' cache, of this request alone.
        logits: (V,) for the next token.
        position: the next token's position.
    """

    context: Context
    cache: Any
    logits: Tensor
    position: int
    cost: Cost


class Engine:
    """Serves requests on `model`, whose tokens `builder` builds.

    Args:
        context_budget, feature_budget: bytes that kept contexts and picture features may take.
    """

    def __init__(
        self,
        model: Any,
        builder: TokenBuilder,
        *,
        context_budget: int = 2**29,
        feature_budget: int = 2**27,
    ) -> None:
        self.builder = builder
        self._peft = model if hasattr(model, "peft_config") else None
        self.model = self._peft.get_base_model() if self._peft else model
        self._decoder = self.model.get_decoder()
        self._embed = self.model.get_input_embeddings()
        self._head = self.model.get_output_embeddings()
        self._contexts = Contexts(context_budget)
        self._features: Kept[tuple[str, str | None], _Features] = Kept(feature_budget)
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="engine")

    @property
    def limit(self) -> int:
        """The longest context, in tokens, that the model's positions reach."""
        return self.model.config.get_text_config().max_position_embeddings

    def generate(
        self,
        tokens: Tokens,
        sampling: Sampling,
        *,
        adapter: str | None = None,
        on_text: OnToken | None = None,
        cancel: Cancelled | None = None,
    ) -> Reply:
        """Write the next tokens.

        Args:
            on_text: called on the engine's thread with each new piece of text.

        Raises:
            ModelError: the prompt is longer than the model's context, or memory ran out.
        """
        abandoned = threading.Event()

        def cancelled() -> bool:
            return abandoned.is_set() or (cancel is not None and cancel())

        try:
            return self._on_thread(self._generate, tokens, sampling, adapter, on_text, cancelled)
        finally:
            abandoned.set()  # an interrupted caller must not leave the engine writing

    def score(
        self,
        tokens: Tokens,
        continuations: Sequence[Sequence[int]],
        *,
        adapter: str | None = None,
    ) -> list[list[float]]:
        """Log-probabilities of each continuation's ids after `tokens`.

        Raises:
            ModelError: as `generate`.
        """
        return self._on_thread(self._score, tokens, continuations, adapter)

    def next_logits(self, tokens: Tokens, *, adapter: str | None = None) -> Tensor:
        """The logits (V,), in float32, of the token after `tokens`; the context is kept.

        Raises:
            ModelError: as `generate`.
        """
        return self._on_thread(self._next_logits, tokens, adapter)

    def forget(self) -> None:
        """Drop all kept contexts and features."""
        self._on_thread(self._forget)

    def _on_thread(self, work: Callable[..., T], *args: Any) -> T:
        return self._thread.submit(self._guarded, work, *args).result()

    def _guarded(self, work: Callable[..., T], *args: Any) -> T:
        import torch

        try:
            with torch.inference_mode():
                return work(*args)
        except (torch.OutOfMemoryError, MemoryError) as error:
            self._forget()
            raise ModelError(_out_of_memory(error)) from error
        except RuntimeError as error:
            if "allocate memory" not in str(error):  # what the CPU's allocator says
                raise
            self._forget()
            raise ModelError(_out_of_memory(error)) from error

    def _forget(self) -> None:
        self._contexts.kept.clear()
        self._features.clear()

    def _generate(
        self,
        tokens: Tokens,
        sampling: Sampling,
        adapter: str | None,
        on_text: OnToken | None,
        cancelled: Cancelled,
    ) -> Reply:
        began = time.perf_counter()
        with self._using(adapter):
            row = self._prefill(tokens, adapter)
            reply = self._write(row, sampling, on_text, cancelled)
        written = len(reply.ids)
        seconds = time.perf_counter() - began
        cost = replace(row.cost, generated_tokens=written, calls=1, seconds=seconds)
        return replace(reply, cost=cost)

    def _write(
        self, row: _Row, sampling: Sampling, on_text: OnToken | None, cancelled: Cancelled
    ) -> Reply:
        sampler = Sampler(sampling, self.builder.banned_ids)
        text = TextStream(self.builder.decode, sampling.stop, on_text)
        room = min(sampling.max_tokens, self.limit - len(row.context.ids))
        ids: list[int] = []
        logprobs: list[float] = []
        finish: Finish = "length"
        while len(ids) < room:
            if cancelled():
                finish = "cancelled"
                break
            if ids:
                self._step(row, ids[-1])
            id, logprob = sampler.pick(row.logits)
            ids.append(id)
            logprobs.append(logprob)
            if id in self.builder.end_ids or text.push(id):
                finish = "stop"
                break
        text.end()
        self._keep(row, ids[:-1])  # the last token was never computed
        return Reply(tuple(ids), tuple(logprobs), finish, row.cost)

    def _score(
        self, tokens: Tokens, continuations: Sequence[Sequence[int]], adapter: str | None
    ) -> list[list[float]]:
        with self._using(adapter):
            row = self._prefill(tokens, adapter)
            self._keep(row, [])
            groups = (continuations[i : i + _ROWS] for i in range(0, len(continuations), _ROWS))
            return [scores for group in groups for scores in self._score_rows(row, group)]

    def _score_rows(self, row: _Row, rows: Sequence[Sequence[int]]) -> list[list[float]]:
        """One pass over continuations of one prompt; padding stands after all that counts."""
        import torch

        longest = max(map(len, rows))
        ids = torch.tensor(
            [[*r, *[0] * (longest - len(r))] for r in rows], device=self.model.device
        )
        logits = row.logits.expand(len(rows), 1, -1)
        if longest > 1:
            cache = _cache(
                (k.expand(len(rows), -1, -1, -1), v.expand(len(rows), -1, -1, -1))
                for k, v in _layers(row.cache)
            )
            at = torch.arange(row.position, row.position + longest - 1, device=self.model.device)
            hidden = self._forward(self._embed(ids[:, :-1]), at.expand(len(rows), -1), cache)
            logits = torch.cat([logits, self._head(hidden).float()], dim=1)
        likely = log_probs(logits, torch.tensor(sorted(self.builder.banned_ids)))
        taken = likely.gather(-1, ids[..., None])[..., 0].tolist()
        return [scores[: len(r)] for scores, r in zip(taken, rows, strict=True)]

    def _next_logits(self, tokens: Tokens, adapter: str | None) -> Tensor:
        with self._using(adapter):
            row = self._prefill(tokens, adapter)
        self._keep(row, [])
        return row.logits

    def _prefill(self, tokens: Tokens, adapter: str | None) -> _Row:
        """Compute what no kept context holds of `tokens`.

        Layers with a sliding window keep all their keys here and only their mask slides: a cache
        that forgets could not serve a request that begins the same and goes on differently.
        """
        length = len(tokens.ids)
        if length > self.limit:
            raise ModelError(
                f"a conversation of {length} tokens is too long; the model takes {self.limit}"
            )
        context = Context.of(tokens, adapter)
        reused, layers = self._contexts.longest(context, length - 1)
        cache = _cache(layers)
        new = [span for span in tokens.images if span.start >= reused]
        features, patches = self._seen(new, adapter)
        positions = self._positions(tokens)
        embeds, extra = self._inputs(tokens, reused, features)
        hidden = self._forward(embeds, positions[..., reused:], cache, **extra)
        cost = Cost(patches=patches, computed_tokens=length - reused, reused_tokens=reused)
        return _Row(context, cache, self._logits(hidden), int(positions.max()) + 1, cost)

    def _step(self, row: _Row, id: int) -> None:
        """Compute the token `id` after `row`."""
        import torch

        embeds = self._embed(torch.tensor([[id]], device=self.model.device))
        at = torch.tensor([[row.position]], device=self.model.device)
        row.logits = self._logits(self._forward(embeds, at, row.cache))
        row.position += 1

    def _forward(self, embeds: Tensor, positions: Tensor, cache: Any, **extra: Any) -> Tensor:
        """Hidden states (B, T, D) for `embeds` (B, T, D); `positions` are (B, T), or (3, B, T).

        The decoder is called without its wrapper, which would fill in positions from `rope_deltas`:
        what the last request left on the module, whoever's it was.
        """
        if self.builder.family.mrope and positions.dim() == 2:
            positions = positions.expand(3, -1, -1)
        out = self._decoder(
            inputs_embeds=embeds,
            position_ids=positions,
            past_key_values=cache,
            use_cache=True,
            **extra,
        )
        return out.last_hidden_state

    def _logits(self, hidden: Tensor) -> Tensor:
        return self._head(hidden[0, -1]).float()

    def _positions(self, tokens: Tokens) -> Tensor:
        """Positions of all ids: (1, T), or (3, 1, T) where the family has three axes."""
        import torch

        if not (self.builder.family.mrope and tokens.images):
            return torch.arange(len(tokens.ids), device=self.model.device)[None]
        ids = torch.tensor([tokens.ids])
        positions, _ = self.model.model.get_rope_index(
            ids,
            mm_token_type_ids=(ids == self.builder.placeholder_id).int(),
            image_grid_thw=torch.cat([span.tensors["image_grid_thw"] for span in tokens.images]),
        )
        return positions.to(self.model.device)

    def _inputs(
        self, tokens: Tokens, start: int, features: Sequence[_Features]
    ) -> tuple[Tensor, dict[str, Any]]:
        """Embeddings (1, T, D) of the ids from `start` on, and what else pictures bring."""
        import torch

        ids = torch.tensor([tokens.ids[start:]], device=self.model.device)
        visual = ids == self.builder.placeholder_id
        # a placeholder may lie outside the vocabulary, and its embedding is replaced anyway
        embeds = self._embed(ids.masked_fill(visual, 0))
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
        if self.builder.family.joined_pictures:
            window = self.model.config.get_text_config().sliding_window
            extra["attention_mask"] = _joined_masks(visual[0], start, window)
        return embeds, extra

    def _seen(self, spans: Sequence[ImageSpan], adapter: str | None) -> tuple[list[_Features], int]:
        """The features of each picture, and how many patches were encoded for them now."""
        patches = 0
        features: list[_Features] = []
        for span in spans:
            key = (span.image.id, adapter)
            seen = self._features.get(key)
            if seen is None:
                seen = _features(encode(self.model, span.tensors))
                self._features.put(key, seen, seen.nbytes)
                patches += span.patches
            features.append(seen)
        return features, patches

    def _keep(self, row: _Row, ids: Sequence[int]) -> None:
        """Keep `row`'s context with the `ids` computed after it."""
        context = replace(row.context, ids=(*row.context.ids, *ids))
        self._contexts.keep(context, tuple(_layers(row.cache)))

    @contextmanager
    def _using(self, adapter: str | None) -> Iterator[None]:
        """The weights with `adapter`, or as they were without any."""
        if self._peft is None:
            if adapter is not None:
                raise ModelError(f"the model has no adapter {adapter!r}")
            yield
        elif adapter is None:
            with self._peft.disable_adapter():
                yield
        else:
            self._peft.set_adapter(adapter)
            yield


def _cache(layers: Iterable[tuple[Tensor, Tensor]]) -> Any:
    """A cache of its own that begins with `layers`, which stay as they are."""
    from transformers.cache_utils import DynamicCache

    return DynamicCache(tuple(layers) or None)


def _layers(cache: Any) -> Iterator[tuple[Tensor, Tensor]]:
    return ((layer.keys, layer.values) for layer in cache.layers)


def _features(output: Any) -> _Features:
    """A family's `encode` output for one picture as flat visual tokens."""
    deep = getattr(output, "deepstack_features", None) or ()
    return _Features(_flat(output.pooler_output), tuple(_flat(layer) for layer in deep))


def _flat(value: Any) -> Tensor:
    import torch

    tensor = value if torch.is_tensor(value) else torch.cat(tuple(value))
    return tensor.reshape(-1, tensor.shape[-1])


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


def _out_of_memory(error: BaseException) -> str:
    first = str(error).splitlines()[0][:200] if str(error) else "no memory left"
    return f"out of memory: {first}; use fewer or smaller pictures, or a smaller model"
