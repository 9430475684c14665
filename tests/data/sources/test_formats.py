"""Every format and layout read right: types, encodings, folders, versions; what drifts is told at once."""

from __future__ import annotations

import os
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyspark.sql import SparkSession

from recsys_spark.config.sections import Source
from recsys_spark.data.sources import Delivery, Known, new_deliveries, one_slash
from recsys_spark.data.sources.columns import split_fields
from recsys_spark.errors import ConfigError
from tests.data.sources.reading import COLUMNS, EVENTS, read
from tests.settings import a_source

PARQUET = EVENTS.model_copy(update={"format": "parquet"})


def events(spark: SparkSession, path: Path, **changed: object) -> list[tuple[object, ...]]:
    rows = read(spark, path, **changed)
    return [(row["user_id"], row["item_id"], row["event_at"], row["malformed"]) for row in rows]


def delivered(
    spark: SparkSession, path: Path, source: Source = EVENTS, known: Known | None = None
) -> Delivery:
    given = {"shop": known} if known else {}
    return new_deliveries(spark, {"shop": source}, places={"shop": str(path)}, known=given)["shop"]


def as_known(delivery: Delivery) -> Known:
    contents = {one_slash(file.uri): {file.content_hash: file.modified_ms} for file in delivery.files}
    return Known(contents, delivery.columns)


def test_timestamps_of_parquet_are_the_same_instant_whatever_their_type(
    spark: SparkSession, tmp_path: Path
) -> None:
    instant = datetime(2024, 1, 2, 3, 4, 5, 678901, tzinfo=UTC)
    nanos = int(instant.timestamp()) * 10**9 + 678901999
    types = {
        "micros": pa.array([instant.replace(tzinfo=None)], pa.timestamp("us")),
        "zoned": pa.array([instant], pa.timestamp("us", "Europe/Berlin")),
        "nanos": pa.array([nanos], pa.timestamp("ns")),
        "zoned nanos": pa.array([nanos], pa.timestamp("ns", "UTC")),
        "int96": pa.array([nanos], pa.timestamp("ns")),
    }
    for name, at in types.items():
        table = pa.table(
            {
                "user": [name],
                "item": pa.array([7], pa.uint64()),
                "at": at,
                "odd": pa.array([1], pa.time64("ns")),
            }
        )
        if name == "int96":
            table = table.drop_columns(["odd"])
        pq.write_table(table, tmp_path / f"{name}.parquet", use_deprecated_int96_timestamps=name == "int96")
    pq.write_table(
        pa.table(
            {"user": ["1969"], "item": pa.array([7], pa.uint64()), "at": pa.array([-1], pa.timestamp("ns"))}
        ),
        tmp_path / "old.parquet",
    )
    of_file = {row[0]: row[1:] for row in events(spark, tmp_path, format="parquet")}
    assert of_file.pop("1969") == ("7", "1969-12-31 23:59:59.999999", None)
    assert of_file == dict.fromkeys(types, ("7", "2024-01-02 03:04:05.678901", None))


def test_encodings_quotes_and_line_ends_within_quotes(spark: SparkSession, tmp_path: Path) -> None:
    text = 'user,item,at\r\n"Zoë ""€"",\r\nMüller",ß,2024\r\nu,"i,",2025\r\n'
    (tmp_path / "wide.csv").write_bytes(text.encode("utf-16"))
    expected = [('Zoë "€",\nMüller', "ß", "2024", None), ("u", "i,", "2025", None)]
    assert events(spark, tmp_path / "wide.csv", encoding="UTF-16", quoted_newlines=True) == expected
    (tmp_path / "west.csv").write_bytes(
        text.replace("\r\nM", "M").encode("windows-1252") + b"\x81,i,2024\r\n"
    )
    rows = events(spark, tmp_path / "west.csv", encoding="windows-1252")
    assert rows[:2] == [('Zoë "€",Müller', "ß", "2024", None), expected[1]]
    assert rows[2][3] == "\ufffd,i,2024"


