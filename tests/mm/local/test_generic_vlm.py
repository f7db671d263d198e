"""A model of a family nobody listed runs through its own processor."""

from __future__ import annotations

import sys
from collections.abc import Callable
from copy import copy
from functools import cache
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from images import noise
from tiny_models import TEXT, TOWER, bytes_tokenizer
from transformers import (
    CLIPImageProcessorPil,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
)

from mm.errors import ModelError, ModelUnavailable, UserError
from mm.families.registry import family_of
from mm.local.generic_processor import read_processor
from mm.local.generic_vlm import GenericVLM
from mm.local.load import load
from mm.tokens.builder import positions_of
from mm.types import Sampling, Thinking, ToolCall, ToolSpec, assistant, message, user

TEMPLATE = (
    "{% for m in messages %}"
    "{% if m.role == 'system' %}{{ raise_exception('no system') }}{% endif %}"
    "{% if (m.role == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('not in turn') }}"
    "{% endif %}{{ m.role.upper() }}: {% for c in m.content %}"
    "{% if c.type == 'image' %}<image>{% else %}{{ c.text }}{% endif %}{% endfor %}"
    "{% if m.role == 'assistant' %}</s>{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}ASSISTANT: {% endif %}"
)
PICTURE = noise(1, (60, 40))


@cache
def parts() -> tuple[Any, Any]:
    tokenizer = bytes_tokenizer(["</s>", "<image>"], TEMPLATE, "</s>")
    config = LlavaConfig(
        vision_config={"model_type": "clip_vision_model", **TOWER},
        text_config=LlamaConfig(**TEXT, vocab_size=len(tokenizer)).to_dict(),
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
        image_seq_length=16,
    )
    torch.manual_seed(0)
    model = LlavaForConditionalGeneration(config).float().eval()
    model.generation_config.eos_token_id = tokenizer.eos_token_id
    processor = LlavaProcessor(
        CLIPImageProcessorPil(size={"shortest_edge": 56}, crop_size={"height": 56, "width": 56}),
        tokenizer,
        patch_size=14,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=TEMPLATE,
    )
    return model, processor


@cache
def vlm() -> GenericVLM:
    return GenericVLM(*parts(), name="odd")


def test_it_is_of_no_listed_family() -> None:
    assert family_of("llava") is None


def test_it_says_once_that_it_keeps_nothing(caplog: pytest.LogCaptureFixture) -> None:
    one = GenericVLM(*parts(), name="odd")
    one.generate([(user("a"),), (user("b"),)], Sampling(max_tokens=1))
    assert [r.message for r in caplog.records] == [
        "odd is of no listed family: it runs through its own processor, without reuse between "
        "turns, batching, attend, replay and training"
    ]


def test_a_reply_is_what_its_own_generate_gives() -> None:
    model, processor = parts()
    content = [{"type": "image", "image": PICTURE.pixels}, {"type": "text", "text": "What?"}]
    inputs = processor.apply_chat_template(
        [{"role": "user", "content": content}],
        tokenize=True,
        return_dict=True,
        return_tensors="pt",
        add_generation_prompt=True,
    )
    theirs = model.generate(
        **inputs,
        max_new_tokens=6,
        do_sample=False,
        suppress_tokens=[model.config.image_token_id],
    )
    seen: list[str] = []
    (ours,) = vlm().generate(
        [(user(PICTURE, "What?"),)], Sampling(max_tokens=6), on_token=seen.append
    )
    assert list(ours.message.tokens or ()) == theirs[0, inputs["input_ids"].shape[1] :].tolist()
    assert len(ours.logprobs) == ours.cost.generated_tokens == 6
    assert ours.cost.visual_tokens == 16
    assert ours.cost.computed_tokens == inputs["input_ids"].shape[1]
    assert ours.finish == "length"
    assert "".join(seen) == processor.tokenizer.decode(ours.message.tokens)


def test_scores_are_the_logprobs_of_what_was_written() -> None:
    said = (user(PICTURE, "What?"),)
    blue, green = vlm().score(said, ["blue", "green"]).logprobs
    assert len(blue) == len(parts()[1].tokenizer("blue").input_ids) + 1
    assert blue != green
    drawn = vlm().generate([said], Sampling(max_tokens=1))[0]
    text = parts()[1].tokenizer.decode(drawn.message.tokens)
    assert vlm().score(said, [text]).logprobs[0][0] == pytest.approx(drawn.logprobs[0], abs=1e-4)


