"""The token builder: equal to each family's own processor, append-only, deaf to spelt tokens."""

from __future__ import annotations

import json
import pickle
import time
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest
import torch
from images import noise
from tiny_models import FAMILIES, QWEN_SPECIALS, bytes_tokenizer, spaced_tokenizer, template
from transformers import (
    Gemma3Processor,
    Idefics3Processor,
    InternVLProcessor,
    LlavaNextProcessor,
    LlavaOnevisionProcessor,
    Qwen2VLProcessor,
    Qwen3VLProcessor,
    SmolVLMProcessor,
)

from mm.engine.vision_encoder import encode, join
from mm.families.registry import family_of
from mm.geometry import Region
from mm.tokens.builder import TokenBuilder
from mm.tokens.loading import compose, load_builder
from mm.tokens.sequence import Tokens
from mm.tokens.tokenizer import SafeTokenizer
from mm.types import (
    Conversation,
    Image,
    Message,
    Part,
    Text,
    Thinking,
    ToolCall,
    ToolSpec,
    assistant,
    message,
    user,
)

ALL = list(FAMILIES)
QWEN = ["qwen2_vl", "qwen2_5_vl", "qwen3_vl"]
ZOOM = ToolSpec(
    "zoom", "Look closer: é", {"type": "object", "properties": {"x": {"type": "number"}}}
)


def builder_of(family: str) -> TokenBuilder:
    return FAMILIES[family]().builder


def text_of(builder: TokenBuilder, ids: Any) -> str:
    """The ids as text, each run of placeholders as one."""
    pieces = [builder.tokenizer.convert_ids_to_tokens(i) for i in ids]
    kept = [
        i
        for i, (a, b) in zip(ids, pairwise([*pieces, ""]), strict=True)
        if not a == b == builder.family.placeholder
    ]
    return builder.tokenizer.decode(kept)


def trained_text(builder: TokenBuilder, tokens: Tokens) -> str:
    return builder.tokenizer.decode(
        [i for i, t in zip(tokens.ids, tokens.trained, strict=True) if t]
    )


# --- equal to the family's own processor -------------------------------------------------------


def own_llava_next() -> Any:
    tiny = FAMILIES["llava_next"]()
    return LlavaNextProcessor(
        tiny.builder.image_processor,
        tiny.builder.tokenizer,
        patch_size=14,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=template("llava_next"),
    )


def own_idefics3() -> Any:
    builder = builder_of("idefics3")
    return Idefics3Processor(
        builder.image_processor,
        builder.tokenizer,
        image_seq_len=4,
        chat_template=template("idefics3"),
    )


def own_gemma3() -> Any:
    builder = builder_of("gemma3")
    names = {"boi": "<start_of_image>", "eoi": "<end_of_image>", "image": "<image_soft_token>"}
    for key, name in names.items():
        setattr(builder.tokenizer, f"{key}_token", name)
        setattr(builder.tokenizer, f"{key}_token_id", builder.tokenizer.convert_tokens_to_ids(name))
    return Gemma3Processor(
        builder.image_processor,
        builder.tokenizer,
        image_seq_length=4,
        chat_template=template("gemma3"),
    )


OWN: dict[str, Callable[[], Any]] = {
    "llava_next": own_llava_next,
    "idefics3": own_idefics3,
    "gemma3": own_gemma3,
}

SAID = {
    "one picture": (user(noise(), "What is here?"), assistant("A cat."), user("Sure?")),
    "two pictures, system": (
        message("system", "Be brief."),
        user(noise(0, (200, 60)), noise(0, (40, 120)), "Which is wider?\n\nThink."),
        assistant("The first."),
        user(noise(0, (31, 30)), "And this?"),
    ),
    "words alone": (user("Hi"),),
}


def as_dicts(conversation: Conversation) -> list[dict[str, Any]]:
    def part(p: Part) -> dict[str, Any]:
        if isinstance(p, Image):
            return {"type": "image", "image": p.pixels}
        assert isinstance(p, Text)
        return {"type": "text", "text": p.text}

    return [{"role": m.role, "content": [part(p) for p in m.parts]} for m in conversation]


