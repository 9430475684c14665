"""What doctor finds: on this machine, with a lake that cannot be written, and with a lake on S3."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from pyspark.sql import SparkSession
from typer.testing import CliRunner

from recsys_spark.cli import app
from recsys_spark.commands.repair import machine as doctor
from recsys_spark.config.load import load_settings
from recsys_spark.config.sections import Place, Settings
from tests.conftest import ROOT
from tests.shop import write_conf

STORE = "\nspark.delta.logStore.s3a.impl io.delta.storage.S3DynamoDBLogStore\n"


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    conf = write_conf(tmp_path / "conf", base=ROOT / "conf", shop=tmp_path, root=tmp_path)
    monkeypatch.setenv("RECSYS_CONF", str(conf))
    return load_settings("slice")


def by_name(findings: list[doctor.Finding]) -> dict[str, doctor.Finding]:
    return {finding.name: finding for finding in findings}


def cheap(settings: Settings) -> dict[str, doctor.Finding]:
    return by_name(doctor.cheap_checks(settings))


def test_a_machine_that_runs_these_tests_is_ready(
    spark: SparkSession, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doctor, "MEMORY_GB", 0.1)
    findings = by_name(doctor.examine(settings))
    assert [finding for finding in findings.values() if not (finding.is_ok or finding.is_optional)] == []
    assert findings["lake"].observed == f"Delta round trip of 3 rows at {settings.lake.path}"
    assert findings["log store"].is_ok


def test_a_lake_that_cannot_be_written_is_found(
    spark: SparkSession, settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doctor, "MEMORY_GB", 0.1)
    (tmp_path / "lake").write_text("a file where the lake should be")
    lake = by_name(doctor.examine(settings))["lake"]
    assert not lake.is_ok
    assert "the lake cannot be written" in lake.observed


def test_a_lake_on_s3_needs_a_log_store_for_several_writers(settings: Settings, tmp_path: Path) -> None:
    on_s3 = settings.model_copy(update={"lake": Place(path="s3a://bucket/lake")})
    before = cheap(on_s3)["log store"]
    assert (before.is_ok, before.is_optional) == (False, True)
    assert "two runs at once can lose commits" in before.observed
    assert "spark.delta.logStore.s3a.impl" in before.advice
    conf = tmp_path / "conf" / "spark-cluster.conf"
    conf.write_text(conf.read_text(encoding="utf-8") + STORE, encoding="utf-8")
    assert cheap(on_s3)["log store"].is_ok
    conf.write_text(STORE.replace("S3DynamoDB", "S3SingleDriver"), encoding="utf-8")
    assert not cheap(on_s3)["log store"].is_ok


def test_a_source_in_a_database_needs_its_driver(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = settings.sources["events"].model_copy(
        update={"format": "jdbc", "url": "jdbc:postgresql://h/d", "table": "t", "path": ""}
    )
    with_database = settings.model_copy(update={"sources": {"events": source}})
    assert cheap(with_database)["JDBC driver"].is_ok
    monkeypatch.setattr("pyspark.__file__", str(tmp_path / "pyspark.py"))
    assert (cheap(with_database)["JDBC driver"].is_ok, cheap(settings)["JDBC driver"].is_ok) == (False, True)


def java_that_says(folder: Path, version: str) -> Path:
    """A Java home whose java tells this version, as Java does: on standard error."""
    java = folder / "bin" / "java"
    java.parent.mkdir(parents=True)
    java.write_text(f"#!/bin/sh\necho 'openjdk version \"{version}\" 2020-01-01' >&2\n")
    java.chmod(0o755)
    return folder


@pytest.mark.parametrize(
    ("version", "is_ok"), [("17.0.15", True), ("21", True), ("11.0.2", False), ("1.8.0_292", False)]
)
def test_a_java_that_spark_does_not_run_on_is_found(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, version: str, is_ok: bool
) -> None:
    monkeypatch.setenv("JAVA_HOME", str(java_that_says(tmp_path / "java", version)))
    java = cheap(settings)["Java"]
    assert (java.is_ok, java.advice) == (is_ok, "apt-get install openjdk-17-jre-headless")
    assert java.observed == f"{version.split('.', maxsplit=1)[0]} at {tmp_path}/java/bin/java"


def test_what_is_missing_is_named_with_what_to_type(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("JAVA_HOME", str(tmp_path / "no java"))
    monkeypatch.setenv("PYSPARK_PYTHON", str(tmp_path / "no python"))
    monkeypatch.setattr("pyspark.__file__", str(tmp_path / "pyspark.py"))
    monkeypatch.setattr(doctor, "MEMORY_GB", 1e6)
    monkeypatch.setattr(doctor, "DISK_GB", 1e6)
    findings = by_name(doctor.examine(settings))
    assert "lake" not in findings, "no round trip where its needs are not met"
    advice = {name: one.advice for name, one in findings.items() if not (one.is_ok or one.is_optional)}
    assert advice == {
        "Java": "apt-get install openjdk-17-jre-headless",
        "Delta JARs": "make setup",
        "PYSPARK_PYTHON": f"export PYSPARK_PYTHON={sys.executable}",
        "memory": "free 1e+06 GB, or lower spark.driver.memory in conf/spark-local.conf",
        "disk": "free 1e+06 GB there",
    }
    assert findings["Delta JARs"].observed == f"missing {', '.join(doctor.DELTA_JARS)}"


def test_the_command_tells_what_to_type_and_fails(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("JAVA_HOME", str(java_that_says(tmp_path / "java", "11.0.2")))
    done = CliRunner().invoke(app, ["doctor", "--env", "slice"])
    assert done.exit_code == 2
    assert "recsys: not ready.\nJava: apt-get install openjdk-17-jre-headless\n" in done.stderr
