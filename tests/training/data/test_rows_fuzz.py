"""The door of rows under broken ones: no traceback, no long line, nothing that says something else.

`tests/rows_fuzz.py` goes on for as long as it is told to.
"""

import random

import pytest
from fuzzing import rounds
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from row_files import make_images
from row_samples import SAMPLES
from rows_fuzz import KEYS, WORDS, bytes_read_or_refused, read_or_refused, try_once

from training.data import SUFFIXES
from training.data.formats import FORMATS

LEAVES = st.one_of(
    *(st.none(), st.booleans(), st.integers(), st.floats()),
    *(st.sampled_from(WORDS), st.text()),
)
VALUES = st.recursive(
    LEAVES,
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(KEYS), inner, max_size=4)
    ),
    max_leaves=12,
)
ROWS = st.dictionaries(st.sampled_from(KEYS) | st.text(max_size=8), VALUES, max_size=5)
QUICK = settings(
    max_examples=rounds(300),
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return make_images(tmp_path_factory.mktemp("rows"))


@QUICK
@given(row=ROWS | VALUES, dialect=st.sampled_from(["auto", *FORMATS]))
def test_any_row_is_read_or_refused(folder, row, dialect):
    read_or_refused(folder, row, dialect)


@QUICK
@given(content=st.binary(max_size=200), suffix=st.sampled_from(SUFFIXES))
def test_any_file_is_read_or_refused(folder, content, suffix):
    bytes_read_or_refused(folder / f"any{suffix}", content)


def test_broken_rows_of_every_format_are_read_or_refused(folder):
    read = sum(try_once(folder, SAMPLES, random.Random(seed)) for seed in range(rounds(1200)))
    assert rounds(120) < read < rounds(1080)


@pytest.mark.parametrize("row", SAMPLES, ids=lambda row: "-".join(row)[:40])
def test_the_samples_themselves_are_sound(folder, row):
    assert read_or_refused(folder, row)
