"""The stage that makes `tiny-siglip`: which texts fit an image, its loss, and that it resumes."""

from __future__ import annotations

import random
from pathlib import Path

import PIL.Image
import pytest
import torch

from training.bundle.siglip_pairs import ANY, PAIRS, Seen, Sentence, batches, make_batch, sentence
from training.bundle.siglip_stage import ids_by, load_tokenizer, loss_of, make_siglip
from training.tabletop.clip_questions import clip_stream
from training.tabletop.motion import DARK, FLASH_S, GLOWS
from video.context import Showing, first_frames, opened
from video.siglip import TINY as TINY_SIGLIP
from video.siglip import load_siglip

TINY = Path("mm/bundled/tiny")
SHOWN = frozenset({"red circle", "blue cross"})


@pytest.mark.parametrize(
    ("names", "lamp", "seen", "fits"),
    [
        pytest.param({"red circle"}, "", Seen(SHOWN), True, id="a thing that is there"),
        pytest.param({"red cross"}, "", Seen(SHOWN), False, id="its colour and another's shape"),
        pytest.param({"red"}, "", Seen(SHOWN), True, id="a colour"),
        pytest.param({"circle", "cross"}, "", Seen(SHOWN), True, id="two shapes"),
        pytest.param({"circle", "square"}, "", Seen(SHOWN), False, id="one of two shapes"),
        pytest.param(set(), ANY, Seen(SHOWN, "green"), True, id="a flash of any colour"),
        pytest.param(set(), ANY, Seen(SHOWN, GLOWS), False, id="a glow is no flash"),
        pytest.param(set(), ANY, Seen(SHOWN, DARK), False, id="dark is no flash"),
        pytest.param(set(), "green", Seen(SHOWN, "red"), False, id="a flash of another colour"),
        pytest.param(set(), DARK, Seen(SHOWN), False, id="no lamp is not a dark one"),
    ],
)
def test_which_images_a_text_fits(names: set[str], lamp: str, seen: Seen, fits: bool) -> None:
    assert Sentence("", frozenset(names), lamp).fits(seen) == fits


@pytest.mark.parametrize("lamp", ["", DARK, GLOWS, "green"])
def test_a_sentence_fits_what_it_was_made_for(lamp: str) -> None:
    seen, rng = Seen(SHOWN, lamp), random.Random(0)
    said = [sentence(seen, rng) for _ in range(200)]
    assert all(each.fits(seen) for each in said)
    assert len({each.text for each in said}) > 15


def test_a_batch_is_a_function_of_its_number() -> None:
    (second,) = list(batches(1, 2))
    again = list(batches(0, 2))[1]
    assert second.texts == again.texts
    assert torch.equal(second.pixels, again.pixels)
    assert second.fits.diagonal().all()
    assert second.fits.float().mean() < 0.5
    assert len(second.texts) == PAIRS


def test_where_each_text_fits_one_image_the_loss_is_the_classs_own() -> None:
    tokenizer = load_tokenizer(TINY)
    model, batch = make_siglip(tokenizer).eval(), make_batch(random.Random(0), 3)
    ids = ids_by(tokenizer)(batch.texts)
    own = model(input_ids=ids, pixel_values=batch.pixels, return_loss=True).loss
    alone = batch._replace(fits=torch.eye(3, dtype=torch.bool))
    torch.testing.assert_close(loss_of(model, alone, ids), own)


def test_the_one_that_ships_finds_the_frames_of_a_flash() -> None:
    """In a clip of eight seconds the flash is a quarter of one."""
    showing = Showing(frames=4, choose="question", siglip=TINY_SIGLIP)
    found = []
    for item in clip_stream("moment", 7, 6):
        (flash,) = item.motion.flashes
        shown = first_frames(opened(item.sample.clips[0]), showing, None, item.question.text)
        found.append(any(0 <= frame.time_s - flash.start_s < FLASH_S for frame in shown))
    assert all(found)


def test_the_one_that_ships_tells_colours_and_shapes() -> None:
    batch = make_batch(random.Random("held out"), 48)
    pixels = ((batch.pixels.permute(0, 2, 3, 1) + 1) * 127.5).round().byte().numpy()
    model = load_siglip(TINY_SIGLIP)
    alike = (
        model.images([PIL.Image.fromarray(each) for each in pixels]) @ model.texts(batch.texts).T
    )
    fitting, others = alike[batch.fits], alike[~batch.fits]
    assert (fitting[:, None] > others[None]).float().mean() > 0.95
