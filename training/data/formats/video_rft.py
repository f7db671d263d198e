"""VideoRFT's and Video-R1's rows: a problem about a clip or an image, and of which type it is."""

from __future__ import annotations

from typing import Any

from mm.answers.extraction import content_of
from training.data.readers import brief

from .conversations import read_conversation
from .declaration import Fields, Native, is_empty, kept
from .questions import text_in

COLUMNS = frozenset(
    {
        *("problem_id", "problem", "data_type", "problem_type", "options", "process", "solution"),
        *("path", "data_source"),
    }
)
_TWICE = {"answer": "solution", "choices": "options", "source": "data_source"}
"""Columns that every format has, and those here that say the same."""

_SHOWN = {"video": "videos", "image": "images"}


def read_video_rft(fields: Fields) -> Native:
    """`problem` about the clip or image at `path`, with its `options`; `solution` in its tags.

    Where `process` holds a thought, that and the solution are the reply to be learnt.
    """
    kind, options = fields.get("data_type"), fields.get("options") or []
    if not isinstance(kind, str) or kind not in _SHOWN:
        raise ValueError(f"expected 'video' or 'image' in 'data_type', found {brief(kind)}")
    if not isinstance(options, list):
        raise ValueError(f"expected a list in 'options', found {brief(options)}")
    lines = ["Options:", *map(str, options)] if options else []
    asked = "\n".join([text_in(fields, "problem"), *lines])
    _refuse_another(fields)
    solution, number = text_in(fields, "solution"), fields.get("problem_id")
    source = fields.get("data_source")
    made = {
        **kept({k: v for k, v in fields.items() if k not in ("data_source", "problem_id")}),
        _SHOWN[kind]: [text_in(fields, "path")],
        "answer": content_of(solution),
        **({"source": str(source)} if source else {}),
        **({"choices": options} if options else {}),
        **({} if number is None else {"id": number}),
        **_talk(asked, fields.get("process"), solution),
    }
    return read_conversation(made, tags=True, front=True)


def _refuse_another(fields: Fields) -> None:
    for shared, own in _TWICE.items():
        both = fields.get(shared), fields.get(own)
        if not any(map(is_empty, both)) and len({content_of(str(each)) for each in both}) == 2:
            raise ValueError(
                f"expected the same in {shared!r} and in {own!r}, found {brief(both[0])} and "
                f"{brief(both[1])}: --ignore {shared}"
            )


def _talk(asked: str, process: Any, solution: str) -> Native:
    if is_empty(process):
        return {"prompt": asked}
    if not isinstance(process, str):
        raise ValueError(f"expected text in 'process', found {brief(process)}")
    thought = process if "<think>" in process else f"<think>{process.strip()}</think>"
    answer = solution if "<answer>" in solution else f"<answer>{solution}</answer>"
    reply = {"role": "assistant", "content": f"{thought}\n{answer}"}
    return {"messages": [{"role": "user", "content": asked}, reply]}
