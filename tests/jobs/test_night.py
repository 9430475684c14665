"""What a night leaves behind, looked at by readers that are not Spark."""

from __future__ import annotations

from collections import defaultdict
from datetime import date, timedelta

from deltalake import DeltaTable

from recsys_spark.lake.tables import GOLD_RECOMMENDATIONS, SILVER_INTERACTIONS, SILVER_ITEMS, SILVER_QUARANTINE
from tests.jobs.conftest import Night
from tests.shop import RUN_DATE, USERS


def _rows(night: Night, table: object) -> list[dict]:
    return DeltaTable(night.job.lake.path(table)).to_pyarrow_table().to_pylist()


def test_every_user_of_the_audience_has_a_whole_list(night: Night) -> None:
    lists = defaultdict(list)
    for row in _rows(night, GOLD_RECOMMENDATIONS):
        lists[row["campaign"], row["user_id"]].append(row)
    items = {row["item_id"] for row in _rows(night, SILVER_ITEMS)}
    expected = {("again", f"u{u:03d}") for u in range(0, USERS, 2)} | {("fresh", f"u{u:03d}") for u in range(USERS)}
    assert set(lists) == expected
    for rows in lists.values():
        rows.sort(key=lambda row: row["rank"])
        assert [row["rank"] for row in rows] == [1, 2, 3, 4, 5]
        assert len({row["item_id"] for row in rows}) == 5
        assert {row["item_id"] for row in rows} <= items
        scores = [row["score"] for row in rows]
        assert scores == sorted(scores, reverse=True)
        assert all(score == score and abs(score) != float("inf") for score in scores)
