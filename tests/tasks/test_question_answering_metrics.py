from __future__ import annotations

import numpy as np
import pytest

from alpro.tasks.question_answering.metrics import Accuracy, majority_correct, tally


def test_accuracy_by_hand() -> None:
    types = ["who", "which way", "what", "who", "when", "a", "what", "who"]
    correct = np.array([True, False, True, True, False, True, False, False])
    found = tally(correct, types)
    assert found.overall == Accuracy(4, 8)
    assert list(found.by_type.items()) == [
        ("what", Accuracy(1, 2)),
        ("who", Accuracy(2, 3)),
        ("when", Accuracy(0, 1)),
        ("a", Accuracy(1, 1)),
        ("which way", Accuracy(0, 1)),
    ]
    assert found.overall.percent == 50.0
    assert found.by_type["who"].percent == pytest.approx(66.6666667)
    assert found.share("who") == 37.5


@pytest.mark.parametrize("seed", range(5))
def test_the_counts_of_types_add_up(seed: int) -> None:
    rng = np.random.default_rng(seed)
    types = rng.choice(["how", "other", "what", "zebra"], size=101).tolist()
    correct = rng.random(101) < 0.3
    found = tally(correct, types)
    assert found.overall == Accuracy(sum(correct.tolist()), 101)
    for kind, count in found.by_type.items():
        own = [hit for hit, its in zip(correct.tolist(), types, strict=True) if its == kind]
        assert count == Accuracy(sum(own), len(own))
    assert sum(found.share(kind) for kind in found.by_type) == pytest.approx(100.0)


def test_the_majority_by_hand() -> None:
    answers = ["red", "two", "two", "blue", "two", "one", "red"]
    types = ["what", "how", "what", "what", "how", "how", "what"]
    # "two" is the commonest answer of all, but of the questions "what" it is "red"
    expected = [True, True, False, False, True, False, True]
    assert majority_correct(answers, types).tolist() == expected


@pytest.mark.parametrize("seed", range(5))
def test_no_constant_answer_beats_the_majority(seed: int) -> None:
    rng = np.random.default_rng(seed)
    answers = rng.choice(["a", "b", "c", "d"], size=60, p=[0.4, 0.3, 0.2, 0.1]).tolist()
    types = rng.choice(["what", "how"], size=60).tolist()
    found = tally(majority_correct(answers, types), types)
    for kind, count in found.by_type.items():
        own = [answer for answer, its in zip(answers, types, strict=True) if its == kind]
        assert count.correct == max(own.count(answer) for answer in "abcd")
