"""Files as they are delivered: mapped, numbered, and refused in a sentence."""

from __future__ import annotations

import gzip
import os
from datetime import date
from pathlib import Path

import pytest
from pyspark.sql import SparkSession

from recsys_spark.data.sources import bronze_rows, find_files, read_source, with_content_hash
from recsys_spark.errors import ConfigError, InputError
from recsys_spark.lake.tables import INTERACTION_FIELDS
from tests.data.sources.reading import COLUMNS, EVENTS, read


def test_separators_of_two_characters_and_files_without_a_header_are_read(
    spark: SparkSession, tmp_path: Path
) -> None:
    (tmp_path / "r.dat").write_text("1::0113277::8::1365029107\n2::9::10::5\n", encoding="utf-8")
    names = ["user", "item", "stars", "at"]
    rows = read(spark, tmp_path / "r.dat", separator="::", header=False, names=names, quote="")
    assert [(r["row"], r["user_id"], r["item_id"], r["event_at"], r["event_type"]) for r in rows] == [
        (0, "1", "0113277", "1365029107", "purchase"),
        (1, "2", "9", "5", "purchase"),
    ]


def test_rows_are_numbered_within_their_file_whatever_the_splits(spark: SparkSession, tmp_path: Path) -> None:
    for name in ("a", "b"):
        lines = "".join(f"{name}{n},i,2024-01-01\n" for n in range(500))
        (tmp_path / f"{name}.csv").write_text("user,item,at\n" + lines, encoding="utf-8")
    before = spark.conf.get("spark.sql.files.maxPartitionBytes")
    spark.conf.set("spark.sql.files.maxPartitionBytes", "1000")
    try:
        rows = read(spark, tmp_path)
    finally:
        spark.conf.set("spark.sql.files.maxPartitionBytes", before)
    assert [(r["user_id"], r["row"]) for r in rows] == [
        (f"{name}{n}", n) for name in "ab" for n in range(500)
    ]


def test_a_line_that_cannot_be_split_is_kept_as_it_came(spark: SparkSession, tmp_path: Path) -> None:
    (tmp_path / "e.csv").write_text("user,item,at\nu,i,2024\nu,i,2024,more,and,more\n", encoding="utf-8")
    assert [r["malformed"] for r in read(spark, tmp_path)] == [None, "u,i,2024,more,and,more"]


def test_a_half_written_json_line_is_kept_and_a_new_column_is_ignored(
    spark: SparkSession, tmp_path: Path
) -> None:
    text = '{"user": "u", "item": 7, "at": "2024", "new": [1]}\n{"user": "u", "it\n'
    (tmp_path / "e.jsonl").write_text(text, encoding="utf-8")
    rows = read(spark, tmp_path, format="jsonl")
    assert [(r["item_id"], r["malformed"]) for r in rows] == [("7", None), (None, '{"user": "u", "it')]


def test_byte_order_marks_and_dos_line_ends_leave_no_trace(spark: SparkSession, tmp_path: Path) -> None:
    (tmp_path / "e.csv").write_bytes(b"\xef\xbb\xbfuser,item,at\r\nu,i,2024\r\n")
    assert [(r["user_id"], r["event_at"]) for r in read(spark, tmp_path)] == [("u", "2024")]


@pytest.mark.parametrize("root", [".", "*.csv", "inner", "in*/*.csv"])
def test_a_file_whose_name_is_not_utf8_is_refused_and_not_passed_over(
    spark: SparkSession, tmp_path: Path, root: str
) -> None:
    """Hadoop lists it, cannot find what it listed, and leaves it out."""
    (tmp_path / "inner").mkdir()
    for folder in (tmp_path, tmp_path / "inner"):
        (folder / "größe.csv").write_text("user,item,at\nu,i,2024\n", encoding="utf-8")
        (folder / os.fsdecode(b".gr\xf6.csv")).write_text("hidden")
        (folder / os.fsdecode(b"gr\xf6.tmp")).write_text("unfinished")
    assert len(find_files(spark, "shop", str(tmp_path / root))) == (2 if root == "." else 1)
    place = tmp_path / ("inner" if "in" in root else ".")
    (place / os.fsdecode(b"gr\xf6\xdfe.csv")).write_text("user,item,at\nu,i,2024\n", encoding="utf-8")
    with pytest.raises(InputError, match=r"the name gr.xf6.xdfe.csv under .* is not UTF-8"):
        find_files(spark, "shop", str(tmp_path / root))


def test_every_delivered_row_is_tied_to_its_file_and_content(spark: SparkSession, tmp_path: Path) -> None:
    (tmp_path / "with space.csv").write_text("user,item,at\nu,i,2024\n", encoding="utf-8")
    files = [with_content_hash(spark, file) for file in find_files(spark, "shop", str(tmp_path))]
    mapped = read_source(spark, "shop", EVENTS, files)
    [row] = bronze_rows(
        mapped, name="shop", files=files, run_date=date(2024, 1, 2), payload=INTERACTION_FIELDS
    ).collect()
    assert row["content_hash"] == files[0].content_hash
    assert len(row["content_hash"]) == 64
    assert (row["source"], row["user_id"], row["quantity"], row["ingest_date"]) == (
        "shop",
        "u",
        None,
        date(2024, 1, 2),
    )


def test_a_missing_column_is_refused_with_the_nearest_name(spark: SparkSession, tmp_path: Path) -> None:
    (tmp_path / "e.csv").write_text("usr,item,at\nu,i,2024\n", encoding="utf-8")
    with pytest.raises(ConfigError, match=r"column 'user' \(for user_id\) not found\. Did you mean usr\?"):
        read(spark, tmp_path)


def test_a_missing_path_is_refused(spark: SparkSession, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"nothing at .*none\.csv"):
        read(spark, tmp_path / "none.csv")


def test_an_empty_file_is_refused(spark: SparkSession, tmp_path: Path) -> None:
    (tmp_path / "e.csv").write_text("")
    with pytest.raises(InputError, match="is empty"):
        read(spark, tmp_path)


def test_a_file_that_is_not_what_it_claims_is_refused(spark: SparkSession, tmp_path: Path) -> None:
    (tmp_path / "e.parquet").write_bytes(b"not parquet at all")
    with pytest.raises(InputError, match="cannot read .*e.parquet as parquet"):
        read(spark, tmp_path, format="parquet")


def test_compressed_files_are_read_by_their_ending(spark: SparkSession, tmp_path: Path) -> None:
    (tmp_path / "e.csv.gz").write_bytes(gzip.compress(b"user,item,at\nu,i,2024\n"))
    assert [r["user_id"] for r in read(spark, tmp_path)] == ["u"]


def test_a_mapping_to_a_field_that_does_not_exist_is_refused_with_the_nearest(spark: SparkSession) -> None:
    source = EVENTS.model_copy(update={"columns": {**COLUMNS, "quantitty": "q"}})
    with pytest.raises(ConfigError, match="Did you mean quantity"):
        read_source(spark, "shop", source, [])