@pytest.mark.parametrize("family", OWN)
@pytest.mark.parametrize("said", [pytest.param(v, id=k) for k, v in SAID.items()])
def test_equals_the_familys_own_processor(family: str, said: Conversation) -> None:
    own = OWN[family]()
    text = own.apply_chat_template(as_dicts(said), add_generation_prompt=True)
    pixels = [i.pixels for m in said for i in m.images]
    adds = {"add_special_tokens": family == "llava_next"}
    theirs = own(text=text, images=pixels or None, return_tensors="pt", **adds)
    ours = builder_of(family).build(said)
    assert list(ours.ids) == theirs["input_ids"][0].tolist()
    if family == "idefics3" and pixels:  # a row's tiles follow each other
        theirs = {
            k: theirs[k][0].split([s.tensors[k].shape[1] for s in ours.images]) for k in PIXELS
        }
    for index, span in enumerate(ours.images):
        for key, mine in span.tensors.items():
            # a batch is padded to the picture with the most tiles
            assert torch.equal(mine[0], theirs[key][index][: len(mine[0])]), key


def test_idefics3_may_spell_its_tiles_in_words() -> None:
    tiny = FAMILIES["idefics3"]()
    names = ["<|begin_of_text|>", "<end_of_utterance>", "<fake_token_around_image>", "<image>"]
    tokenizer = bytes_tokenizer(names, template("idefics3"), "<end_of_utterance>")
    processor = tiny.builder.image_processor
    builder = compose(tiny.builder.family, tiny.model.config, tokenizer, processor)
    own: Any = Idefics3Processor(processor, tokenizer, image_seq_len=4)
    text = tokenizer.apply_chat_template(as_dicts(SAID["one picture"]), tokenize=False)
    theirs = own(text=text, images=[noise().pixels], add_special_tokens=False)
    assert list(builder.build(SAID["one picture"], open_turn=False).ids) == theirs["input_ids"][0]


PIXELS = ("pixel_values", "pixel_attention_mask")


def expand_qwen(family: str) -> Any:
    own = object.__new__(Qwen3VLProcessor if family == "qwen3_vl" else Qwen2VLProcessor)
    own.image_token = "<|image_pad|>"
    own.image_processor = builder_of(family).image_processor
    return own


def expand_onevision(family: str) -> Any:
    own = object.__new__(LlavaOnevisionProcessor)
    own.image_token, own.num_image_tokens = "<image>", 16
    own.vision_feature_select_strategy, own.vision_aspect_ratio = "full", "anyres_max_4"
    own.image_processor = builder_of(family).image_processor
    return own


def expand_smolvlm(family: str) -> Any:
    own = object.__new__(SmolVLMProcessor)
    own.image_token, own.image_seq_len, own.global_image_token = "<image>", 4, "<global-img>"
    own.fake_image_token = "<fake_token_around_image>"
    return own


def expand_internvl(family: str) -> Any:
    own = object.__new__(InternVLProcessor)
    own.image_token, own.image_seq_length = "<IMG_CONTEXT>", 4
    own.start_image_token, own.end_image_token = "<img>", "</img>"
    return own


# these cannot be made without torchvision; their method that expands a picture runs without it
EXPAND: dict[str, Callable[[str], Any]] = {
    **dict.fromkeys(QWEN, expand_qwen),
    "llava_onevision": expand_onevision,
    "smolvlm": expand_smolvlm,
    "internvl": expand_internvl,
}


@pytest.mark.parametrize("family", EXPAND)
@pytest.mark.parametrize("said", [pytest.param(v, id=k) for k, v in SAID.items()])
def test_equals_the_familys_own_expansion(family: str, said: Conversation) -> None:
    builder = builder_of(family)
    if family == "llava_onevision":  # its template writes another assistant header in history
        said = tuple(m for m in said if m.role != "assistant")
    text = builder.tokenizer.apply_chat_template(
        as_dicts(said), tokenize=False, add_generation_prompt=True
    )
    token = EXPAND[family](family).image_token
    head, *tails = text.split(token)
    for image, tail in zip((i for m in said for i in m.images), tails, strict=True):
        head += own_marks(family, image) + tail
    assert builder.build(said).ids == tuple(builder.tokenizer(head).input_ids)


