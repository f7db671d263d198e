"""The tokenizer of `tiny`: a byte-level BPE, so that any text goes in, in which Tabletop's talk is
short.

The frames of tool calls, which are the same every time, are one added token each; so are Qwen's
tags.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from importlib.resources import files

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

import video.search
import vision.depth_strategies
import vision.look_loop
import vision.verifier
from mm.strategies.single import THINK
from training.tabletop.questions import TASKS, ask
from training.tabletop.scene import LETTERS, make_scene
from training.tabletop.traces import ZOOM, caption

from .shards import BOX_GRID

SPECIAL = (
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|vision_start|>",
    "<|vision_end|>",
    "<|vision_pad|>",
    "<|image_pad|>",
    "<|video_pad|>",
)
LAMP = "What does the lamp show in each frame: a colour, 1 where it glows, 0 where it is dark?"
"""Asks for the lamp's state frame by frame: no task, but what others are answered from."""

_ASKED, _IN_BOXES = vision.depth_strategies.WHERE.split("{question}")
PHRASES = (
    *(video.search.WHERE, video.search.SHOWN, " seconds>", '{"start_s": ', ', "end_s": '),
    *(vision.depth_strategies.TOLD, "From the nearest to the farthest: ", " m, ", " m.\n"),
    *(" is nearer than the ", " is about as far as the ", " and to the left of it."),
    *(" and to the right of it.", _ASKED, _IN_BOXES.format(key="bbox_2d")),
    *(vision.verifier.ENOUGH, vision.look_loop.GO_ON.text, LAMP),
)
"""What strategies say the same way every time, over clips, depth and under a verifier: one added
token each."""

TAGS = ("<tool_call>", "</tool_call>", "<tool_response>", "</tool_response>", "<think>", "</think>")
CAPTION = "Describe the picture."
SIZE = 1400


def make_tokenizer(frames: tuple[str, ...]) -> PreTrainedTokenizerFast:
    """A tokenizer trained on Tabletop's talk; each of `frames` becomes one token."""
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=SIZE,
        special_tokens=list(SPECIAL),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    bpe.train_from_iterator(_corpus(), trainer)
    added = (*TAGS, *frames, *PHRASES)
    bpe.add_tokens([AddedToken(t, normalized=False, special=False) for t in added])
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=bpe, eos_token="<|im_end|>", pad_token="<|endoftext|>", padding_side="left"
    )
    template = files("training.bundle").joinpath("chat_template.jinja").read_text(encoding="utf-8")
    tokenizer.chat_template = template
    return tokenizer


def frames(tools_block: str) -> tuple[str, ...]:
    """The strings around what varies in a zoom call, and the block that offers the tool."""
    call = json.dumps({"name": ZOOM, "arguments": {"label": "?", "bbox_2d": [0]}})
    before, rest = call.split("?")
    return (tools_block, "\n" + before, rest.removesuffix("0]}}"), "]}}\n")


def _corpus() -> Iterator[str]:
    rng = random.Random(0)
    numbers = range(0, 1001, BOX_GRID)
    for _ in range(40):
        yield " ".join(str(n) for n in numbers)
        yield "[" + "] [".join(str(n) for n in numbers) + "]"
        yield "{" + "} {".join(str(n) for n in numbers) + "}"
        yield ". ".join(LETTERS) + "."
        yield f"user\nassistant\nsystem\n{CAPTION} {THINK} <answer>yes</answer> <answer>no</answer>"
    for seed in range(4000):
        scene = make_scene(seed)
        yield caption(scene, BOX_GRID)
        for task in TASKS:
            if question := ask(task, scene, rng):
                yield f"{question.text}\n{question.answer}"
