"""One stage, or the stages of a night in order: timed, recorded, and with every fault in one sentence."""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import replace
from datetime import date
from importlib import import_module
from pathlib import Path
from typing import NoReturn

from py4j.protocol import Py4JJavaError
from pyspark.errors import PySparkException
from pyspark.sql import SparkSession

from recsys_spark.config.load import conf_dir, load_settings, require_sources, resolve_path
from recsys_spark.config.sections import Settings
from recsys_spark.data.gates import judge as quality
from recsys_spark.errors import ConfigError, RecsysError, did_you_mean
from recsys_spark.lake import lock
from recsys_spark.lake.job import Job, Summary
from recsys_spark.lake.store import java_reason, unwritable
from recsys_spark.names import STAGES
from recsys_spark.runtime.memory import MemoryWatch
from recsys_spark.runtime.session import is_submitted, properties, start_session
from recsys_spark.runtime.workers import preload as preload_workers

# Whose tasks run in Python workers, always or mostly.
_IN_PYTHON = {"train_als", "train_content", "recommend", "evaluate", "deliver"}


def main(stage: str) -> NoReturn:
    """The entry point of jobs/<stage>.py: --env and --run-date, nothing else."""
    parser = argparse.ArgumentParser(prog=f"jobs/{stage}.py")
    parser.add_argument("--env", required=True)
    parser.add_argument("--run-date", required=True)
    given = parser.parse_args()
    sys.exit(guarded(lambda: _submitted(stage, given.env, given.run_date)))


def _submitted(stage: str, env: str, run_date: str) -> None:
    settings, day = load_settings(env), parse_date(run_date)
    require_sources(settings)
    with holding(settings, f"{stage} of {day}") as memory:
        spark = session(f"recsys-{stage}", settings)
        job = Job(spark, settings, day)
        job.lake.check_writable()
        run_stage(stage, job, memory)
        spark.stop()


def run_night(
    settings: Settings,
    run_date: date,
    stages: Sequence[str] = STAGES,
    *,
    spark: SparkSession,
    watched: Callable[[str], AbstractContextManager[None]] = lambda _: nullcontext(),
) -> float:
    """Run these stages, in their order; the peak memory of all processes in GB.

    settings: of the environment.
    run_date: the night.
    stages: some of STAGES.
    spark: the session to run in.
    watched: gives, for a stage's name, what is entered while it runs.

    Raises what the stages raise, and BusyError where another writer holds the lake.
    """
    job = Job(spark, settings, run_date)
    if _IN_PYTHON & {*stages}:
        preload_workers(spark)
    with holding(settings, f"the night of {run_date}") as memory:
        job.lake.check_writable()
        if "clean" in stages:
            quality.preload()  # while the first stage waits for Spark, not while the second writes its plans
        for stage in stages:
            # A copy, so that each stage looks its run up anew: ingest may have opened another.
            with watched(stage):
                run_stage(stage, replace(job), memory)
    return memory.peak_gb


@contextmanager
def holding(settings: Settings, doing: str) -> Iterator[MemoryWatch]:
    """The lake held against other writers, and the memory watched, while the block runs.

    Raises ConfigError where lake or output cannot be written, BusyError where another holds the lake.
    """
    _require_output(settings)
    root = resolve_path(settings, settings.lake.path)
    with lock.held(root, wait_seconds=settings.lake.wait_seconds, doing=doing), MemoryWatch() as memory:
        yield memory


def _require_output(settings: Settings) -> None:
    """ConfigError unless files can be made in the output's folder: now, and not after the first gate."""
    folder = Path(resolve_path(settings, settings.output.path))
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=folder, prefix="_write_check"):
            pass
    except OSError as error:
        raise ConfigError(
            f"the output cannot be written: {folder} ({error.strerror}). "
            "Next: set output.path to a folder this user may write."
        ) from None


def stages_between(first: str, last: str, *, skip: Collection[str] = ()) -> Sequence[str]:
    """The stages from first to last, both included; ConfigError for an unknown or a reversed pair."""
    for stage in (first, last, *skip):
        if stage not in STAGES:
            raise ConfigError(f"no stage {stage!r}: have {', '.join(STAGES)}.{did_you_mean(stage, STAGES)}")
    chosen = STAGES[STAGES.index(first) : STAGES.index(last) + 1]
    if not chosen:
        raise ConfigError(f"--from {first} comes after --to {last}.")
    return [stage for stage in chosen if stage not in skip]


