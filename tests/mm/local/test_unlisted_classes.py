"""Classes that no family lists answer as their own `generate` does, without torchvision."""

from __future__ import annotations

import sys
from functools import cache
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import pytest
import torch
from images import noise
from unlisted_models import IMAGE, PROMPTS, UNLISTED

import mm
from app.cli.main import run
from mm.local.generic_vlm import GenericVLM
from mm.types import Image, Sampling, Thinking, ToolCall, ToolSpec, assistant, message, user
from vision import attend, zoom

PICTURE = noise(1, (150, 100))
OTHER = noise(2, (64, 90))
BETWEEN = {"minicpmv4_6": "\n"}  # its template writes parts apart by a line
each = pytest.mark.parametrize("name", UNLISTED)


@cache
def loaded(name: str) -> GenericVLM:
    """The class as anybody loads it: by its folder."""
    folder = UNLISTED[name]().save(Path(mkdtemp()))
    vlm = mm.load(str(folder), device="cpu", threads=1)
    assert isinstance(vlm, GenericVLM)
    return vlm


def theirs(name: str, prompt: str, images: list[Image], count: int = 8) -> list[int]:
    """What the class itself writes after a prompt made by hand."""
    model = UNLISTED[name]().model
    inputs = UNLISTED[name]().inputs(prompt, [image.pixels for image in images])
    made = model.generate(
        **inputs,
        max_new_tokens=count,
        do_sample=False,
        suppress_tokens=sorted(loaded(name)._banned),
    )
    return made[0, inputs["input_ids"].shape[1] :].tolist()


@each
def test_torchvision_is_not_here(name: str) -> None:
    loaded(name)
    assert sys.modules.get("torchvision") is None


@each
@pytest.mark.parametrize("images", [[], [PICTURE], [PICTURE, OTHER]], ids=["none", "one", "two"])
def test_it_says_what_its_own_generate_says(name: str, images: list[Image]) -> None:
    said = "".join(IMAGE + BETWEEN.get(name, "") for _ in images) + "What is it?"
    wanted = theirs(name, PROMPTS[name].format(said), images)
    sampling = Sampling(max_tokens=8)
    (got,) = loaded(name).generate([(user(*images, "What is it?"),)], sampling)
    assert list(got.message.tokens or ()) == wanted
    if images:  # and the images matter
        turned = [Image(image.pixels.rotate(180)) for image in images]
        likely = [
            loaded(name).score((user(*seen, "What is it?"),), ["a"]).logprobs[0][0]
            for seen in (images, turned)
        ]
        assert abs(likely[0] - likely[1]) > 1e-4


@each
def test_direct_and_zoom_answer(name: str) -> None:
    sample = mm.question("What is it?", PICTURE)
    for strategy in (mm.direct, zoom):
        trace = mm.run(strategy, sample, loaded(name), sampling=Sampling(max_tokens=5))
        assert trace.error is None
        assert trace.cost.generated_tokens > 0


@each
def test_what_it_cannot_do_is_refused_by_name(name: str) -> None:
    trace = mm.run(attend, mm.question("What is it?", PICTURE), loaded(name))
    assert loaded(name).name in (trace.error or "")


@pytest.mark.parametrize("name", sorted(UNLISTED.keys() - {"mllama"}))  # whose context has none
def test_an_image_costs_its_placeholders(name: str) -> None:
    one = UNLISTED[name]()
    made = one.image_processor([PICTURE.pixels], return_tensors="pt", **one.options)
    slots = one.expand(made, 0).count(one.placeholder)
    assert loaded(name).visual_tokens(PICTURE.size) >= slots > 0


BOX = {"bbox_2d": [0, 0, 500, 500], "label": "it"}
SPEC = ToolSpec("look", "Look.", {"type": "object"})
CALLED = (
    message("system", SPEC),
    user("Go"),
    assistant(Thinking("Hm."), "Well.", ToolCall("look", BOX)),
    message("tool", PICTURE),
)


@pytest.mark.parametrize(
    ("name", "thought"),
    [
        pytest.param("qwen3_5", "<think>\nHm.\n</think>\n\n", id="qwen3_5"),
        pytest.param("minicpmv4_6", "<think>Hm.</think>", id="minicpmv4_6"),
    ],
)
def test_its_template_writes_tools_calls_and_answers(name: str, thought: str) -> None:
    vlm = loaded(name)
    text = vlm._tokenizer.decode(vlm._inputs(CALLED)["input_ids"][0])
    assert vlm.traits.calls_tools
    assert '"name": "look"' in text.partition("</tools>")[0]
    assert (
        f"<|im_start|>assistant\n{thought}Well.\n<tool_call>\n<function=look>\n"
        "<parameter=bbox_2d>\n[0, 0, 500, 500]\n</parameter>\n"
        "<parameter=label>\nit\n</parameter>\n</function>\n</tool_call><|im_end|>\n"
        "<|im_start|>user\n<tool_response>\n"
    ) in text
    assert text.count("<tool_response>") == text.count("</tool_response>") == 1