def test_folders_that_name_a_value_are_columns_and_unfinished_files_are_left_alone(
    spark: SparkSession, tmp_path: Path
) -> None:
    for day, text in (("2017-12-03", "user,item\nu1,i\n"), ("2017-12-04 10%3A00", "item,user\ni,u2\n")):
        (tmp_path / f"date={day}").mkdir()
        (tmp_path / f"date={day}" / "events.csv").write_text(text, encoding="utf-8")
        (tmp_path / f"date={day}" / "events2.csv.tmp").write_text("half", encoding="utf-8")
    rows = events(spark, tmp_path, columns={**COLUMNS, "event_at": "date"})
    assert rows == [("u1", "i", "2017-12-03", None), ("u2", "i", "2017-12-04 10:00", None)]


def test_an_id_of_several_columns_is_missing_where_one_of_them_is(
    spark: SparkSession, tmp_path: Path
) -> None:
    columns = {**COLUMNS, "event_id": ["order", "line"], "cancels_event_id": ["undoes", "undone"]}
    rows = ["1,2,,", ",2,,", "1, ,7,3", ",2,7,", '"\t",,,3']
    text = "order,line,undoes,undone,user,item,at\n" + "".join(f"{row},u,i,2024\n" for row in rows)
    (tmp_path / "events.csv").write_text(text, encoding="utf-8")
    # A cancellation that names half an event stays one: of an event that nobody knows.
    named = read(spark, tmp_path, columns=columns)
    assert [(row["event_id"], row["cancels_event_id"]) for row in named] == [
        ("1:2", None),
        (None, None),
        (None, "7:3"),
        (None, "7:"),
        (None, ":3"),
    ]


def test_keys_of_json_may_come_late_and_lists_become_tags(spark: SparkSession, tmp_path: Path) -> None:
    lines = [f'{{"sku": "i{n}"}}' for n in range(20_000)] + [
        '{"sku": "late", "price": 2.5, "labels": ["a", "b"]}'
    ]
    (tmp_path / "items.jsonl").write_text("\n".join(lines), encoding="utf-8")
    source = a_source(
        kind="items", format="jsonl", path="x", columns={"item_id": "sku", "price": "price", "tags": "labels"}
    )
    delivery = delivered(spark, tmp_path, source)
    assert delivery.rows is not None
    assert delivery.rows.where("row = 20000").select("item_id", "price", "tags").collect() == [
        ("late", "2.5", "a\u001fb")
    ]
    assert delivery.notes == tuple(f"key '{key}' is in none of the first rows" for key in ("price", "labels"))


def test_a_file_delivered_again_with_other_content_is_a_new_version_and_says_so(
    spark: SparkSession, tmp_path: Path
) -> None:
    path = tmp_path / "events.csv"
    path.write_text("user,item,at\nu,i,2024\n", encoding="utf-8")
    os.utime(path, (1, 1))
    known = as_known(delivered(spark, tmp_path))
    (tmp_path / "copy.csv").write_bytes(path.read_bytes())
    assert delivered(spark, tmp_path, known=known).rows is None
    path.write_text("user,item,at,extra\nu,i,2025,x\n", encoding="utf-8")
    again = delivered(spark, tmp_path, known=known)
    assert [file.name for file in again.files] == ["events.csv"]
    assert again.notes == ("new column 'extra' is ignored", "events.csv delivered again with other content")
    [(place, first)] = known.contents.items()
    other = {file.content_hash: file.modified_ms for file in again.files}
    known = Known({place: {**first, **other}}, again.columns)
    path.write_bytes((tmp_path / "copy.csv").read_bytes())
    os.utime(path, ns=(0, (other.popitem()[1] + 1000) * 10**6))
    back = delivered(spark, tmp_path, known=known)
    assert [file.content_hash for file in back.files] == [f"{next(iter(first))}#2"]
    assert back.notes == ("events.csv delivered again with content that it had before",)
    assert back.rows is not None
    assert [row["event_at"] for row in back.rows.collect()] == ["2024"]


