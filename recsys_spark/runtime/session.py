"""The Spark session: sizes from a file, meaning from here, Delta in both."""

from __future__ import annotations

import locale
import logging
import os
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import Any

from pyspark import SparkConf, SparkContext
from pyspark.errors import PySparkRuntimeError
from pyspark.sql import SparkSession

from recsys_spark.errors import ConfigError
from recsys_spark.runtime.session_settings import SELDOM_REPEATED, without_dictionary

# A locale of UTF-8 that says nothing of language or order, and that glibc and most containers have.
UTF8_LOCALE = "C.UTF-8"

# What must hold wherever the jobs run: meaning, not size. Everything about size is in
# conf/spark-local.conf and conf/spark-cluster.conf.
ALWAYS = {
    "spark.sql.extensions": "io.delta.sql.DeltaSparkSessionExtension",
    "spark.sql.catalog.spark_catalog": "org.apache.spark.sql.delta.catalog.DeltaCatalog",
    "spark.sql.session.timeZone": "UTC",
    "spark.executorEnv.TZ": "UTC",
    # Spark's default is INT96, which Parquet has given up: twelve bytes through an object for each.
    "spark.sql.parquet.outputTimestampType": "TIMESTAMP_MICROS",
    "spark.sql.parquet.int96RebaseModeInRead": "CORRECTED",
    "spark.sql.parquet.datetimeRebaseModeInRead": "CORRECTED",
    "spark.sql.execution.arrow.pyspark.enabled": "true",
    # A user's row carries their whole history; batches of thousands of users would be large.
    "spark.sql.execution.arrow.maxRecordsPerBatch": "1024",
    # Of long histories a batch holds fewer; Spark's default is 64 MB.
    "spark.sql.execution.arrow.maxBytesPerBatch": "16m",
    # Checkpoints cut ALS's lineage and are of no use after it.
    "spark.cleaner.referenceTracking.cleanCheckpoints": "true",
    # What holds of every column is derived again for each filter of a plan, whatever it costs: for a batch's
    # rules 5 to 13 s, each time, where planning takes 0.1 s without. What is given up are filters that Spark
    # would derive from others; ours stand where they are needed.
    "spark.sql.constraintPropagation.enabled": "false",
    # Rows that are together by user are together by user and item: no shuffle between the two.
    "spark.sql.requireAllClusterKeysForCoPartition": "false",
    # Executors and their workers take names of files for UTF-8, as the driver does (see `speak_utf8`).
    "spark.executorEnv.LC_ALL": UTF8_LOCALE,
    "spark.executorEnv.PYTHONUTF8": "1",
    "spark.serializer": "org.apache.spark.serializer.KryoSerializer",
    **{f"spark.hadoop.{name}": value for name, value in without_dictionary(*SELDOM_REPEATED).items()},
}
_LOG_BYTES = 10_000_000  # a longer log is set aside when the next session starts
_READ_PARTS = "spark.sql.files.minPartitionNum"


def is_submitted() -> bool:
    """Whether spark-submit started this process and so has set master and sizes already."""
    return "PYSPARK_GATEWAY_PORT" in os.environ


def properties(path: Path) -> dict[str, str]:
    """Settings of a spark-defaults file: `key value` lines, # comments."""
    lines = (
        line.split("#", maxsplit=1)[0].split(maxsplit=1) for line in path.read_text("utf-8").splitlines()
    )
    return {parts[0]: parts[1].strip() for parts in lines if len(parts) == 2}


def _own_daemon(conf: Mapping[str, str]) -> dict[str, str]:
    """The daemon that has our tasks' imports already, where it can be found: on this machine, by the
    interpreter that this package is installed for. Executors elsewhere may have no more than a zip of it."""
    master = conf.get("spark.master") or (SparkConf().get("spark.master") if is_submitted() else None) or ""
    is_own = Path(os.environ["PYSPARK_PYTHON"]).parent == Path(sys.executable).parent
    if not (master.startswith("local") and is_own and _is_installed()):
        return {}
    return {"spark.python.daemon.module": "recsys_spark.runtime.daemon"}


def _is_installed() -> bool:
    try:
        distribution("recsys-spark")
    except PackageNotFoundError:
        return False
    return True


def speak_utf8() -> None:
    """Let what is started from here take names of files for UTF-8, whatever the locale.

    Java takes it from the locale that it is started in, and from nothing else: 17 does not look at
    -Dsun.jnu.encoding. Under LC_ALL=C, as cron and many containers have it, it passes over a file whose name
    is not ASCII and makes `L?den` of a folder. Python itself takes UTF-8 there since 3.7.
    """
    if locale.getencoding().lower().replace("-", "") != "utf8":
        os.environ["LC_ALL"] = UTF8_LOCALE


