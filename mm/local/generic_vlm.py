"""A checkpoint of an unlisted family: its own chat template, processor and `generate`.

The whole conversation is computed anew each turn, one call at a time, so it costs more than a
listed family does. It is not trained here: nothing says which of its tokens the assistant wrote.
"""

from __future__ import annotations

import inspect
import logging
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from mm.engine.detokenizer import StreamDetokenizer
from mm.engine.sampler import Sampler, log_probs
from mm.errors import ModelError, UserError, first_line
from mm.families.image_budgets import ImageBudgets
from mm.families.registry import crop_rule_of
from mm.geometry import BoxFormat, Size
from mm.markup import parse_parts
from mm.tokens.builder import positions_of
from mm.tokens.processor_parts import ids_of, sampling_of
from mm.types import (
    Conversation,
    Cost,
    Generation,
    Image,
    ImageKind,
    Message,
    Sampling,
    Scores,
    Text,
)
from mm.vlm import Cancelled, OnToken, Traits, check_on_token

from .chat_messages import calls_tools
from .generic_processor import template_of
from .generic_prompts import GenericPrompt, GenericPrompts
from .image_options import set_budgets

if TYPE_CHECKING:
    from torch import Tensor

log = logging.getLogger(__name__)

WITHOUT = (
    "it runs through its own processor, without reuse between turns, batching, attend, replay "
    "and training"
)

_BOXES = {
    "gemma4": BoxFormat(key="box_2d", order="yxyx"),
    "gemma4_unified": BoxFormat(key="box_2d", order="yxyx"),
    "llava": BoxFormat(frame=(1, 1), decimals=3),
}
"""How unlisted models write boxes, by model type; the others are asked for 0 to 1000."""


