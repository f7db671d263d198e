"""Against a real `transformers serve`, which serves one tiny LLaVA-NeXT on loopback."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import PIL.Image
import pytest

import mm
from app.cli.main import run
from mm.remote.connect import connect
from mm.remote.http_client import Client
from mm.remote.remote_vlm import RemoteVLM
from mm.types import Conversation, Sampling, assistant, user
from training.benchmarks.engine_speed import Load
from training.benchmarks.server_speed import available, beside, save_llava, serving
from vision import zoom

PICTURE = mm.Image(PIL.Image.radial_gradient("L").convert("RGB"))
ASKED: Conversation = (user(PICTURE, "What is it?"),)
SHORT = Sampling(max_tokens=12)

pytestmark = pytest.mark.torch  # its server is another process, and the model here


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("llava")
    save_llava(made)
    return made


@pytest.fixture(scope="module")
def server(folder: Path) -> Iterator[Client]:
    if not available():
        pytest.skip("needs pip install 'transformers[serving]'")
    with serving(folder) as client:
        yield client


@pytest.fixture(scope="module")
def vlm(server: Client, folder: Path) -> RemoteVLM:
    return connect(str(folder), base_url=server.base_url, processor=str(folder))


def test_it_says_what_the_engine_says(vlm: RemoteVLM, folder: Path) -> None:
    """One picture, then two: the same prompts, and greedy replies to the letter."""
    local = mm.load(str(folder))
    turned = mm.Image(PICTURE.pixels.rotate(90).crop((0, 0, 200, 100)))
    again = (*ASKED, assistant("A circle."), user(turned, "And this?"))
    for asked in (ASKED, again):
        (theirs,), (ours,) = (m.generate([asked], SHORT) for m in (vlm, local))
        assert theirs.message.text == ours.message.text
        assert theirs.cost.visual_tokens == sum(
            local.visual_tokens(i.size) for m in asked for i in m.images
        )
        prompt = ours.cost.computed_tokens + ours.cost.reused_tokens
        assert theirs.cost.computed_tokens == prompt
        assert (theirs.finish, theirs.cost.generated_tokens) == ("length", 12)


def test_a_reply_is_streamed_stopped_and_cancelled(vlm: RemoteVLM) -> None:
    pieces: list[str] = []
    (whole,) = vlm.generate([ASKED], SHORT, on_token=pieces.append)
    assert len(pieces) > 1
    assert "".join(pieces) == whole.message.text
    stop = whole.message.text[4:7]
    (stopped,) = vlm.generate([ASKED], Sampling(max_tokens=12, stop=(stop,)))
    assert stopped.finish == "stop"
    assert stopped.message.text.endswith(stop)
    heard: list[str] = []
    endless = Sampling(max_tokens=4000)
    (cancelled,) = vlm.generate(
        [ASKED], endless, on_token=heard.append, cancel=lambda: len(heard) > 3
    )
    assert cancelled.finish == "cancelled"
    (after,) = vlm.generate([ASKED], SHORT)
    assert after.message == whole.message


def test_users_share_it(vlm: RemoteVLM) -> None:
    samples = [mm.question(f"What is {n}?", PICTURE) for n in range(6)]
    traces = mm.run_many(zoom, samples, vlm, threads=6, sampling=SHORT)
    assert [t.error for t in traces] == [None] * 6


def test_ask_in_a_shell(
    server: Client, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    PICTURE.pixels.save(tmp_path / "a.png")
    there = ["--backend", "openai", "--base-url", server.base_url, "--model", str(folder)]
    asked = [str(tmp_path / "a.png"), "What is it?", "--max-tokens", "12", "--json"]
    assert run(["ask", *asked, *there]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["error"] is None
    assert told["cost"]["generated_tokens"] == 12


def test_what_it_refuses_is_one_line(server: Client, vlm: RemoteVLM) -> None:
    with pytest.raises(mm.ModelUnavailable, match=r"no model 'other' there: .*Server is pinned"):
        connect("other", base_url=server.base_url)
    with pytest.raises(mm.ModelError, match="cannot score"):
        vlm.score(ASKED, ["a"])
    with pytest.raises(mm.errors.DeadlineExceeded):
        vlm.asking(deadline=0.2).generate([ASKED], Sampling(max_tokens=4000))


def test_it_lets_no_reply_go_on_and_answers_all_the_same(vlm: RemoteVLM) -> None:
    begun = (*ASKED, assistant("It "))
    as_sent = (*begun, user("Go on from there, and answer now."))
    said, wanted = (vlm.generate([asked], SHORT)[0].message for asked in (begun, as_sent))
    assert said == wanted


def test_the_timing_lets_both_sides_write_as_much(server: Client, folder: Path) -> None:
    """Unequal prompts or replies would be raised."""
    measured = beside(server, mm.load(str(folder)), Load(reply_tokens=4, rounds=1), 2)
    assert measured.measure == "2 users, answers per second, against serve"
    assert (len(measured.ours), len(measured.theirs)) == (1, 1)
