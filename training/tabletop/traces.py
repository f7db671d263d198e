"""The conversation a perfect reasoner has about a question."""

from __future__ import annotations

from collections.abc import Sequence

from mm.types import Image, Message, Part, Text, Thinking, ToolCall, assistant, user

from .questions import Question, box_text
from .scene import Scene

ZOOM = "image_zoom_in_tool"


def caption(scene: Scene, step: int) -> str:
    """Every object with its box, from left to right: "red square 120 240 260 380; ..."."""
    return "; ".join(_noted(scene, i, step) for i in range(len(scene.things)))


def solved(
    scene: Scene, question: Question, image: Image, crops: Sequence[Part], *, step: int
) -> tuple[Message, ...]:
    """Question, looks and answer. `crops` show all the scene's things, `step` is the grid of the
    boxes.

    Before each look but the first, and before the answer of a question that takes several, stands
    the letter that was read last.
    """
    messages = [user(image, question.text)]
    said = ""
    for i in question.looks:
        call = look_call(scene, i, step)
        messages.append(assistant(*([said + "\n"] if said else []), call))
        messages.append(Message("tool", (crops[i],)))
        said = scene.things[i].letter + "."
    if len(question.looks) > 1:
        messages.append(assistant(f"{said}\n<answer>{question.answer}</answer>"))
    else:
        messages.append(answered(scene, question, image, step=step)[1])
    return tuple(messages)


def answered(scene: Scene, question: Question, image: Image, *, step: int) -> tuple[Message, ...]:
    """Question and answer without a further look."""
    answer = question.answer
    if question.task == "locate":
        answer = box_text(scene, question.about[0], step)
    return user(image, question.text), assistant(answer)


def thought(scene: Scene, question: Question, image: Image, *, step: int) -> tuple[Message, ...]:
    """Question, the objects it is about with their boxes, and the answer."""
    notes = "; ".join(_noted(scene, i, step) for i in question.about)
    answer = answered(scene, question, image, step=step)[1].text
    return (
        user(image, question.text),
        Message("assistant", (Thinking(notes or "none"), Text(f"<answer>{answer}</answer>"))),
    )


def _noted(scene: Scene, index: int, step: int) -> str:
    thing = scene.things[index]
    return f"{thing.name} {' '.join(str(v) for v in _numbers(scene, index, step))}"


def _numbers(scene: Scene, index: int, step: int) -> list[int]:
    r = scene.things[index].region
    return [step * round(v * 1000 / step) for v in (r.x0, r.y0, r.x1, r.y1)]


def look_call(scene: Scene, index: int, step: int) -> ToolCall:
    """The call that asks to see thing number `index`, its box on a grid of `step`."""
    label = scene.things[index].name
    return ToolCall(ZOOM, {"label": label, "bbox_2d": _numbers(scene, index, step)})
