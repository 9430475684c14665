"""The schedule is text: each task's rendered spark-submit command against a golden file."""

from __future__ import annotations

import os
import shlex
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from conftest import GOLDEN
from recsys_stages import RECOMMENDATIONS, Stage

if TYPE_CHECKING:
    from airflow.sdk import DAG

NIGHT = {"ds": "2017-12-03", "params": {"run_date": None}}


def rendered_command(task: Stage, context: dict[str, Any]) -> list[str]:
    """The words of the command that this task starts, its variables first."""
    task.render_template_fields(context)
    words = task._get_hook()._build_spark_submit_command(task.application)
    return [*(f"{name}={value}" for name, value in sorted(task.env_vars.items())), *words]


def as_text(words: list[str]) -> str:
    """One option with its value on a line, so that a difference shows what changed."""
    text = shlex.join(words)
    for option in {word for word in words if word.startswith("--")}:
        text = text.replace(f" {option} ", f" \\\n  {option} ")
    for start in (
        "PYTHONUTF8=",
        "PYSPARK_DRIVER_PYTHON=",
        "/opt/recsys/.venv/bin/spark-submit",
        "/opt/recsys/jobs/",
        "PYSPARK_PYTHON=",
        "RECSYS_",
    ):
        text = text.replace(f" {start}", f" \\\n  {start}")
    return text + "\n"


def copy_of(dag: DAG, stage: str) -> Stage:
    task = dag.get_task(stage).prepare_for_execution()
    assert isinstance(task, Stage)
    return task


def assert_golden(name: str, text: str) -> None:
    path = GOLDEN / name
    if os.environ.get("GOLDEN") == "accept":
        path.write_text(text)
    assert path.exists(), f"{path.name} is missing: `make golden` writes it"
    assert text == path.read_text(), f"{path.name} differs: look at it, then `make golden` accepts it"


@pytest.mark.parametrize(
    "stage",
    [
        "ingest",
        "clean",
        "preferences",
        "train_als",
        "train_content",
        "train_blend",
        "recommend",
        "evaluate",
        "publish",
    ],
)
def test_golden_command_of_each_nightly_stage(nightly: DAG, stage: str) -> None:
    assert_golden(f"{stage}.txt", as_text(rendered_command(copy_of(nightly, stage), NIGHT)))


def test_golden_command_of_the_delivery_is_for_the_newest_published_night(delivery: DAG) -> None:
    events = [SimpleNamespace(extra={"run_date": day}) for day in ("2017-12-02", "2017-12-03", "2017-12-01")]
    context = {"params": {"run_date": None}, "triggering_asset_events": {RECOMMENDATIONS: events}}
    assert_golden("deliver.txt", as_text(rendered_command(copy_of(delivery, "deliver"), context)))


def test_there_is_one_golden_file_for_each_task_and_no_other(nightly: DAG, delivery: DAG) -> None:
    tasks = {f"{task_id}.txt" for task_id in (*nightly.task_ids, *delivery.task_ids)}
    assert {path.name for path in GOLDEN.iterdir()} == tasks


def test_a_date_given_by_hand_goes_before_the_schedules(nightly: DAG, delivery: DAG) -> None:
    by_hand = {"ds": "2017-12-03", "params": {"run_date": "2017-11-26"}}
    for dag, stage in ((nightly, "ingest"), (nightly, "publish"), (delivery, "deliver")):
        assert rendered_command(copy_of(dag, stage), by_hand)[-2:] == ["--run-date", "2017-11-26"]


def test_files_for_the_workers_and_their_python_come_from_the_environment(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("RECSYS_PY_FILES", "/opt/recsys/dist/recsys.zip")
    monkeypatch.setenv("RECSYS_PYTHON", "/srv/env/bin/python")
    monkeypatch.setenv("RECSYS_SPARK_CONF", "/etc/recsys/spark.conf")
    words = rendered_command(Stage(stage="clean", run_date="2017-12-03"), {})
    assert words[words.index("--py-files") + 1] == "/opt/recsys/dist/recsys.zip"
    assert words[words.index("--properties-file") + 1] == "/etc/recsys/spark.conf"
    assert [word for word in words if word.startswith("PYSPARK_")] == [
        "PYSPARK_DRIVER_PYTHON=/opt/recsys/.venv/bin/python",
        "PYSPARK_PYTHON=/srv/env/bin/python",
    ]