class GenericVLM:
    """Any transformers image-text-to-text model behind the `VLM` protocol; any thread may ask.

    Args:
        model: has `generate`, and takes what `processor` gives.
        processor: the checkpoint's own, or one composed of its tokenizer and image processor.
        traits: where they say that it calls tools, its chat template writes them.
    """

    def __init__(
        self,
        model: Any,
        processor: Any,
        *,
        name: str = "",
        traits: Traits = Traits(calls_tools=False),
    ) -> None:
        self.model = model
        self.name = name
        self.traits = traits
        self._processor = processor
        self._tokenizer = processor.tokenizer
        self._lock = threading.Lock()  # models keep state of the call in progress
        ends = ids_of(model.generation_config.eos_token_id)
        self._end_ids = ends | ids_of(self._tokenizer.eos_token_id)
        self._prompts = GenericPrompts(
            processor, native_tools=traits.calls_tools, end_ids=self._end_ids
        )
        self._banned = _banned(model.config)
        self._positions = positions_of(model.config)
        self.visual_tokens = lru_cache(256)(self._visual_tokens)
        log.warning("%s is of no listed family: %s", name, WITHOUT)

    def asking(self, *, priority: int = 0, deadline: float | None = None) -> GenericVLM:
        """The same model: it answers one call after the other, so that `priority` has no effect.

        Raises:
            UserError: there is a deadline, which nothing here keeps.
        """
        if deadline is not None:
            raise UserError(
                f"deadline={deadline:g}: {self.name} is of no listed family and keeps none: pass "
                "cancel= to generate, or serve it with vLLM and mm.connect"
            )
        return self

    def generate(
        self,
        conversations: Sequence[Conversation],
        sampling: Sampling,
        *,
        on_token: OnToken | None = None,
        cancel: Cancelled | None = None,
    ) -> list[Generation]:
        """One reply per conversation.

        Raises:
            ValueError: `on_token` with several conversations, whose pieces could not be told apart.
            ModelError: its template or its processor refuses the conversation.
        """
        check_on_token(on_token, conversations)
        return [self._reply(c, sampling, on_token, cancel) for c in conversations]

    def score(self, conversation: Conversation, continuations: Sequence[str]) -> Scores:
        """Log-probabilities of each continuation's tokens as the next text, end of turn included.

        A thought that the template opens is closed before.

        Raises:
            ModelError: the conversation is refused, or the model fails.
        """
        begun = time.perf_counter()
        prompt = self._prompt(conversation, answers=True)
        with self._lock, self._named():
            logprobs = tuple(tuple(self._score(prompt, text)) for text in continuations)
        # nothing is reused: the prompt is computed for each of them
        computed = prompt.length * len(continuations) + sum(len(each) - 1 for each in logprobs)
        seconds = time.perf_counter() - begun
        return Scores(logprobs, Cost(computed_tokens=computed, calls=1, seconds=seconds))

    def seen_size(self, size: Size, kind: ImageKind = "overview") -> Size:
        """`size` itself: what the processor makes of it is not known."""
        return size

    def _visual_tokens(self, size: Size, kind: ImageKind = "overview") -> int:
        import PIL.Image

        blank = Image(PIL.Image.new("RGB", size))
        with_it, without = (
            self._inputs((Message("user", (*shown, Text("?"))),)) for shown in ((blank,), ())
        )
        return with_it["input_ids"].shape[1] - without["input_ids"].shape[1]

    def _reply(
        self,
        conversation: Conversation,
        sampling: Sampling,
        on_token: OnToken | None,
        cancel: Cancelled | None,
    ) -> Generation:
        begun = time.perf_counter()
        prompt = self._prompt(conversation)
        limit = min(sampling.max_tokens, self._room_after(prompt.length))
        stream = StreamDetokenizer(self._decode, sampling.stop, on_token)
        sampler = Sampler(sampling, self._banned, prompt=prompt.inputs["input_ids"][0].tolist())
        picker = _TokenPicker(sampler, stream, self._end_ids, cancel)
        with self._lock:
            self._write(prompt.inputs, picker, limit)
        stream.end()
        text = ("<think>" if prompt.opens_thought else "") + self._decode(picker.ids)
        message = Message("assistant", parse_parts(text), tuple(picker.ids))
        cost = Cost(
            visual_tokens=sum(self.visual_tokens(i.size) for m in conversation for i in m.images),
            computed_tokens=prompt.length,
            generated_tokens=len(picker.ids),
            calls=1,
            seconds=time.perf_counter() - begun,
        )
        return Generation(message, tuple(picker.logprobs), cost, picker.finish)

    def _write(self, inputs: Mapping[str, Tensor], picker: _TokenPicker, limit: int) -> None:
        from transformers import LogitsProcessorList, StoppingCriteriaList

        with self._named():
            self.model.generate(
                **inputs,
                max_new_tokens=limit,
                do_sample=False,
                num_beams=1,
                repetition_penalty=1.0,  # the sampler's own, not the generation config's
                logits_processor=LogitsProcessorList([picker.pick]),
                stopping_criteria=StoppingCriteriaList([picker.stop]),
            )

    def _score(self, prompt: GenericPrompt, text: str) -> list[float]:
        """Any token that ends a turn counts as its end: which one it is, a template alone knows."""
        import torch

        text = self._prompts.start + text if prompt.begins else text
        ids = self._prompts.ids_after(prompt.text, text)
        self._room_after(prompt.length + len(ids) - 1)
        kept = len(ids) + 1
        fewer = {"logits_to_keep": kept} if self._keeps_some else {}
        with torch.inference_mode():
            logits = self.model(**prompt.followed_by(ids), **fewer).logits[0, -kept:]
        likely = log_probs(logits, torch.tensor(sorted(self._banned)))
        asked = torch.tensor(ids, dtype=torch.long, device=likely.device)
        said = likely[:-1].gather(1, asked[:, None])[:, 0].tolist()
        ends = likely[-1].index_select(0, asked.new_tensor(sorted(self._end_ids)))
        return [*said, *([ends.logsumexp(0).item()] if self._end_ids else [])]

    @property
    def _keeps_some(self) -> bool:
        """Whether the model can leave out logits that nobody reads: a vocabulary for each token."""
        return "logits_to_keep" in inspect.signature(self.model.forward).parameters

    def _room_after(self, length: int) -> int:
        """How many more tokens the model's positions reach after `length`."""
        if self._positions is None:
            return 2**31
        if length >= self._positions:
            raise ModelError(
                f"{self.name}: a conversation of {length} tokens is too long; the model takes "
                f"{self._positions}: use fewer or smaller images, or less text"
            )
        return self._positions - length

    @contextmanager
    def _named(self) -> Iterator[None]:
        try:
            yield
        except ModelError:
            raise
        except (ValueError, RuntimeError) as error:  # out of memory is one of the second
            raise ModelError(f"{self.name}: {first_line(error)}") from error

    def _prompt(self, conversation: Conversation, *, answers: bool = False) -> GenericPrompt:
        try:
            prompt = self._prompts.of(conversation, answers=answers)
        except Exception as error:  # a template's author may raise anything
            raise ModelError(f"{self.name}: its processor refuses: {first_line(error)}") from error
        place = self.model.device, self.model.dtype
        moved = {
            k: v.to(*place) if v.is_floating_point() else v.to(place[0])
            for k, v in prompt.inputs.items()
        }
        return replace(prompt, inputs=moved)

    def _inputs(self, conversation: Conversation) -> dict[str, Tensor]:
        return self._prompt(conversation).inputs

    def _decode(self, ids: Sequence[int]) -> str:
        return self._tokenizer.decode([i for i in ids if i not in self._end_ids])


