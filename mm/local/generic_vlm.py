"""A checkpoint of a family nobody listed: its own processor, the whole conversation each turn.

Nothing is kept from one call to the next and calls follow each other, so it costs more than a
listed family does. It is not trained here: nobody knows which of its tokens are whose.
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
from mm.errors import ModelError, ModelUnavailable, first_line
from mm.geometry import Size
from mm.markup import parse_parts, render_parts
from mm.tokens.processor_parts import ids_of
from mm.tokens.torchvision_compat import hide_broken_torchvision
from mm.tokens.turn_grouping import grouped, observed, system_text
from mm.types import Conversation, Cost, Generation, Image, Message, Role, Sampling, Text
from mm.vlm import Cancelled, OnToken, Traits

if TYPE_CHECKING:
    from torch import Tensor

log = logging.getLogger(__name__)


class GenericVLM:
    """Any transformers image-text-to-text model behind the `VLM` protocol; any thread may ask.

    Args:
        model: has `generate`, and takes what `processor` gives.
        processor: what `AutoProcessor` makes of the same checkpoint.
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
        self._controls = _controls(processor)
        self._banned = _banned(model.config)
        self.visual_tokens = lru_cache(256)(self._visual_tokens)
        log.warning("%s is of no listed family: it runs, but keeps nothing between turns", name)

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
        if on_token and len(conversations) != 1:
            raise ValueError(f"on_token needs exactly one conversation, got {len(conversations)}")
        return [self._reply(c, sampling, on_token, cancel) for c in conversations]

    def score(self, conversation: Conversation, continuations: Sequence[str]) -> list[list[float]]:
        """Log-probabilities of each continuation's tokens as the next words, end token included."""
        inputs = self._inputs(conversation)
        with self._lock:
            return [self._score(inputs, text) for text in continuations]

    def seen_size(self, size: Size) -> Size:
        """`size` itself: what the processor makes of it is not known."""
        return size

    def _visual_tokens(self, size: Size) -> int:
        import PIL.Image

        picture = Image(PIL.Image.new("RGB", size))
        with_it, without = (
            self._inputs((Message("user", (*shown, Text("?"))),)) for shown in ((picture,), ())
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
        pen = _Pen(Sampler(sampling, self._banned), stream, self._end_ids, cancel)
        with self._lock:
            self._write(inputs, pen, sampling.max_tokens)
        stream.end()
        message = Message("assistant", parse_parts(self._decode(pen.ids)), tuple(pen.ids))
        cost = Cost(
            visual_tokens=sum(self.visual_tokens(i.size) for m in conversation for i in m.images),
            computed_tokens=inputs["input_ids"].shape[1],
            generated_tokens=len(pen.ids),
            calls=1,
            seconds=time.perf_counter() - begun,
        )
        return Generation(message, tuple(pen.logprobs), cost, pen.finish)

    def _write(self, inputs: Mapping[str, Tensor], pen: _Pen, limit: int) -> None:
        from transformers import LogitsProcessorList, StoppingCriteriaList

        try:
            self.model.generate(
                **inputs,
                max_new_tokens=limit,
                do_sample=False,
                num_beams=1,
                logits_processor=LogitsProcessorList([pen.pick]),
                stopping_criteria=StoppingCriteriaList([pen.stop]),
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
        return {k: v.to(self.model.device) for k, v in made.items()}

    def _applied(self, apply: Callable[..., Any], conversation: Conversation) -> Any:
        try:
            return apply(self._dicts(conversation))
        except Exception:  # perhaps it knows no system role
            folded = _system_folded(conversation)
            if folded == conversation:
                raise
            return apply(self._dicts(folded))

    def _dicts(self, conversation: Conversation) -> list[dict[str, Any]]:
        turns = grouped(conversation, alternates=True)
        return [self._turn(role, [m for _, m in messages]) for role, messages in turns]

    def _turn(self, role: Role, messages: Sequence[Message]) -> dict[str, Any]:
        if role == "system":
            return {"role": role, "content": [self._part(Text(system_text(messages)))]}
        parts = [part for message in messages for part in observed(message).parts]
        return {"role": role, "content": [self._part(part) for part in parts]}

    def _part(self, part: Any) -> dict[str, Any]:
        if isinstance(part, Image):
            return {"type": "image", "image": part.pixels}
        return {"type": "text", "text": self._controls.sub(_apart, render_parts([part]))}

    def _decode(self, ids: Sequence[int]) -> str:
        return self._tokenizer.decode([i for i in ids if i not in self._end_ids])


class _Pen:
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
    folder: str, model: Any, *, name: str = "", trust_remote_code: bool = False
) -> GenericVLM:
    """`model` with the processor of its checkpoint in `folder`.

    Raises:
        ModelUnavailable: its `AutoProcessor` cannot be made here; the message has the reason.
    """
    hide_broken_torchvision()
    from transformers import AutoProcessor

    make = partial(AutoProcessor.from_pretrained, trust_remote_code=trust_remote_code)
    try:
        processor = make(folder, local_files_only=True)
    except Exception as error:  # which one depends on what the processor is made of
        raise ModelUnavailable(
            f"{name or folder}: its processor cannot be made, and its family is not one of those "
            f"that need none: {first_line(error)}"
        ) from error
    return GenericVLM(model, processor, name=name)


def _system_folded(conversation: Conversation) -> Conversation:
    """The conversation with what its system messages say at the head of the first user's."""
    system = [m for m in conversation if m.role == "system"]
    others = [m for m in conversation if m.role != "system"]
    if not system:
        return conversation
    return (Message("user", (Text(system_text(system) + "\n\n"),)), *others)


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
    """Spellings that the processor would take for tokens of its own."""
    added = processor.tokenizer.added_tokens_decoder.values()
    names = {str(token) for token in added if token.special}
    names |= {t for k in ("image", "video", "audio") if (t := getattr(processor, f"{k}_token", ""))}
    return re.compile("|".join(sorted(map(re.escape, names), key=len, reverse=True)) or r"(?!)")


def _apart(found: re.Match[str]) -> str:
    """A spelling that reads the same and is no token: a word joiner stands in it."""
    return f"{found[0][0]}\u2060{found[0][1:]}"


def _banned(config: Any) -> frozenset[int]:
    names = ("image_token_id", "image_token_index", "video_token_id", "video_token_index")
    return frozenset(i for name in names if isinstance(i := getattr(config, name, None), int))
