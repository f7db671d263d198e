"""What a reply answers, what a person is shown of it, and how a cut reply is made to answer."""

import pytest

from mm.answers.extraction import answer_opening, extract_answer, marked_answer, shown_reply

TAGS = "<answer>" * 200_000
"""Read at once; in minutes where each tag is read as often as there are tags."""

LONG = "The image shows a wide table. " * 12


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        pytest.param("The answer is St. Louis.", "St. Louis", id="saint"),
        pytest.param("The answer is Dr. Smith. He stands left.", "Dr. Smith", id="doctor"),
        pytest.param("Answer: Mt. Everest", "Mt. Everest", id="mount"),
        pytest.param("The answer is Jan. 5.", "Jan. 5", id="month"),
        pytest.param("The answer is J. Smith.", "J. Smith", id="initial"),
        pytest.param("The answer is 5 Main St. It is left.", "5 Main St. It is left", id="unsure"),
        pytest.param("The answer is red. It is left.", "red", id="a sentence"),
        pytest.param("答案\uff1a红色。因为它是红的", "红色", id="Chinese"),
        pytest.param("答案是红色。", "红色", id="Chinese, is"),
        pytest.param("Antwort: C", "C", id="German"),
        pytest.param("Die Antwort ist C.", "C", id="German, is"),
        pytest.param("Antwort: C. Die Antwort ist richtig.", "C", id="German, prose behind"),
        pytest.param("La r\u00e9ponse est C", "C", id="French, is"),
        pytest.param("\u6545\u9009\uff1aC", "C", id="Chinese, so choose"),
        pytest.param("\u7b54\u6848\u9009C", "C", id="Chinese, chooses"),
        pytest.param("\uc815\ub2f5\uc740 \ube68\uac15", "\ube68\uac15", id="Korean, is"),
        pytest.param("so\n#### 42", "42", id="GSM8K"),
        pytest.param("<|begin_of_box|>5<|end_of_box|>", "5", id="GLM"),
        pytest.param("Option A is wrong. [[K]]", "K", id="MMR-V"),
        pytest.param(
            "<answer>5</answer>\nThis answer is based on the cubes.", "5", id="prose behind tags"
        ),
        pytest.param("<answer>5</answer>\n\n#### Notes", "5", id="a heading behind tags"),
        pytest.param(
            "\\boxed{5}\n\nThe answer is consistent with the picture.", "5", id="prose behind a box"
        ),
        pytest.param(
            "The answer is B. This answer is correct because it is red.", "B", id="prose behind"
        ),
        pytest.param("Final answer: 5\n\n(This answer is approximate.)", "5", id="in brackets"),
        pytest.param("The answer is 5.\n\n#### Why\nFive cubes.", "5", id="a heading behind"),
        pytest.param("The answer is right", "right", id="a side, alone"),
        pytest.param("Answer: 4. No: the answer is 5.", "5", id="a later answer"),
        pytest.param("<answer>" * 3000 + "red", "red", id="tags in tags"),
        pytest.param("<answer>\n<answer>red</answer>", "red", id="opened twice"),
        pytest.param("一" * 99, None, id="a long sentence without spaces"),
    ],
)
def test_extract(text, answer):
    assert extract_answer(text) == answer


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        pytest.param(LONG, LONG.strip(), id="a description"),
        pytest.param("# Title\n\nAnswer: 42\n\nmore", "# Title\n\nAnswer: 42\n\nmore", id="a page"),
        pytest.param("<think>so</think>\nred", "red", id="a thought"),
        pytest.param("so</think>red", "red", id="a thought the template opened"),
        pytest.param("<think>It is K.</think>", "", id="a thought alone"),
        pytest.param("<think>It is", "", id="a thought cut off"),
        pytest.param("<think>so</think><answer>red</answer>", "red", id="tags"),
        pytest.param("<answer>\n<answer>red</answer>", "red", id="opened twice"),
        pytest.param(
            "I <answer> <answer>see <answer>red", "I <answer> <answer>see red", id="apart"
        ),
        pytest.param(TAGS + "a</answer>b", TAGS + "a</answer>b", id="many tags and no end"),
        pytest.param("It is " + TAGS + "a", "It is a", id="many tags, cut off"),
        pytest.param("I see it. <answer>red", "I see it. red", id="tags cut off"),
        pytest.param("Write <answer>x</answer> so.", "Write <answer>x</answer> so.", id="quoted"),
        pytest.param("It is <|begin_of_box|>5<|end_of_box|>.", "It is 5.", id="GLM"),
    ],
)
def test_shown(text, shown):
    assert shown_reply(text) == shown


@pytest.mark.parametrize(
    ("text", "thinking", "more"),
    [
        pytest.param("<think>It is", False, "\n</think>\n<answer>", id="in a thought"),
        pytest.param("It is", True, "\n</think>\n<answer>", id="in one the template opened"),
        pytest.param("", True, "\n</think>\n<answer>", id="nothing yet, thinking"),
        pytest.param("<think>so</think>", False, "\n<answer>", id="after a thought"),
        pytest.param("so</think>\n", True, "<answer>", id="after one the template opened"),
        pytest.param(
            "<think>a</think><think>b", False, "\n</think>\n<answer>", id="second thought"
        ),
        pytest.param("I see a", False, "\n<answer>", id="in words"),
        pytest.param("", False, "<answer>", id="nothing yet"),
        pytest.param("<think>so</think><answer>re", False, "", id="in the answer"),
        pytest.param("<answer>red</answer>", False, "", id="answered"),
        pytest.param("<think>an <answer> in", False, "\n</think>\n<answer>", id="tag in a thought"),
    ],
)
def test_answer_opening(text, thinking, more):
    assert answer_opening(text, thinking=thinking) == more
    assert answer_opening(text + more, thinking=thinking) == ""
    if more:
        assert extract_answer(text + more + "red</answer>") == "red"


def test_marked_answer_wants_a_mark():
    assert marked_answer("red") is None
    assert marked_answer("The answer is red") is None
    assert marked_answer("<think>so</think><answer> B </answer>") == "B"
