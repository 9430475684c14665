"""What doctor finds: on this machine, with a lake that cannot be written, and with a lake on S3."""

from __future__ import annotations

from pathlib import Path

import pytest
from pyspark.sql import SparkSession

from recsys_spark import doctor
from recsys_spark.config import Place, Settings, load_settings
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


def test_a_machine_that_runs_these_tests_is_ready(
    spark: SparkSession, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doctor, "_MEMORY_GB", 0.1)
    found = by_name(doctor.examine(settings))
    assert [finding for finding in found.values() if not (finding.is_ok or finding.is_optional)] == []
    assert found["lake"].found == f"Delta round trip of 3 rows at {settings.lake.path}"
    assert found["log store"].is_ok


def test_a_lake_that_cannot_be_written_is_found(
    spark: SparkSession, settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doctor, "_MEMORY_GB", 0.1)
    (tmp_path / "lake").write_text("a file where the lake should be")
    found = by_name(doctor.examine(settings))["lake"]
    assert not found.is_ok
    assert "the lake cannot be written" in found.found


def test_a_lake_on_s3_needs_a_log_store_for_several_writers(settings: Settings, tmp_path: Path) -> None:
    on_s3 = settings.model_copy(update={"lake": Place(path="s3a://bucket/lake")})
    before = doctor._log_store(on_s3)
    assert (before.is_ok, before.is_optional) == (False, True)
    assert "two runs at once can lose commits" in before.found
    assert "spark.delta.logStore.s3a.impl" in before.advice
    conf = tmp_path / "conf" / "spark-cluster.conf"
    conf.write_text(conf.read_text(encoding="utf-8") + STORE, encoding="utf-8")
    assert doctor._log_store(on_s3).is_ok
    conf.write_text(STORE.replace("S3DynamoDB", "S3SingleDriver"), encoding="utf-8")
    assert not doctor._log_store(on_s3).is_ok


def test_a_source_in_a_database_needs_its_driver(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = settings.sources["events"].model_copy(
        update={"format": "jdbc", "url": "jdbc:postgresql://h/d", "table": "t", "path": ""}
    )
    with_database = settings.model_copy(update={"sources": {"events": source}})
    assert doctor._driver(with_database).is_ok
    monkeypatch.setattr("pyspark.__file__", str(tmp_path / "pyspark.py"))
    assert (doctor._driver(with_database).is_ok, doctor._driver(settings).is_ok) == (False, True)
