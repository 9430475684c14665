"""Keyed hashes in the place of user ids: the same as Python's, and no plain id in the lake."""

from __future__ import annotations

import hashlib
import hmac
import io
import json
from contextlib import redirect_stdout
from datetime import date
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from pyspark.sql import SparkSession
from pyspark.sql import functions as F

from recsys_spark.config.sections import Privacy
from recsys_spark.data.pseudonyms import (
    key_mark,
    personal_fields,
    pseudonym_key,
    pseudonymous,
    require_same_key,
)
from recsys_spark.errors import ConfigError
from recsys_spark.lake.job import Job
from recsys_spark.stages import ingest
from tests.conftest import Frame
from tests.settings import a_source, demo_in

KEY = b"0123456789abcdef0123456789abcdef"
VARIABLE = "RECSYS_TEST_PSEUDONYM_KEY"
ON = Privacy(pseudonym_key_env=VARIABLE)


def oracle(value: str, key: bytes = KEY) -> str:
    return hmac.new(key, value.encode(), hashlib.sha256).hexdigest()[:32]


def test_pseudonyms_are_those_of_pythons_hmac_and_blank_ids_stay_blank(frame: Frame) -> None:
    ids = ["u1", "u2", " u1", "😀", "a\u0000b", "x" * 10_000, "é", "e\u0301", "\tu", "\u007f"]
    blanks = ["", "   ", "\t", "\u00a0\r\n", "\ufeff"]
    rows = [*((value,) for value in [*ids, *blanks]), (None,)]
    long_key = b"k" * 65  # longer than SHA-256's block of 64 bytes, where RFC 2104 hashes the key first
    users = frame("id string", rows)
    hashed = users.select("id", *[pseudonymous(F.col("id"), key) for key in (KEY, long_key)])
    assert {(row[0], row[1], row[2]) for row in hashed.collect()} == {
        *((value, oracle(value), oracle(value, long_key)) for value in ids),
        (None, None, None),
        *((value, value, value) for value in blanks),
    }
    plan = io.StringIO()
    with redirect_stdout(plan):
        hashed.explain(extended=True)
    assert "hashed" in plan.getvalue()
    assert KEY.decode() not in plan.getvalue()


@pytest.mark.parametrize(
    ("value", "sentence"),
    [(None, "which is not set"), ("", "which is not set"), ("short", "which holds 5 bytes")],
)
def test_a_key_that_is_missing_or_short_is_refused(
    monkeypatch: pytest.MonkeyPatch, value: str | None, sentence: str
) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)
    if value is not None:
        monkeypatch.setenv(VARIABLE, value)
    with pytest.raises(ConfigError, match=rf"variable {VARIABLE}, {sentence}.*Next: export {VARIABLE}=…"):
        pseudonym_key(ON)


def test_without_the_setting_there_is_no_key_and_with_it_the_key_is_the_variables_bytes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert pseudonym_key(Privacy(pseudonym_key_env="")) is None
    monkeypatch.setenv(VARIABLE, "schlüssel: sechzehn")
    assert pseudonym_key(ON) == "schlüssel: sechzehn".encode()


def test_a_key_in_the_place_of_its_variables_name_is_refused() -> None:
    with pytest.raises(ValueError, match="pseudonym_key_env"):
        Privacy(pseudonym_key_env="c2VjcmV0IGtleQ==")


def test_fields_made_of_the_columns_of_the_user_id_are_personal_too() -> None:
    columns = {"user_id": "who", "event_id": ["who", "film"], "item_id": "film", "event_at": "at"}
    source = a_source(kind="interactions", format="csv", path="x", columns=columns)
    assert personal_fields(source) == ["event_id", "user_id"]


def test_a_night_with_another_key_is_refused(frame: Frame) -> None:
    schema = "metric string, label string"
    earlier = frame(schema, [("user_ids", key_mark(KEY)), ("rows_in", "interactions")])
    require_same_key(earlier, KEY)
    require_same_key(frame(schema, []), KEY)
    for other in (None, KEY + b"!"):
        with pytest.raises(ConfigError, match="the user ids of this lake were made with key"):
            require_same_key(earlier, other)


SHARED = {"format": "csv", "separator": "|"}


def test_no_plain_user_id_reaches_the_lake_and_the_pseudonyms_of_all_kinds_agree(
    spark: SparkSession, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    user = "anna-4711"
    (tmp_path / "events.csv").write_text(
        f"who|what|at\n{user}|i1|2024-05-01\n{user}|i1|2024-05-01|and|more\n"
    )
    (tmp_path / "mails.csv").write_text(f"who|what|at|did|night\n{user}|i1|2024-05-02|click|2024-05-01\n")
    columns = {"user_id": "who", "item_id": "what", "event_at": "at", "event_id": ["who", "what"]}
    events = a_source(
        **SHARED,
        kind="interactions",
        path=str(tmp_path / "events.csv"),
        columns=columns,
        constants={"event_type": "purchase"},
    )
    mails = a_source(
        **SHARED,
        kind="outcomes",
        path=str(tmp_path / "mails.csv"),
        columns={**columns, "outcome_type": "did", "run_date": "night"},
        constants={"channel": "email", "campaign": "again"},
    )
    monkeypatch.setenv(VARIABLE, KEY.decode())
    privacy, sources = {"pseudonym_key_env": VARIABLE}, {"events": events, "mails": mails}
    settings = demo_in(tmp_path, lake={"wait_seconds": 0}, privacy=privacy, sources=sources)
    ingest.run(Job(spark, settings, date(2024, 6, 2)))
    files = list((tmp_path / "lake").rglob("*.parquet"))
    rows = [row for path in files for row in pq.ParquetFile(path).read().to_pylist()]
    bronze = [row for row in rows if "user_id" in row]
    assert [(row["user_id"], row["event_id"]) for row in bronze] == [
        (oracle(user), oracle(f"{user}:i1")),
    ] * 3
    assert sorted(row["malformed"] or "" for row in bronze) == [
        "",
        "",
        "withheld: the line may hold a user id",
    ]
    logs = " ".join(path.read_text() for path in (tmp_path / "lake").rglob("*.json"))
    assert user not in str(rows) + logs
    assert KEY.decode() not in str(rows) + logs
    assert [json.loads(row["settings"])["privacy"] for row in rows if "settings" in row] == [
        {"pseudonym_key_env": VARIABLE}
    ]
