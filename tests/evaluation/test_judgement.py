"""What is measured of lists: every task that events judge, and why another is not."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date
from types import SimpleNamespace
from typing import Any

import pytest
from pyspark.sql import DataFrame, SparkSession

from recsys_spark.errors import NothingToJudgeError
from recsys_spark.evaluation.judgement import Backtest, Judgement, measured
from recsys_spark.evaluation.stored import stored
from recsys_spark.lake.job import Job
from recsys_spark.lake.tables import SILVER_ITEMS, Table
from recsys_spark.names import COMPONENTS, HYBRID, TASKS
from recsys_spark.runtime.rows import frame_of
from recsys_spark.stages import evaluate
from tests.settings import base

DAY = date(2024, 6, 2)
PAIR = "user_id string, item_id string"
WHEN = "in the 28 days after 2024-05-05"


@dataclass(frozen=True)
class FewItems:
    """As much of a job as measuring asks for: items a, b and c on sale, and no other table."""

    spark: SparkSession
    settings: Any

    @property
    def lake(self) -> FewItems:
        return self

    def read(self, table: Table) -> DataFrame:
        known = {"is_available": True, "valid_from": date(2000, 1, 1), "valid_to": date(9999, 12, 31)}
        items = [
            tuple({**known, "item_id": item}.get(name) for name in table.columns)
            for item in "abc"
            if table == SILVER_ITEMS
        ]
        return frame_of(self.spark, items, table.schema)


def judged(spark: SparkSession, relevant: list[tuple[str, str, str]]) -> Judgement:
    """Everyone's list is a and b in both tasks, whatever the model; u and v had a before."""
    evaluation = SimpleNamespace(**{**base()["evaluation"], "bootstrap_samples": 20, "k": [10]})
    job: Any = FewItems(spark, SimpleNamespace(evaluation=evaluation, sources={}))
    ranked = [
        (task, model, user, item, rank)
        for task in TASKS
        for model in (HYBRID, *COMPONENTS)
        for user in "uv"
        for rank, item in enumerate("ab", start=1)
    ]
    had = frame_of(spark, [("u", "a", 1.0), ("v", "a", 1.0)], f"{PAIR}, strength double")
    none = frame_of(spark, [], PAIR)
    backtest = Backtest("v1", DAY, had, none, none, DAY, DAY, WHEN)
    lists = frame_of(spark, ranked, f"task string, model string, {PAIR}, rank int")
    return measured(job, backtest, lists, frame_of(spark, relevant, f"task string, {PAIR}"))


def test_a_task_that_nobodys_events_judge_is_left_out_and_told(spark: SparkSession) -> None:
    found = judged(spark, [("repeats_allowed", "u", "a")])
    assert {task: values[HYBRID]["ndcg@10"] for task, values in found.values.items()} == {
        "repeats_allowed": 1.0
    }
    assert found.users == {"repeats_allowed": 1}
    assert [*found.differences] == [*found.figures()] == [*found.leads] == ["repeats_allowed"]
    assert found.notes == (
        f"new_items_only is not judged: nobody who could have a list had anything for the first time {WHEN}",
    )
    other = judged(spark, [("new_items_only", "v", "b")])
    assert [*other.values] == ["new_items_only"]
    assert other.notes == (
        f"repeats_allowed is not judged: nobody who could have a list had anything {WHEN}",
    )


def test_the_night_goes_on_with_the_tasks_that_are_judged_or_with_none(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    job: Any = SimpleNamespace()
    one = Judgement(
        DAY, DAY, {"repeats_allowed": {HYBRID: {"ndcg@10": 0.25}}}, {"repeats_allowed": 3}, {}, notes=("so",)
    )
    monkeypatch.setattr(evaluate, "judge_by_window", lambda _: one)
    summary = evaluate.run(job)
    assert summary.figures == {("ndcg@10", "repeats_allowed:hybrid"): 0.25}
    assert summary.notes == ("repeats_allowed: NDCG@10 0.250", "so")
    assert (summary.rows_in, summary.rows_out) == (3, 1)

    def nothing(_: Job) -> Judgement:
        raise NothingToJudgeError("no events at all")

    monkeypatch.setattr(evaluate, "judge_by_window", nothing)
    assert evaluate.run(job).notes == ("the night is not judged: no events at all",)


def test_stored_figures_of_a_task_without_a_headline_are_read_back() -> None:
    """Lakes hold such rows of nights that ended there."""
    row = {"model": HYBRID, "metric": "coverage@10", "value": 0.5, "low": None, "high": None, "users": 0}
    assert stored([{"task": "new_items_only", **row}]).verdicts == {}
