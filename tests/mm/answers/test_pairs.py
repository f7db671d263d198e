"""The table of what counts as equal, as written."""

import unicodedata

import judged_pairs
import pytest

from mm.answers.matching import judge

PAIRS = judged_pairs.pairs()


@pytest.mark.parametrize("pair", PAIRS, ids=str)
def test_pair(pair):
    assert judge(pair.reply, pair.truth, choices=pair.choices) is pair.equal, pair.why


def test_the_table_is_broad():
    letters = {c for pair in PAIRS for c in pair.truth + pair.reply if c.isalpha()}
    scripts = {unicodedata.name(c).split()[0] for c in letters}
    wanted = "LATIN CYRILLIC GREEK ARABIC HEBREW DEVANAGARI THAI CJK HIRAGANA KATAKANA HANGUL TAMIL"
    assert {*wanted.split()} <= scripts
    assert len(PAIRS) >= 300
    assert sum(pair.equal is True for pair in PAIRS) > 200 < sum(p.equal is False for p in PAIRS)


def test_the_readme_shows_the_table():
    text = judged_pairs.README.read_text(encoding="utf-8")
    assert judged_pairs.filled(text) == text, "run: python tests/judged_pairs.py"
