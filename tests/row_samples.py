"""A sound row of each format and purpose, to be broken."""

from __future__ import annotations

from typing import Any

_IMAGE = {"type": "image"}
_ASKED = {"role": "user", "content": [_IMAGE, {"type": "text", "text": "Which?"}]}
_GOOD = {"role": "assistant", "content": "<think>Look.</think>The red one."}
_BAD = {"role": "assistant", "content": "Blue."}
_CALL = {"function": {"name": "zoom", "arguments": '{"bbox_2d": [1, 2, 3, 4]}'}}
_TAGGED = {"role": "user", "content": "<image>Which?"}
_HUMAN = {"from": "human", "value": "<image>\nWhich?"}
_URL = {"type": "image_url", "image_url": {"url": "red.png"}}

SAMPLES: list[dict[str, Any]] = [
    {"image": "red.png", "question": "Which?", "answer": "b", "choices": ["a", "b"], "id": 3},
    {"images": ["red.png", "blue.png"], "question": "?", "answer": 3, "regions": [[1, 2, 30, 40]]},
    {"image": "red.png", "question": "?", "chosen": "good", "rejected": "bad"},
    {
        "tools": [{"function": {"name": "zoom", "parameters": {"a": 1}}}],
        "messages": [
            _ASKED,
            {"role": "assistant", "content": None, "tool_calls": [_CALL], "loss": False},
            {"role": "tool", "content": [_IMAGE]},
            _GOOD,
        ],
        "images": ["red.png", {"crop_of": 0, "bbox": [0.1, 0.1, 0.5, 0.5]}],
    },
    {"prompt": [_ASKED], "completion": [_GOOD], "images": ["red.png"]},
    {"prompt": [_ASKED], "chosen": [_GOOD], "rejected": [_BAD], "images": ["red.png"]},
    {"chosen": [_ASKED, _GOOD], "rejected": [_ASKED, _BAD], "image": "red.png"},
    {"conversations": [_HUMAN, {"from": "gpt", "value": "a"}], "image": "red.png", "system": "s"},
    {
        "conversations": [_HUMAN],
        "chosen": {"from": "gpt", "value": "a"},
        "rejected": {"from": "gpt", "value": "b"},
        "images": ["red.png"],
    },
    {"messages": [{"role": "user", "content": [_URL, {"type": "text", "text": "?"}]}, _GOOD]},
    {"messages": [_TAGGED, _GOOD], "images": ["red.png"], "rejected_response": "bad"},
    {
        "messages": [_TAGGED, _GOOD],
        "images": ["red.png"],
        "rejected_messages": [_TAGGED, _BAD],
        "rejected_images": ["red.png"],
    },
    {
        "messages": [{"role": "user", "content": "<image><ref-object>"}, _BAD],
        "images": ["red.png"],
        "objects": {"ref": ["a"], "bbox": []},
    },
    {"instruction": "<image>Which?", "input": "of", "output": "a", "images": ["red.png"]},
    {"query": "b", "response": "c", "history": [["<image>a", "b"]], "images": ["red.png"]},
    {
        "prompt": [_TAGGED],
        "chosen": [_GOOD],
        "rejected": [_BAD],
        "prompt_image_path": ["red.png"],
        "chosen_image_path": [],
        "rejected_image_path": [],
    },
    {
        "image_path": "red.png",
        "question": "Which?",
        "response_list": ['<think>{"bbox_2d": [1, 2, 3, 4]}', "b</think><answer>b</answer>"],
        "img_crop_list": ["blue.png", None],
    },
    {
        "prompt": [_TAGGED],
        "images": ["red.png"],
        "reward_model": {"ground_truth": "3", "style": "rule"},
        "data_source": "counts",
    },
    {"problem": "<image>Which?", "answer": "3", "images": ["red.png"]},
]