def test_the_same_seed_draws_the_same_words() -> None:
    drawn = [
        vlm().generate([(user("Go"),)], Sampling(max_tokens=8, temperature=1.0, seed=s))[0]
        for s in (1, 1, 2)
    ]
    assert drawn[0].message.tokens == drawn[1].message.tokens != drawn[2].message.tokens


def test_it_stops_at_a_stop_string_and_when_told() -> None:
    free = vlm().generate([(user("Go"),)], Sampling(max_tokens=8))[0]
    tokens = free.message.tokens or ()
    first = parts()[1].tokenizer.decode(tokens[:1])
    stopped = vlm().generate([(user("Go"),)], Sampling(max_tokens=8, stop=(first,)))[0]
    assert (stopped.finish, stopped.message.tokens) == ("stop", tokens[:1])
    cancelled = vlm().generate([(user("Go"),)], Sampling(max_tokens=8), cancel=lambda: True)[0]
    assert (cancelled.finish, len(cancelled.message.tokens or ())) == ("cancelled", 1)


@pytest.mark.parametrize(
    ("said", "text"),
    [
        pytest.param(
            (message("system", "Be brief."), user("Hi")),
            "USER: Be brief.\n\nHiASSISTANT: ",
            id="system without a role of its own",
        ),
        pytest.param(
            (user("a"), user("b")),
            "USER: abASSISTANT: ",
            id="users in a row",
        ),
        pytest.param(
            (user("a"), assistant(Thinking("t"), ToolCall("f", {})), message("tool", "r")),
            "USER: aASSISTANT: <think>t</think>\n<tool_call>\n"
            '{"name": "f", "arguments": {}}\n'
            "</tool_call></s>USER: <tool_response>\nr\n</tool_response>ASSISTANT: ",
            id="tools",
        ),
        pytest.param((user("a"), assistant("b")), "USER: aASSISTANT: b", id="an open turn"),
        pytest.param(
            (user("<image> </s>"),),
            "USER: <\u2060image> <\u2060/s>ASSISTANT: ",
            id="spelt tokens",
        ),
    ],
)
def test_any_conversation_renders(said: Any, text: str) -> None:
    assert parts()[1].tokenizer.decode(vlm()._inputs(said)["input_ids"][0]) == text


def test_tools_on_offer_are_told() -> None:
    said = (message("system", ToolSpec("zoom", "Look.", {})), user("Hi"))
    text = parts()[1].tokenizer.decode(vlm()._inputs(said)["input_ids"][0])
    assert text.startswith("USER: # Tools")
    assert '"name": "zoom"' in text


def test_what_its_processor_refuses_is_a_models_error() -> None:
    with pytest.raises(ModelError, match="odd: its processor refuses: not in turn"):
        vlm().generate([(assistant("a"), user("b"))], Sampling(max_tokens=1))


def test_it_loads_by_name(tmp_path: Any) -> None:
    model, processor = parts()
    model.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    loaded = load(str(tmp_path), device="cpu", threads=1)
    assert isinstance(loaded, GenericVLM)
    said = (user(PICTURE, "What?"),)
    one, two = (v.generate([said], Sampling(max_tokens=3))[0].message for v in (loaded, vlm()))
    assert one.tokens == two.tokens


def test_a_processor_that_cannot_be_made_is_told(tmp_path: Any) -> None:
    with pytest.raises(ModelUnavailable, match="its processor cannot be made"):
        read_processor(str(tmp_path))


