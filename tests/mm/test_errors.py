"""What goes wrong behind a door, a library's panic too."""

import pytest

from mm.errors import BadImage, UserError, door, no_panic


class PanicException(BaseException):
    """As a library in Rust raises it: no `Exception`."""


@pytest.mark.parametrize(
    ("error", "raised"),
    [
        pytest.param(PanicException("range end index 17"), ValueError, id="a panic"),
        pytest.param(KeyboardInterrupt(), KeyboardInterrupt, id="Ctrl-C"),
        pytest.param(OSError("gone"), OSError, id="an error"),
    ],
)
def test_a_panic_becomes_an_error_and_nothing_else_does(error, raised) -> None:
    with pytest.raises(raised, match="range end" if raised is ValueError else None), no_panic():
        raise error


def test_a_door_says_one_line() -> None:
    with (
        pytest.raises(BadImage, match=r"^the file: lacks 'a': try again$"),
        door("the file", BadImage, "try again"),
    ):
        raise KeyError("a")
    with pytest.raises(UserError, match=r"^as it is$"), door("the file", BadImage):
        raise UserError("as it is")
