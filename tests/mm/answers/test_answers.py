"""What counts as an answer, and when two are the same."""

import pytest

from mm.answers.extraction import extract_answer
from mm.answers.labels import letter_of
from mm.answers.matching import (
    choice_error,
    judge,
    match_choice,
    parse_box,
    parse_number,
    same_answer,
    unjudgeable,
)

LONG = "The picture shows a wide table. " * 12
COLOURS = ("red", "dark red", "blue", "green")
LETTERS = ("A", "B", "C", "D")


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        pytest.param("<answer>red</answer>", "red", id="tags"),
        pytest.param("<answer>red</answer> no: <answer>blue</answer>", "blue", id="last tags win"),
        pytest.param(r"so \boxed{42}", "42", id="box"),
        pytest.param(r"\boxed{\frac{1}{2}} it is", r"\frac{1}{2}", id="braces in a box"),
        pytest.param(r"\boxed{\text{dark red}}", "dark red", id="words in a box"),
        pytest.param(r"<answer>\boxed{5}</answer>", "5", id="box in tags"),
        pytest.param("<answer>The answer is C</answer>", "C", id="phrase in tags"),
        pytest.param("<answer>red</answer>\nFinal answer: blue", "blue", id="a later phrase wins"),
        pytest.param("Answer: blue. <answer>red</answer>", "red", id="later tags win"),
        pytest.param(LONG + "The answer is 3.5 m.", "3.5 m", id="a point is no full stop"),
        pytest.param("The answer is C. It lies left.", "C. It lies left", id="letter with a dot"),
        pytest.param("The answer is red. It lies left.", "red", id="end of the sentence"),
        pytest.param("**Answer:** blue", "blue", id="bold"),
        pytest.param("Answer:\n\nblue\nSure.", "blue", id="on the next line"),
        pytest.param(LONG + "<answer>dark re", "dark re", id="cut off tags"),
        pytest.param(LONG + r"\boxed{12", "12", id="cut off box"),
        pytest.param("<think>maybe <answer>red</answer></think>blue", "blue", id="thinking"),
        pytest.param("maybe <answer>red</answer></think>blue", "blue", id="opened by the template"),
        pytest.param("<think>the answer is red", None, id="cut off thinking"),
        pytest.param("A red cube.", "A red cube.", id="short"),
        pytest.param(LONG, None, id="long and unmarked"),
        pytest.param("<answer> </answer>", None, id="empty tags"),
        pytest.param("red <answer></answer>", None, id="empty tags after words"),
        pytest.param("The answer is", None, id="phrase cut off"),
        pytest.param("", None, id="empty"),
        pytest.param(" \n", None, id="blank"),
    ],
)
def test_extract(text, answer):
    assert extract_answer(text) == answer


