"""A checkpoint of an unlisted family: its own chat template, processor and `generate`.

The whole conversation is computed anew each turn, one call at a time, so it costs more than a
listed family does. It is not trained here: nothing says which of its tokens the assistant wrote.
"""

from __future__ import annotations

import logging
import re
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache, partial
from typing import TYPE_CHECKING, Any

from mm.engine.detokenizer import StreamDetokenizer
from mm.engine.sampler import Sampler, log_probs
from mm.errors import ModelError, ModelUnavailable, first_line, no_panic
from mm.families.image_budgets import ImageBudgets
from mm.families.registry import crop_rule_of
from mm.geometry import BoxFormat, Size
from mm.markup import parse_parts
from mm.tokens.composed_processor import compose_processor
from mm.tokens.processor_parts import ids_of, read_processor_parts, sampling_of
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

from .chat_messages import ChatMessages, calls_tools, system_folded
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
        self._chat = ChatMessages(_controls(processor), traits.calls_tools)
        self._banned = _banned(model.config)
        self.visual_tokens = lru_cache(256)(self._visual_tokens)
        log.warning("%s is of no listed family: %s", name, WITHOUT)

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
        """Log-probabilities of each continuation's tokens as the next text, end token included."""
        begun = time.perf_counter()
        inputs = self._inputs(conversation)
        with self._lock:
            logprobs = tuple(tuple(self._score(inputs, text)) for text in continuations)
        # nothing is reused: the prompt is computed for each of them
        computed = inputs["input_ids"].shape[1] * len(continuations) + sum(map(len, logprobs))
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
        inputs = self._inputs(conversation)
        stream = StreamDetokenizer(self._decode, sampling.stop, on_token)
        sampler = Sampler(sampling, self._banned, prompt=inputs["input_ids"][0].tolist())
        picker = _TokenPicker(sampler, stream, self._end_ids, cancel)
        with self._lock:
            self._write(inputs, picker, sampling.max_tokens)
        stream.end()
        text = self._opened(inputs, conversation) + self._decode(picker.ids)
        message = Message("assistant", parse_parts(text), tuple(picker.ids))
        cost = Cost(
            visual_tokens=sum(self.visual_tokens(i.size) for m in conversation for i in m.images),
            computed_tokens=inputs["input_ids"].shape[1],
            generated_tokens=len(picker.ids),
            calls=1,
            seconds=time.perf_counter() - begun,
        )
        return Generation(message, tuple(picker.logprobs), cost, picker.finish)

    def _write(self, inputs: Mapping[str, Tensor], picker: _TokenPicker, limit: int) -> None:
        from transformers import LogitsProcessorList, StoppingCriteriaList

        try:
            self.model.generate(
                **inputs,
                max_new_tokens=limit,
                do_sample=False,
                num_beams=1,
                repetition_penalty=1.0,  # the sampler's own, not the generation config's
                logits_processor=LogitsProcessorList([picker.pick]),
                stopping_criteria=StoppingCriteriaList([picker.stop]),
            )
        except (ValueError, RuntimeError) as error:
            raise ModelError(f"{self.name}: {first_line(error)}") from error

    def _score(self, inputs: Mapping[str, Tensor], text: str) -> list[float]:
        import torch

        ids = self._tokenizer(text, add_special_tokens=False).input_ids
        ids = [*ids, *sorted(ids_of(self._tokenizer.eos_token_id))[:1]]
        asked = inputs["input_ids"].shape[1]
        with torch.inference_mode():
            logits = self.model(
                **{k: _extended(k, v, ids, asked) for k, v in inputs.items()}
            ).logits
        likely = log_probs(logits[0, asked - 1 : -1], torch.tensor(sorted(self._banned)))
        return likely.gather(1, torch.tensor(ids, device=likely.device)[:, None])[:, 0].tolist()

    def _inputs(self, conversation: Conversation) -> dict[str, Tensor]:
        goes_on = bool(conversation) and conversation[-1].role == "assistant"
        apply = partial(
            self._processor.apply_chat_template,
            tokenize=True,
            return_dict=True,
            return_tensors="pt",
            add_generation_prompt=not goes_on,
            continue_final_message=goes_on,
        )
        try:
            made = self._applied(apply, conversation)
        except Exception as error:  # a template's author may raise anything
            raise ModelError(f"{self.name}: its processor refuses: {first_line(error)}") from error
        place = self.model.device, self.model.dtype
        return {
            k: v.to(*place) if v.is_floating_point() else v.to(place[0]) for k, v in made.items()
        }

    def _applied(self, apply: Callable[..., Any], conversation: Conversation) -> Any:
        tools = self._chat.tools(conversation)
        try:
            return apply(self._chat.messages(conversation), tools=tools)
        except Exception:  # perhaps it knows no system role
            folded = system_folded(conversation)
            if folded == conversation:
                raise
            return apply(self._chat.messages(folded), tools=tools)

    def _opened(self, inputs: Mapping[str, Tensor], conversation: Conversation) -> str:
        """The tag of a thought that the template has opened and the reply continues."""
        if conversation and conversation[-1].role == "assistant":
            return ""
        end = self._tokenizer.decode(inputs["input_ids"][0, -8:])
        return "<think>" if end.rstrip().endswith("<think>") else ""

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
    folder: str,
    model: Any,
    *,
    name: str = "",
    trust_remote_code: bool = False,
    budgets: ImageBudgets = ImageBudgets(),
) -> GenericVLM:
    """`model` with the processor of its checkpoint in `folder`, set to those of `budgets` that it
    supports.

    Raises:
        ModelUnavailable: its processor cannot be made here; the message has the reason.
    """
    processor = _processor(folder, name or folder, trust_remote_code)
    for line in set_budgets(processor, budgets):
        log.warning("%s: %s", name, line)
    traits = Traits(
        _BOXES.get(model.config.model_type, BoxFormat()),
        crop_rule=crop_rule_of(model.config),
        calls_tools=calls_tools(_template(processor)),
        sampling=sampling_of(model.generation_config.to_diff_dict()),
        budgets=tuple(budgets.given.items()),
    )
    return GenericVLM(model, processor, name=name, traits=traits)


