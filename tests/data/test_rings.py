"""Profiles that only their number gives away: planted rings are found, and honest twins left alone."""

from __future__ import annotations

from datetime import timedelta

from recsys_spark.data.bots import excluded_users
from tests.conftest import Frame
from tests.data.test_bots import DAY, NOON, OFF, SCHEMA

RINGS = OFF.model_copy(
    update={
        "max_identical_profiles": 3,
        "min_profile_items": 5,
        "max_one_item_profiles": 3,
        "min_one_item_events": 3,
    }
)
WIDER = f"{SCHEMA}, event_type string"


def events() -> list[tuple]:
    rows: list[tuple] = []

    def event(user: str, item: str, kind: str = "purchase", day: int = 0) -> None:
        at = NOON + timedelta(days=day, seconds=len(rows))
        rows.append((f"e{len(rows)}", user, item, at, None, at.date(), "shop", kind))

    for n in range(4):
        for item in range(5) if n % 2 else reversed(range(5)):
            for kind in ("view", "purchase", "view")[: 2 + n % 2]:
                event(f"copy{n}", f"i{item}", kind)
            # The same items, of which one was only looked at by each of these.
            event(f"reader{n}", f"i{item}", "view" if item == n else "purchase")
            event(f"late{n}", f"i{item}", "view", day=0 if item < n else 90)
            if item < 4:
                event(f"small{n}", f"i{item}")
        for _ in range(3 + n):
            event(f"pusher{n}", "new", "view", day=n)
            event(f"drinker{n}", "milk")
            event(f"sometimes{n}", f"rare{n}")
        event(f"taster{n}", "tasted")
        event(f"taster{n}", "tasted")
        event(f"drinker and eater{n}", "milk")
        event(f"drinker and eater{n}", f"bread{n}")
    for n in range(3):
        for item in range(7):
            event(f"twin{n}", f"t{item}")
        for _ in range(5):
            event(f"fan{n}", "song")
    event("customer", "new")
    event("customer", "milk")
    return rows


def test_rings_are_found_by_their_number_and_twins_below_the_bound_are_left_alone(frame: Frame) -> None:
    whole = frame(WIDER, events())
    excluded = excluded_users(whole, DAY, bots=RINGS).collect()
    assert {(row["user_id"], row["reason"], row["observed"], row["allowed"]) for row in excluded} == {
        *((f"copy{n}", "identical_profiles", 4.0, 3.0) for n in range(4)),
        # Three or more events with nothing but the item, and four of its five users; of milk they are half.
        *((f"pusher{n}", "one_item_profiles", 4.0, 3.0) for n in range(4)),
    }
    assert {row["run_date"] for row in excluded} == {DAY}
    both = RINGS.model_copy(update={"max_identical_profiles": 0, "max_events_per_day": 8})
    reasons = {(row["user_id"], row["reason"]) for row in excluded_users(whole, DAY, bots=both).collect()}
    of_ring = {(f"pusher{n}", "one_item_profiles") for n in range(4)}
    assert reasons == of_ring | {(f"copy{n}", "events_per_day") for n in range(4)}
