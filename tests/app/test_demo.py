"""The page: what its handlers show, what they refuse, and once all of it in a real browser."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
from collections import UserDict
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as pil
from PIL import ImageDraw

import mm

pytest.importorskip("gradio", reason="the page needs gradio: pip install -e '.[demo]'")

import gradio as gr
import httpx
from gradio_client import Client, handle_file

from app.cli.main import run
from app.demo import page as page_module
from app.demo import view
from app.demo.handlers import MAX_QUESTION, Handlers
from app.demo.listening import without_proxies
from app.demo.page import launch, page
from app.demo.uploads import keep_apart
from app.strategies import with_depth
from mm.errors import UserError
from vision import depth_text
from vision.depth_source import TINY, DepthSource

ROOT = Path(__file__).parents[2]
CHROMIUM = next(filter(None, map(shutil.which, ["chromium", "chromium-browser", "chrome"])), None)
CALL = (
    "<think>The <b>sign</b> is small.</think>"
    '<tool_call>\n{"name": "image_zoom_in_tool", '
    '"arguments": {"bbox_2d": [250, 500, 500, 1000], "label": "the sign"}}\n</tool_call>'
)

SPAN = (
    '<tool_call>\n{"name": "look_at_span", '
    '"arguments": {"start_s": 3.0, "end_s": 4.0, "label": "the flash"}}\n</tool_call>'
)


@pytest.fixture
def uploads(tmp_path, monkeypatch) -> Path:
    folder = tmp_path / "uploads"
    folder.mkdir()
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(folder))
    return folder


@pytest.fixture
def upload(uploads) -> dict:
    path = uploads / "table.png"
    pil.new("RGB", (80, 40), "red").save(path)
    return {"path": str(path)}


def test_shows_words_regions_crops_and_cost_as_they_come(upload, monkeypatch):
    monkeypatch.setattr("app.demo.handlers.PAUSE_S", -1.0)
    vlm = mm.ScriptedVLM([CALL, "It says <answer>K</answer>"])
    views = list(Handlers(vlm).show(upload, " What letter? ", "zoom"))
    said = [v[0] for v in views if isinstance(v[0], str)]
    assert said[0] == '<div class="writing">looking</div>'
    assert any("tool_call" in words for words in said[1:-1])
    assert '<div class="answer">It says K</div>' in said[-1]
    assert "Answer for grading: K" in said[-1]
    assert "The &lt;b&gt;sign&lt;/b&gt; is small." in said[-1]
    galleries = [v[2] for v in views if isinstance(v[2], list)]
    assert [len(g) for g in galleries] == [0, 1, 1]
    assert galleries[-1][0][1] == "1. the sign"
    image, cost = views[-1][1], views[-1][3]
    assert image.width == 2 * image.height
    assert len(image.getcolors()) > len(views[0][1].getcolors()) == 1
    assert "visual tokens" in cost
    assert vlm.conversations[0][-1].text == "What letter?"


@pytest.mark.parametrize(
    ("image", "question", "strategy", "says"),
    [
        pytest.param(None, "What?", "zoom", "drop an image", id="no image"),
        pytest.param("good", "  ", "zoom", "ask a question", id="no question"),
        pytest.param("good", "x" * (MAX_QUESTION + 1), "zoom", "limit", id="long question"),
        pytest.param("good", "What?", "os:abort", "no strategy", id="a module to import"),
        pytest.param("bad", "What?", "zoom", "words.png", id="not an image"),
        pytest.param({"path": "/etc/passwd"}, "What?", "zoom", "uploaded", id="a path of ours"),
        pytest.param("/etc/passwd", "What?", "zoom", "uploaded", id="a bare path"),
        pytest.param({"path": "http://localhost/a.png"}, "What?", "zoom", "uploaded", id="address"),
        pytest.param("climb", "What?", "zoom", "uploaded", id="dot dot"),
        pytest.param("gone", "What?", "zoom", "no longer here: drop it again", id="deleted"),
    ],
)
def test_what_cannot_be_asked_is_said_on_the_page(uploads, upload, image, question, strategy, says):
    (uploads / "words.png").write_text("no image")
    (uploads.parent / "secret.png").write_bytes((uploads / "table.png").read_bytes())
    known = {
        "good": upload,
        "bad": {"path": str(uploads / "words.png")},
        "climb": {"path": f"{uploads}/../secret.png"},
        "gone": {"path": f"{uploads}/gone.png"},
    }
    payload = known.get(image, image) if isinstance(image, str) else image
    (view,) = Handlers(mm.ScriptedVLM([])).show(payload, question, strategy)
    assert says in view[0]
    assert view[0].startswith('<div class="mistake">')


SERVED = [
    pytest.param([], "tiny", {}, id="all"),
    pytest.param(["--strategy", "zoom(max_looks=3),vote"], "tiny", {}, id="named"),
    pytest.param(["--system", "Be short.", "--max-tokens", "7"], "m", {"max_tokens": 7}, id="how"),
    pytest.param(["--temperature", "0.5", "--top-k", "3"], "m", {"top_k": 3}, id="sampling"),
    pytest.param(["--depth-model", TINY, "--depth-kind", "metric"], "m", {}, id="depth"),
]


@pytest.mark.parametrize(("flags", "name", "sampling"), SERVED)
@pytest.mark.torch
def test_what_the_person_who_starts_it_says_holds_for_the_page(monkeypatch, flags, name, sampling):
    pages = []
    vlm = mm.ScriptedVLM([])
    monkeypatch.setattr(vlm, "name", name)
    monkeypatch.setattr(mm, "load", lambda *_, **__: vlm)
    monkeypatch.setattr(page_module, "launch", lambda blocks, **_: None)
    monkeypatch.setattr(page_module, "page", lambda _, **how: pages.append(how))
    assert run(["demo", *flags]) == 0
    ((how),) = pages
    assert how["depth"].model == (TINY if "--depth-model" in flags else None)
    offered = [*how["strategies"]]
    assert ("depth" in offered) == (flags == [] or "--depth-model" in flags)
    assert "depth-text" not in offered
    assert ("zoom(max_looks=3)" in offered) == ("--strategy" in flags)
    assert how["system"] == ("Be short." if "--system" in flags else None)
    assert {key: getattr(how["sampling"], key) for key in sampling} == sampling


def test_an_option_that_is_not_understood_is_told_before_the_model_loads(monkeypatch, capsys):
    monkeypatch.setattr(mm, "load", lambda *_, **__: pytest.fail("loaded"))
    assert run(["demo", "--strategy", "zoom(looks=3)"]) == 2
    assert "zoom has no option 'looks'" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        pytest.param(
            ["--model", "mine", "--strategy", "depth-latent"], "needs the module", id="no module"
        ),
        pytest.param(["--strategy", "depth-latent(midi=/nosuch)"], "/nosuch", id="no such module"),
        pytest.param(["--depth-model", "/nosuch"], "depth model /nosuch", id="no such model"),
    ],
)
@pytest.mark.torch
def test_a_wrong_set_up_of_depth_is_told_before_the_model_loads(monkeypatch, capsys, flags, told):
    monkeypatch.setattr(mm, "load", lambda *_, **__: pytest.fail("loaded"))
    assert run(["demo", *flags]) == 2
    assert told in capsys.readouterr().err


def test_the_depth_that_was_told_is_drawn(upload, tmp_path):
    metres = np.full((40, 80), 3.0)
    metres[:, :40] = 1.0
    np.save(tmp_path / "halves.npy", metres)
    source = DepthSource(str(tmp_path / "halves.npy"))
    named = {"depth": with_depth(depth_text, source)}
    handlers = Handlers(mm.ScriptedVLM(["[]", "K"]), strategies=named, depth=source)
    *_, last = handlers.show(upload, "Which?", "depth")
    assert "Told of depth" in last[0]
    colours = {colour: n for n, colour in last[1].getcolors(99999)}
    near, far = (255, 237, 160), (20, 11, 60)
    assert min(colours.get(near, 0), colours.get(far, 0)) > 400


def test_the_system_message_and_the_options_reach_the_model(upload):
    vlm = mm.ScriptedVLM(["K"] * 2)
    named = {"zoom(max_looks=3)": mm.direct}
    handlers = Handlers(vlm, mm.Sampling(max_tokens=7), named, "Be short.")
    *_, said = handlers.ask(upload, "What?")
    assert said
    assert (said["strategy"], said["system"]) == ("zoom(max_looks=3)", "Be short.")
    assert said["sampling"]["max_tokens"] == 7
    *_, shown = handlers.show(upload, "What?", "zoom(max_looks=3)")
    assert '<div class="answer">K</div>' in shown[0]
    assert [c[0].text for c in vlm.conversations] == ["Be short."] * 2


def test_what_the_model_did_is_shown_step_by_step(upload):
    mark = '{"name": "mark", "arguments": {"boxes": [[100, 100, 500, 500]]}}'
    replies = [f"<tool_call>\n{mark}\n</tool_call>", "<answer>K</answer>"]
    *_, last = Handlers(mm.ScriptedVLM(replies)).show(upload, "Which?", "act")
    assert "Step 2: mark(boxes=[[100, 100, 500, 500]]): image 320 x 160, marks" in last[0]


def test_failure_of_the_model_is_said_on_the_page(upload):
    *_, last = Handlers(mm.ScriptedVLM([])).show(upload, "What?", "direct")
    assert last[0].startswith('<div class="mistake">the script has')


@pytest.mark.parametrize(
    ("replies", "shown"),
    [
        pytest.param(["word " * 59], '<div class="reply">word word', id="a long reply, whole"),
        pytest.param(["<think>K</think>", ""], "the model stopped after its thought", id="none"),
        pytest.param(
            ["<think>K</think>", "K</answer>"], '<div class="answer">K</div>', id="opened"
        ),
        pytest.param(
            ["a\nAnswer: 42\nb"], '<div class="answer">a\nAnswer: 42\nb</div>', id="lines"
        ),
        pytest.param(["word " * 599], "Cut at the token limit.", id="cut"),
    ],
)
def test_the_reply_is_shown_or_why_there_is_none(upload, replies, shown):
    *_, last = Handlers(mm.ScriptedVLM(replies)).show(upload, "What?", "direct")
    assert shown in last[0]


class Endless(mm.ScriptedVLM):
    """Writes until it is told to stop."""

    def __init__(self) -> None:
        super().__init__([])
        self.writing, self.stopped = threading.Event(), threading.Event()

    def generate(self, conversations, sampling, *, on_token=None, cancel=None):
        self.writing.set()
        assert cancel
        while not cancel():
            if on_token:
                on_token("word ")
            self.stopped.wait(0.01)
        self.stopped.set()
        said = mm.assistant("word")
        return [mm.Generation(said, finish="cancelled")]


def test_strategies_that_draw_are_refused_without_a_temperature(upload):
    *_, last = Handlers(mm.ScriptedVLM([])).show(upload, "What?", "vote")
    assert "temperature must be over 0" in last[0]


def test_closing_the_view_stops_the_model(upload):
    vlm = Endless()
    views = Handlers(vlm).show(upload, "What?", "direct")
    next(views)
    next(views)
    views.close()
    assert vlm.stopped.wait(5)


@pytest.mark.parametrize(
    ("said", "told"),
    [
        pytest.param(view.writing("so far"), view.hint("Stopped."), id="writing"),
        pytest.param('<div class="answer">red</div>', gr.skip(), id="an answer"),
        pytest.param(view.hint("Drop an image"), gr.skip(), id="nothing asked"),
        pytest.param(None, gr.skip(), id="nothing at all"),
    ],
)
def test_stop_takes_the_place_of_words_that_were_coming(said, told):
    assert page_module._stopped(said) == told


def test_spans_and_times_of_a_clip_are_seen(uploads):
    shutil.copy(ROOT / "app/examples/lamp.mp4", uploads)
    vlm = mm.ScriptedVLM([SPAN, "red"])
    *_, last = Handlers(vlm).show(None, "?", "watch", {"path": str(uploads / "lamp.mp4")})
    assert "Watched again: 3.0 s to 4.0 s" in last[0]
    assert str(uploads) not in last[0]
    assert last[2][0][1].startswith("1. 3.")
    assert last[2][0][1].endswith(" s, the flash")


@pytest.fixture
def served(uploads):
    """Serves a model for the test and gives the address."""
    pages = []

    def serve(vlm: mm.VLM) -> str:
        pages.append(page(vlm))
        return launch(pages[-1], port=0, wait=False)

    yield serve
    for blocks in pages:
        blocks.close(verbose=False)


def test_programs_may_only_ask(served, tmp_path):
    path = tmp_path / "table.png"
    pil.new("RGB", (80, 40), "red").save(path)
    client = Client(served(mm.ScriptedVLM([CALL, "<answer>K</answer>"])), verbose=False)
    offered = client.view_api(return_format="dict")
    assert isinstance(offered, dict)
    assert list(offered["named_endpoints"]) == ["/ask"]
    said = client.predict(handle_file(path), "What letter?", "zoom", api_name="/ask")
    assert (said["reply"], said["answer"], said["error"]) == ("K", "K", None)
    assert said["regions"] == [{"image": 0, "xyxy": [16, 12, 44, 40]}]
    with pytest.raises(Exception, match="uploaded"):
        client.predict({"path": str(path)}, "What letter?", "zoom", api_name="/ask")


def test_a_program_that_leaves_stops_the_model(served, uploads):
    vlm = Endless()
    address = served(vlm) + "gradio_api/"
    pil.new("RGB", (80, 40), "red").save(uploads / "a.png")
    image = {"path": str(uploads / "a.png"), "meta": {"_type": "gradio.FileData"}}
    asked = httpx.post(f"{address}call/ask", json={"data": [image, "What?", "direct", None]})
    with httpx.stream("GET", f"{address}call/ask/{asked.json()['event_id']}") as said:
        assert next(said.iter_lines()) == "event: generating"
    assert vlm.stopped.wait(15)


def test_a_program_is_told_that_it_took_too_long(upload, monkeypatch):
    monkeypatch.setattr("app.demo.waiting.BEAT_S", 0.02)
    monkeypatch.setattr("app.demo.handlers.DEADLINE_S", 0.05)
    vlm = Endless()
    with pytest.raises(gr.Error, match=r"no answer within 0\.05 s"):
        list(Handlers(vlm).ask(upload, "What?", "direct"))
    assert vlm.stopped.wait(5)


def has_ipv6() -> bool:
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        return False
    return True


IPV6 = pytest.mark.skipif(not has_ipv6(), reason="no IPv6 here")


@pytest.mark.parametrize(
    "host", ["127.0.0.1", pytest.param("::1", marks=IPV6), "localhost"], ids=str
)
def test_the_page_is_served_whatever_the_proxy(uploads, monkeypatch, host):
    for name in ("http_proxy", "all_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "socks5://127.0.0.1:9")
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.setenv("no_proxy", "here")
    blocks = page(mm.ScriptedVLM([]))
    address = launch(blocks, host=host, port=0, wait=False)
    name = f"[{host}]" if ":" in host else host
    assert re.fullmatch(rf"http://{re.escape(name)}:\d+/", address)
    assert (os.environ.get("NO_PROXY"), os.environ["no_proxy"]) == (None, "here")
    blocks.close(verbose=False)


class WindowsNames(UserDict[str, str]):
    """An environment whose names ignore case."""

    def __getitem__(self, name: str) -> str:
        return super().__getitem__(name.upper())

    def __setitem__(self, name: str, value: str) -> None:
        super().__setitem__(name.upper(), value)

    def __delitem__(self, name: str) -> None:
        super().__delitem__(name.upper())

    def __contains__(self, name: object) -> bool:
        return super().__contains__(str(name).upper())


@pytest.mark.parametrize("kind", [dict, WindowsNames])
@pytest.mark.parametrize("before", [{}, {"no_proxy": "here"}, {"NO_PROXY": "here"}], ids=str)
def test_the_environment_is_as_it_was(monkeypatch, kind, before):
    environment = kind(before)
    monkeypatch.setattr(os, "environ", environment)
    with without_proxies():
        assert {environment[name] for name in ("NO_PROXY", "no_proxy")} == {"*"}
    assert environment == kind(before)


@pytest.mark.parametrize(
    ("host", "told"),
    [
        pytest.param("127.0.0.1", "in use: try --port 0", id="taken"),
        pytest.param("::1", "is taken: try --port 0", id="taken as Gradio tests it", marks=IPV6),
        pytest.param("192.0.2.1", "Cannot assign requested address", id="another machine's"),
        pytest.param("no.such.host.invalid", "", id="nobody's"),
        pytest.param("a b:c", "", id="no host"),
    ],
)
def test_where_nobody_can_listen_is_one_line(uploads, host, told):
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with pytest.raises(UserError, match=rf"^cannot serve at {host}:{port}: .+") as caught:
            launch(page(mm.ScriptedVLM([])), host=host, port=port, wait=False)
    assert str(caught.value).endswith(told)
    assert "\n" not in str(caught.value)
    assert ("--port 0" in str(caught.value)) == ("--port 0" in told)


@pytest.fixture
def browser():
    if CHROMIUM is None:
        pytest.skip("no Chromium here: apt-get install chromium")
    sync_api = pytest.importorskip("playwright.sync_api", reason="pip install -e '.[test]'")
    quiet = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
    with sync_api.sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=quiet)
        yield chromium.new_page(viewport={"width": 1280, "height": 1000})
        chromium.close()


@pytest.fixture
def photo(tmp_path) -> Path:
    path = tmp_path / "photo.png"
    pixels = pil.new("RGB", (400, 300), "tan")
    ImageDraw.Draw(pixels).rectangle((100, 150, 199, 249), fill="red")
    pixels.save(path)
    return path


def ask(browser, photo: Path, question: str) -> None:
    browser.locator("#image input[type=file]").set_input_files(str(photo))
    browser.wait_for_selector("#image img")
    browser.locator("#question textarea").fill(question)
    browser.locator("#ask").click()


@pytest.mark.slow
def test_in_a_browser_the_answer_and_the_crop_are_seen(browser, photo, served):
    elsewhere = []
    address = served(mm.ScriptedVLM([CALL, "<answer><img src=x onerror=alert(1)></answer>"]))
    browser.on("request", lambda r: elsewhere.append(r.url))
    browser.goto(address)
    ask(browser, photo, "What letter is on the red square?")
    answer = browser.wait_for_selector("#said .answer")
    assert answer.inner_text() == "<img src=x onerror=alert(1)>"
    crop = browser.wait_for_selector("#crops img")
    assert crop.evaluate("i => i.decode().then(() => i.naturalWidth)") > 0
    assert "1. the sign" in browser.locator("#crops").inner_text()
    assert browser.locator("#looked img").count() == 1
    assert "visual tokens" in browser.locator("#cost").inner_text()
    ours = ("data:", "blob:", address)
    assert [url for url in elsewhere if not url.startswith(ours)] == []


@pytest.mark.slow
def test_in_a_browser_a_clip_is_asked_about(browser, served):
    vlm = mm.ScriptedVLM(["<answer>red</answer>"])
    browser.goto(served(vlm))
    browser.get_by_role("tab", name="Clip").click()
    clip = browser.locator("#clip input[type=file]")
    clip.set_input_files(str(ROOT / "app/examples/lamp.mp4"))
    browser.wait_for_selector("#clip video")
    browser.locator("#question textarea").fill("In which colour did the lamp flash?")
    browser.locator("#ask").click()
    answer = browser.wait_for_selector("#said .answer, #said .error", timeout=60_000)
    assert answer.inner_text() == "red"
    assert len(vlm.conversations[0][-1].images) == 16  # frames, as `uniform` shows them
    assert browser.locator("#looked img").count() == 1


def wait_until_asked(browser, vlm, times):
    """Until the model was asked so often, and answered: words that are coming are seen too briefly
    to wait for."""
    for _ in range(600):
        if len(vlm.conversations) == times:
            break
        browser.wait_for_timeout(100)
    browser.wait_for_selector("#said .answer")


@pytest.mark.slow
def test_in_a_browser_one_of_image_and_clip_is_asked_about(browser, photo, served):
    vlm = mm.ScriptedVLM(["<answer>red</answer>"] * 3)
    browser.goto(served(vlm))
    ask(browser, photo, "What?")
    browser.wait_for_selector("#said .answer")
    browser.get_by_role("tab", name="Clip").click()
    clip = browser.locator("#clip input[type=file]")
    clip.set_input_files(str(ROOT / "app/examples/lamp.mp4"))
    browser.wait_for_selector("#clip video")
    browser.locator("#ask").click()
    wait_until_asked(browser, vlm, 2)
    browser.locator("text=How many circles are there?").first.click()
    browser.wait_for_selector("#clip video", state="detached")
    browser.locator("#ask").click()
    wait_until_asked(browser, vlm, 3)
    assert [len(asked[-1].images) for asked in vlm.conversations] == [1, 16, 1]


@pytest.mark.slow
def test_in_a_browser_an_example_is_seen_in_its_tab(browser, served):
    browser.goto(served(mm.ScriptedVLM(["<answer>red</answer>"])))
    for words, seen in (
        ("In which colour did the lamp flash?", "#clip video"),
        ("How many circles are there?", "#image img"),
    ):
        browser.locator(f"text={words}").first.click()
        browser.wait_for_selector(seen, state="visible")


@pytest.mark.slow
def test_in_a_browser_stop_leaves_an_answer(browser, photo, served):
    browser.goto(served(mm.ScriptedVLM(["<answer>red</answer>"])))
    ask(browser, photo, "What?")
    browser.wait_for_selector("#said .answer")
    browser.locator("#stop").click()
    browser.wait_for_timeout(1500)
    assert browser.locator("#said").inner_text() == "red"


@pytest.mark.slow
def test_in_a_browser_stop_stops_the_model(browser, photo, served):
    vlm = Endless()
    browser.goto(served(vlm))
    ask(browser, photo, "What?")
    browser.wait_for_selector("#said .writing:has-text('word')")
    assert not vlm.stopped.is_set()
    browser.locator("#stop").click()
    browser.wait_for_selector("#said :text('Stopped.')")
    assert vlm.stopped.wait(5)


@pytest.mark.slow
def test_in_a_browser_a_page_that_is_left_stops_the_model(browser, photo, served):
    vlm = Endless()
    browser.goto(served(vlm))
    ask(browser, photo, "What?")
    browser.wait_for_selector("#said .writing:has-text('word')")
    browser.close()
    assert vlm.stopped.wait(15)


@pytest.fixture
def demo_process():
    """`mm demo` itself, with the bundled model, at a free port."""
    command = [sys.executable, "-m", "app.cli", "demo", "--port", "0"]
    # a shell that runs its jobs in the background has them ignore Ctrl-C, and this inherits it
    heed_interrupts = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
    process = subprocess.Popen(
        command,
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        preexec_fn=heed_interrupts,
    )
    assert process.stdout
    first = process.stdout.readline()
    address = re.search(r"http://127\.0\.0\.1:\d+/", first)
    assert address, first
    yield address.group()
    os.kill(process.pid, signal.SIGINT)
    assert process.wait(20) in (0, 130)


@pytest.mark.slow
def test_mm_demo_answers_about_its_example(browser, demo_process):
    browser.goto(demo_process)
    browser.locator("text=What letter is on the red square?").first.click()
    browser.wait_for_selector("#image img")
    browser.locator("#ask").click()
    answer = browser.wait_for_selector("#said .answer", timeout=60_000)
    table = json.loads((ROOT / "app/examples/table.json").read_text())
    red_square = next(o for o in table["objects"] if (o["colour"], o["shape"]) == ("red", "square"))
    assert answer.inner_text() == red_square["letter"]
    browser.wait_for_selector("#crops img")


def test_the_examples_and_the_style_are_there():
    assert page_module.STYLE.is_file()
    named = [name for name, *_ in (*page_module.EXAMPLES, *page_module.CLIPS)]
    assert all((page_module.EXAMPLE_FILES / name).is_file() for name in named)


STARTED = """
import os, stat
from app.cli.main import run
code = run(["demo", "--model", "/nowhere"])
folder = os.environ["GRADIO_TEMP_DIR"]
print(code, oct(stat.S_IMODE(os.stat(folder).st_mode)), folder)
"""


def test_a_fresh_start_heeds_no_proxy_and_keeps_uploads_to_itself(tmp_path):
    environment = {k: v for k, v in os.environ.items() if k != "GRADIO_TEMP_DIR"}
    environment |= {"PYTHONPATH": str(ROOT), "TMPDIR": str(tmp_path)}
    environment["ALL_PROXY"] = "socks4://127.0.0.1:9"
    command = [sys.executable, "-c", STARTED]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert "no model '/nowhere'" in done.stderr, done.stderr
    code, mode, folder = done.stdout.split()
    assert (code, mode, Path(folder).parent) == ("2", "0o700", tmp_path.resolve())
    assert Path(folder).name.startswith("mm-demo-")
    assert not Path(folder).exists()


WAITING = """
import os, signal, sys, time
from app.demo.uploads import end_in_order, keep_apart
ignored = sys.argv[1] == "ignored"
signal.signal(signal.SIGHUP, signal.SIG_IGN if ignored else signal.SIG_DFL)
keep_apart()
end_in_order()
print(os.environ["GRADIO_TEMP_DIR"], flush=True)
time.sleep(3 if ignored else 60)
"""


@pytest.mark.parametrize(
    ("number", "how", "code"),
    [
        pytest.param(signal.SIGTERM, "heeded", 143, id="SIGTERM"),
        pytest.param(signal.SIGHUP, "heeded", 129, id="SIGHUP"),
        pytest.param(signal.SIGHUP, "ignored", 0, id="under nohup"),
    ],
)
def test_uploads_go_with_a_page_that_is_told_to_stop(tmp_path, number, how, code):
    environment = {k: v for k, v in os.environ.items() if k != "GRADIO_TEMP_DIR"}
    environment |= {"PYTHONPATH": str(ROOT), "TMPDIR": str(tmp_path)}
    command = [sys.executable, "-c", WAITING, how]
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        folder = Path(process.stdout.readline().strip())
        (folder / "photo.png").write_bytes(b"")
        process.send_signal(number)
        assert process.wait(20) == code
    assert not folder.exists()


def test_a_folder_for_uploads_that_is_named_is_kept(uploads):
    keep_apart()
    assert os.environ["GRADIO_TEMP_DIR"] == str(uploads)


@pytest.mark.parametrize(
    ("part", "words"),
    [
        pytest.param(mm.Thinking("The lamp is at 3 s."), "The lamp is at 3 s.", id="a thought"),
        pytest.param(mm.Thinking('{"start_s": 3.5, "end_s": 4.5}'), "", id="a bare call"),
        pytest.param(mm.Text("Let me look."), "Let me look.", id="words"),
    ],
)
def test_a_view_is_told_in_words(part, words):
    assert view.asking_words(mm.Message("assistant", (part,))) == words
