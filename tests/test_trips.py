"""A request goes from file to file without needless turns, and the counting of that is right."""

import pytest
import trips


def write(root, name, text):
    file = root / "mm" / name
    file.parent.mkdir(exist_ok=True)
    file.write_text(text)
    space = {}
    exec(compile(text, str(file), "exec"), space)
    return space


def test_calls_between_files_are_counted_and_bodies_are_not(tmp_path):
    inner = write(tmp_path, "inner.py", "class Box:\n    x = 1\n    def get(self): return self.x\n")
    text = "def twice(box): return [ask(box), ask(box)]\ndef ask(box): return box.get()\n"
    outer = write(tmp_path, "outer.py", text)
    with trips.recorded(tmp_path) as trip:
        outer["twice"](inner["Box"]())
        write(tmp_path, "late.py", "class Late:\n    y = 2\n")
    assert trip.files == {"mm/inner.py", "mm/outer.py"}
    assert trip.moves == {("mm/outer.py", "mm/inner.py"): 2}
    assert trip.functions["mm/outer.py", "ask"] == 2


def test_a_call_through_a_library_is_the_callers_own(tmp_path):
    inner = write(tmp_path, "inner.py", "def length(word): return len(word)\n")
    outer = write(tmp_path, "outer.py", "def by(key): return sorted(['bb', 'a'], key=key)\n")
    with trips.recorded(tmp_path) as trip:
        outer["by"](inner["length"])
    assert trip.moves == {("mm/outer.py", "mm/inner.py"): 2}


@pytest.mark.torch
def test_one_direct_question_moves_little_between_files():
    ask = trips.direct_question()
    with trips.recorded() as trip:
        ask()
    assert len(trip.files) <= 26
    assert trip.moves.total() <= 102  # one or two depend on which thread is first


@pytest.mark.torch
def test_a_step_of_training_moves_little_between_files(tmp_path):
    step = trips.training_step(tmp_path)
    with trips.recorded() as trip:
        step()
    assert len(trip.files) <= 55
    assert trip.moves.total() <= 450
