"""`mm demo`: a page where a person drops an image, asks, and sees where the model looked.

Only `ask` is public for programs; what serves the page alone is private. A client uploads its
images: it may name no path.
"""

from __future__ import annotations

import time
from collections.abc import Generator, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import gradio as gr
from gradio.components import Component
from gradio.events import api
from gradio.themes import Soft
from gradio.utils import get_upload_folder, is_in_or_equal

import mm
from app.model_choice import ModelChoice
from app.report import as_json
from app.strategies import STRATEGIES, judging, offered, strategies_for
from app.terminal import spinner
from mm.errors import UserError
from mm.vlm import sampling_of
from video.search import over_clips

from . import view
from .listening import serving
from .waiting import waited

MAX_FILE_SIZE = "50mb"
MAX_QUESTION = 2000
"""Characters."""

STYLE = Path(__file__).parent / "page.css"
EXAMPLE_IMAGES = Path(__file__).parents[1] / "examples"
EXAMPLES = (
    ("table.png", "What letter is on the red square?", "zoom"),
    ("crowd.png", "Do the orange cross and the orange circle carry the same letter?", "zoom"),
    ("few.png", "How many circles are there?", "direct"),
)
AT_ONCE = {"concurrency_id": "gpu", "concurrency_limit": 4}
WAITING = 32
"""Questions that may wait; the next is told that the page is busy."""

DEADLINE_S = 600.0
"""For a program's question, which nobody may be waiting for any more."""

PAUSE_S = 0.05
"""Between two views of words that are still coming."""

HINT = "Drop an image or a clip, ask about it, and see where the model looked."
Update = Any
View = tuple[Update, Update, Update, Update]
"""What the page shows: words, the image with regions, crops with captions, the cost."""


def serve(choice: ModelChoice, *, host: str, port: int) -> None:
    """Load the model and serve the page until interrupted.

    Raises:
        ModelUnavailable: the model cannot be loaded.
        UserError: the port is taken, or nobody can listen there.
    """
    choice = judging(choice, ",".join(STRATEGIES))
    strategies = strategies_for(choice)
    with spinner(f"loading {choice.name}"):
        vlm = choice.load()
    strategies = offered(strategies, sampling_of(vlm.traits))
    launch(page(vlm, strategies=strategies), host=host, port=port)


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
) -> gr.Blocks:
    """The page, with `vlm` and `strategies` behind it."""
    handlers = Handlers(vlm, sampling, strategies)
    with gr.Blocks(
        title="Look again", analytics_enabled=False, delete_cache=(3600, 7200)
    ) as blocks:
        gr.Markdown(_title(vlm), elem_id="title")
        with gr.Row():
            with gr.Column(scale=5):
                image, clip = _inputs()
                question, strategy = _asked_for(strategies)
                with gr.Row():
                    go = gr.Button("Ask", variant="primary", elem_id="ask")
                    stop = gr.Button("Stop", variant="stop", elem_id="stop")
                _examples(image, question, strategy)
            with gr.Column(scale=6):
                said = gr.HTML(view.hint(HINT), elem_id="said")
                cost = gr.HTML(elem_id="cost")
                looked, crops = _looks()
        _one_of(image, clip)
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
            _stopped, None, [said], api_visibility="private", show_progress="hidden"
        )
        api(handlers.ask, api_name="ask", **AT_ONCE)
    return blocks


def _asked_for(strategies: Mapping[str, mm.Strategy]) -> tuple[gr.Textbox, gr.Dropdown]:
    """Where the question is written and the strategy chosen."""
    question = gr.Textbox(
        label="Question",
        placeholder="What letter is on the red square?",
        max_length=MAX_QUESTION,
        lines=2,
        elem_id="question",
    )
    named = [*strategies]
    return question, gr.Dropdown(named, value="zoom", label="Strategy", elem_id="strategy")


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


