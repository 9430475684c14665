"""Returns and cancellations on their way into silver."""

from __future__ import annotations

from pyspark.sql import SparkSession

from recsys_spark.data.cleaning.clean import cleaned
from tests.data.cleaning.test_clean import GOOD, RULES, SOURCES
from tests.tables import bronze


def test_returns_are_quarantined_where_nothing_may_be_taken_back(spark: SparkSession) -> None:
    rows = [{**GOOD, "event_id": "return", "quantity": "-1"}, {**GOOD, "event_id": "sale", "quantity": "0"}]
    strict = RULES.model_copy(update={"returns": "quarantine"})
    judged = cleaned(bronze(spark, rows), "interactions", settings=strict, sources=SOURCES)
    reasons = {row["event_id"]: row["reject_reasons"] for row in judged.collect()}
    assert reasons == {"return": ["negative_quantity"], "sale": []}


def test_a_return_or_a_cancellation_without_an_id_is_not_the_purchase_it_takes_back(
    spark: SparkSession,
) -> None:
    changes = [{"quantity": "1"}, {"quantity": "2"}, {"quantity": "-1"}, {"cancels_event_id": "e7"}]
    rows = [{**GOOD, "event_id": None, **change} for change in [*changes, {"cancels_event_id": " "}]]
    judged = cleaned(bronze(spark, rows), "interactions", settings=RULES, sources=SOURCES).collect()
    # A corrected quantity is the same event again, and a blank name cancels nothing.
    assert len({row["event_id"] for row in judged}) == 3
    assert [row["cancels_event_id"] for row in judged if row["cancels_event_id"]] == ["e7"]


def test_one_instant_in_two_spellings_is_one_event_where_it_has_no_id(spark: SparkSession) -> None:
    spellings = ["2024-04-01 10:00:00", "2024-04-01T12:00:00.000+02:00", "2024-04-01 10:00:01"]
    rows = [{**GOOD, "event_id": "\t", "event_at": at} for at in spellings]
    rows.append({**GOOD, "event_id": None, "source": "epoch", "event_at": "1711965600"})
    judged = cleaned(bronze(spark, rows), "interactions", settings=RULES, sources=SOURCES).collect()
    ids = {(str(row["event_at"]), row["event_id"]) for row in judged}
    assert {at for at, _ in ids} == {"2024-04-01 10:00:00", "2024-04-01 10:00:01"}
    assert len({event_id for _, event_id in ids}) == len(ids) == 2