def own_marks(family: str, image: Image) -> str:
    options = {"crop_to_patches": True} if family == "internvl" else {}
    if family == "smolvlm":
        options = {"return_row_col_info": True}
    processor = builder_of(family).image_processor
    made = dict(processor(images=[image.pixels], return_tensors="pt", **options))
    return EXPAND[family](family).replace_image_token({**made, "batch_num_images": [1]}, 0)


SIZES = [(90, 60), (128, 128), (40, 120), (200, 30), (300, 300), (31, 30), (1, 1)]


@pytest.mark.parametrize("family", ALL)
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_counts_are_those_of_the_encoder(family: str, size: tuple[int, int]) -> None:
    tiny = FAMILIES[family]()
    (span,) = tiny.builder.build((user(noise(0, size), "?"),)).images
    with torch.no_grad():
        features = encode(tiny.model, span.tensors).pooler_output
    width = tiny.model.config.get_text_config().hidden_size
    assert tiny.builder.visual_tokens(size) == sum(f.numel() for f in features) // width
    assert span.patches == patches_in(span.tensors, family)


def patches_in(tensors: Any, family: str) -> int:
    pixels = tensors["pixel_values"]
    return len(pixels) if family in QWEN else pixels[..., 0, ::14, ::14].numel()


@pytest.mark.parametrize("family", ALL)
def test_features_of_pictures_apart_join_to_those_of_pictures_together(family: str) -> None:
    tiny = FAMILIES[family]()
    spans = tiny.builder.build((user(noise(), noise(0, (60, 90)), "?"),)).images
    with torch.no_grad():
        apart = [encode(tiny.model, s.tensors) for s in spans]
    joined = join(apart)
    assert sum(f.shape[-2] * (f.dim() < 3 or len(f)) for f in joined.pooler_output) == sum(
        tiny.builder.visual_tokens(s.image.size) for s in spans
    )
    if deep := getattr(joined, "deepstack_features", None):
        assert [len(layer) for layer in deep] == [2]


# --- append-only -------------------------------------------------------------------------------

LONG = (
    message("system", "Look closely.", ZOOM),
    user(noise(), "Which letter?"),
    assistant(Thinking("Too small."), ToolCall("zoom", {"x": 1.5, "label": "é"})),
    message("tool", noise(0, (60, 90)), "closer"),
    message("tool", "another"),
    user("And?"),
    assistant("Maybe "),
    assistant("K."),
    user("Sure?"),
    user("Really?"),
    assistant("Yes."),
)


@pytest.mark.parametrize("family", ALL)
def test_a_longer_conversation_begins_with_the_shorter(family: str) -> None:
    builder = builder_of(family)
    whole = builder.build(LONG, open_turn=False)
    for at, said in enumerate(LONG):
        if said.role == "assistant":
            open_ids = builder.build(LONG[: at + 1]).ids
            assert whole.ids[: len(open_ids)] == open_ids
            prompt = builder.build(LONG[:at]).ids
            assert open_ids[: len(prompt)] == prompt


@pytest.mark.parametrize("family", ALL)
@pytest.mark.parametrize("ended", [pytest.param(True, id="ended"), pytest.param(False, id="cut")])
def test_generated_tokens_stay_as_they_were(family: str, ended: bool) -> None:
    builder = builder_of(family)
    prompt, encode = builder.build(LONG[:2]).ids, builder.safe_tokenizer.encode
    odd = encode(("so",)) + encode(("n",)) + encode(("\n",))
    end = builder.continuation("")[-1]
    wrote = (*odd, end) if ended else odd
    reply = Message("assistant", (Text("son\n"),), wrote)
    longer = builder.build((*LONG[:2], reply, user("Go on.")))
    assert longer.ids[: len(prompt) + len(odd) + 1] == (*prompt, *odd, end)
    assert sum(longer.trained) == len(wrote)  # an end that the model did not write trains nobody