@pytest.mark.parametrize(
    ("answer", "choices", "choice"),
    [
        pytest.param("red", COLOURS, "red", id="the words"),
        pytest.param("It is the dark red one.", COLOURS, "dark red", id="the longer one"),
        pytest.param("red or dark red", COLOURS, None, id="both of a nested pair"),
        pytest.param("red, not blue", COLOURS, "red", id="negated"),
        pytest.param("It is not red.", COLOURS, None, id="only negated"),
        pytest.param("red or blue", COLOURS, None, id="two"),
        pytest.param("yellow", COLOURS, None, id="none of them"),
        pytest.param("colored", COLOURS, None, id="inside another word"),
        pytest.param("C", COLOURS, "blue", id="letter of words"),
        pytest.param("(c)", COLOURS, "blue", id="small letter in brackets"),
        pytest.param("option C", COLOURS, "blue", id="option"),
        pytest.param("The letter is C", COLOURS, "blue", id="the letter is"),
        pytest.param("C. blue", COLOURS, "blue", id="letter and words"),
        pytest.param("After zooming, (B)", LETTERS, "B", id="harness trap: after zooming"),
        pytest.param("Based on the crop, the answer is (C)", LETTERS, "C", id="trap: based on"),
        pytest.param("A cat sits there", LETTERS, None, id="article"),
        pytest.param("(A) or (B)", LETTERS, None, id="two letters"),
        pytest.param("B because it is nearer", LETTERS, "B", id="letter, and why"),
        pytest.param("A or B, I am not sure", LETTERS, None, id="two letters in prose"),
        pytest.param("E", LETTERS, None, id="letter past the end"),
        pytest.param("B", ("K", "B", "M"), "B", id="choices are letters"),
        pytest.param("A", ("K", "B", "M"), None, id="no position among letters"),
        pytest.param("b", ("(A) red", "(B) blue"), "(B) blue", id="choices carry letters"),
        pytest.param("blue", ("A. red", "B. blue"), "B. blue", id="text of a lettered choice"),
        pytest.param("There are three cubes", ("2", "3"), "3", id="number word"),
        pytest.param("4", ("3 cubes", "4 cubes"), "4 cubes", id="bare number"),
        pytest.param("Yes, there is no other.", ("yes", "no"), "yes", id="yes with a no in it"),
        pytest.param("I do not know", ("yes", "no"), None, id="unsure"),
        pytest.param("-", ("+", "-"), "-", id="signs"),
        pytest.param("", COLOURS, None, id="empty"),
        pytest.param(None, COLOURS, None, id="no answer"),
        pytest.param("red", (), None, id="no choices"),
    ],
)
def test_choice(answer, choices, choice):
    assert match_choice(answer, choices) == choice


@pytest.mark.parametrize(
    ("a", "b", "same"),
    [
        pytest.param("The red cube.", "a Red cube", True, id="case, article, full stop"),
        pytest.param("dark-red", "dark red", True, id="hyphen"),
        pytest.param("It is red.", "red", True, id="said of something"),
        pytest.param("The cat is on the mat", "The dog is on the mat", False, id="other subject"),
        pytest.param("red", "blue", False, id="other word"),
        pytest.param("red cube", "red", False, id="more words"),
        pytest.param("three", "3", True, id="number word"),
        pytest.param("twenty-one", "21", True, id="compound"),
        pytest.param("two thousand five hundred and six", "2506", True, id="long number"),
        pytest.param("1,234", "1234", True, id="thousands"),
        pytest.param("12 million", "12000000", True, id="scale"),
        pytest.param("$5", "5", True, id="currency"),
        pytest.param("3.0", "3", True, id="point zero"),
        pytest.param("-5", "5", False, id="sign"),
        pytest.param("\u22125", "-5", True, id="typographic minus"),
        pytest.param("42%", "42", True, id="percent as a number"),
        pytest.param("42%", "0.42", True, id="percent as a share"),
        pytest.param("42%", "0.042", False, id="percent of something else"),
        pytest.param("There are 3 cubes.", "3", True, id="number in a sentence"),
        pytest.param("3 of the 5", "3", False, id="two numbers"),
        pytest.param("3D", "3", False, id="number in a word"),
        pytest.param("0", "0", True, id="zero"),
        pytest.param("Yes.", "yes", True, id="harness trap: yes with a full stop"),
        pytest.param("No, there is none", "no", True, id="no, and why"),
        pytest.param("yes or no", "yes", False, id="both"),
        pytest.param("(K)", "K", True, id="letter in brackets"),
        pytest.param("The letter is K.", "K", True, id="letter in a sentence"),
        pytest.param("A", "a", True, id="a letter that is an article"),
        pytest.param("[1, 2, 3, 4]", "[1,2,3,4.0]", True, id="box"),
        pytest.param("[0, 0, 10, 10]", "[0, 0, 10, 5]", True, id="half of a box"),
        pytest.param("[0, 0, 10, 10]", "[0, 0, 10, 4]", False, id="less than half of a box"),
        pytest.param("[10, 10, 0, 0]", "[0, 0, 10, 10]", False, id="a box inside out"),
        pytest.param("", "", False, id="empty"),
        pytest.param("+", "-", False, id="signs alone"),
        pytest.param(None, None, False, id="nothing"),
        pytest.param(None, "red", False, id="no answer"),
    ],
)
def test_same(a, b, same):
    assert same_answer(a, b) == same
    assert same_answer(b, a) == same


