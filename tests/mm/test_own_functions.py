"""Functions of a user's own are found by name, in the current folder too."""

import sys

import pytest

from mm.errors import UserError
from mm.own_functions import is_own, own_function

OWN = """
ANSWER = 42

def brief(attempt):
    return 1.0
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The current folder, with two modules of a user's own; what is imported is forgotten."""
    (tmp_path / "my_own.py").write_text(OWN)
    (tmp_path / "my_broken.py").write_text("import no_such_library")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    yield tmp_path
    sys.modules.pop("my_own", None)


@pytest.mark.parametrize(
    ("name", "own"),
    [
        pytest.param("a.b:c", True, id="module and function"),
        pytest.param("zoom", False, id="a name"),
        pytest.param("a.b:", False, id="no function"),
        pytest.param("a-b:c", False, id="no module's name"),
    ],
)
def test_what_is_written_as_a_function_of_ones_own(name, own):
    assert is_own(name) is own


def test_a_module_may_lie_in_the_current_folder(folder):
    assert own_function("my_own:brief", "--reward")(None) == 1.0


@pytest.mark.parametrize(
    ("name", "complaint"),
    [
        pytest.param("no_such.thing:f", "no module 'no_such' for --reward", id="no module"),
        pytest.param("my_own:long", "holds no 'long', wanted by --reward", id="no function"),
        pytest.param("my_own:ANSWER", "cannot be called as 'ANSWER'", id="a number"),
    ],
)
def test_what_cannot_be_found_is_named(folder, name, complaint):
    with pytest.raises(UserError, match=complaint):
        own_function(name, "--reward")


def test_an_error_inside_a_module_is_its_authors(folder):
    with pytest.raises(ModuleNotFoundError, match="no_such_library"):
        own_function("my_broken:f", "--strategy")


@pytest.mark.parametrize(
    ("file", "name", "complaint"),
    [
        pytest.param("video.py", "video:mine", "'video' is this toolkit's own", id="a file"),
        pytest.param("video/mine.py", "video.mine:f", "'video' is this toolkit's", id="a folder"),
        pytest.param("json.py", "json:mine", "'json' is an installed module", id="of others"),
        pytest.param("other.py", "video:mine", "module 'video' holds no 'mine'", id="not there"),
    ],
)
def test_a_name_that_is_taken_is_said(folder, file, name, complaint):
    (folder / file).parent.mkdir(exist_ok=True)
    (folder / file).write_text("def mine(): ...")
    with pytest.raises(UserError, match=complaint):
        own_function(name, "--strategy")


def test_a_module_of_ones_own_that_lacks_the_function_is_not_taken_for_anothers(folder):
    with pytest.raises(UserError, match="module 'my_own' holds no 'long'"):
        own_function("my_own:long", "--strategy")
