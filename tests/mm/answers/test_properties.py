"""What holds of the judge whatever is said: no error, no side, no sign lost, and in little time."""

import time

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from mm.answers import matching
from mm.answers.choices import match_choice
from mm.answers.extraction import answer_opening, before_answer, extract_answer, shown_reply
from mm.answers.matching import judge, kind_of, parse_number, same_answer, unjudgeable

PIECES = (
    "5|-|1/2| |cm|$|x|=|<|(|)|[|]|,|.|\\frac|{|}|A|B|or|not|red|the|answer is|<answer>|</answer>"
    "|%|^2|\\boxed{|नी|红|\u0301|½|é|yes|no|\n|minus|three|'|√"
)
SOUP = st.lists(st.sampled_from(PIECES.split("|")), max_size=12).map("".join)
TEXTS = st.one_of(SOUP, st.text(max_size=30))
CHOICES = ("red", "5 m", "x ≤ 5")
NUMBERS = st.one_of(
    st.integers(1, 10**7).map(str),
    st.decimals(1, 999, places=2).map(str),
    st.tuples(st.integers(1, 99), st.integers(2, 99)).map(lambda pair: f"{pair[0]}/{pair[1]}"),
    st.sampled_from(["three", "twenty-one", "1,234", "½", "10²", "√2", "x", "2x", "(1, 2)"]),
)
KINDS = ("cm", "kg", "s", "$", "%", "°C", "m²", "km/h", "GB", "apples")
often = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])


@pytest.fixture(autouse=True)
def mathematics_as_written(monkeypatch):
    """Hundreds of random formulas would each take the helper process tens of milliseconds."""
    monkeypatch.setattr("mm.answers.mathematics._verified", lambda a, b: None)


@often
@given(TEXTS, TEXTS)
def test_neither_side_is_first(a, b):
    assert same_answer(a, b) == same_answer(b, a)


@often
@given(TEXTS)
def test_an_answer_equals_itself(text):
    assert same_answer(text, text) == bool(matching.content_of(text))
    padded = f"  {text}\n"
    assert same_answer(padded, text) == same_answer(text, text)


@often
@given(TEXTS, TEXTS)
def test_nothing_raises(reply, truth):
    assert judge(reply, truth) in (True, False, None)
    assert judge(reply, truth, choices=CHOICES) in (True, False, None)
    for read in (extract_answer, before_answer, shown_reply, answer_opening, parse_number):
        read(reply)
    unjudgeable(truth, choices=CHOICES)
    kind_of(truth)


@often
@given(NUMBERS, st.sampled_from(["-", "- ", "minus ", "\u2212", "negative "]))
def test_a_minus_sign_is_never_lost(number, minus):
    assume(minus != "- " or number[0].isdigit())  # before a word that is a bullet
    assert not same_answer(minus + number, number)
    assert match_choice(minus + number, (number, "7777.5")) is None


@often
@given(
    st.integers(1, 10**6),
    st.lists(st.sampled_from(KINDS), min_size=2, max_size=2, unique=True),
)
def test_a_unit_of_another_kind_is_never_equal(number, units):
    said, right = (f"{unit}{number}" if unit == "$" else f"{number} {unit}" for unit in units)
    assert not same_answer(said, right)
    assert not same_answer(f"It is {said}.", right)


@often
@given(
    st.permutations(["red", "blue", "green"]), st.integers(2, 3), st.sampled_from([", ", " or "])
)
def test_several_choices_are_none(choices, count, between):
    labels = [chr(ord("A") + i) for i in range(3)]
    assert match_choice(between.join(choices[:count]), choices) is None
    assert match_choice(between.join(labels[:count]), choices) is None
    assert match_choice(between.join(f"({x})" for x in labels[:count]), choices) is None


@settings(often, max_examples=15)
@given(SOUP.filter(bool))
def test_time_grows_with_the_length_of_a_reply_and_no_faster(part):
    def seconds(length, **options):
        text = (part * length)[: length - 1] + "y"
        assume(len(text) == length)
        best = []
        for _ in range(4):  # the least, as the machine may be busy
            for cached in (matching.quantity, matching.words_of):
                cached.cache_clear()
            start = time.thread_time()
            judge(text, "5 m", **options)
            best.append(time.thread_time() - start)
        return min(best)

    for options in ({}, {"choices": CHOICES}):
        assert seconds(10_000, **options) < 2 * 4 * seconds(2_500, **options) + 0.01
