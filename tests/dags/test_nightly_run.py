"""The nightly DAG really run by Airflow: spark-submit for every task, verdicts and faults told apart.

The jobs here are ten lines of Python in a folder of the test's own, run by the project's spark-submit. Real
jobs go through the same `run_night(home=ROOT, …)`, to the end of a good night: test_real_night.py.
"""

from __future__ import annotations

import json
import sqlite3
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
from airflow.sdk.exceptions import AirflowException, AirflowFailException
from conftest import ROOT, airflow_environment
from recsys_stages import Stage
from test_policy import STAGES

RUN_DATE = "2017-12-03"

# Leaves its arguments and its interpreters behind, and exits as the file `exits` beside it says.
JOB = """
import json, os, sys
from pathlib import Path
here, stage = Path(__file__).parent, Path(__file__).stem
said = {"stage": stage, "args": sys.argv[1:], "python": sys.executable, "workers": os.environ["PYSPARK_PYTHON"]}
with (here / "calls.jsonl").open("a") as calls:
    calls.write(json.dumps(said) + "\\n")
sys.exit(json.loads((here / "exits").read_text()).get(stage, 0))
"""


@dataclass(frozen=True)
class Night:
    """What one run of the DAG left in Airflow's database: state of each task, and assets it produced."""

    output: str
    states: dict[str, str]
    published: list[dict[str, str]]


def run_night(airflow_home: Path, *, home: Path, env: str, run_date: str, **settings: str) -> Night:
    """Run the nightly DAG once by `airflow dags test`, with the jobs of `home` and the project's own Spark.

    `settings` are further environment variables: where the lake is, say. A home serves many nights.
    """
    defaults = {
        "RECSYS_HOME": str(home),
        "RECSYS_ENV": env,
        "RECSYS_SPARK_BINARY": f"{ROOT}/.venv/bin/spark-submit",
        "RECSYS_DRIVER_PYTHON": f"{ROOT}/.venv/bin/python",
        "RECSYS_SPARK_CONF": f"{ROOT}/conf/spark-local.conf",
        "AIRFLOW_CONN_SPARK_DEFAULT": json.dumps({"conn_type": "spark", "host": "local[2]"}),
        "AIRFLOW__LOGGING__LOGGING_LEVEL": "INFO",
    }
    variables = airflow_environment(airflow_home, **(defaults | settings))
    if not (airflow_home / "airflow.db").exists():
        airflow(variables, "db", "migrate")
    output = airflow(variables, "dags", "test", "recsys_nightly", run_date)
    return Night(output, *what_happened(airflow_home / "airflow.db"))


def what_happened(database: Path) -> tuple[dict[str, str], list[dict[str, str]]]:
    """Task states, in the order in which tasks began, and asset events of the newest nightly run."""
    newest = "SELECT run_id FROM dag_run WHERE dag_id = 'recsys_nightly' ORDER BY id DESC LIMIT 1"
    with sqlite3.connect(database) as connection:
        states = connection.execute(
            f"SELECT task_id, state FROM task_instance WHERE run_id = ({newest}) ORDER BY start_date"
        )
        events = connection.execute(
            f"SELECT extra FROM asset_event WHERE source_run_id = ({newest}) ORDER BY id"
        )
        return dict(states.fetchall()), [json.loads(extra) for (extra,) in events]


def airflow(variables: dict[str, str], *words: str) -> str:
    command = [str(Path(sys.executable).parent / "airflow"), *words]
    done = subprocess.run(command, env=variables, capture_output=True, text=True, check=False, timeout=1800)
    return done.stdout + done.stderr


def jobs_that_exit(folder: Path, exits: dict[str, int]) -> Path:
    """A release whose jobs do nothing but note their call and exit as told."""
    jobs = folder / "jobs"
    jobs.mkdir(parents=True)
    (jobs / "exits").write_text(json.dumps(exits))
    for stage in STAGES:
        (jobs / f"{stage}.py").write_text(JOB)
    return folder


def calls_of(home: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in (home / "jobs" / "calls.jsonl").read_text().splitlines()]


def test_a_rejected_input_ends_the_night_without_another_try(tmp_path: Path, airflow_home: Path) -> None:
    home = jobs_that_exit(tmp_path, {"clean": 3})
    night = run_night(airflow_home, home=home, env="demo", run_date=RUN_DATE)
    not_run = dict.fromkeys(STAGES[2:], "upstream_failed")
    assert night.states == {"ingest": "success", "clean": "failed", **not_run}, night.output[-3000:]
    calls = calls_of(home)
    assert [call["stage"] for call in calls] == ["ingest", "clean"]
    assert {tuple(call["args"]) for call in calls} == {("--env", "demo", "--run-date", RUN_DATE)}
    interpreters = {call[whose] for call in calls for whose in ("python", "workers")}
    assert interpreters == {f"{ROOT}/.venv/bin/python"}
    assert night.published == []


def test_a_good_night_runs_every_stage_in_order_and_announces_its_lists(
    tmp_path: Path, airflow_home: Path
) -> None:
    home = jobs_that_exit(tmp_path, {})
    night = run_night(airflow_home, home=home, env="demo", run_date=RUN_DATE)
    assert night.states == dict.fromkeys(STAGES, "success"), night.output[-3000:]
    assert list(night.states) == list(STAGES), "each began after the one before it"
    assert [call["stage"] for call in calls_of(home)] == list(STAGES)
    assert night.published == [{"run_date": RUN_DATE}]


@pytest.mark.parametrize(
    ("exit_code", "exception", "words"),
    [
        (1, AirflowException, "Error code is: 1"),
        (2, AirflowException, "Error code is: 2"),
        (3, AirflowFailException, "publish: input rejected by a quality gate; not retried"),
        (4, AirflowFailException, "publish: output rejected by the publish gate; not retried"),
    ],
)
def test_only_verdicts_forbid_another_try(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    exit_code: int,
    exception: type[AirflowException],
    words: str,
) -> None:
    monkeypatch.setenv("RECSYS_HOME", str(jobs_that_exit(tmp_path, {"publish": exit_code})))
    monkeypatch.setenv("RECSYS_SPARK_BINARY", f"{ROOT}/.venv/bin/spark-submit")
    monkeypatch.setenv("RECSYS_DRIVER_PYTHON", f"{ROOT}/.venv/bin/python")
    monkeypatch.setenv("RECSYS_SPARK_CONF", f"{ROOT}/conf/spark-local.conf")
    monkeypatch.setenv("AIRFLOW_CONN_SPARK_DEFAULT", '{"conn_type": "spark", "host": "local[1]"}')
    with pytest.raises(exception, match=words) as raised:
        Stage(stage="publish", run_date=RUN_DATE).execute({})
    # AirflowFailException is an AirflowException; a fault must not be one that forbids the retry.
    assert type(raised.value) is exception
