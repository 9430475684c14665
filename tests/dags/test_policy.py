"""What every DAG of the project promises to those who operate it."""

from __future__ import annotations

import ast
from datetime import timedelta
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from airflow.serialization.encoders import coerce_to_core_timetable
from conftest import DAGS
from pendulum import datetime
from recsys_stages import RECOMMENDATIONS, Stage

if TYPE_CHECKING:
    from airflow.sdk import DAG

STAGES = (
    "ingest",
    "clean",
    "preferences",
    "train_als",
    "train_content",
    "train_blend",
    "recommend",
    "evaluate",
    "publish",
)


@pytest.fixture(params=["nightly", "delivery"])
def dag(request: pytest.FixtureRequest) -> DAG:
    return request.getfixturevalue(request.param)


def test_missed_runs_are_not_caught_up_and_runs_never_overlap(dag: DAG) -> None:
    assert dag.catchup is False
    assert dag.max_active_runs == 1


def test_every_task_and_every_run_has_an_end(dag: DAG) -> None:
    assert dag.dagrun_timeout is not None
    assert dag.dagrun_timeout <= timedelta(hours=24)
    for task in dag.tasks:
        assert task.execution_timeout is not None, task.task_id
        assert task.execution_timeout < dag.dagrun_timeout, task.task_id


def test_faults_are_tried_again_twice_and_ever_later(dag: DAG) -> None:
    for task in dag.tasks:
        assert task.retries == 2, task.task_id
        assert task.retry_exponential_backoff > 1, task.task_id
        assert task.max_retry_delay, task.task_id


def test_every_task_is_a_stage_run_in_client_mode(dag: DAG) -> None:
    for task in dag.tasks:
        assert isinstance(task, Stage)
        assert task._deploy_mode == "client", "elsewhere spark-submit's exit code is not the job's"


def test_the_night_is_a_chain_in_the_documented_order(nightly: DAG) -> None:
    assert tuple(task.task_id for task in nightly.topological_sort()) == STAGES
    for before, after in pairwise(STAGES):
        assert nightly.get_task(before).downstream_task_ids == {after}


def test_publishing_is_what_sets_the_delivery_off(nightly: DAG, delivery: DAG) -> None:
    assert nightly.get_task("publish").outlets == [RECOMMENDATIONS]
    assert all(not nightly.get_task(stage).outlets for stage in STAGES[:-1])
    assert list(delivery.timetable.asset_condition.objects) == [RECOMMENDATIONS]


def test_the_scheduled_night_is_the_day_that_has_ended(nightly: DAG) -> None:
    timetable = coerce_to_core_timetable(nightly.timetable)
    interval = timetable.infer_manual_data_interval(run_after=datetime(2017, 12, 4, 2, 0))
    assert interval.start.date().isoformat() == "2017-12-03"


@pytest.mark.parametrize("path", sorted(DAGS.glob("*.py")), ids=lambda path: path.name)
def test_no_dag_imports_the_project_or_spark(path: Path) -> None:
    imported = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            imported |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            imported.add((node.module or "").split(".")[0])
    assert imported <= {"__future__", "airflow", "datetime", "os", "pathlib", "recsys_stages", "typing"}