def run_stage(
    stage: str, job: Job, memory: MemoryWatch, *, work: Callable[[Job], Summary] | None = None
) -> Summary:
    """Run one stage, or other work under a name, print its line, keep its figures in ops.metrics."""
    started = time.monotonic()
    summary = (work or stage_of(stage))(job)
    seconds = time.monotonic() - started
    print(_line(stage, summary, seconds), flush=True)  # noqa: T201 - progress for people
    _record(job, stage, summary, seconds, memory.peak_gb)
    return summary


def stage_of(name: str) -> Callable[[Job], Summary]:
    """What the stage does; imported when it is asked for, so that no stage pays for another's imports."""
    run: Callable[[Job], Summary] = import_module(f"recsys_spark.stages.{name}").run
    return run


def _line(stage: str, summary: Summary, seconds: float) -> str:
    rows = f"{summary.rows_in:>11,} in {summary.rows_out:>11,} out"
    notes = f"  ({'; '.join(summary.notes)})" if summary.notes else ""
    return f"{stage:<14}{rows}  {seconds:7.1f} s  -> {summary.wrote}{notes}"


def _record(job: Job, stage: str, summary: Summary, seconds: float, peak_gb: float) -> None:
    figures: dict[tuple[str, str], float] = {
        ("seconds", ""): seconds,
        ("rows_in", ""): summary.rows_in,
        ("rows_out", ""): summary.rows_out,
        ("peak_gb", ""): peak_gb,
        ("wrote", summary.wrote): 1.0,
        **({} if summary.is_recorded else summary.figures),
    }
    job.record(stage, figures)


def session(app_name: str, settings: Settings) -> SparkSession:
    """The session of a submitted job as submitted, else a local one of conf/spark-local.conf."""
    if shutil.which("java") is None:
        raise ConfigError(
            "Java is not found. Expected Java 17 or 21. Next: apt-get install openjdk-17-jre-headless"
        )
    if is_submitted():
        spark = start_session(app_name, {})
    else:
        sizes = properties(conf_dir() / "spark-local.conf")
        spark = start_session(app_name, sizes, log=_java_log(settings))
    if spark.sparkContext.getCheckpointDir() is None:
        # Executors write there too, so it lies with the lake, which all of them see.
        root = resolve_path(settings, settings.lake.path).rstrip("/")
        named = spark.conf.get("spark.checkpoint.dir", None)
        try:
            spark.sparkContext.setCheckpointDir(named or f"{root}/_checkpoints")
        except (PySparkException, Py4JJavaError) as error:
            raise unwritable(named or root, java_reason(error)) from None
    return spark


def _java_log(settings: Settings) -> Path:
    """Where Java and Spark say what is not about the night: beside the output, else among temporary files."""
    folder = Path(resolve_path(settings, settings.output.path)) / "logs"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        is_writable = os.access(folder, os.W_OK)
    except OSError:
        is_writable = False
    return (folder if is_writable else Path(tempfile.gettempdir())) / "spark.log"


def job_of(env: str, run_date: str) -> Job:
    """A command's job on a night; ConfigError for an unknown environment or what is no date."""
    settings, day = load_settings(env), parse_date(run_date)
    return Job(session("recsys", settings), settings, day)


def parse_date(text: str) -> date:
    """YYYY-MM-DD, or ConfigError."""
    try:
        return date.fromisoformat(text)
    except ValueError:
        raise ConfigError(f"--run-date {text!r} is not a date. Expected YYYY-MM-DD.") from None


def guarded(action: Callable[[], None]) -> int:
    """Run the action; 0, or the documented exit code after one sentence on standard error."""
    try:
        action()
    except RecsysError as error:
        print(f"recsys: {error}", file=sys.stderr)  # noqa: T201
        return error.exit_code
    except (PySparkException, Py4JJavaError) as error:
        log = _keep_trace(traceback.format_exc())
        print(f"recsys: Spark failed: {java_reason(error)} The whole trace is in {log}", file=sys.stderr)  # noqa: T201
        return 1
    except KeyboardInterrupt:
        print("recsys: interrupted; a rerun picks up where this stopped", file=sys.stderr)  # noqa: T201
        return 1
    return 0


def _keep_trace(text: str) -> Path:
    with tempfile.NamedTemporaryFile("w", prefix="recsys-trace-", suffix=".log", delete=False) as log:
        log.write(text)
    return Path(log.name)
