"""`recsys report`: the night's page, made again."""

from __future__ import annotations

from recsys_spark.commands.output import Env, RunDate, attempt
from recsys_spark.night import job_of


def report(run_date: RunDate, env: Env = "prod") -> None:
    """Write the night's HTML report again from what the lake holds, and print where it is."""

    def action() -> None:
        from recsys_spark.evaluation.report.gather import make_report  # noqa: PLC0415

        print(make_report(job_of(env, run_date)))

    attempt(action)
