"""A model's words as parts, and a model that answers from a list."""

import string
from collections.abc import Sequence
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mm.errors import ModelError
from mm.markup import parse_parts, render_parts
from mm.scripted import ScriptedVLM
from mm.types import (
    Generation,
    Image,
    Message,
    Part,
    Sampling,
    Text,
    Thinking,
    ToolCall,
    user,
)
from mm.vlm import Traits

CALL = '<tool_call>\n{"name": "zoom", "arguments": {"bbox_2d": [1, 2, 3, 4]}}\n</tool_call>'
ZOOM = ToolCall("zoom", {"bbox_2d": [1, 2, 3, 4]})


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        pytest.param("", (), id="nothing"),
        pytest.param(" \n", (Text(" \n"),), id="whitespace"),
        pytest.param("red", (Text("red"),), id="words"),
        pytest.param("<think>hm</think>red", (Thinking("hm"), Text("red")), id="thought"),
        pytest.param("<think>hm</think>\n\n", (Thinking("hm"),), id="layout dropped"),
        pytest.param("<think></think>red", (Thinking(""), Text("red")), id="empty thought"),
        pytest.param("<think>hm, the", (Thinking("hm, the"),), id="thought cut off"),
        pytest.param("hm</think>red", (Thinking("hm"), Text("red")), id="opened by the template"),
        pytest.param(f"a {CALL}", (Text("a "), ZOOM), id="call"),
        pytest.param(f"{CALL}\n{CALL}", (ZOOM, ZOOM), id="two calls"),
        pytest.param(f"<think>so {CALL}", (Thinking("so "), ZOOM), id="call ends a thought"),
        pytest.param(
            f"<think>{CALL}</think>x", (Thinking(CALL), Text("x")), id="call only thought"
        ),
        pytest.param(CALL.removesuffix("</tool_call>"), (ZOOM,), id="call not closed"),
        pytest.param(CALL[:-20], (Text(CALL[:-20]),), id="call cut off"),
        pytest.param(
            "a <tool_call>zoom()</tool_call> b",
            (Text("a <tool_call>zoom()</tool_call> b"),),
            id="not JSON",
        ),
        pytest.param(
            "<tool_call>[1]</tool_call>", (Text("<tool_call>[1]</tool_call>"),), id="not an object"
        ),
        pytest.param(
            '<tool_call>{"name": 3}</tool_call>',
            (Text('<tool_call>{"name": 3}</tool_call>'),),
            id="name is no string",
        ),
        pytest.param(
            '<tool_call>{"name": "a", "arguments": [1]}</tool_call>',
            (Text('<tool_call>{"name": "a", "arguments": [1]}</tool_call>'),),
            id="arguments are a list",
        ),
        pytest.param(
            '<tool_call>{"name": "a"}</tool_call>', (ToolCall("a", {}),), id="no arguments"
        ),
        pytest.param(
            '<tool_call>{"name": "a", "arguments": "{\\"b\\": 1}"}</tool_call>',
            (ToolCall("a", {"b": 1}),),
            id="arguments in a string",
        ),
        pytest.param(
            "<tool_call>" + "[" * 100_000,
            (Text("<tool_call>" + "[" * 100_000),),
            id="too deep",
        ),
    ],
)
def test_parse(text, parts):
    assert parse_parts(text) == parts


words = st.text(string.ascii_letters + string.punctuation.replace("<", "") + " \né", min_size=1)
visible = words.filter(lambda text: not text.isspace())
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | words,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(words, inner, max_size=3),
    max_leaves=5,
)
calls = st.builds(ToolCall, words, st.dictionaries(words, values, max_size=3))
lists = st.lists(st.builds(Text, visible) | st.builds(Thinking, words) | calls, max_size=6)


def apart(parts: Sequence[Part]) -> bool:
    return not any(isinstance(a, Text) and isinstance(b, Text) for a, b in pairwise(parts))


@given(lists.filter(apart))
def test_what_is_rendered_parses_back(parts):
    assert parse_parts(render_parts(parts)) == tuple(parts)


@given(
    st.lists(
        st.sampled_from(["<think>", "</think>", "<tool_call>", "</tool_call>", "{}", "a", " "])
    )
)
def test_any_text_parses_and_stays_parsed(pieces):
    parts = parse_parts("".join(pieces))
    assert parse_parts(render_parts(parts)) == parts


def test_a_picture_is_not_words():
    from PIL import Image as pil

    with pytest.raises(ValueError, match="got Image"):
        render_parts([Image(pil.new("RGB", (1, 1)))])


# ScriptedVLM

ASKED = (user("What?"),)


def reply(script: str, **sampling):
    (generation,) = ScriptedVLM([script]).generate([ASKED], Sampling(**sampling))
    return generation


def test_replies_in_turn_and_remembers():
    vlm = ScriptedVLM(["red", lambda seen: f"{len(seen)} message"])
    sampling = Sampling(seed=3)
    texts = [vlm.generate([ASKED], s)[0].message.text for s in (Sampling(), sampling)]
    assert texts == ["red", "1 message"]
    assert vlm.conversations == [ASKED, ASKED]
    assert vlm.samplings == [Sampling(), sampling]


def test_a_batch_takes_a_reply_each():
    vlm = ScriptedVLM(["red", "blue"])
    assert [g.message.text for g in vlm.generate([ASKED, ASKED], Sampling())] == ["red", "blue"]


