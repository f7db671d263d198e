"""The tree of steps and what is derived from it."""

import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from PIL import Image as pil

from mm.origins import Loaded
from mm.trace import Sample, Step, Trace
from mm.types import Cost, Image, Text, Thinking, ToolCall, assistant, message, user


def picture(colour: str, source: str = "") -> Image:
    return Image(pil.new("RGB", (4, 2), colour), Loaded(source))


RED, BLUE = picture("red"), picture("blue")
ASKED = Sample("q1", (user(RED, "What?"),), target="red")


def spend(tokens: int) -> Cost:
    return Cost(generated_tokens=tokens, calls=1, seconds=0.5)


def tree() -> Trace:
    """0 -> 1, 0 -> 2 -> 4, and 3 at the root."""
    trace = Trace(ASKED)
    trace.add(Step(message("system", "Look."), cost=spend(1)))
    trace.add(Step(assistant("blue"), 0, sampled=True, cost=spend(10)))
    trace.add(Step(assistant(ToolCall("zoom", {})), 0, sampled=True, cost=spend(100)))
    trace.add(Step(assistant("green"), sampled=True, cost=spend(1000)))
    trace.add(Step(message("tool", BLUE), 2, cost=spend(10000)))
    return trace


def test_branches_end_at_leaves_in_the_order_they_were_begun():
    trace = tree()
    assert [b.leaf for b in trace.branches] == [1, 4, 3]
    assert [len(b.steps) for b in trace.branches] == [2, 3, 1]


def test_branches_that_grow_in_turns_keep_their_order():
    trace = Trace(ASKED)
    first, second = trace.add(Step(assistant("a"))), trace.add(Step(assistant("b")))
    trace.add(Step(user("more"), second))
    trace.add(Step(user("more"), first))
    assert [b.messages[1].text for b in trace.branches] == ["a", "b"]


def test_an_empty_trace_is_the_prompt():
    trace = Trace(ASKED)
    assert trace.branches == ()
    assert (trace.best.messages, trace.answer, trace.images) == (ASKED.prompt, None, ())
    assert trace.cost == Cost()


@pytest.mark.parametrize("parent", [5, -1], ids=["ahead", "negative"])
def test_a_parent_must_be_there(parent):
    trace = tree()
    with pytest.raises(ValueError, match=f"parent {parent} is not one of 5 steps"):
        trace.add(Step(assistant("x"), parent))
    assert len(trace.steps) == 5


def test_system_steps_go_before_the_prompt():
    roles = [m.role for m in tree().branch(4).messages]
    assert roles == ["system", "user", "assistant", "tool"]


@pytest.mark.parametrize(
    ("messages", "text"),
    [
        pytest.param([assistant("red")], "red", id="one"),
        pytest.param([assistant("dark "), assistant("red")], "dark red", id="one turn in pieces"),
        pytest.param([assistant("blue"), user("sure?"), assistant("red")], "red", id="last turn"),
        pytest.param([assistant("red"), user("sure?")], "", id="somebody else spoke last"),
        pytest.param([assistant(Thinking("hm"), Text(" red\n"))], "red", id="thinking left out"),
        pytest.param([assistant("so ", ToolCall("zoom", {}))], "so", id="call left out"),
        pytest.param([], "", id="nothing"),
    ],
)
def test_text(messages, text):
    trace = Trace(ASKED)
    leaf = None
    for each in messages:
        leaf = trace.add(Step(each, leaf))
    assert trace.branch(leaf).text == text


def test_best_is_what_was_chosen():
    trace = tree()
    trace.chosen = 3
    assert trace.answer == "green"
    trace.chosen = 4
    assert (trace.answer, trace.images) == (None, (BLUE,))


def test_images_are_those_looked_at_again():
    assert ASKED.images == (RED,)
    assert tree().branch(4).images == (BLUE,)
    assert tree().branch(1).images == ()


def test_cost_of_a_branch_and_of_all():
    trace = tree()
    assert trace.branch(4).cost == Cost(generated_tokens=10101, calls=3, seconds=1.5)
    assert trace.cost == Cost(generated_tokens=11111, calls=5, seconds=2.5)


def test_scores_add_up_on_a_step():
    trace = tree()
    trace.score(1, "right", 0.0)
    trace.score(1, "short", None)
    trace.score(1, "right", 1.0)
    assert trace.steps[1].scores == {"right": 1.0, "short": None}
    assert trace.steps[0].scores == {}


class Slow(list):
    def append(self, item):
        super().append(item)
        time.sleep(0.0005)  # lets the other threads in


def test_threads_may_add_to_one_trace():
    trace = Trace(ASKED, steps=Slow())
    with ThreadPoolExecutor(8) as pool:
        added = list(pool.map(lambda i: (i, trace.add(Step(assistant(str(i))))), range(50)))
    assert all(trace.steps[index].message.text == str(i) for i, index in added)


def test_images_are_equal_by_pixels_and_origin():
    assert picture("red") == picture("red")
    assert hash(picture("red")) == hash(picture("red"))
    assert picture("red") != picture("blue")
    assert picture("red") != picture("red", "a.png")
    turned = Image(pil.new("RGB", (2, 4), "red"))
    assert picture("red") != turned
    assert "PIL" not in repr(RED)


def test_an_image_is_hashed_when_its_id_is_asked_for():
    image = picture("red")
    assert "id" not in vars(image)
    assert image == image
    assert "id" not in vars(image)
    assert image.id == picture("red").id


def test_messages_are_equal_whatever_tokens_wrote_them():
    from dataclasses import replace

    assert replace(assistant("red"), tokens=(1, 2)) == assistant("red")
    assert user("red") != assistant("red")
    assert user("a", RED, "b").text == "ab"