def test_a_folder_without_a_chat_template_is_refused_before_its_weights(
    tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, processor = parts()
    model.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    (tmp_path / "chat_template.jinja").unlink()
    reads = sys.modules["mm.local.load"]
    monkeypatch.setattr(reads, "read_weights", lambda *_, **__: pytest.fail("read"))
    with pytest.raises(ModelUnavailable, match=r"has no chat template.*put chat_template.jinja"):
        load(str(tmp_path), device="cpu", threads=1)


def likely(prompt: str, said: str, next_ids: set[int]) -> float:
    """The log-probability of any of `next_ids` behind both, by the model's own forward."""
    model, processor = parts()
    asked = torch.tensor([[i for t in (prompt, said) for i in processor.tokenizer(t).input_ids]])
    with torch.inference_mode():
        logits = model(input_ids=asked).logits[0, -1].clone()
        logits[model.config.image_token_id] = float("-inf")
    return logits.log_softmax(-1)[sorted(next_ids)].logsumexp(0).item()


def with_template(change: str = "", ends: tuple[int, ...] = ()) -> GenericVLM:
    model, processor = parts()
    model, processor = copy(model), copy(processor)
    model.generation_config = copy(model.generation_config)
    model.generation_config.eos_token_id = [processor.tokenizer.eos_token_id, *ends]
    processor.chat_template = TEMPLATE.replace(
        "ASSISTANT: {% endif", f"ASSISTANT: {change}{{% endif"
    )
    return GenericVLM(model, processor, name="odd")


def test_a_choice_ends_as_any_turn_may_end() -> None:
    other = parts()[1].tokenizer("U").input_ids[0]
    (scored,) = with_template(ends=(other,)).score((user("Go"),), ["ab"]).logprobs
    end = parts()[1].tokenizer.eos_token_id
    assert scored[-1] == pytest.approx(likely("USER: GoASSISTANT: ", "ab", {end, other}), abs=1e-4)
    assert scored[-1] > likely("USER: GoASSISTANT: ", "ab", {end}) + 1e-3


def test_a_choice_stands_outside_a_thought_that_the_template_opens() -> None:
    first = {parts()[1].tokenizer("b").input_ids[0]}
    (scored,) = with_template("<think>\n").score((user("Go"),), ["b"]).logprobs
    outside = "USER: GoASSISTANT: <think>\n\n</think>\n\n"
    assert len(scored) == 2
    assert scored[0] == pytest.approx(likely(outside, "", first), abs=1e-4)


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> GenericVLM:
    """A model of 24 positions, of which "USER: GoASSISTANT: " takes 18."""
    monkeypatch.setattr(parts()[0].config.text_config, "max_position_embeddings", 24)
    return GenericVLM(*parts(), name="odd")


def test_a_reply_ends_where_the_models_positions_end(short: GenericVLM) -> None:
    (got,) = short.generate([(user("Go"),)], Sampling(max_tokens=50))
    assert (got.cost.computed_tokens, len(got.message.tokens or ()), got.finish) == (
        18,
        6,
        "length",
    )


@pytest.mark.parametrize(
    "ask",
    [
        pytest.param(
            lambda vlm: vlm.generate([(user("Go on there, now"),)], Sampling()), id="a question"
        ),
        pytest.param(lambda vlm: vlm.score((user("Go"),), ["far too long"]), id="a choice"),
    ],
)
def test_what_is_longer_than_its_positions_is_refused(
    short: GenericVLM, ask: Callable[[GenericVLM], object]
) -> None:
    with pytest.raises(ModelError, match=r"odd: .* is too long; the model takes 24: use fewer"):
        ask(short)


@pytest.mark.parametrize(
    ("config", "positions"),
    [
        pytest.param({"max_position_embeddings": 4096}, 4096, id="plain"),
        pytest.param({"max_position_embeddings": None}, None, id="silent"),
        pytest.param(
            {
                "max_position_embeddings": 32768,
                "rope_parameters": {"factor": 4.0, "original_max_position_embeddings": 32768},
            },
            131072,
            id="YaRN over the number before",
        ),
        pytest.param(
            {
                "max_position_embeddings": 131072,
                "rope_parameters": {"factor": 4.0, "original_max_position_embeddings": 32768},
            },
            131072,
            id="YaRN, stretched already",
        ),
    ],
)
def test_its_positions_are_those_its_config_reaches(
    config: dict[str, Any], positions: int | None
) -> None:
    text = SimpleNamespace(**config)
    assert positions_of(SimpleNamespace(get_text_config=lambda: text)) == positions


def test_too_little_memory_for_a_choice_is_a_models_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(**_: object) -> None:
        raise torch.OutOfMemoryError("out of memory")

    monkeypatch.setattr(parts()[0], "forward", full)
    with pytest.raises(ModelError, match="odd: out of memory"):
        vlm().score((user("Go"),), ["a"])


def test_only_logits_that_are_read_are_made(monkeypatch: pytest.MonkeyPatch) -> None:
    asked, forward = [], type(parts()[0]).forward

    def seen(logits_to_keep: int = 0, **kw: Any) -> Any:
        asked.append(logits_to_keep)
        return forward(parts()[0], logits_to_keep=logits_to_keep, **kw)

    monkeypatch.setattr(parts()[0], "forward", seen)
    assert len(vlm().score((user("Go"),), ["abc"]).logprobs[0]) == 4
    assert asked == [4]


def test_a_batch_job_may_ask_it_too_without_a_deadline() -> None:
    assert vlm().asking(priority=-1) is vlm()
    with pytest.raises(UserError, match=r"deadline=3: odd is of no listed family.*pass cancel="):
        vlm().asking(deadline=3)