def test_same_with_choices():
    assert same_answer("(B)", "blue", choices=("red", "blue"))
    assert not same_answer("purple", "blue", choices=("red", "blue"))
    assert not same_answer("red or blue", "blue", choices=("red", "blue"))
    assert same_answer("purple", "Purple.", choices=("red", "blue"))


def test_tolerance_is_a_share_of_the_second():
    assert same_answer("104", "100", tolerance=0.05)
    assert not same_answer("106", "100", tolerance=0.05)
    assert not same_answer("104", "100")


@pytest.mark.parametrize(
    ("answer", "box"),
    [
        pytest.param('{"bbox_2d": [10, 20.5, 30, 40]}', (10, 20.5, 30, 40), id="json"),
        pytest.param("It is at (1,2,3,4).", (1, 2, 3, 4), id="round brackets"),
        pytest.param("[1,2,3,4] or [5,6,7,8]", None, id="two"),
        pytest.param("[1,2,3]", None, id="three numbers"),
        pytest.param("[1,2,3,4", None, id="cut off"),
    ],
)
def test_box(answer, box):
    assert parse_box(answer) == box


@pytest.mark.parametrize(
    ("answer", "number"),
    [
        pytest.param("50%", 0.5, id="percent"),
        pytest.param("fifty percent", 0.5, id="percent in words"),
        pytest.param("one two", None, id="two"),
        pytest.param("a hundred", None, id="scale alone"),
        pytest.param("1.5.2", None, id="version"),
        pytest.param("10,20", None, id="list"),
        pytest.param(".5", 0.5, id="no zero"),
        pytest.param("1e3", 1000, id="exponent"),
    ],
)
def test_number(answer, number):
    assert parse_number(answer) == number


def test_the_pronoun_is_no_letter():
    assert letter_of("What I see is a cube") is None
    assert letter_of("I see it") is None


@pytest.mark.parametrize(
    ("answer", "choices", "wrong"),
    [
        pytest.param("red", COLOURS, False, id="one of them"),
        pytest.param("C", COLOURS, False, id="its letter"),
        pytest.param("<answer>B</answer>", COLOURS, False, id="in tags"),
        pytest.param("yellow", COLOURS, True, id="none of them"),
        pytest.param("E", COLOURS, True, id="a letter past the end"),
        pytest.param("A, B", COLOURS, True, id="two of them"),
        pytest.param("yellow", (), False, id="no choices"),
        pytest.param(None, COLOURS, False, id="no answer"),
    ],
)
def test_a_truth_must_be_a_choice(answer, choices, wrong):
    error = choice_error(answer, choices)
    assert (error is not None) == wrong
    if error:
        assert "expected 'answer' to be one of the choices 'red', 'dark red'" in error
        assert repr(answer) in error


def test_a_long_truth_is_judged_and_said_to_be_unjudgeable():
    truth = "the table is wide and stands left of a door " * 5
    assert "50 words" in (unjudgeable(truth) or "")
    assert judge(truth, truth) is True
    assert judge("A table.", truth) is False
    assert judge("<think>hm</think>" + truth.upper(), truth) is True
    assert unjudgeable("a wide table") is None
    assert unjudgeable("[1, 2, 3, 4]") is None
    assert unjudgeable(" ") == "the answer is empty"
    assert "choices" in (unjudgeable("yellow", choices=COLOURS) or "")


def test_a_reply_names_the_same_choice_whatever_its_letters():
    choices = ("x \u2265 5", "x \u2264 5")
    assert match_choice("x \u2264 5.", choices) == choices[1]
    assert match_choice("A, B, C or D", ("red", "blue", "green", "cat")) is None