class _TokenPicker:
    """Picks each next token inside `generate`, and says when to stop."""

    def __init__(
        self,
        sampler: Sampler,
        stream: StreamDetokenizer,
        ends: frozenset[int],
        cancel: Cancelled | None,
    ) -> None:
        self.ids: list[int] = []
        self.logprobs: list[float] = []
        self.finish: Any = "length"
        self._sampler, self._stream, self._ends, self._cancel = sampler, stream, ends, cancel

    def pick(self, _: Tensor, scores: Tensor) -> Tensor:
        """Scores (1, V) that leave only the sampler's choice."""
        id, logprob = self._sampler.pick(scores[0])
        self.ids.append(id)
        self.logprobs.append(logprob)
        return scores.new_full(scores.shape, float("-inf")).index_fill_(
            1, scores.new_tensor([id]).long(), 0.0
        )

    def stop(self, ids: Tensor, _: Tensor, **__: Any) -> Tensor:
        if self._cancel and self._cancel():
            self.finish = "cancelled"
        elif self.ids[-1] in self._ends or self._stream.push(self.ids[-1]):
            self.finish = "stop"
        return ids.new_full((1,), self.finish != "length").bool()


def load_generic(
    model: Any, processor: Any, *, name: str = "", budgets: ImageBudgets = ImageBudgets()
) -> GenericVLM:
    """`model` with its processor, set to those of `budgets` that it supports."""
    for line in set_budgets(processor, budgets):
        log.warning("%s: %s", name, line)
    traits = Traits(
        _BOXES.get(model.config.model_type, BoxFormat()),
        crop_rule=crop_rule_of(model.config),
        calls_tools=calls_tools(template_of(processor)),
        sampling=sampling_of(model.generation_config.to_diff_dict()),
        budgets=tuple(budgets.given.items()),
    )
    return GenericVLM(model, processor, name=name, traits=traits)


def _banned(config: Any) -> frozenset[int]:
    kinds = ("image", "video", "audio")
    names = [f"{kind}_token_{what}" for kind in kinds for what in ("id", "index")]
    return frozenset(i for name in names if isinstance(i := getattr(config, name, None), int))
