"""One Airflow task per stage of the night: a spark-submit command line and the meaning of its exit code.

Nothing here imports the project or Spark. The contract is `jobs/<stage>.py --env E --run-date D` and
the exit codes 0, 1, 2, 3, 4; what differs between installations comes from the environment in which
Airflow parses and runs the DAGs:

    RECSYS_HOME           checkout or unpacked release with jobs/ and conf/ (default: this file's)
    RECSYS_CONF           folder of the configuration (default: RECSYS_HOME/conf)
    RECSYS_ENV            overlay of the configuration (default: prod)
    RECSYS_SCHEDULE       cron in UTC; empty: only by hand (default: 0 2 * * *)
    RECSYS_SPARK_BINARY   spark-submit (default: the one in RECSYS_HOME/.venv)
    RECSYS_SPARK_CONF     file of Spark settings (default: RECSYS_HOME/conf/spark-cluster.conf)
    RECSYS_DRIVER_PYTHON  interpreter of the driver (default: the one in RECSYS_HOME/.venv)
    RECSYS_PYTHON         interpreter of the workers, as they see it (default: the driver's)
    RECSYS_LOCALE         a locale of UTF-8, for names of files (default: C.UTF-8)
    RECSYS_PY_FILES       the project as .zip for the workers (default: none, they have it installed)

The master comes from the Airflow connection `spark_default`.
"""

from __future__ import annotations

import os
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from airflow.providers.apache.spark.operators.spark_submit import SparkSubmitOperator
from airflow.sdk import Asset, Param
from airflow.sdk.exceptions import AirflowException, AirflowFailException

if TYPE_CHECKING:
    from airflow.sdk import Context

RECOMMENDATIONS = Asset("recsys://gold/recommendations")

VERDICTS = {3: "input rejected by a quality gate", 4: "output rejected by the publish gate"}

# Faults (a lost executor, a full disk, an unreachable store) deserve another try, later each time;
# stages are idempotent, so a try after a half-done one is safe.
RETRIES: dict[str, Any] = {
    "retries": 2,
    "retry_delay": timedelta(minutes=5),
    "retry_exponential_backoff": 2.0,
    "max_retry_delay": timedelta(minutes=30),
    "execution_timeout": timedelta(hours=3),
    "depends_on_past": False,
}

PARAMS = {
    "run_date": Param(
        None,
        type=["null", "string"],
        format="date",
        description="Night to run; empty: the day that the schedule (or the published list) stands for",
    )
}


class Stage(SparkSubmitOperator):
    """A stage of the night: spark-submit in client mode, whose exit code is the job's own."""

    def __init__(self, *, stage: str, run_date: str, **kwargs: Any) -> None:
        home = Path(os.environ.get("RECSYS_HOME") or Path(__file__).resolve().parents[1])
        driver_python = os.environ.get("RECSYS_DRIVER_PYTHON") or f"{home}/.venv/bin/python"
        super().__init__(
            task_id=stage,
            name=f"recsys-{stage}",
            application=f"{home}/jobs/{stage}.py",
            application_args=["--env", os.environ.get("RECSYS_ENV") or "prod", "--run-date", run_date],
            spark_binary=os.environ.get("RECSYS_SPARK_BINARY") or f"{home}/.venv/bin/spark-submit",
            properties_file=os.environ.get("RECSYS_SPARK_CONF") or f"{home}/conf/spark-cluster.conf",
            py_files=os.environ.get("RECSYS_PY_FILES") or None,
            env_vars={
                # Java takes the encoding of file names from the locale that it starts in; a service has none.
                "LC_ALL": os.environ.get("RECSYS_LOCALE") or "C.UTF-8",
                "PYTHONUTF8": "1",
                "RECSYS_HOME": str(home),  # relative paths of the configuration start here
                "RECSYS_CONF": os.environ.get("RECSYS_CONF") or f"{home}/conf",
                "PYSPARK_DRIVER_PYTHON": driver_python,
                "PYSPARK_PYTHON": os.environ.get("RECSYS_PYTHON") or driver_python,
            },
            deploy_mode="client",  # in cluster mode spark-submit's exit code is not the job's
            **kwargs,
        )

    def execute(self, context: Context) -> None:
        """Run the stage; a verdict fails the task at once, a fault leaves it to the retries."""
        try:
            super().execute(context)
        except AirflowException as fault:
            if verdict := VERDICTS.get(self.exit_code()):
                raise AirflowFailException(f"{self.task_id}: {verdict}; not retried") from fault
            raise
        for outlet in self.outlets:
            context["outlet_events"][outlet].extra = {"run_date": self.application_args[-1]}

    def exit_code(self) -> int:
        """Exit code of the spark-submit that ran last; 0 where none ran."""
        # The provider puts it into the text of its exception only; the process has it as a number.
        process = getattr(self._hook, "_submit_sp", None)
        return process.returncode if process else 0
