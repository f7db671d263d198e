"""What a row of `mm ask --batch` may name, and how what it may not is said."""

import base64

import pytest
from row_files import make_images

from app.cli.ask import How
from app.cli.batch import _line, _resume, _row_facts, _sort
from app.cli.batch_rows import Row, sample_of
from mm.errors import UserError


@pytest.fixture
def folder(tmp_path):
    return make_images(tmp_path)


def sample(folder, **fields):
    return sample_of(Row(1, {"question": "?", **fields}), folder, How())


def encoded(folder) -> str:
    return base64.b64encode((folder / "red.png").read_bytes()).decode()


@pytest.mark.parametrize(
    "image",
    [
        pytest.param(lambda folder: "red.png", id="a path"),
        pytest.param(lambda folder: str(folder / "red.png"), id="an absolute path"),
        pytest.param(lambda folder: f"data:image/png;base64,{encoded(folder)}", id="a data URI"),
        pytest.param(lambda folder: {"path": "red.png"}, id="wrapped"),
        pytest.param(lambda folder: encoded(folder), id="bare base64"),
    ],
)
def test_an_image_is_opened_as_rows_that_train_open_it(folder, image):
    assert [each.size for each in sample(folder, image=image(folder)).images] == [(80, 60)]
    assert len(sample(folder, images=[image(folder), "blue.png"]).images) == 2


@pytest.mark.parametrize(
    ("fields", "complaint"),
    [
        pytest.param({"image": "https://a.b/c.png"}, "'https://a.b/c.png'", id="a URL, whole"),
        pytest.param({"image": "A" * 170_000}, "an image, found that", id="base64 of none"),
        pytest.param({"image": "A-" * 90_000}, "at most 4096 characters", id="no path"),
        pytest.param({"image": "a.png", "images": ["b.png"]}, "one column of images", id="two"),
        pytest.param({}, 'expected "image" (a path)', id="none"),
        pytest.param({"image": "red.png", "audios": ["a"]}, "'audios' would be lost", id="audios"),
        pytest.param({"image": "red.png", "choices": ["a"]}, "give --choices", id="choices"),
        pytest.param({"image": "red.png", "hint": "left"}, "have answer, depth, id", id="unknown"),
    ],
)
def test_a_row_that_cannot_be_asked_is_told_in_a_short_line(folder, fields, complaint):
    with pytest.raises(UserError) as caught:
        sample(folder, **fields)
    assert complaint in str(caught.value)
    assert len(str(caught.value)) < 300


def test_rows_that_train_latents_are_asked_as_they_are(folder):
    assert sample(folder, image="red.png", rationale="The left is near.").images


@pytest.fixture
def talk(folder):
    """A folder with frames of a clip, and what is said in it."""
    for n in range(2):
        (folder / "talk").mkdir(exist_ok=True)
        (folder / f"talk/{n}.png").write_bytes((folder / "red.png").read_bytes())
    (folder / "said.srt").write_text("0:00 --> 0:01\nHello")
    return folder


def test_a_clip_has_the_subtitles_of_its_row(talk):
    (clip,) = sample(talk, video="talk", subtitles="said.srt").clips
    assert [cue.text for cue in clip.video.info.cues] == ["Hello"]
    (clip,) = sample(talk, video="talk", subtitles=None).clips
    assert clip.video is None


@pytest.mark.parametrize(
    ("fields", "complaint"),
    [
        pytest.param({"videos": ["talk", "talk"]}, "one clip, and here are 2", id="two clips"),
        pytest.param({"image": "red.png"}, "one clip, and here are 0", id="no clip"),
        pytest.param({"video": "talk", "subtitles": "no.srt"}, "found none at 'no.srt'", id="none"),
        pytest.param({"video": "talk", "subtitles": ["a"]}, "path of a file", id="a list"),
    ],
)
def test_subtitles_of_no_one_clip_are_told(talk, fields, complaint):
    with pytest.raises(UserError, match=complaint):
        sample(talk, **{"subtitles": "said.srt", **fields})


CLIP = {"id": 1, "video": "a.mp4", "question": "?"}
SAID = {**CLIP, "subtitles": "a.srt"}
SHOWN = {**CLIP, "image": "a.png"}


def answered(out, fields, *, unsaid=()):
    """A file with an answer to the row `fields`; what is `unsaid` an earlier version left out."""
    facts = {k: v for k, v in _row_facts(Row(1, fields)).items() if k not in unsaid}
    said = {**facts, "asked": How().facts, "answer": "K", "error": None}
    out.write_text(_line(said), encoding="utf-8")
    return out


@pytest.mark.parametrize(
    ("before", "now", "told"),
    [
        pytest.param(SAID, CLIP, "subtitles 'a.srt', not nothing", id="subtitles removed"),
        pytest.param(CLIP, SAID, "subtitles nothing, not 'a.srt'", id="subtitles added"),
        pytest.param(SAID, {**SAID, "subtitles": "b.srt"}, "'a.srt', not 'b.srt'", id="others"),
        pytest.param(
            SHOWN, {**SHOWN, "video": None}, r"videos \['a.mp4'\], not nothing", id="clip removed"
        ),
    ],
)
def test_a_row_that_names_other_files_is_not_answered(tmp_path, before, now, told):
    out = answered(tmp_path / "out.jsonl", before)
    with pytest.raises(UserError, match=f"answers id 1 with .*{told}: give another --out"):
        _resume(out, [Row(1, now)], How())


@pytest.mark.parametrize(
    ("before", "now", "unsaid"),
    [
        pytest.param(SAID, SAID, (), id="the same"),
        pytest.param(CLIP, CLIP, ("subtitles",), id="an earlier version, without subtitles"),
        pytest.param(
            {**CLIP, "video": None}, {**CLIP, "video": None}, ("videos",), id="without clips"
        ),
        pytest.param(CLIP, {**CLIP, "subtitles": ""}, (), id="an empty column"),
    ],
)
def test_a_row_that_names_the_same_files_stays_answered(tmp_path, before, now, unsaid):
    out = answered(tmp_path / "out.jsonl", before, unsaid=unsaid)
    assert _resume(out, [Row(1, now)], How()) == {"id 1"}


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        pytest.param({"image": "a.png"}, "a.png", id="image"),
        pytest.param({"image_path": "a.png"}, "a.png", id="image_path"),
        pytest.param({"image": "a.png", "images": None}, "a.png", id="beside nothing"),
        pytest.param({"images": ["a.png", "b.png"]}, ["a.png", "b.png"], id="several"),
        pytest.param({}, None, id="none"),
    ],
)
def test_an_answer_names_the_images_it_was_given_to(fields, named):
    assert _row_facts(Row(1, fields))["images"] == named


@pytest.mark.parametrize(
    "reply",
    [
        pytest.param("x", id="a line"),
        pytest.param("x\u2028y\u2029z\x85", id="ends of lines that are none of JSON's"),
    ],
)
def test_answers_are_put_into_the_order_of_the_rows(tmp_path, reply):
    out = tmp_path / "answers.jsonl"
    lines = {n: _line({"row": n, "id": None, "answer": reply, "error": None}) for n in (1, 2, 3)}
    out.write_text(lines[1] + lines[3] + lines[2], encoding="utf-8")
    _sort(out, [Row(n, {}) for n in (1, 2, 3)])
    assert out.read_text(encoding="utf-8") == lines[1] + lines[2] + lines[3]
