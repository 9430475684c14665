"""The publish gate sees each way in which lists can be bad."""

from __future__ import annotations

import pytest
from pyspark.sql import SparkSession

from recsys_spark.config.sections import Gate
from recsys_spark.push.gate import judge_lists
from recsys_spark.runtime.rows import frame_of
from tests.settings import a_campaign

GATE = Gate(min_user_share=1.0, max_short_list_share=0.0, max_first_slot_share=0.5)
CAMPAIGNS = {"c": a_campaign(channel="email", k=2, repeat_allowed=False)}
ROWS = [
    ("c", "u1", 1, "a", 2.0),
    ("c", "u1", 2, "b", 1.0),
    ("c", "u2", 1, "b", 2.0),
    ("c", "u2", 2, "a", 2.0),
]


def failed(spark: SparkSession, rows: list[tuple], audience: int = 2) -> set[str]:
    verdicts = judge_lists(
        frame_of(spark, rows, "campaign string, user_id string, rank int, item_id string, score double"),
        campaigns=CAMPAIGNS,
        audience_sizes={"c": audience},
        known_items=frame_of(spark, [("a",), ("b",), ("disliked",)], "item_id string"),
        owned=frame_of(
            spark,
            [("u1", "owned", False), ("u2", "disliked", True)],
            "user_id string, item_id string, is_excluded boolean",
        ),
        gate=GATE,
        items=frame_of(spark, [("a",), ("sold out",), ("sold out",), ("owned",)], "item_id string"),
    )
    return {verdict.check for verdict in verdicts if not verdict.is_success}


def changed(place: int, **fields: object) -> list[tuple]:
    names = ("campaign", "user_id", "rank", "item_id", "score")
    row = dict(zip(names, ROWS[place], strict=True)) | fields
    return [*ROWS[:place], tuple(row[name] for name in names), *ROWS[place + 1 :]]


@pytest.mark.parametrize(
    ("rows", "checks"),
    [
        (ROWS, set()),
        (ROWS[:3], {"short_list_share"}),
        (changed(1, item_id="a"), {"duplicates"}),
        (changed(1, rank=3), {"gaps"}),
        (changed(1, score=float("nan")), {"not_finite", "rising"}),
        (changed(1, score=float("-inf")), {"not_finite"}),
        (changed(1, score=None), {"not_finite"}),
        (changed(1, score=3.0), {"rising"}),
        (changed(1, rank=1), {"gaps", "first_slot_share"}),
        (changed(0, rank=0), {"gaps"}),
        (changed(1, item_id="unheard"), {"unknown_items"}),
        (changed(1, item_id="owned"), {"not_on_sale", "owned_items"}),
        (changed(1, item_id="sold out"), {"not_on_sale"}),
        (changed(2, item_id="disliked"), {"owned_items", "unwanted_items"}),
        (changed(2, item_id="a")[:3] + [("c", "u2", 2, "b", 1.0)], {"first_slot_share"}),
    ],
    ids=[
        "good",
        "short",
        "twice",
        "gap",
        "nan",
        "infinite",
        "null",
        "rising",
        "two firsts",
        "from 0",
        "unknown",
        "owned",
        "sold out",
        "disliked",
        "same first",
    ],
)
def test_each_fault_is_seen_by_its_own_check(
    spark: SparkSession, rows: list[tuple], checks: set[str]
) -> None:
    assert failed(spark, rows) == checks


def test_a_user_who_had_nothing_does_not_make_up_for_one_who_gets_what_they_had(spark: SparkSession) -> None:
    strangers = [("c", "u3", 1, "a", 2.0), ("c", "u3", 2, "b", 1.0)]
    assert failed(spark, [*changed(2, item_id="disliked"), *strangers], audience=3) == {
        "owned_items",
        "unwanted_items",
        "first_slot_share",
    }


def test_users_without_a_list_are_missed(spark: SparkSession) -> None:
    assert failed(spark, ROWS, audience=3) == {"user_share"}


def test_no_lists_at_all_are_no_good_night(spark: SparkSession) -> None:
    assert {"user_share", "short_list_share"} <= failed(spark, [])
