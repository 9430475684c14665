"""Events as they count on a date, against plain Python: cancelled, returned, in bursts, rated again."""

from __future__ import annotations

import random
from collections import defaultdict
from datetime import UTC, date, datetime, timedelta
from fractions import Fraction

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from pyspark.sql import SparkSession

from recsys_spark.config.sections import Clean, Ratings
from recsys_spark.data.events import as_of, effective_events
from recsys_spark.runtime.rows import frame_of
from tests.conftest import Frame
from tests.settings import with_defaults

DAY = date(2024, 6, 2)
MIDNIGHT = datetime(2024, 6, 2, tzinfo=UTC)
CLEAN = with_defaults(Clean, event_types=["purchase", "view", "rating"])
RATINGS = Ratings(event_type="", min=1, max=5, neutral=3, low="exclude")
BURSTS_AND_RATINGS = (
    CLEAN.model_copy(update={"burst_seconds": 5}),
    RATINGS.model_copy(update={"event_type": "rating"}),
)
SCHEMA = (
    "event_id string, user_id string, item_id string, event_type string, event_at timestamp, "
    "quantity double, value double, cancels_event_id string, event_date date, source string"
)


class Event:
    """One row of silver.interactions, as far as it matters here."""

    def __init__(self, event_id: str, user: str = "u", item: str = "i", kind: str = "purchase", **other):
        self.id, self.user, self.item, self.kind = event_id, user, item, kind
        self.at: datetime = other.get("at", MIDNIGHT)
        self.quantity: float | None = other.get("quantity")
        self.value: float | None = other.get("value")
        self.cancels: str | None = other.get("cancels")
        self.source: str = other.get("source", "shop")

    @property
    def order(self) -> tuple:
        return (self.at, self.id)

    def row(self) -> tuple:
        values = (self.id, self.user, self.item, self.kind, self.at, self.quantity, self.value, self.cancels)
        return (*values, self.at.date(), self.source)


def oracle(events: list[Event], day: date, *, burst_seconds: float, rated: str) -> dict[str, float | None]:
    """event_id -> quantity of the events that count, by keeping lists in hand, pair by pair."""
    known = [event for event in events if event.at.date() <= day]
    cancelled = {(event.user, event.cancels) for event in known if event.cancels}
    known = [event for event in known if not event.cancels and (event.user, event.id) not in cancelled]
    pairs = defaultdict(list)
    for event in sorted(known, key=lambda event: event.order):
        pairs[event.user, event.item].append(event)
    left = {}
    for pair in pairs.values():
        kept = without_bursts(taken_back(pair), burst_seconds)
        ratings = [event for event, _ in kept if event.kind == rated]
        left |= {event.id: quantity for event, quantity in kept if event not in ratings[:-1]}
    return left


def taken_back(pair: list[Event]) -> list[tuple[Event, float | None]]:
    """The pair's events in order with what is left of them: a stack of purchases, undone from its top."""
    result = {event.id: (event, event.quantity) for event in pair}
    stack: list[list] = []
    for event in pair:
        pieces = Fraction("1" if event.quantity is None else str(event.quantity))  # tenths add up exactly
        if pieces >= 0:
            if event.kind == "purchase" and pieces > 0:
                stack.append([event, pieces])
            continue
        del result[event.id]
        owed = -pieces
        while owed > 0 and stack:
            last = stack[-1]
            taken = min(owed, last[1])
            owed, last[1] = owed - taken, last[1] - taken
            result[last[0].id] = (last[0], float(last[1]))
            if last[1] == 0:
                del result[stack.pop()[0].id]
    return list(result.values())


def without_bursts(
    kept: list[tuple[Event, float | None]], seconds: float
) -> list[tuple[Event, float | None]]:
    last: dict[str, datetime] = {}
    result = []
    for event, quantity in kept:
        before = last.get(event.kind)
        last[event.kind] = event.at
        if not seconds or before is None or (event.at - before).total_seconds() > seconds:
            result.append((event, quantity))
    return result


def made_up(seed: int, users: int = 150) -> list[Event]:
    """For each user a few minutes of two items, over midnight, with returns, cancellations and ties."""
    draw = random.Random(seed)
    ids = [f"e{n:05d}" for n in range(users * 14)]
    draw.shuffle(ids)
    events = []
    for user in range(users):
        own = [ids.pop() for _ in range(draw.randint(1, 14))]
        for event_id in own:
            cancels = draw.choice([*own, "e00001", "nobody"]) if draw.random() < 0.15 else None
            events.append(
                Event(
                    event_id,
                    f"u{user}",
                    draw.choice(["i", "j"]),
                    draw.choice(["purchase", "purchase", "view", "rating"]),
                    at=MIDNIGHT
                    + timedelta(days=1, seconds=draw.randint(-60, 15), milliseconds=draw.choice([0, 1])),
                    quantity=draw.choice([None, 0.0, 1.0, 2.0, 3.0, 0.1, 0.2, -1.0, -2.0, -0.1, -0.3]),
                    value=float(draw.randint(1, 5)),
                    cancels=cancels,
                )
            )
    return events


