"""What any chat template makes of a conversation: all of its words, and an open turn as written."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import tiny_models
import torch
from images import noise
from tiny_models import bytes_tokenizer, spaced_tokenizer, template
from transformers import CLIPImageProcessorPil, LlavaProcessor

from mm.local.generic_prompts import GenericPrompt, GenericPrompts
from mm.types import Conversation, Message, Text, Thinking, assistant, message, user

SIDE = 56
SPECIALS = ["</s>", "<image>"]
TEMPLATES = sorted(p.stem for p in (Path(tiny_models.__file__).parent / "chat_templates").iterdir())
BLOCKS = (
    "{%- for part in message.content -%}"
    "{%- if part.type == 'image' -%}<image>{%- else -%}{{ part.text }}{%- endif -%}"
    "{%- endfor -%}"
)
ADDS = (  # as Mistral Small 3.1 has been published, too: only strings before and after a question
    "{%- for message in messages -%}"
    "{%- if message.role == 'user' -%}[INST]" + BLOCKS + "[/INST]"
    "{%- elif message.role == 'system' -%}{{ '[SYSTEM]' + message.content + '[/SYSTEM]' }}"
    "{%- else -%}{{ message.content + '</s>' }}{%- endif -%}"
    "{%- endfor -%}"
)
FIRST = (  # as Pixtral's: of an assistant's blocks only the first
    "{%- for message in messages -%}"
    "{%- if message.role == 'user' -%}[INST]" + BLOCKS + "[/INST]"
    "{%- elif message.role == 'system' -%}{{ '[SYSTEM]' + message.content + '[/SYSTEM]' }}"
    "{%- else -%}{{ message.content[0].text + '</s>' }}{%- endif -%}"
    "{%- endfor -%}"
)
MIXED = (  # a list before strings
    "{%- for message in messages -%}{{ message.role + ': ' }}"
    "{{ message.content[0].text if message.role == 'system' else message.content }}{%- endfor -%}"
)
DEAF = (  # drops what it does not know without a word
    "{%- for message in messages -%}"
    "{%- if message.role == 'user' -%}U:" + BLOCKS + "{%- elif message.role == 'assistant' -%}A:"
    "{{ message.content if message.content is string else '' }}{%- endif -%}"
    "{%- endfor -%}{{ 'A:' if add_generation_prompt }}"
)
ANY = "{%- for message in messages -%}{{ message.role + ': ' }}" + BLOCKS + "{%- endfor -%}"
MISTRAL = "[SYSTEM]Be brief.[/SYSTEM][INST]Hi[/INST]<think>t</think>Yes or no</s>[INST]So?[/INST]"
SAID = (
    message("system", "Be brief."),
    user("Hi"),
    assistant(Thinking("t"), "Yes ", "or no"),
    user("So?"),
)


def prompts(chat_template: str) -> GenericPrompts:
    tokenizer = bytes_tokenizer(SPECIALS, chat_template, "</s>")
    processor = LlavaProcessor(
        CLIPImageProcessorPil(
            size={"shortest_edge": SIDE}, crop_size={"height": SIDE, "width": SIDE}
        ),
        tokenizer,
        patch_size=14,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=chat_template,
    )
    return GenericPrompts(
        processor, native_tools=False, end_ids=frozenset({tokenizer.eos_token_id})
    )


def shown(chat_template: str, said: Conversation, **options: Any) -> str:
    made = prompts(chat_template)
    return made._tokenizer.decode(made.of(said, **options).inputs["input_ids"][0])


def ids(text: str) -> tuple[int, ...]:
    return tuple(bytes_tokenizer(SPECIALS, "", "</s>")(text).input_ids)


@pytest.mark.parametrize("name", TEMPLATES)
def test_no_word_is_lost_in_any_template(name: str) -> None:
    text = shown(template(name), SAID)
    places = [text.find(words) for words in ("Be brief.", "Hi", "Yes or no", "So?")]
    assert -1 not in places
    assert places == sorted(places)
    assert "'type'" not in text


@pytest.mark.parametrize(
    ("chat_template", "text"),
    [
        pytest.param(ADDS, MISTRAL, id="adds strings"),
        pytest.param(FIRST, MISTRAL, id="reads the first block"),
        pytest.param(
            MIXED,
            "system: Be brief.user: Hiassistant: <think>t</think>Yes or nouser: So?",
            id="a block, then strings",
        ),
        pytest.param(
            DEAF, "U:Be brief.\n\nHiA:<think>t</think>Yes or noU:So?A:", id="drops in silence"
        ),
        pytest.param(
            template("glm4v"),
            "[gMASK]<sop><|system|>\nBe brief.<|user|>\nHi<|assistant|>\n<think>t</think>Yes or no"
            "<|user|>\nSo?<|assistant|>\n",
            id="GLM-4.1V",
        ),
    ],
)
def test_words_have_the_form_that_a_template_reads(chat_template: str, text: str) -> None:
    assert shown(chat_template, SAID) == text


@pytest.mark.parametrize(
    ("chat_template", "renders", "spelt"),
    [
        pytest.param(template("llava"), [3, 2, 2], 4, id="the first form"),
        pytest.param(MIXED, [9, 2, 2], 4, id="a later form"),
        pytest.param(DEAF, [12, 2, 2], 7, id="without a system"),
    ],
)
def test_a_form_is_sought_once_for_all_conversations_of_a_shape(
    monkeypatch: pytest.MonkeyPatch, chat_template: str, renders: list[int], spelt: int
) -> None:
    made, words, counts, texts, told = prompts(chat_template), [], [], [], []
    processor, render = made._processor, made._processor.apply_chat_template
    monkeypatch.setattr(
        processor, "apply_chat_template", lambda *a, **kw: counts.append(1) or render(*a, **kw)
    )
    monkeypatch.setattr(
        "mm.local.chat_messages.spelt_apart", lambda text, _: words.append(text) or text
    )
    for last in ("So?", "Why?", "And?"):
        ids = made.of((*SAID[:-1], user(last))).inputs["input_ids"][0]
        texts.append(made._tokenizer.decode(ids).replace(last, "So?"))
        told.append(len(counts) - sum(told))
    assert told == renders
    assert len(words) == 3 * spelt
    assert set(texts) == {shown(chat_template, SAID)}


@pytest.mark.parametrize("name", ["adds", "deaf", "llava"])
def test_what_was_asked_before_changes_no_form(name: str) -> None:
    chat_template = {"adds": ADDS, "deaf": DEAF}.get(name) or template(name)
    made = prompts(chat_template)
    asked = [SAID, SAID[1:], SAID[1:2], (user(noise(1, (40, 40)), "What?"),), (*SAID[:1], user(""))]
    for said in [*asked, *reversed(asked)]:
        text = made._tokenizer.decode(made.of(said).inputs["input_ids"][0])
        assert text == shown(chat_template, said)


def test_words_beside_an_image_keep_it() -> None:
    text = shown(ADDS, (message("system", "Be brief."), user(noise(1, (40, 40)), "What?")))
    assert text == "[SYSTEM]Be brief.[/SYSTEM][INST]" + "<image>" * 16 + "What?[/INST]"


ASKED = "<|im_start|>user\nGo<|im_end|>\n<|im_start|>assistant\n<think>\n"


@pytest.mark.parametrize(
    ("name", "turn", "text"),
    [
        pytest.param(
            "qwen3_5",
            (
                Message("assistant", (Thinking("Hm", closed=False),), ids("Hm")),
                assistant("\n</think>\n<answer>"),
            ),
            ASKED + "Hm\n</think>\n<answer>",
            id="a thought that was cut off, and what closes it",
        ),
        pytest.param(
            "qwen3_5",
            (Message("assistant", (Text("K."),), ids("Hm\n</think>\n\nK.</s>")),),
            ASKED + "Hm\n</think>\n\nK.",
            id="what ended goes on",
        ),
        pytest.param(
            "qwen3_5",
            (assistant("K"),),
            ASKED + "\n</think>\n\nK",
            id="words where a thought is open",
        ),
        pytest.param(
            "qwen3_5", (assistant(Thinking("t"), "K"),), ASKED + "t</think>K", id="a thought"
        ),
        pytest.param("llava", (assistant("K"),), "USER: Go ASSISTANT: K", id="a blank before"),
        pytest.param(
            "llava",
            (Message("assistant", (Text("K"),), ids(" K")), assistant(" L")),
            "USER: Go ASSISTANT: K L",
            id="the model's own blank",
        ),
        pytest.param(
            "minicpmv4_6",
            (assistant("</s>"),),
            ASKED + "\n</think>\n\n<\u2060/s>",
            id="a token spelt out",
        ),
    ],
)
def test_an_open_turn_goes_on_as_it_was_written(
    name: str, turn: tuple[Message, ...], text: str
) -> None:
    assert shown(template(name), (user("Go"), *turn)) == text


@pytest.mark.parametrize(
    ("name", "text"),
    [
        pytest.param("qwen3_5", ASKED + "\n</think>\n\n", id="opened: closed as it closes"),
        pytest.param("minicpmv4_6", ASKED + "\n</think>\n\n", id="closed by the template"),
        pytest.param("glm4v", "[gMASK]<sop><|user|>\nGo<|assistant|>\n", id="none opened"),
    ],
)
def test_an_answer_stands_outside_the_thought(name: str, text: str) -> None:
    assert shown(template(name), (user("Go"),), answers=True) == text


@pytest.mark.parametrize("text", ["K", " K", "\n</think>", ""])
@pytest.mark.parametrize("before", ["ASSISTANT: ", "ASSISTANT:", "it is K", "</s>", ""])
def test_a_text_goes_on_without_a_blank_of_its_own(before: str, text: str) -> None:
    made = prompts(template("llava"))
    made._tokenizer = tokenizer = spaced_tokenizer(["<image>"], "")
    first = tokenizer(before, add_special_tokens=False).input_ids
    whole = tokenizer.decode([*first, *made.ids_after(before, text)])
    assert whole == tokenizer.decode(tokenizer(before + text, add_special_tokens=False).input_ids)


def test_a_turn_that_shows_an_image_is_the_templates() -> None:
    turn = (assistant("Look: "), assistant(noise(1, (40, 40)), "K"))
    text = shown(ANY, (user("Go"), *turn))
    assert text == "user: Goassistant: Look: " + "<image>" * 16 + "K"


def grown(**inputs: torch.Tensor) -> dict[str, torch.Tensor]:
    asked = {"input_ids": torch.tensor([[1, 2, 3]]), **inputs}
    return GenericPrompt(asked, True, "").followed_by([7, 8])


@pytest.mark.parametrize(
    ("name", "value", "wanted"),
    [
        pytest.param("input_ids", [[1, 2, 3]], [[1, 2, 3, 7, 8]], id="ids"),
        pytest.param("attention_mask", [[1, 1, 1]], [[1, 1, 1, 1, 1]], id="mask"),
        pytest.param("mm_token_type_ids", [[0, 1, 0]], [[0, 1, 0, 0, 0]], id="kinds"),
        pytest.param(
            "cross_attention_mask",
            [[[[0]], [[1]], [[2]]]],
            [[[[0]], [[1]], [[2]], [[2]], [[2]]]],
            id="Mllama: the images that the last token sees",
        ),
        pytest.param(
            "pixel_values", [[1, 2, 3], [4, 5, 6]], [[1, 2, 3], [4, 5, 6]], id="patches as wide"
        ),
        pytest.param("pixel_values", [[1, 2, 3]], [[1, 2, 3]], id="one patch as wide"),
        pytest.param("image_grid_thw", [[1, 2], [1, 4]], [[1, 2], [1, 4]], id="grids"),
    ],
)
def test_more_tokens_lengthen_what_stands_for_tokens(name: str, value: Any, wanted: Any) -> None:
    assert grown(**{name: torch.tensor(value)})[name].tolist() == wanted
