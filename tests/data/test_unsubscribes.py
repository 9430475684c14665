"""Whom an unsubscribe means, against plain Python, and which mean nobody."""

from __future__ import annotations

import random
from collections import defaultdict

import pytest

from recsys_spark.data.kinds.rules import BLANKS
from recsys_spark.data.unsubscribes import unmatched, unmatched_note, whom_they_mean
from tests.conftest import Frame

STEMS = ("a", "ab", "ß", "é", "😀", "x y", "1", "01", "K")


def brute_force(told: str, known: set[str]) -> set[str]:
    """The users whom an id means: the same without outer blanks, else the one form that differs by case."""
    same = {name for name in known if name.strip(BLANKS) == told.strip(BLANKS)}
    alike = {name for name in known if name.strip(BLANKS).lower() == told.strip(BLANKS).lower()}
    is_unique = len({name.strip(BLANKS) for name in alike}) == 1
    return same or (alike if is_unique else set())


def spelt(draw: random.Random, stem: str) -> str:
    """The text in any case, blanks around it."""
    text = "".join(draw.choice((letter.lower(), letter.upper())) for letter in stem)
    around = [draw.choice(("", "", draw.choice(BLANKS))) for _ in "ab"]
    return text.join(around)


@pytest.mark.parametrize("seed", range(3))
def test_an_unsubscribe_means_whom_plain_python_says(frame: Frame, seed: int) -> None:
    draw = random.Random(seed)
    known = {spelt(draw, draw.choice(STEMS[:6])) for _ in range(12)}
    given = [(number, spelt(draw, draw.choice(STEMS))) for number in range(200)]
    users = frame("user_id string", [(name,) for name in sorted(known) * 2])
    found = defaultdict(list)
    for row in whom_they_mean(frame("number int, user_id string", given), users).collect():
        found[row["number"]].append(row["user_id"])
    assert {number: sorted(names) for number, names in found.items()} == {
        number: sorted(meant) for number, name in given if (meant := brute_force(name, known))
    }


def test_unsubscribes_that_match_nobody_are_counted_by_what_does_not_match(frame: Frame) -> None:
    rows = [
        ("u10 ", "email", False, False),
        ("U11", "E-Mail", False, False),
        ("u11", " E_MAIL", False, False),
        ("u12", "email", True, False),
        ("u10", "newsletter", False, True),
        ("u10", None, False, True),
        ("nobody", "sms", True, True),
        ("", "push", True, False),
    ]
    told = frame("user_id string, channel string", [row[:2] for row in rows])
    users = frame("user_id string", [("u10",), ("u11",), ("u11",)])
    counts = {
        "unmatched_unsubscribes": sum(nobody or elsewhere for *_, nobody, elsewhere in rows),
        "unsubscribes_of_nobody": sum(row[2] for row in rows),
        "unsubscribes_elsewhere": sum(row[3] for row in rows),
    }
    assert unmatched(told, users, channels=["email", "Push"]) == counts
    assert unmatched_note(counts) == (
        "5 unsubscribes match nobody: 3 of no known user, 3 on a channel of no campaign"
    )
    without_users = {**counts, "unmatched_unsubscribes": 3.0, "unsubscribes_of_nobody": 0.0}
    assert unmatched(told, None, channels=["email", "Push"]) == without_users
    assert unmatched_note({"outcomes_unsubscribe": 4.0, "unmatched_unsubscribes": 0.0}) == ""
