"""`recsys run`: the stages of one night, in order."""

from __future__ import annotations

import time
from collections.abc import Collection
from datetime import date
from typing import Annotated

import typer

from recsys_spark.commands.output import Env, RunDate, attempt
from recsys_spark.commands.run.progress import watching
from recsys_spark.config.load import load_settings, require_sources
from recsys_spark.config.sections import Settings
from recsys_spark.lake.job import Job
from recsys_spark.names import STAGES
from recsys_spark.night import parse_date, run_night, session, stages_between


def run(
    run_date: RunDate,
    env: Env = "prod",
    first: Annotated[str, typer.Option("--from", help="First stage.")] = STAGES[0],
    last: Annotated[str, typer.Option("--to", help="Last stage.")] = STAGES[-1],
    skip: Annotated[
        list[str] | None, typer.Option(help="A stage to leave out, such as evaluate; may be given again.")
    ] = None,
) -> None:
    """Run the stages of one night, from ingest to deliver."""
    attempt(lambda: the_night(load_settings(env), parse_date(run_date), first, last, skip or ()))


def the_night(
    settings: Settings,
    run_date: date,
    first: str = STAGES[0],
    last: str = STAGES[-1],
    skip: Collection[str] = (),
) -> None:
    """Run the stages, make the report, and say where everything is.

    settings: of the environment.
    run_date: the night.
    first: the stage to begin with, one of STAGES.
    last: the stage to end with, not before the first.
    skip: stages to leave out.

    Raises ConfigError before Spark starts where there is nothing to read, or a stage is unknown; else what
    the stages raise. The report is made all the same once lists were staged.
    """
    from recsys_spark.evaluation.report.gather import make_report, report_path  # noqa: PLC0415

    require_sources(settings)
    stages = stages_between(first, last, skip=skip)
    started = time.monotonic()
    with watching(stages) as watched:
        spark = session("recsys", settings)
        job = Job(spark, settings, run_date)
        try:
            peak_gb = run_night(settings, run_date, stages, spark=spark, watched=watched)
        finally:
            if _was_judged(job):
                make_report(job)
    minutes = (time.monotonic() - started) / 60
    folder = job.output / str(run_date)
    print(f"night   {minutes:.1f} minutes, peak memory {peak_gb:.1f} GB (driver, JVM and Python workers)")
    print(f"lake    {job.lake.root}")
    if report_path(job).exists():
        print(f"report  {report_path(job)}")
    if (folder / "mails").exists():
        print(f"mails   {folder / 'mails'}")
    if (folder / "exports").exists():
        print(f"exports {folder / 'exports'}")


def _was_judged(job: Job) -> bool:
    """Whether the night got far enough for a report: its lists were staged."""
    from recsys_spark.errors import RecsysError  # noqa: PLC0415
    from recsys_spark.lake.tables import GOLD_STAGED  # noqa: PLC0415

    try:
        return bool(job.lake.has_partition(GOLD_STAGED, run_id=job.run.run_id))
    except RecsysError:
        return False