def test_all_that_changed_in_all_sources_is_told_in_one_error(spark: SparkSession, tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("usr,item,at,extra\n", encoding="utf-8")
    (tmp_path / "b.csv").write_text("user,itm,at\n", encoding="utf-8")
    typed = tmp_path / "typed.parquet"
    pq.write_table(pa.table({"user": [1.5], "item": ["i"], "at": [date(2024, 1, 1)]}), typed)
    sources = {"text": EVENTS.model_copy(update={"new_columns": "refuse"}), "typed": PARQUET}
    places = {"text": str(tmp_path / "*.csv"), "typed": str(typed)}
    known = {
        "text": Known({}, {"user": "", "item": "", "at": ""}),
        "typed": Known({}, {"user": "integer", "item": "text", "at": "date"}),
    }
    with pytest.raises(ConfigError) as refused:
        new_deliveries(spark, sources, places=places, known=known)
    for sentence in (
        "source 'text'",
        "a.csv: column 'user' (for user_id) not found. Did you mean usr?",
        "b.csv: column 'item' (for item_id) not found. Did you mean itm?",
        "a.csv: column 'extra' is new, and new_columns is 'refuse'.",
        "source 'typed'",
        "typed.parquet: column 'user' was integer and is float (double).",
    ):
        assert sentence in str(refused.value)
    accepted = {"typed": PARQUET.model_copy(update={"retyped_columns": "accept"})}
    rows = new_deliveries(spark, accepted, places=places, known=known)["typed"].rows
    assert rows is not None
    told = "user_id: 1.5 is no whole number that it holds exactly"
    assert [(row["user_id"], row["malformed"]) for row in rows.collect()] == [(None, told)]


def test_a_delta_table_is_taken_once_a_version(spark: SparkSession, tmp_path: Path) -> None:
    path = tmp_path / "table"
    rows = "select string(id) user, 'i' item, timestamp '2024-01-01' at from range({})"
    spark.sql(rows.format(6)).repartition(3).write.format("delta").save(str(path))
    source = EVENTS.model_copy(update={"format": "delta"})
    first = delivered(spark, path, source)
    assert first.rows is not None
    assert sorted(row["row"] for row in first.rows.collect()) == list(range(6))
    known = as_known(first)
    assert delivered(spark, path, source, known).rows is None
    spark.sql(rows.format(2)).coalesce(1).write.format("delta").mode("overwrite").save(str(path))
    second = delivered(spark, path, source, known)
    assert second.rows is not None
    assert second.rows.count() == 2
    assert second.files[0].content_hash.endswith("-v1")
    of_version = source.model_copy(update={"version": 0})
    assert delivered(spark, path, of_version).files == first.files
    with pytest.raises(ConfigError, match="has no version 7"):
        delivered(spark, path, source.model_copy(update={"version": 7}))


def test_an_id_of_a_column_of_floats_is_the_whole_number_or_none(spark: SparkSession, tmp_path: Path) -> None:
    doubles = [13813.0, 12345671.0, -0.0, 2.0**53 - 1, 2.0**53, 12.5, float("inf"), float("nan"), None]
    table = pa.table(
        {
            "user": doubles,
            "item": pa.array([16777215.0, 16777216.0] + [7.0] * 7, pa.float32()),
            "at": [f"{n}" for n in range(9)],
            "price": doubles,
            "order": pa.array(
                [Decimal("13813.00"), Decimal("1.50")] + [Decimal("7.00")] * 7, pa.decimal128(20, 2)
            ),
        }
    )
    pq.write_table(table, tmp_path / "floats.parquet")
    columns = {**COLUMNS, "event_id": ["order", "item"], "value": "price"}
    source = PARQUET.model_copy(update={"columns": columns})
    rows = read(spark, tmp_path, source)
    assert [row["user_id"] for row in rows] == [
        *["13813", "12345671", "0", "9007199254740991"],
        *[None] * 5,
    ]
    assert [row["item_id"] for row in rows[:3]] == ["16777215", None, "7"]
    assert [row["event_id"] for row in rows[:3]] == ["13813:16777215", None, "7:7"]
    assert rows[1]["value"] == "1.2345671E7"
    exactly = "is no whole number that it holds exactly"
    assert [row["malformed"] for row in rows] == [
        None,
        f"item_id: 1.6777216E7 {exactly}",
        None,
        None,
        f"user_id: 9.007199254740992E15 {exactly}",
        f"user_id: 12.5 {exactly}",
        f"user_id: Infinity {exactly}",
        None,
        None,
    ]


def test_a_json_number_with_a_point_or_an_exponent_is_the_whole_number_and_texts_stay(
    spark: SparkSession, tmp_path: Path
) -> None:
    users = {
        "1.2345671E7": ("12345671", False),
        "13813.0": ("13813", False),
        "-5e2": ("-500", False),
        "12345678901234567890": ("12345678901234567890", False),
        "12.5": ("12.5", True),
        "1.0E17": ("1.0E17", True),
        '"13813.0"': ("13813.0", False),
        '"1e3"': ("1e3", False),
        '"12.5"': ("12.5", False),
        '"-"': ("-", False),
    }
    text = "".join(f'{{"user": {user}, "item": "i", "at": "{n}"}}\n' for n, user in enumerate(users))
    (tmp_path / "events.jsonl").write_text(text, encoding="utf-8")
    found = events(spark, tmp_path, format="jsonl")
    assert [(row[0], row[3] is not None) for row in found] == list(users.values())
    # Texts of CSV and JSON change only where the source says so.
    (tmp_path / "events.jsonl").unlink()
    (tmp_path / "events.csv").write_text("user,item,at\n13813.0,1.50,1.0\n", encoding="utf-8")
    assert events(spark, tmp_path)[0][:3] == ("13813.0", "1.50", "1.0")
    assert events(spark, tmp_path, whole_ids=True)[0][:3] == ("13813", "1.50", "1.0")


def test_quotes_within_quotes_are_read_as_the_section_says_and_never_guessed(
    spark: SparkSession, tmp_path: Path
) -> None:
    lines = {
        r'"Pizza 12\" deluxe",i,2024': 'Pizza 12" deluxe',
        r'"\"Best\" pizza",i,2024': '"Best" pizza',
        r'"C:\x, y",i,2024': r"C:\x, y",
        r"AC\DC,i,2024": r"AC\DC",
        '"plain, too",i,2024': "plain, too",
    }
    (tmp_path / "events.csv").write_text("user,item,at\n" + "\n".join(lines) + "\n", encoding="utf-8")
    found = events(spark, tmp_path, escape="\\")
    assert [row[0] for row in found] == list(lines.values())
    assert {row[3] for row in found} == {None}
    # Unsaid, a row of that dialect is quarantined rather than taken with its quotes and backslashes.
    found = events(spark, tmp_path)
    assert [row[3] for row in found] == [*list(lines)[:2], None, None, None]
    assert [row[0] for row in found[2:]] == list(lines.values())[2:]
    doubled = '"Pizza 12"" deluxe",i,2024'
    (tmp_path / "events.csv").write_text(f"user,item,at\n{doubled}\n", encoding="utf-8")
    assert [row[0] for row in events(spark, tmp_path)] == ['Pizza 12" deluxe']
    assert [row[3] for row in events(spark, tmp_path, escape="\\")] == [doubled]


def test_headers_of_the_other_dialect_are_split() -> None:
    source = EVENTS.model_copy(update={"escape": "\\"})
    assert split_fields(r'"12\" disc",b,"c,\"d\""', source) == ['12" disc', "b", 'c,"d"']


@pytest.mark.parametrize(
    ("record", "separator", "fields"),
    [
        ("a,b,,c", ",", ["a", "b", "", "c"]),
        ('"a,b",c""d,"e ""f"""', ",", ["a,b", 'c"d', 'e "f"']),
        ("a||b|c||", "||", ["a", "b|c", ""]),
    ],
)
def test_headers_are_split_as_csv(record: str, separator: str, fields: list[str]) -> None:
    assert split_fields(record, EVENTS.model_copy(update={"separator": separator})) == fields