@pytest.mark.parametrize("family", ALL)
def test_a_picture_stands_inside_the_assistants_turn(family: str) -> None:
    builder = builder_of(family)
    wrote = Message("assistant", (Text("look"),), builder.safe_tokenizer.encode(("look",)))
    shown = assistant("\n", noise(0, (60, 90)), "\n")
    reply = Message("assistant", (Text("K"),), builder.safe_tokenizer.encode(("K",)))
    said = (user(noise(), "?"), wrote, shown, reply)
    tokens = builder.build(said, exclude=frozenset({2}), open_turn=False)
    assert trained_text(builder, tokens).replace(" ", "") == "lookK"
    assert [s.image.id for s in tokens.images] == [noise().id, noise(0, (60, 90)).id]
    assert not any(tokens.trained[s.start] for s in tokens.images)
    for upto in (2, 3, 4):
        begun = builder.build(said[:upto]).ids
        assert tokens.ids[: len(begun)] == begun
    alone = builder.build((user("?"), shown), open_turn=False)
    assert 0 < sum(alone.trained) < len(alone.ids)
    assert builder.placeholder_id not in [
        i for i, t in zip(alone.ids, alone.trained, strict=True) if t
    ]


@pytest.mark.parametrize("family", ALL)
def test_a_turn_that_ended_goes_on_when_the_assistant_has_more_to_say(family: str) -> None:
    builder = builder_of(family)
    end = builder.continuation("")[-1]
    first = Message("assistant", (Text("a"),), (*builder.safe_tokenizer.encode(("a",)), end))
    alone = builder.build((user("?"), first)).ids
    assert alone[-1] != end
    both = builder.build((user("?"), first, assistant("b")), open_turn=False)
    assert both.ids[: len(alone)] == alone
    assert both.ids.count(end) == alone.count(end) + 1


def test_only_what_the_assistant_wrote_trains() -> None:
    builder = builder_of("qwen3_vl")
    said = trained_text(builder, builder.build(LONG, open_turn=False))
    call = '<tool_call>\n{"name": "zoom", "arguments": {"x": 1.5, "label": "é"}}\n</tool_call>'
    assert said == (f"<think>Too small.</think>\n{call}<|im_end|>Maybe K.<|im_end|>Yes.<|im_end|>")
    fewer = builder.build(LONG, open_turn=False, exclude=frozenset({2, 10}))
    assert trained_text(builder, fewer) == "Maybe K.<|im_end|>"


def test_an_open_turn_trains_no_end() -> None:
    builder = builder_of("qwen3_vl")
    assert trained_text(builder, builder.build((user("?"), assistant("Mm")))) == "Mm"


@pytest.mark.parametrize("family", ALL)
def test_continuation_is_what_an_assistant_message_would_be(family: str) -> None:
    builder = builder_of(family)
    prompt = builder.build((user("?"),)).ids
    rendered = builder.build((user("?"), assistant("Blue.")), open_turn=False)
    written = tuple(i for i, t in zip(rendered.ids, rendered.trained, strict=True) if t)
    assert builder.continuation("Blue.") == written
    assert rendered.ids[: len(prompt) + len(written)] == prompt + written


# --- turns -------------------------------------------------------------------------------------


def test_tools_and_their_answers_are_what_qwen3_vl_writes() -> None:
    builder = builder_of("qwen3_vl")
    call = {"type": "function", "function": {"name": "zoom", "arguments": {"x": 1.5, "é": None}}}
    dicts = [
        {"role": "system", "content": "Look."},
        {"role": "user", "content": "Go"},
        {"role": "assistant", "content": "So.", "tool_calls": [call, call]},
        {"role": "tool", "content": "one"},
        {"role": "tool", "content": "two"},
    ]
    theirs = builder.tokenizer.apply_chat_template(
        dicts, tools=[ZOOM.json], add_generation_prompt=True, return_dict=False
    )
    ours = builder.build(
        (
            message("system", "Look.", ZOOM),
            user("Go"),
            assistant("So.", *[ToolCall("zoom", {"x": 1.5, "é": None})] * 2),
            message("tool", "one"),
            message("tool", "two"),
        )
    )
    assert list(ours.ids) == theirs


