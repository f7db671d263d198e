"""Two frames in the visual tokens of one: as Qwen3-VL itself takes a clip."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from images import noise
from tiny_models import FAMILIES
from tiny_vlm import endless

import mm
from mm.origins import FrameOf
from mm.remote.openai_format import MessageFormat
from mm.scripted import ScriptedVLM
from mm.session import run
from mm.trace_store import load_traces, save_traces
from mm.types import Image, Sampling, Text, user
from mm.vlm import Traits
from video import clip_of, uniform, watch
from video.context import shown
from video.frames import Frame
from video.strip import strip

PACKS = Traits(packs_frames=True)
SIDE = 64
TIMES = (0.0, 0.5, 1.25, 2.0, 4.5)
FRAMES = [noise(seed, (SIDE, SIDE)).pixels for seed in range(5)]


def frames(count: int = 5) -> list[Frame]:
    return [Frame(TIMES[n], FRAMES[n]) for n in range(count)]


def as_clip(processor) -> torch.Tensor:
    """(patches, channels * 2 * size * size) of the frames, the last one twice: what Qwen's video
    processor makes of frames that need no resizing."""
    stacked = (
        np.stack([np.asarray(each) for each in (*FRAMES, FRAMES[-1])]).astype(np.float32) / 255
    )
    pixels = (stacked - processor.image_mean) / processor.image_std  # (6, height, width, channels)
    size, merge = processor.patch_size, processor.merge_size
    across = SIDE // size // merge
    cut = pixels.reshape(3, 2, across, merge, size, across, merge, size, 3)
    laid = cut.transpose(0, 2, 5, 3, 6, 8, 1, 4, 7)
    return torch.from_numpy(laid.reshape(3 * (SIDE // size) ** 2, -1)).float()


def test_a_packed_clip_is_what_the_model_takes_for_a_clip() -> None:
    tiny, ours = FAMILIES["qwen3_vl"](), endless()
    asked = (user(*shown("a", frames(), pack=True), "what letter?"),)
    tokens = tiny.builder.build(asked)
    pixels = as_clip(tiny.builder.image_processor)
    made = torch.cat([dict(span.process())["pixel_values"] for span in tokens.images])
    assert torch.allclose(made, pixels, atol=1e-5)

    pad, of_clips = tiny.builder.placeholder_id, tiny.model.config.video_token_id
    ids = torch.tensor([[of_clips if i == pad else i for i in tokens.ids]])
    side = SIDE // tiny.builder.image_processor.patch_size
    theirs = tiny.model.generate(
        input_ids=ids,
        attention_mask=torch.ones_like(ids),
        mm_token_type_ids=2 * (ids == of_clips).int(),
        pixel_values_videos=pixels,
        video_grid_thw=torch.tensor([[3, side, side]]),
        max_new_tokens=12,
        do_sample=False,
        eos_token_id=None,
        suppress_tokens=[*tiny.builder.banned_ids],
    )[0, ids.shape[1] :]
    (reply,) = ours.generate([asked], Sampling(max_tokens=12))
    assert reply.message.tokens == tuple(theirs.tolist())


@pytest.mark.parametrize("family", [name for name in FAMILIES if name.startswith("qwen")])
def test_a_pair_of_the_same_frame_is_that_frame(family: str) -> None:
    builder = FAMILIES[family]().builder
    assert builder.traits.packs_frames
    one = Image(FRAMES[0])
    twice = Image(FRAMES[0], second=FRAMES[0])
    made = [dict(builder.build((user(i),)).images[0].process()) for i in (one, twice)]
    assert torch.equal(made[0]["pixel_values"], made[1]["pixel_values"])
    assert one.id != twice.id


def test_times_are_those_of_qwen3() -> None:
    parts = shown("a", frames(), pack=True)
    written = [part.text for part in parts if isinstance(part, Text)]
    assert written == ["<0.2 seconds>", "<1.6 seconds>", "<4.5 seconds>"]  # of 0.25, 1.625, 4.5
    origins = [part.origin for part in parts if isinstance(part, Image)]
    assert origins == [FrameOf("a", 0.0, 0.5), FrameOf("a", 1.25, 2.0), FrameOf("a", 4.5)]


def test_a_budget_pays_for_twice_the_frames() -> None:
    clip = clip_of([noise(n, (SIDE, SIDE)).pixels for n in range(40)], [n / 10 for n in range(40)])
    tokens = ScriptedVLM([]).visual_tokens((SIDE, SIDE))
    for pack, count in ((False, 4), (True, 8)):
        strategy = partial(uniform, clip_tokens=4 * tokens, pack=pack)
        trace = run(strategy, mm.question("?", clip), ScriptedVLM(["x"], traits=PACKS))
        shown_at = [i.origin.times_s for i in trace.sample.images if isinstance(i.origin, FrameOf)]
        assert (len(shown_at), sum(map(len, shown_at))) == (4, count), trace.error


def test_a_look_shows_no_frame_again() -> None:
    clip = clip_of([noise(n, (SIDE, SIDE)).pixels for n in range(8)], [n / 4 for n in range(8)])
    strategy = partial(watch, frames=4, look_frames=8, look_side=SIDE, pack=True)
    call = '<tool_call>{"name": "look_at_span", "arguments": {"start_s": 0, "end_s": 2}}'
    vlm = ScriptedVLM([call + "</tool_call>", "x"], traits=PACKS)
    trace = run(strategy, mm.question("?", clip), vlm)
    assert trace.error is None
    both = [*trace.sample.images, *trace.best.images]
    times = [t for i in both if isinstance(i.origin, FrameOf) for t in i.origin.times_s]
    assert len(times) == len(set(times)) == 8
    assert strip(trace.best).size[0] > 8 * SIDE  # every frame is in it by itself


def test_a_trace_keeps_both_frames(tmp_path: Path) -> None:
    clip = clip_of([FRAMES[0], FRAMES[0], FRAMES[1], FRAMES[2]], [0, 1, 2, 3])
    strategy = partial(uniform, frames=4, pack=True)
    trace = run(strategy, mm.question("?", clip), ScriptedVLM(["x"], traits=PACKS))
    save_traces([trace], tmp_path)
    (loaded,) = load_traces(tmp_path)
    assert loaded.sample.images == trace.sample.images
    assert [i.second is not None for i in loaded.sample.images] == [True, True]


def test_who_packs_no_frames_says_so() -> None:
    trace = run(
        partial(uniform, pack=True), mm.question("?", clip_of(FRAMES, TIMES)), ScriptedVLM([])
    )
    assert trace.error is not None
    assert "leave it out" in trace.error
    with pytest.raises(ValueError, match="leave pack"):
        MessageFormat().messages((user(Image(FRAMES[0], second=FRAMES[1]), "?"),))
    assert not FAMILIES["gemma3"]().builder.traits.packs_frames