def test_says_when_the_script_runs_out():
    vlm = ScriptedVLM(["red"])
    vlm.generate([ASKED], Sampling())
    with pytest.raises(ModelError, match="only 1 replies and was asked for one more"):
        vlm.generate([ASKED], Sampling())
    assert len(vlm.conversations) == 1


@pytest.mark.parametrize(
    ("sampling", "text", "finish"),
    [
        pytest.param({}, "look <a> here <b> é", "stop", id="end"),
        pytest.param({"stop": ("<b>", "<a>")}, "look <a>", "stop", id="first stop is kept"),
        pytest.param({"max_tokens": 4}, "look", "length", id="token limit"),
        pytest.param({"max_tokens": 19}, "look <a> here <b> ", "length", id="limit in a character"),
        pytest.param(
            {"max_tokens": 8, "stop": ("<a>",)}, "look <a>", "stop", id="stop at the limit"
        ),
    ],
)
def test_stops(sampling, text, finish):
    generation = reply("look <a> here <b> é", **sampling)
    assert (generation.message.text, generation.finish) == (text, finish)
    assert generation.message.tokens == tuple(text.encode())
    assert len(generation.logprobs) == generation.cost.generated_tokens == len(text.encode())


def test_tells_words_as_they_come_and_stops_when_asked():
    script, heard = "<think>hm</think> dark red \n", []
    ScriptedVLM([script]).generate([ASKED], Sampling(), on_token=heard.append)
    assert "".join(heard) == script
    assert heard[1:] == [" dark", " red \n"]
    heard.clear()
    (generation,) = ScriptedVLM([script]).generate(
        [ASKED], Sampling(), on_token=heard.append, cancel=lambda: len(heard) == 2
    )
    assert generation.finish == "cancelled"
    assert generation.message.text == " dark"


def test_scores_and_traits():
    vlm = ScriptedVLM([], traits=Traits(calls_tools=False), scores={"red": -0.5})
    assert vlm.score(ASKED, ["red", "blue"]).logprobs == ((-0.5,), (-100.0,))
    assert not vlm.traits.calls_tools
    assert (vlm.seen_size((65, 32)), vlm.visual_tokens((65, 32))) == ((65, 32), 3)


def xml(*parameters: str) -> str:
    body = "".join(f"<parameter={p}\n</parameter>\n" for p in parameters)
    return f"<tool_call>\n<function=zoom>\n{body}</function>\n</tool_call>"


@pytest.mark.parametrize(
    ("written", "arguments"),
    [
        pytest.param(
            xml("bbox_2d>\n[1, 2, 3, 4]", "label>\ncat"),
            {"bbox_2d": [1, 2, 3, 4], "label": "cat"},
            id="JSON and bare strings",
        ),
        pytest.param(xml(), {}, id="no parameters"),
        pytest.param(xml("label>\na\nb"), {"label": "a\nb"}, id="several lines"),
        pytest.param(xml("label>\nNaN", "n>\n2"), {"label": "NaN", "n": 2}, id="no number"),
        pytest.param(xml('label>\n"cat"'), {"label": '"cat"'}, id="quotes stay"),
        pytest.param(xml("label>\n<b> & </b>"), {"label": "<b> & </b>"}, id="tags inside"),
        pytest.param(
            xml("n>\n2").replace("</function>\n", ""), {"n": 2}, id="the function left open"
        ),
    ],
)
def test_calls_in_xml_are_read(written: str, arguments: dict[str, object]) -> None:
    assert parse_parts(f"Look.\n{written}") == (Text("Look."), ToolCall("zoom", arguments))


@pytest.mark.parametrize(
    "body",
    [
        pytest.param("<function=>\n</function>", id="no name"),
        pytest.param("<function=a>\n<parameter=x>\n1\n</function>", id="a parameter left open"),
        pytest.param("<function=a>\nwords\n</function>", id="words between"),
        pytest.param("<function=a></function><function=b></function>", id="two in one tag"),
    ],
)
def test_xml_that_is_no_call_stays_text(body: str) -> None:
    written = f"<tool_call>\n{body}\n</tool_call>"
    assert parse_parts(written) == (Text(written),)


@pytest.mark.parametrize(
    ("parts", "speaks"),
    [
        pytest.param([Text("It is red.")], True, id="text"),
        pytest.param([Thinking("Hm."), Text("<answer>K</answer>")], True, id="in tags"),
        pytest.param([Thinking("Hm."), Text("\n")], False, id="a thought alone"),
        pytest.param([Text("<answer></answer>")], False, id="empty tags"),
        pytest.param([], False, id="nothing"),
        pytest.param([Text("<")], True, id="no tag"),
    ],
)
def test_a_reply_speaks_where_it_has_text_outside_of_thoughts_and_tags(parts, speaks):
    assert Generation(Message("assistant", tuple(parts))).speaks == speaks


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        pytest.param(f"<think>a</think>\n\n{CALL}", [Thinking("a"), Text("\n"), ZOOM], id="a call"),
        pytest.param(f"<think>a</think>\n{CALL}", [Thinking("a"), ZOOM], id="its own break"),
        pytest.param("<think>a</think>\n\n", [Thinking("a"), Text("\n\n")], id="the end"),
        pytest.param("\n<think>a</think>b", [Thinking("a"), Text("b")], id="none before a thought"),
        pytest.param(f"{CALL}\n \n{CALL}\n", [ZOOM, ZOOM], id="none behind a call"),
    ],
)
def test_blanks_behind_a_thought_may_stay(text, parts):
    assert parse_parts(text, blanks=True) == tuple(parts)
    assert parse_parts(text) == tuple(p for p in parts if p not in (Text("\n"), Text("\n\n")))