@pytest.mark.parametrize(
    ("family", "begins"),
    [
        pytest.param("qwen3_vl", "<|im_start|>system\n# Tools", id="tools alone"),
        pytest.param(
            "qwen2_5_vl",
            "<|im_start|>system\nYou are a helpful assistant.\n\n# Tools",
            id="after the default",
        ),
        pytest.param("gemma3", "<bos><start_of_turn>user\n# Tools", id="no system turn"),
        pytest.param("idefics3", "<|begin_of_text|>System: # Tools", id="after a colon"),
        pytest.param("llava_onevision", "<|im_start|>system \n# Tools", id="own layout"),
    ],
)
def test_tools_stand_in_the_system_text(family: str, begins: str) -> None:
    builder = builder_of(family)
    text = text_of(builder, builder.build((message("system", ZOOM), user("Hi"))).ids)
    assert text.startswith(begins)
    assert "\n" + json.dumps(ZOOM.json, ensure_ascii=False) + "\n</tools>" in text


@pytest.mark.parametrize("family", ALL)
@pytest.mark.parametrize(
    "said",
    [
        pytest.param((), id="nothing"),
        pytest.param((user("a"), user("b")), id="user, user"),
        pytest.param((message("tool", "a"), user("b")), id="tool, user"),
        pytest.param((user("a"), message("tool", noise(), "b")), id="user, tool"),
        pytest.param((assistant("a"), user("b")), id="assistant first"),
        pytest.param((message("system", "a"), message("system", "b")), id="system alone"),
        pytest.param((user("a"), message("system", "b"), user("c")), id="system between"),
        pytest.param((user(),), id="empty"),
    ],
)
def test_any_order_of_roles_renders(family: str, said: Conversation) -> None:
    builder = builder_of(family)
    text = text_of(builder, builder.build(said).ids)
    assert all(p.text in text for m in said for p in m.parts if isinstance(p, Text))


def test_system_messages_in_a_row_are_one() -> None:
    builder = builder_of("qwen3_vl")
    split = (message("system", "a"), message("system", "b"), user("c"))
    assert builder.build(split).ids == builder.build((message("system", "a\n\nb"), user("c"))).ids


def thinking_builder() -> TokenBuilder:
    """Of a checkpoint whose template opens the thought."""
    tiny = FAMILIES["qwen3_vl"]()
    tokenizer = bytes_tokenizer(
        QWEN_SPECIALS,
        template("qwen3_vl").replace(r"assistant\n' }}", r"assistant\n<think>\n' }}"),
        "<|im_end|>",
    )
    family = family_of("qwen3_vl")
    assert family is not None
    return compose(family, tiny.model.config, tokenizer, tiny.builder.image_processor)


def test_a_thinking_checkpoint_has_its_thought_opened() -> None:
    builder = thinking_builder()
    assert text_of(builder, builder.build((user("?"),)).ids).endswith("assistant\n<think>\n")
    said = (user("?"), assistant(Thinking("Hm."), Text("No.")), user("Why?"), assistant("So."))
    text = text_of(builder, builder.build(said, open_turn=False).ids)
    assert "<think>\nHm.</think>No.<|im_end|>" in text
    assert "<think>\n</think>So.<|im_end|>" in text


@pytest.mark.parametrize(
    ("thought", "written"),
    [
        pytest.param("\nHm.\n", "<think>\nHm.\n</think>", id="as the template writes it"),
        pytest.param("Hm.", "<think>\nHm.</think>", id="without breaks"),
        pytest.param("\n\n", "<think>\n\n</think>", id="empty"),
    ],
)
def test_a_thoughts_first_break_is_the_headers(thought: str, written: str) -> None:
    builder = thinking_builder()
    said = (user("?"), assistant(Thinking(thought), "\n\nblue"))
    assert f"assistant\n{written}\n\nblue<|im_end|>" in text_of(
        builder, builder.build(said, open_turn=False).ids
    )


def test_an_unknown_template_is_said_once(caplog: pytest.LogCaptureFixture) -> None:
    tiny = FAMILIES["qwen3_vl"]()
    tokenizer = bytes_tokenizer(
        QWEN_SPECIALS,
        "{{ messages[0].content }}!",
        "<|im_end|>",
    )
    compose(tiny.builder.family, tiny.model.config, tokenizer, tiny.builder.image_processor)
    assert [r.message for r in caplog.records] == [
        "Qwen3-VL: unknown chat template; using the family's usual one"
    ]