@dataclass(frozen=True)
class Handlers:
    """What the page calls, with the model behind it."""

    vlm: mm.VLM
    sampling: mm.Sampling | None = None
    strategies: Mapping[str, mm.Strategy] = field(default_factory=lambda: STRATEGIES)

    def show(
        self, image: dict | None, question: str, strategy: str, video: dict | None = None
    ) -> Generator[View]:
        """Views of an answer in the making. Closing the iterator stops the model."""
        try:
            sample, function = _sample(image, question, video), self._strategy(strategy)
        except UserError as error:
            yield view.mistake(str(error)), None, [], ""
            return
        first = view.shown(sample.images[0]) if sample.images else None
        yield view.writing("looking"), first, [], ""
        try:
            with closing(mm.stream(function, sample, self.vlm, sampling=self.sampling)) as events:
                yield from _views(sample, events)
        except UserError as error:  # an option that the strategy needs
            yield view.mistake(str(error)), gr.skip(), gr.skip(), gr.skip()

    def ask(
        self,
        image: dict | None,
        question: str,
        strategy: str = "zoom",
        video: dict | None = None,
    ) -> Generator[dict | None]:
        """Ask `question` about an uploaded `image` or `video`: what `mm ask --json` prints.

        Gives None every second until the answer is there: Gradio sees only between two values that
        whoever asked has left.
        """
        try:
            sample, function = _sample(image, question, video), self._strategy(strategy)
            work = partial(mm.run, function, sample, self.vlm, sampling=self.sampling)
            with closing(waited(work, DEADLINE_S)) as traces:
                for trace in traces:
                    yield as_json(trace) if trace else None
        except UserError as error:
            raise gr.Error(str(error)) from None

    def _strategy(self, name: str) -> mm.Strategy:
        """By name only: a client may not name a module to import."""
        if name not in self.strategies:
            raise UserError(f"no strategy {name!r}: one of {', '.join(self.strategies)}")
        return over_clips(self.strategies[name])


def _views(sample: mm.Sample, events: Iterator[mm.Event]) -> Iterator[View]:
    """The page as events come; only what changed is sent, and words no faster than people read."""
    so_far, words, shown_s = mm.Trace(sample), "", 0.0
    for event in events:
        if event.kind == "token":
            words += event.text
            if time.monotonic() - shown_s > PAUSE_S:
                shown_s = time.monotonic()
                yield view.writing(words), gr.skip(), gr.skip(), gr.skip()
        elif event.kind == "step" and event.message:
            words = ""
            last = len(so_far.steps) - 1
            so_far.chosen = so_far.add(mm.Step(event.message, last if last >= 0 else None))
            if event.message.visuals and sample.images:
                yield (
                    gr.skip(),
                    view.image(so_far),
                    _gallery(so_far.best),
                    gr.skip(),
                )
        elif event.kind == "done" and event.trace:
            trace = event.trace
            cost = view.cost_html(trace.cost)
            yield (
                view.answered(trace),
                view.image(trace) if trace.sample.images else gr.skip(),
                _gallery(trace.best),
                cost,
            )


def _gallery(branch: mm.Branch) -> list[tuple[Any, str]]:
    return [(crop.pixels, f"{i}. {crop.words}") for i, crop in enumerate(view.crops(branch), 1)]


def _stopped() -> str:
    return view.hint("Stopped.")


def _sample(image: dict | None, question: str, video: dict | None = None) -> mm.Sample:
    if not (image or video):
        raise UserError("drop an image or a clip first")
    if not isinstance(question, str) or not question.strip():
        raise UserError("ask a question about the image")
    if len(question) > MAX_QUESTION:
        raise UserError(
            f"the question has {len(question)} characters; {MAX_QUESTION} are the limit"
        )
    shown: list[str | mm.Clip] = [_uploaded(image)] if image else []
    shown += [mm.Clip(_uploaded(video))] if video else []
    return mm.question(question.strip(), *shown)


def _uploaded(image: object) -> str:
    """The path of a file that this server was sent; nothing else on the machine is opened."""
    path = image.get("path") if isinstance(image, dict) else None
    if not isinstance(path, str) or not is_in_or_equal(path, get_upload_folder()):
        raise UserError("the image must be an uploaded file, not a path or an address")
    return path


def _inputs() -> tuple[gr.Image, gr.Video]:
    """Where an image or a clip is dropped."""
    with gr.Tab("Image"):
        image = gr.Image(
            label="Image",
            type="filepath",
            image_mode=None,
            height=380,
            sources=["upload", "clipboard"],
            elem_id="image",
        )
    with gr.Tab("Clip"):
        clip = gr.Video(label="Clip", height=380, sources=["upload"], elem_id="clip")
    return image, clip


def _one_of(image: gr.Image, clip: gr.Video) -> None:
    """Empty each of the two where the other is filled: one stands in a tab that nobody sees."""
    for filled, other in ((image, clip), (clip, image)):
        filled.change(
            None,
            [filled, other],
            [other],
            js="(filled, other) => filled ? null : other",
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


def _examples(*inputs: Component) -> None:
    rows = [
        [str(EXAMPLE_IMAGES / name), question, strategy] for name, question, strategy in EXAMPLES
    ]
    gr.Examples(rows, [*inputs], label="Try one", api_visibility="private")