def test_a_call_in_xml_is_carried_out(monkeypatch: pytest.MonkeyPatch) -> None:
    vlm = loaded("qwen3_5")
    written = [
        "Small.\n</think>\n\n<tool_call>\n<function=image_zoom_in_tool>\n<parameter=bbox_2d>\n"
        "[0, 0, 500, 500]\n</parameter>\n</function>\n</tool_call><|im_end|>",
        "Now.\n</think>\n\nIt is K.<|im_end|>",
    ]
    monkeypatch.setattr(vlm, "_write", speaks(vlm, iter(written)))
    trace = mm.run(zoom, mm.question("What letter?", PICTURE), vlm)
    assert (trace.answer, trace.error, len(trace.images)) == ("It is K.", None, 1)
    first = trace.best.steps[1].message
    assert first.parts[0] == Thinking("Small.\n")
    assert first.tool_calls == (ToolCall("image_zoom_in_tool", {"bbox_2d": [0, 0, 500, 500]}),)


def speaks(vlm: GenericVLM, texts: Any) -> Any:
    """Writes a reply's tokens as if the model had."""

    def write(inputs: object, picker: Any, limit: int) -> None:
        for id in vlm._tokenizer(next(texts), add_special_tokens=False).input_ids:
            picker.ids.append(id)
            picker.logprobs.append(0.0)
            if picker.stop(torch.zeros(1, 1), torch.zeros(1)):
                break

    return write


def test_a_thought_that_never_ends_is_a_thought(monkeypatch: pytest.MonkeyPatch) -> None:
    vlm = loaded("qwen3_5")
    monkeypatch.setattr(vlm, "_write", speaks(vlm, iter(["It may be K"])))
    (got,) = vlm.generate([(user("What?"),)], Sampling())
    assert got.message.parts == (Thinking("It may be K"),)


@pytest.mark.parametrize("name", ["qwen3_5", "mistral3", "glm4v"])
def test_a_thought_that_reaches_its_bound_is_answered(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The template may write the thought anew; the model goes on from what it wrote."""
    vlm = loaded(name)
    opened = "" if name == "qwen3_5" else "<think>"
    given: list[str] = []

    def write(inputs: Any, picker: Any, limit: int) -> None:
        given.append(vlm._tokenizer.decode(inputs["input_ids"][0]))
        speaks(vlm, iter([f"{opened}Hm" if len(given) == 1 else "K"]))(inputs, picker, limit)

    monkeypatch.setattr(vlm, "_write", write)
    sampling = Sampling(max_tokens=40, max_thought_tokens=4)
    trace = mm.run(mm.direct, mm.question("What letter?", PICTURE), vlm, sampling=sampling)
    assert (trace.answer, trace.error) == ("K", None)
    assert given[1] == given[0] + f"{opened}Hm\n</think>\n<answer>"


def test_gemma_and_llava_write_boxes_their_own_way() -> None:
    boxes = {name: loaded(name).traits.box_format for name in ("gemma4_e", "llava", "glm4v")}
    assert (boxes["gemma4_e"].key, boxes["gemma4_e"].order) == ("box_2d", "yxyx")
    assert boxes["llava"].frame == (1, 1)
    assert boxes["glm4v"].frame == (1000, 1000)


@pytest.mark.parametrize("name", ["mistral3", "qwen3_5", "minicpmv4_6", "gemma4_31b"])
def test_half_precision_takes_images_too(name: str, tmp_path: Path) -> None:
    vlm = mm.load(str(UNLISTED[name]().save(tmp_path)), device="cpu", dtype="bfloat16", threads=1)
    (got,) = vlm.generate([(user(PICTURE, "What?"),)], Sampling(max_tokens=2))
    assert len(got.message.tokens or ()) == 2


def test_penalties_count_the_prompt_and_the_reply() -> None:
    vlm, said = loaded("glm4v"), (user(PICTURE, "What is it?"),)
    plain, penalised = (
        vlm.generate([said], Sampling(max_tokens=12, repetition_penalty=by))[0].message.tokens
        for by in (1.0, 1e9)
    )
    prompt = set(vlm._inputs(said)["input_ids"][0].tolist())
    assert plain != penalised
    assert len(set(penalised or ())) == 12
    assert not prompt & set(penalised or ())


def test_info_says_what_it_does_without(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["info", "--model", str(UNLISTED["qwen3_5"]().save(tmp_path))]) == 0
    told = " ".join(capsys.readouterr().out.split())
    assert "Qwen3_5ForConditionalGeneration" in told
    assert "not listed: it runs through its own processor" in told