# --- words -------------------------------------------------------------------------------------

SPELT = [
    "<|image_pad|>", "<|im_end|>", "<image>", "<|vision_start|>", "<IMG_CONTEXT>", "<end_of_turn>",
    "<image_soft_token>", "</s>", "<s>", "<end_of_utterance>", "<row_1_col_1>", "<global-img>",
    "<fake_token_around_image>", "<|im_<|im_end|>end|>",
]  # fmt: skip


@pytest.mark.parametrize("family", ALL)
@pytest.mark.parametrize("spelt", SPELT)
def test_a_special_token_that_somebody_spells_is_words(family: str, spelt: str) -> None:
    builder = builder_of(family)
    plain = builder.build((user("x"),)).ids
    tokens = builder.build((user(f"say {spelt} twice {spelt}"),))
    controls = builder.safe_tokenizer.special_ids
    assert [i for i in tokens.ids if i in controls] == [i for i in plain if i in controls]
    assert spelt in builder.decode(tokens.ids)
    said = builder.build((user("x"), assistant(f"{spelt}")), open_turn=False)
    assert not builder.banned_ids.intersection(said.ids)


def test_a_placeholder_that_its_tokenizer_calls_plain_is_words_too() -> None:
    tokenizer = bytes_tokenizer(["<a>"], "", "<a>")
    tokenizer.add_tokens(["<pic>"])
    words = SafeTokenizer(tokenizer, "<pic>")
    ids = words.encode(("x<pic>y",))
    assert words.ids["<pic>"] not in ids
    assert words.decode(ids) == "x<pic>y"


def test_a_missing_token_is_named() -> None:
    with pytest.raises(ValueError, match="no token '<pic>'"):
        SafeTokenizer(bytes_tokenizer(["<a>"], "", "<a>"), "<pic>")


@pytest.mark.parametrize("scheme", ["first", "always"])
def test_words_after_a_token_are_what_the_whole_text_would_give(scheme: str) -> None:
    tokenizer = spaced_tokenizer(["<image>"], "", scheme)
    words = SafeTokenizer(tokenizer, "<image>")
    text = "[INST] <image>\nis this? [/INST] it is</s> [INST] a"
    pieces = words.split_special(text)
    assert words.encode(pieces) == tuple(tokenizer(text, add_special_tokens=False).input_ids)
    before = words.split_special(text[: text.index(" it")])
    cut = [words.encode(before), words.encode((" it is",), "text")]
    assert cut[0] + cut[1] == words.encode(pieces)[: len(cut[0] + cut[1])]


@pytest.mark.parametrize("family", ALL)
@pytest.mark.parametrize(
    "parts",
    [
        pytest.param((Text("A cat."),), id="text"),
        pytest.param((Thinking("Hm.\n"), Text("A cat.")), id="thought"),
        pytest.param((Text("Look: "), ToolCall("zoom", {"x": [1, 2], "é": "ü"})), id="call"),
        pytest.param((ToolCall("a", {}), ToolCall("b", {"c": None})), id="two calls"),
        pytest.param((Thinking("t"), ToolCall("a", {}), Text("z")), id="all"),
    ],
)
def test_parts_survive_the_tokens(family: str, parts: tuple[Part, ...]) -> None:
    builder = builder_of(family)
    tokens = builder.build((user("?"), assistant(*parts)), open_turn=False)
    wrote = [i for i, t in zip(tokens.ids, tokens.trained, strict=True) if t]
    assert builder.parse(wrote) == parts


def test_a_malformed_call_stays_text() -> None:
    builder = builder_of("qwen3_vl")
    text = "<tool_call>\n{not json\n</tool_call>"
    assert builder.parse(builder.continuation(text)) == (Text(text),)


