"""Is this machine ready for a night? Each check says what is wrong and what to type."""

from __future__ import annotations

import ctypes
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import psutil

from recsys_spark.config.load import conf_dir, resolve_path
from recsys_spark.config.sections import Settings

DELTA_JARS = ("delta-spark_4.1_2.13-4.4.0.jar", "delta-storage-4.4.0.jar")
MEMORY_GB, DISK_GB = 4.0, 5.0
# S3 cannot refuse a second commit of the same version by itself, so Delta needs a log store that can.
_S3_SCHEMES = ("s3a", "s3", "s3n")
_S3_SAFE = "io.delta.storage.S3DynamoDBLogStore"


@dataclass(frozen=True)
class Finding:
    """One check: what was found, and what to type where it is not as it should be."""

    name: str
    observed: str
    is_ok: bool
    advice: str = ""
    is_optional: bool = False


def examine(settings: Settings) -> list[Finding]:
    """All checks, cheap ones first; the Delta round trip only where its needs are met."""
    findings = cheap_checks(settings)
    if all(finding.is_ok or finding.is_optional for finding in findings):
        findings.append(_round_trip(settings))
    return findings


def cheap_checks(settings: Settings) -> list[Finding]:
    """The checks that need no Spark."""
    return [check(settings) for check in _CHECKS]


def _python(_settings: Settings) -> Finding:
    version = ".".join(map(str, sys.version_info[:3]))
    return Finding(
        "Python", version, (3, 11) <= sys.version_info[:2] <= (3, 13), "install Python 3.11 to 3.13"
    )


def _java(_settings: Settings) -> Finding:
    home = os.environ.get("JAVA_HOME")
    java = f"{home}/bin/java" if home else shutil.which("java")
    advice = "apt-get install openjdk-17-jre-headless"
    if not java or not Path(java).exists():
        return Finding("Java", "not found", is_ok=False, advice=advice)
    output = subprocess.run([java, "-version"], capture_output=True, text=True, check=False).stderr  # noqa: S603
    match = re.search(r'version "(\d+)', output)
    version = int(match[1]) if match else 0
    return Finding("Java", f"{version} at {java}", version in {17, 21}, advice)


def _jars(_settings: Settings) -> Finding:
    import pyspark  # noqa: PLC0415 - the check must be able to say that it is missing

    folder = Path(pyspark.__file__).parent / "jars"
    missing = [jar for jar in DELTA_JARS if not (folder / jar).exists()]
    observed = f"{len(DELTA_JARS)} in {folder}" if not missing else f"missing {', '.join(missing)}"
    return Finding("Delta JARs", observed, not missing, "make setup")


def _worker_python(_settings: Settings) -> Finding:
    chosen = os.environ.get("PYSPARK_PYTHON", sys.executable)
    is_there = shutil.which(chosen) is not None
    return Finding("PYSPARK_PYTHON", chosen, is_there, f"export PYSPARK_PYTHON={sys.executable}")


def _blas(_settings: Settings) -> Finding:
    advice = "apt-get install libopenblas0 (ALS is about 1.6 times as fast with it)"
    for name in ("libopenblas.so.0", "libblas.so.3"):
        try:
            ctypes.CDLL(name)
        except OSError:
            continue
        return Finding("native BLAS", name, is_ok=True, is_optional=True)
    return Finding(
        "native BLAS", "not found: MLlib runs on Java", is_ok=False, advice=advice, is_optional=True
    )


def _memory(_settings: Settings) -> Finding:
    free = psutil.virtual_memory().available / 1e9
    return Finding(
        "memory",
        f"{free:.1f} GB free",
        free >= MEMORY_GB,
        f"free {MEMORY_GB:g} GB, or lower spark.driver.memory in conf/spark-local.conf",
    )


def _driver(settings: Settings) -> Finding:
    """The JDBC driver, where a source needs one."""
    import pyspark  # noqa: PLC0415 - the check must be able to say that it is missing

    databases = [source.url for source in settings.sources.values() if source.format == "jdbc"]
    if not any(url.startswith("jdbc:postgresql:") for url in databases):
        return Finding("JDBC driver", "no source needs PostgreSQL's", is_ok=True, is_optional=True)
    jars = sorted((Path(pyspark.__file__).parent / "jars").glob("postgresql-*.jar"))
    return Finding(
        "JDBC driver", jars[0].name if jars else "PostgreSQL's is missing", bool(jars), "make setup"
    )


def _log_store(settings: Settings) -> Finding:
    """Whether several writers may commit to the lake at once; on S3 that takes a setting."""
    scheme = settings.lake.path.partition("://")[0] if "://" in settings.lake.path else "file"
    if scheme not in _S3_SCHEMES:
        return Finding("log store", f"safe for several writers on {scheme}", is_ok=True, is_optional=True)
    key = f"spark.delta.logStore.{scheme}.impl"
    chosen = _spark_setting(key)
    is_safe = bool(chosen) and not chosen.endswith("S3SingleDriverLogStore")
    effect = "several writers" if is_safe else "two runs at once can lose commits"
    advice = f"set {key} {_S3_SAFE} in conf/spark-*.conf and add io.delta:delta-storage-s3-dynamodb"
    observed = f"{chosen or 'the default for S3'}: {effect}"
    return Finding("log store", observed, is_safe, advice, is_optional=True)


def _spark_setting(key: str) -> str:
    """The value that the properties files of the conf folder give the key, or an empty text."""
    from recsys_spark.runtime.session import properties  # noqa: PLC0415 - imports pyspark

    given = [properties(path) for path in sorted(conf_dir().glob("spark-*.conf"))]
    values = [values[key] for values in given if key in values]
    return values[0] if values else ""


def _disk(settings: Settings) -> Finding:
    root = Path(resolve_path(settings, settings.lake.path))
    if "://" in str(settings.lake.path):
        return Finding("disk", f"remote: {settings.lake.path}", is_ok=True, is_optional=True)
    existing = next(folder for folder in (root, *root.parents) if folder.exists())
    free = shutil.disk_usage(existing).free / 1e9
    return Finding("disk", f"{free:.1f} GB free at {existing}", free >= DISK_GB, f"free {DISK_GB:g} GB there")


_CHECKS: tuple[Callable[[Settings], Finding], ...] = (
    _python,
    _java,
    _jars,
    _worker_python,
    _blas,
    _memory,
    _disk,
    _log_store,
    _driver,
)


def _round_trip(settings: Settings) -> Finding:
    """Write and read one small Delta table under the lake's root."""
    from recsys_spark.errors import RecsysError  # noqa: PLC0415 - Spark starts only when it can
    from recsys_spark.lake.store import Lake  # noqa: PLC0415
    from recsys_spark.night import session  # noqa: PLC0415

    root = resolve_path(settings, settings.lake.path)
    try:
        spark = session("recsys-doctor", settings)
        lake = Lake(spark, root)
        lake.check_writable()
        rows = lake.round_trip()
    except RecsysError as error:
        return Finding("lake", str(error), is_ok=False)
    except Exception as error:  # noqa: BLE001 - whatever it is, it is the finding
        reason = str(error).splitlines()[0][:200]
        return Finding("lake", reason, is_ok=False, advice="make setup, then recsys doctor again")
    return Finding("lake", f"Delta round trip of {rows} rows at {root}", rows == 3)
