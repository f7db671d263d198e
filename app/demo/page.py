"""`mm demo`: a page where a person drops an image, asks, and sees where the model looked.

Only `ask` is public for programs; what serves the page alone is private. A client uploads its
images: it may name no path.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import gradio as gr
from gradio.components import Component
from gradio.events import api
from gradio.themes import Soft

import mm
from app.model_choice import ModelChoice
from app.strategies import STRATEGIES, drawing, fitting, judging, offered, strategies_for
from app.terminal import spinner
from mm.local.checkpoints import bundled_latents, bundled_models
from mm.vlm import sampling_of
from vision.depth_source import DepthSource
from vision.depth_strategies import make_ready

from . import view
from .handlers import MAX_QUESTION, Handlers, Update
from .listening import serving
from .uploads import end_in_order

MAX_FILE_SIZE = "200mb"
STYLE = Path(__file__).parent / "page.css"
EXAMPLE_FILES = Path(__file__).parents[1] / "examples"
EXAMPLES = (
    ("table.png", "What letter is on the red square?", "zoom"),
    ("crowd.png", "Do the orange cross and the orange circle carry the same letter?", "zoom"),
    ("few.png", "How many circles are there?", "direct"),
)
CLIPS = (("lamp.mp4", "In which colour did the lamp flash?", "watch"),)
AT_ONCE = {"concurrency_id": "gpu", "concurrency_limit": 4}
WAITING = 32
"""Questions that may wait; the next is told that the page is busy."""

HINT = "Drop an image or a clip, ask about it, and see where the model looked."


def serve(
    choice: ModelChoice,
    *,
    host: str,
    port: int,
    strategy: str | None = None,
    depth: DepthSource = DepthSource(),
    sampling: Mapping[str, Any] = MappingProxyType({}),
    system: str | None = None,
) -> None:
    """Load the model and serve the page until interrupted.

    Args:
        strategy: those to offer, as text; None for all that run as they are.
        depth, sampling, system: of every answer; sampling that is not given is the checkpoint's.

    Raises:
        ModelUnavailable: the model cannot be loaded, or what a strategy reads depth with.
        UserError: the port is taken, or nobody can listen there; or a strategy is not understood,
            or lacks what it reads depth with.
    """
    end_in_order()
    choice = judging(choice, ",".join(STRATEGIES) if strategy is None else strategy)
    source = replace(depth, device=choice.device)
    named = strategies_for(choice, strategy, source)
    brings = bundled_latents(choice.name) is not None
    for each in (named if strategy else offered(named, mm.Sampling(), latents=brings)).values():
        make_ready(each, choice.name)
    with spinner(f"loading {choice.name}"):
        vlm = choice.load()
    drawn = sampling_of(vlm.traits, sampling)
    known = depth.model is not None or vlm.name in bundled_models()
    usual = offered(fitting(named, vlm.traits), drawn, depth=known, latents=brings)
    strategies = drawing(named, drawn) if strategy else usual
    blocks = page(vlm, sampling=drawn, strategies=strategies, system=system, depth=source)
    launch(blocks, host=host, port=port)


def launch(blocks: gr.Blocks, *, host: str = "127.0.0.1", port: int = 0, wait: bool = True) -> str:
    """Serve `blocks` at `port` (0: a free one) and return its address; `wait` until interrupted.

    Raises:
        UserError: the port is taken, or nobody can listen there.
    """
    with serving(host, port) as name:
        _, url, _ = blocks.queue(max_size=WAITING).launch(
            server_name=name,
            server_port=port or None,
            share=False,
            max_file_size=MAX_FILE_SIZE,
            enable_monitoring=False,
            prevent_thread_lock=True,
            quiet=True,
            footer_links=["api"],
            run_history=False,
            theme=_theme(),
            css_paths=[STYLE],
        )
    if wait:
        print(f"{url}  (Ctrl-C stops)", flush=True)
        blocks.block_thread()
    return url


def _title(vlm: mm.VLM) -> str:
    title = f"# Look again\nA vision-language model ({vlm.name}) that may take a closer look."
    if vlm.name != "tiny":
        return title
    return f"{title} It knows scenes like those below, and no others: for yours, `--model`."


def page(
    vlm: mm.VLM,
    *,
    sampling: mm.Sampling | None = None,
    strategies: Mapping[str, mm.Strategy] = STRATEGIES,
    system: str | None = None,
    depth: DepthSource = DepthSource(),
) -> gr.Blocks:
    """The page, with `vlm` and `strategies` behind it."""
    handlers = Handlers(vlm, sampling, strategies, system, depth)
    with gr.Blocks(
        title="Look again", analytics_enabled=False, delete_cache=(3600, 7200)
    ) as blocks:
        gr.Markdown(_title(vlm), elem_id="title")
        with gr.Row():
            with gr.Column(scale=5):
                tabs, image, clip = _inputs()
                question, strategy = _asked_for(handlers)
                with gr.Row():
                    go = gr.Button("Ask", variant="primary", elem_id="ask")
                    stop = gr.Button("Stop", variant="stop", elem_id="stop")
                _examples(handlers, image, clip, question, strategy)
            with gr.Column(scale=6):
                said = gr.HTML(view.hint(HINT), elem_id="said")
                cost = gr.HTML(elem_id="cost")
                looked, crops = _looks()
        _one_of(tabs, image, clip)
        asked = gr.on(
            [go.click, question.submit],
            handlers.show,
            [image, question, strategy, clip],
            [said, looked, crops, cost],
            preprocess=False,
            api_visibility="private",
            show_progress="hidden",
            **AT_ONCE,
        )
        # told through the queue, so that it comes behind the views that were still on their way
        stop.click(None, cancels=[asked], api_visibility="private").then(
            _stopped, [said], [said], api_visibility="private", show_progress="hidden"
        )
        api(handlers.ask, api_name="ask", **AT_ONCE)
    return blocks


def _asked_for(handlers: Handlers) -> tuple[gr.Textbox, gr.Dropdown]:
    """Where the question is written and the strategy chosen."""
    question = gr.Textbox(
        label="Question",
        placeholder="What letter is on the red square?",
        max_length=MAX_QUESTION,
        lines=2,
        elem_id="question",
    )
    named, first = [*handlers.strategies], handlers.first("zoom")
    return question, gr.Dropdown(named, value=first, label="Strategy", elem_id="strategy")


def _looks() -> tuple[gr.Image, gr.Gallery]:
    """Where it looked, and what it saw there."""
    looked = gr.Image(
        label="Where it looked",
        interactive=False,
        height=380,
        buttons=["fullscreen", "download"],
        elem_id="looked",
    )
    crops = gr.Gallery(
        label="What it looked at, in order",
        columns=4,
        height=240,
        object_fit="contain",
        fit_columns=False,
        buttons=["fullscreen", "download"],
        elem_id="crops",
    )
    return looked, crops


def _stopped(said: str | None) -> Update:
    """What stands in the place of `said`, the words on the page: an answer that is there stays."""
    return view.hint("Stopped.") if view.is_writing(said) else gr.skip()


def _inputs() -> tuple[gr.Tabs, gr.Image, gr.Video]:
    """Where an image or a clip is dropped, each in a tab of its own."""
    with gr.Tabs() as tabs:
        with gr.Tab("Image", id="image"):
            image = gr.Image(
                label="Image",
                type="filepath",
                image_mode=None,
                height=380,
                sources=["upload", "clipboard"],
                elem_id="image",
            )
        with gr.Tab("Clip", id="clip"):
            clip = gr.Video(label="Clip", height=380, sources=["upload"], elem_id="clip")
    return tabs, image, clip


_FILLED = """(filled, other) => filled
    ? [null, {selected: "TAB", __type__: "update"}] : [other, {__type__: "update"}]"""


def _one_of(tabs: gr.Tabs, image: gr.Image, clip: gr.Video) -> None:
    """Show that of the two which is filled, and empty the other, which nobody would see."""
    for filled, other in ((image, clip), (clip, image)):
        filled.change(
            None,
            [filled, other],
            [other, tabs],
            js=_FILLED.replace("TAB", str(filled.elem_id)),
            api_visibility="private",
        )


def _theme() -> Soft:
    # fonts of the machine: the page must work without the internet
    return Soft(
        primary_hue="orange",
        neutral_hue="slate",
        font=["system-ui", "sans-serif"],
        font_mono=["ui-monospace", "monospace"],
    )


def _examples(handlers: Handlers, image: gr.Image, clip: gr.Video, *asked: Component) -> None:
    """Questions to try: those about images, then those about clips."""
    for seen, label, rows in ((image, "Try one", EXAMPLES), (clip, "Or a clip", CLIPS)):
        filled = [
            [str(EXAMPLE_FILES / name), question, handlers.first(strategy)]
            for name, question, strategy in rows
        ]
        gr.Examples(filled, [seen, *asked], label=label, api_visibility="private")