@pytest.mark.parametrize(
    ("wrote", "begins", "parts"),
    [
        pytest.param("It may", True, (Thinking("It may", closed=False),), id="cut"),
        pytest.param("a</think>b", True, (Thinking("a"), Text("b")), id="closed"),
        pytest.param("<think>a</think>b", True, (Thinking("a"), Text("b")), id="opened again"),
        pytest.param("", True, (Thinking("", closed=False),), id="nothing"),
        pytest.param(
            'a\n<tool_call>{"name": "z", "arguments": {}}</tool_call>',
            True,
            (Thinking("a", closed=False), ToolCall("z", {})),
            id="call in it",
        ),
        pytest.param("It may", False, (Text("It may"),), id="goes on"),
    ],
)
def test_a_turn_may_begin_inside_a_thought(
    wrote: str, begins: bool, parts: tuple[Part, ...]
) -> None:
    builder = thinking_builder()
    assert builder.parse(builder.safe_tokenizer.encode((wrote,)), begins=begins) == parts


# --- pictures ----------------------------------------------------------------------------------


@pytest.mark.parametrize("family", ALL)
def test_boxes_survive_the_way_to_the_model_and_back(family: str) -> None:
    builder = builder_of(family)
    box_format = builder.traits.box_format
    for size in [(900, 300), (300, 900), (1000, 1000)]:
        seen = builder.seen_size(size)
        region = Region.from_pixels((100, 50, 250, 280), size)
        read = box_format.read(tuple(box_format.write(region, seen)), seen)  # pyright: ignore[reportArgumentType]
        step = max(1 / v for v in box_format.frame or seen) if not box_format.decimals else 1e-3
        assert (
            max(abs(getattr(read, k) - getattr(region, k)) for k in ("x0", "y0", "x1", "y1"))
            <= step
        )


def test_qwen2_5_vl_boxes_are_pixels_of_the_resized_picture() -> None:
    builder = builder_of("qwen2_5_vl")
    seen = builder.seen_size((1120, 560))
    assert seen == (140, 56)
    written = builder.traits.box_format.write(Region(0.5, 0.5, 1, 1), seen)
    assert written == [70, 28, 140, 56]


def test_a_span_holds_its_pictures_placeholders_and_no_others() -> None:
    for family in ALL:
        builder = builder_of(family)
        tokens = builder.build((user(noise(), "and", noise(0, (60, 90))),))
        inside = [i for s in tokens.images for i in range(s.start, s.stop)]
        assert [i for i in inside if tokens.ids[i] == builder.placeholder_id] == [
            i for i, id in enumerate(tokens.ids) if id == builder.placeholder_id
        ]
        first, second = tokens.images
        assert first.stop <= second.start
        assert tokens.ids[first.start] == tokens.ids[second.stop - 1] == builder.placeholder_id


def test_a_onevision_picture_costs_the_same_in_company() -> None:
    builder = builder_of("llava_onevision")
    alone = builder.build((user(noise()),)).images[0]
    beside = builder.build((user(noise()), assistant("a"), user(noise(0, (60, 90))))).images[0]
    assert (alone.start, alone.stop) == (beside.start, beside.stop)
    assert torch.equal(alone.tensors["pixel_values"], beside.tensors["pixel_values"])


def test_placeholders_in_a_models_own_tokens_are_refused() -> None:
    builder = builder_of("qwen3_vl")
    odd = Message("assistant", (), (builder.placeholder_id,))
    with pytest.raises(ValueError, match="1 placeholders for images that take 0"):
        builder.build((user("?"), odd))


def test_a_strip_of_a_picture_is_refused_by_size() -> None:
    with pytest.raises(ValueError, match="got 600x2"):
        builder_of("qwen3_vl").visual_tokens((600, 2))


def test_a_picture_is_processed_once() -> None:
    builder = builder_of("qwen3_vl")
    said = (user(noise(7), "?"),)
    assert builder.build(said).images[0].tensors is builder.build(said).images[0].tensors


def test_pictures_kept_stay_within_their_budget(monkeypatch: pytest.MonkeyPatch) -> None:
    from mm.tokens import image_processing

    (span,) = builder_of("qwen3_vl").build((user(noise(0, (128, 128))),)).images
    one = sum(t.nbytes for t in span.tensors.values())
    monkeypatch.setattr(image_processing, "_BUDGET", 2 * one)
    builder = TokenBuilder(
        builder_of("qwen3_vl").family,
        config=FAMILIES["qwen3_vl"]().model.config,
        tokenizer=builder_of("qwen3_vl").tokenizer,
        image_processor=builder_of("qwen3_vl").image_processor,
    )
    for seed in range(5):
        builder.image_processing.tensors(noise(seed, (128, 128)), noise(seed, (128, 128)).id)
    assert list(builder.image_processing._cache) == [noise(s, (128, 128)).id for s in (3, 4)]
    assert builder.image_processing._cache.bytes == 2 * one


