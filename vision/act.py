"""Reasoning by actions: the model calls them, sees what they give, and goes on (VTS-V, 2506.07235).

This is the paper's loop without its verifier. No code that a model writes is ever run.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from mm.errors import ModelError, UserError
from mm.session import Session, name_of
from mm.trace import Branch
from mm.types import Generation, Image, Message, Part, ToolCall, assistant, message

from .action_calls import calls_in, read_action
from .action_schema import Action, Seen, tool_of
from .actions import ACTIONS, terminate
from .grounding import Grounded, format_box
from .look_loop import Enough, Limits, Spent, look, unasked
from .regions import original
from .zoom_tool import BadCall


def act(
    session: Session,
    *,
    actions: Sequence[Action] = ACTIONS,
    max_steps: int = 6,
    look_tokens: int | None = None,
    offer: bool = True,
    enough: Enough = unasked,
    spent: Spent | None = None,
) -> Branch:
    """Let the model act on its images until it answers, or ends with `terminate`.

    Args:
        actions: what it may do; `actions_with` adds those that need a model of their own.
        max_steps: calls that are carried out, wrong ones included; then it must answer.
        look_tokens: no more calls once their images cost this many visual tokens.
        offer: False when the prompt itself offers the actions.
        enough, spent: end the looking, or let a model that has answered go on, as `look` has it.

    Raises:
        TypeError: an action has no docstring, or a parameter that no schema can express.
        ModelError: the model failed, or writes no tool calls.
    """
    if not session.vlm.traits.calls_tools:
        raise ModelError(
            f"{session.vlm.name} writes no tool calls, which act needs: use zoom or attend"
        )
    if offer:
        offer_actions(session, actions)
    return look(
        session,
        parse=partial(requests, actions=actions),
        observe=partial(carry_out, actions=actions),
        limits=Limits(max_steps, look_tokens),
        enough=enough,
        spent=spent,
    )


def offer_actions(session: Session, actions: Sequence[Action]) -> None:
    """Put `actions` on offer, as the model's family writes boxes.

    Raises:
        TypeError: as `act` says.
    """
    box_format = session.vlm.traits.box_format
    session.say(Message("system", tuple(tool_of(action, box_format) for action in actions)))


def requests(
    session: Session, reply: Generation, *, actions: Sequence[Action]
) -> tuple[ToolCall | None, ...]:
    """The calls in `reply`, for `look`.

    There are none where one is `terminate`: the answer in it is then said as text, for the record.
    """
    calls = calls_in(reply)
    answer = _final(session, calls, actions)
    if answer is None:
        return calls
    session.say(assistant(f"<answer>{answer}</answer>"))
    return ()


def carry_out(session: Session, call: ToolCall | None, *, actions: Sequence[Action]) -> Message:
    """What `call` gives, or what is wrong with it, for `look`."""
    try:
        action, arguments = read_action(session, call, actions)
        images = [value for value in arguments.values() if isinstance(value, Image)]
        return message("tool", *_parts(session, action(**arguments), images[:1]))
    except (BadCall, UserError) as error:
        return message("tool", str(error))


def _parts(session: Session, seen: Seen, of: Sequence[Image]) -> list[Part | str]:
    """What an action returned, without images that were shown before."""
    parts: list[Part | str] = []
    shown = session.images
    for part in [seen] if isinstance(seen, Image | str | Grounded) else seen:
        if isinstance(part, Grounded):
            part = _written(session, part, of[0]) + "\n"
        parts.append(part)
    new = [part for part in parts if not (isinstance(part, Image) and part in shown)]
    if len(new) == len(parts):
        return parts
    if not any(isinstance(part, Image) for part in new):
        raise BadCall("This was already shown above. Do something else, or answer.")
    return [*new, "The other images were already shown above."]


def _written(session: Session, place: Grounded, image: Image) -> str:
    """A box as the model writes it: in the original, also where it was found in a crop."""
    traits = session.vlm.traits
    try:
        source, region = original(session.images, image, place.region, traits.crop_rule)
    except ValueError:
        return "One box lies in the grey beside the image."
    size = session.vlm.seen_size(source.size, source.kind)
    return format_box(region, traits.box_format, size, place.label)


def _final(
    session: Session, calls: Sequence[ToolCall | None], actions: Sequence[Action]
) -> str | None:
    """The answer of a call of `terminate`, where it is on offer; None without one."""
    if terminate not in actions:
        return None
    for call in calls:
        if call is None or call.name != name_of(terminate):
            continue
        try:
            return read_action(session, call, [terminate])[1]["answer"].strip() or None
        except BadCall:
            continue
    return None
