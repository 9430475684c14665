"""What counts as had together."""

from __future__ import annotations

from collections import defaultdict
from datetime import date

import pytest

from recsys_spark.data.baskets import baskets
from tests.conftest import Frame

SCHEMA = "user_id string, item_id string, event_date string, basket_id string, source string"
EVENTS = [
    ("u", "a", "2024-05-01", "b1", "till"),
    ("u", "b", "2024-05-01", "b1", "till"),
    ("u", "b", "2024-05-01", "b1", "till"),  # the same again counts once
    ("u", "c", "2024-05-01", "b2", "till"),
    ("u", "d", "2024-05-01", None, "till"),
    ("u", "e", "2024-05-01", "", "till"),  # no basket_id
    ("u", "f", "2024-05-02", " ", "till"),  # and so is a blank
    ("u", "g", "2024-05-02", "2024-05-02", "till"),  # a basket_id that looks like a day
    ("v", "a", "2024-05-01", "b1", "till"),  # numbers of receipts may come again at another till
    ("v", "b", "2024-05-01", "b1", "web"),  # as may those of another source, for the same user
    ("v", "old", "2024-04-02", "b9", "till"),
    ("v", "late", "2024-05-03", "b9", "till"),
]
BY_BASKET = [("a", "b"), ("a",), ("b",), ("c",), ("d", "e"), ("f",), ("g",)]
BY_USER = [("a", "b"), ("a", "b", "c", "d", "e", "f", "g")]


@pytest.mark.parametrize(("together", "expected"), [("basket", BY_BASKET), ("user", BY_USER)])
def test_items_are_together_in_a_basket_else_on_a_day_or_by_user(
    frame: Frame, together: str, expected: list
) -> None:
    events = frame(SCHEMA, EVENTS).selectExpr(
        "user_id",
        "item_id",
        "cast(event_date as date) as event_date",
        "cast(event_date as timestamp) as event_at",
        "basket_id",
        "source",
    )
    rows = baskets(events, run_date=date(2024, 5, 2), days=30, together=together).collect()
    held = defaultdict(list)
    for row in rows:
        held[row["basket"]].append(row["item_id"])
    assert sorted(tuple(sorted(items)) for items in held.values()) == sorted(expected)