@no_panic()
def _processor(folder: str, name: str, trust_remote_code: bool) -> Any:
    """The processor's own class over tokenizer and image processor; else what transformers makes.

    The first needs no torchvision; the second is for checkpoints with code of their own.
    """
    kw = {"local_files_only": True, "trust_remote_code": trust_remote_code}
    try:
        return compose_processor(folder, read_processor_parts(folder, **kw))
    except Exception as error:  # which one depends on what the processor is made of
        composing = error
    from transformers import AutoProcessor

    try:
        return AutoProcessor.from_pretrained(folder, **kw)
    except Exception as error:
        why = first_line(composing if isinstance(composing, ImportError | OSError) else error)
        raise ModelUnavailable(f"{name}: its processor cannot be made: {why}") from error


def _template(processor: Any) -> str | None:
    template = getattr(processor, "chat_template", None)
    return template.get("default") if isinstance(template, dict) else template


def _extended(key: str, value: Tensor, ids: Sequence[int], asked: int) -> Tensor:
    """What the processor gave for `asked` tokens, for `ids` more."""
    import torch

    if value.dim() != 2 or value.shape[1] != asked:
        return value
    if key == "input_ids":
        return torch.cat([value, value.new_tensor([ids])], 1)
    fill = 1 if key == "attention_mask" else 0
    return torch.cat([value, value.new_full((1, len(ids)), fill)], 1)


def _controls(processor: Any) -> re.Pattern[str]:
    """Spellings that the tokenizer or the processor would take for special tokens."""
    added = processor.tokenizer.added_tokens_decoder.values()
    names = {str(token) for token in added if token.special}
    names |= {t for k in ("image", "video", "audio") if (t := getattr(processor, f"{k}_token", ""))}
    return re.compile("|".join(sorted(map(re.escape, names), key=len, reverse=True)) or r"(?!)")


def _banned(config: Any) -> frozenset[int]:
    kinds = ("image", "video", "audio")
    names = [f"{kind}_token_{what}" for kind in kinds for what in ("id", "index")]
    return frozenset(i for name in names if isinstance(i := getattr(config, name, None), int))