def what_counts(
    spark: SparkSession, events: list[Event], day: date, clean: Clean, ratings: Ratings, parts: int
) -> dict:
    frame = frame_of(spark, [event.row() for event in events], SCHEMA).repartition(parts)
    rows = effective_events(frame, day, clean=clean, ratings=ratings).collect()
    left = {row["event_id"]: row["quantity"] for row in rows}
    assert len(left) == len(rows)
    return left


def assert_as_by_hand(spark: SparkSession, seed: int, day: date, clean: Clean, ratings: Ratings) -> None:
    """One night over made-up events in any order and splitting."""
    events = made_up(seed)
    random.Random(seed).shuffle(events)
    expected = oracle(events, day, burst_seconds=clean.burst_seconds, rated=ratings.event_type)
    left = what_counts(spark, events, day, clean, ratings, seed % 4 + 1)
    assert {key: None if q is None else round(q, 9) for key, q in left.items()} == {
        key: None if q is None else round(q, 9) for key, q in expected.items()
    }


def test_what_counts_is_what_lists_kept_by_hand_say_for_any_order_and_splitting(spark: SparkSession) -> None:
    assert_as_by_hand(spark, 6, DAY, *BURSTS_AND_RATINGS)


@pytest.mark.soak
@settings(max_examples=20, deadline=None)
@given(
    seed=st.integers(0, 10**9),
    later=st.integers(0, 1),
    rules=st.sampled_from([(CLEAN, RATINGS), BURSTS_AND_RATINGS]),
)
@example(seed=250, later=0, rules=(CLEAN, RATINGS))  # tenths that are nothing only when they are exact
def test_what_counts_is_what_lists_kept_by_hand_say_for_any_events_and_rules(
    spark: SparkSession, seed: int, later: int, rules: tuple[Clean, Ratings]
) -> None:
    assert_as_by_hand(spark, seed, DAY + timedelta(days=later), *rules)


def at(seconds: float) -> datetime:
    return MIDNIGHT + timedelta(seconds=seconds)


def test_stories_of_what_counts(spark: SparkSession) -> None:
    bought = [Event("b1", "back", at=at(1), quantity=2.0), Event("b2", "back", at=at(2), quantity=3.0)]
    events = [
        # Four come back: all three of the latest purchase, and one of the two before it.
        *bought,
        Event("b3", "back", at=at(3), quantity=-4.0),
        Event("b4", "back", "other", at=at(1), quantity=1.0),
        # A return before the purchase, or of what was never bought, undoes nothing later.
        Event("r1", "early", at=at(1), quantity=-1.0),
        Event("r2", "early", at=at(2)),
        # No quantity is one piece; a view cannot come back.
        Event("n1", "one", at=at(1)),
        Event("n2", "one", kind="view", at=at(2)),
        Event("n3", "one", at=at(3), quantity=-1.0),
        # A cancellation takes its own user's event only, and nothing takes back a cancellation.
        Event("c1", "cancels", at=at(1)),
        Event("c2", "cancels", at=at(2), cancels="c1"),
        Event("c3", "cancels", at=at(3), cancels="c2"),
        Event("c4", "cancels", at=at(4), cancels="k1"),
        Event("k1", "keeps", at=at(1)),
        # What is cancelled or returned tomorrow still counts today.
        Event("t1", "tomorrow", at=at(1)),
        Event("t2", "tomorrow", at=at(86_400), cancels="t1"),
        Event("t3", "tomorrow", at=at(86_400), quantity=-1.0),
        # A return that is cancelled undoes nothing.
        Event("x1", "regrets", at=at(1)),
        Event("x2", "regrets", at=at(2), quantity=-1.0),
        Event("x3", "regrets", at=at(3), cancels="x2"),
        # A chain of clicks leaves its first; six seconds of silence end it. Another type is another chain.
        *[Event(f"v{n}", "clicks", kind="view", at=at(n)) for n in (0, 5, 10, 15, 21)],
        Event("v99", "clicks", at=at(6)),
        # The latest rating stands.
        Event("s1", "rates", kind="rating", at=at(1), value=5.0),
        Event("s2", "rates", kind="rating", at=at(50), value=1.0),
    ]
    assert what_counts(spark, events, DAY, *BURSTS_AND_RATINGS, 3) == {
        "b1": 1.0,
        "b4": 1.0,
        "r2": None,
        "n2": None,
        "k1": None,
        "t1": None,
        "x1": None,
        "v0": None,
        "v21": None,
        "v99": None,
        "s2": None,
    }


def test_an_event_of_the_day_after_the_run_date_reaches_nothing(frame: Frame) -> None:
    rows = [
        Event("today", at=datetime(2024, 6, 2, 23, 59, 59, 999999, tzinfo=UTC)).row(),
        Event("tomorrow", at=datetime(2024, 6, 3, tzinfo=UTC)).row(),
    ]
    assert [row["event_id"] for row in as_of(frame(SCHEMA, rows), DAY).collect()] == ["today"]