def _require_utf8(spark: SparkSession) -> None:
    """Raise ConfigError unless Java finds a file by a name that is not ASCII, as Python wrote it."""
    own, java = sys.getfilesystemencoding(), "UTF-8"
    if own == "utf-8":
        jvm = spark._jvm  # noqa: SLF001 - there is no other door to it
        with tempfile.NamedTemporaryFile(prefix="recsys-größe-😀-") as probe:
            if jvm is None or jvm.java.io.File(probe.name).exists():
                return
        java = jvm.java.lang.System.getProperty("sun.jnu.encoding")
    raise ConfigError(
        f"names of files are {java} to Java and {own} to Python, so a file or folder whose name is not ASCII "
        "would be passed over. Expected UTF-8 for both, from before Java starts. "
        f"Next: export LC_ALL={UTF8_LOCALE} PYTHONUTF8=1 (or another of UTF-8 that `locale -a` lists), then "
        "type the command again"
    )


@contextmanager
def _java_speaks_to(log: Path | None) -> Iterator[None]:
    """While Java is started its standard error is the log; Python's own is as before afterwards.

    Java says there which modules it uses, and Spark which log it will write: nothing that a night is about.
    """
    if log is None or is_submitted() or SparkContext._gateway is not None:  # noqa: SLF001 - no other door
        yield
        return
    log.parent.mkdir(parents=True, exist_ok=True)
    if log.exists() and log.stat().st_size > _LOG_BYTES:
        log.replace(log.with_suffix(".1.log"))
    sys.stderr.flush()
    own = os.dup(2)
    try:
        with log.open("ab") as file:
            begun = file.tell()
            os.dup2(file.fileno(), 2)
        yield
    except PySparkRuntimeError as error:
        words = log.read_bytes()[begun:].decode(errors="replace").strip().splitlines()
        last = words[-1].strip() if words else str(error)
        raise ConfigError(
            f"Java did not start: {last.rstrip('.')}. All that it said is in {log}. Next: recsys doctor"
        ) from error
    finally:
        os.dup2(own, 2)
        os.close(own)


def take_utc() -> None:
    """Let this process, and all that it starts, count time in UTC, whatever zone the machine is in.

    Spark gives an instant to Python as the clock of the process's own zone shows it, and Java reads those of
    a database by its zone. What we print and write says UTC.
    """
    os.environ["TZ"] = "UTC"
    time.tzset()


def _speak_for_nobody(spark: SparkSession) -> None:
    """Have Java, also one that spark-submit started, take no zone and no language of the machine.

    Its lower case of I is a dotless one in Turkish.
    """
    util: Any = spark.sparkContext._jvm.java.util  # type: ignore[union-attr]  # noqa: SLF001 - no other door
    util.Locale.setDefault(util.Locale.ROOT)
    util.TimeZone.setDefault(util.TimeZone.getTimeZone("UTC"))


def start_session(app_name: str, conf: Mapping[str, str], *, log: Path | None = None) -> SparkSession:
    """Start (or get) the session; `conf` holds what spark-submit has not already set.

    log: where Java's standard error goes, for as long as Java runs; None: to this process's own.
    ConfigError: Java did not start, or was started in a locale that is not of UTF-8.
    """
    take_utc()
    os.environ.setdefault("PYSPARK_PYTHON", sys.executable)
    os.environ.setdefault("PYSPARK_DRIVER_PYTHON", sys.executable)
    os.environ.setdefault("SPARK_LOCAL_IP", "127.0.0.1")
    speak_utf8()
    builder = SparkSession.builder.appName(app_name)
    for key, value in {**_own_daemon(conf), **conf, **ALWAYS}.items():
        builder = builder.config(key, value)
    with _java_speaks_to(log):
        spark = builder.getOrCreate()
    _speak_for_nobody(spark)
    _require_utf8(spark)
    if spark.conf.get(_READ_PARTS, None) is None:
        # Spark reads a table in one part a core, or in parts of 128 MB: of three of them one of two cores
        # reads two while the other waits.
        spark.conf.set(_READ_PARTS, str(4 * spark.sparkContext.defaultParallelism))
    # What goes wrong is told in one sentence, and its whole trace kept in a file (see recsys_spark.night);
    # below FATAL Spark would print the same trace two or three times over it.
    logging.getLogger("DataFrameQueryContextLogger").setLevel(logging.CRITICAL)
    spark.sparkContext.setLogLevel(os.environ.get("RECSYS_LOG_LEVEL", "FATAL"))
    return spark