def test_a_crop_is_processed_within_milliseconds() -> None:
    pictures = builder_of("qwen3_vl").image_processing
    crop = noise(0, (128, 128))
    took = []
    for _ in range(20):
        begun = time.perf_counter()
        pictures._process(crop.pixels)
        took.append(time.perf_counter() - begun)
    assert min(took) < 0.005


# --- loading -----------------------------------------------------------------------------------


@pytest.mark.parametrize("family", ALL)
def test_a_saved_checkpoint_loads_to_the_same_tokens(family: str, tmp_path: Any) -> None:
    tiny = FAMILIES[family]()
    config = tiny.model.config
    config.save_pretrained(tmp_path)
    tiny.builder.tokenizer.save_pretrained(tmp_path)
    tiny.builder.image_processor.save_pretrained(tmp_path)
    loaded = load_builder(str(tmp_path))
    ours, theirs = loaded.build(LONG), tiny.builder.build(LONG)
    assert ours.ids == theirs.ids
    assert all(
        torch.equal(a.tensors[k], b.tensors[k])
        for a, b in zip(ours.images, theirs.images, strict=True)
        for k in a.tensors
    )
    assert loaded.end_ids == tiny.builder.end_ids


def test_what_a_config_says_of_its_own_wins(tmp_path: Any) -> None:
    tiny = FAMILIES["qwen3_vl"]()
    tiny.model.config.save_pretrained(tmp_path)
    tiny.builder.tokenizer.save_pretrained(tmp_path)
    tiny.builder.image_processor.save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, "crop_rule": "square"}))
    (tmp_path / "generation_config.json").write_text(json.dumps({"eos_token_id": [0, 2]}))
    loaded = load_builder(str(tmp_path))
    assert loaded.traits.crop_rule == "square"
    assert {0, 2} <= loaded.end_ids


def test_an_older_checkpoints_files_are_read(tmp_path: Any) -> None:
    tiny = FAMILIES["qwen2_5_vl"]()
    tiny.model.config.save_pretrained(tmp_path)
    tiny.builder.tokenizer.save_pretrained(tmp_path)
    written = template("qwen2_5_vl").replace("You are a helpful assistant.", "You are odd.")
    (tmp_path / "chat_template.jinja").unlink()
    (tmp_path / "chat_template.json").write_text(json.dumps({"chat_template": written}))
    pixels = {"min_pixels": 56 * 56, "max_pixels": 84 * 84, "patch_size": 14, "merge_size": 2}
    kind = {"image_processor_type": "Qwen2VLImageProcessorFast"}
    (tmp_path / "preprocessor_config.json").write_text(json.dumps({**pixels, **kind}))
    loaded = load_builder(str(tmp_path))
    assert loaded.seen_size((300, 300)) == (84, 84)
    assert loaded.tokenizer.chat_template == written


@pytest.mark.parametrize("family", ALL)
def test_tokens_survive_pickling_and_their_copy_processes_images_itself(family: str) -> None:
    tokens = builder_of(family).build((user(noise(5), "what letter?"),))
    copy = pickle.loads(pickle.dumps(tokens))
    assert copy == tokens
    (mine,), (theirs,) = copy.images, tokens.images
    assert all(torch.equal(mine.tensors[k], v) for k, v in theirs.tensors.items())


@pytest.mark.parametrize("family", ALL)
@pytest.mark.parametrize("size", [(120, 90), (40, 160)])
def test_a_layouts_runs_hold_counts_and_no_placeholder(family: str, size: tuple[int, int]) -> None:
    builder = builder_of(family)
    layout = builder.image_processing.layout(size)
    texts = [run for run in layout.runs if isinstance(run, str)]
    assert not any(builder.family.placeholder in text for text in texts)
    assert builder.build((user(noise(0, size)),)).ids.count(builder.placeholder_id) == layout.tokens
