"""The worst a delivery can hold: each kind ends as poison.py and torture.py say, and no night dies of it."""

from __future__ import annotations

from datetime import date
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyspark.sql import SparkSession
from pyspark.sql import functions as F

from recsys_spark.config.sections import Clean
from recsys_spark.data.cleaning.clean import cleaned
from recsys_spark.data.sources import (
    bronze_rows,
    find_files,
    new_deliveries,
    read_source,
    with_content_hash,
    writing,
)
from recsys_spark.errors import InputError, RecsysError
from recsys_spark.lake.tables import INTERACTION_FIELDS
from tests.conftest import ROOT
from tests.data.sources import poison, torture
from tests.settings import a_source, with_defaults

EVENTS = a_source(
    kind="interactions",
    format="csv",
    path="x",
    columns={
        "event_id": "id",
        "user_id": "user",
        "item_id": "item",
        "event_at": "at",
        "quantity": "pieces",
        "value": "value",
    },
    constants={"event_type": "purchase"},
)
JSONL = EVENTS.model_copy(update={"format": "jsonl"})
RULES = with_defaults(Clean, event_types=["purchase"])


def test_every_poisoned_row_ends_as_documented_and_none_is_lost(spark: SparkSession, tmp_path: Path) -> None:
    csv = poison.write(tmp_path, poison.CSV_ROWS, "rows.csv", poison.CSV_HEADER)
    jsonl = poison.write(tmp_path, poison.JSON_ROWS, "rows.jsonl")
    bronze = [
        bronze_rows(
            read_source(spark, "shop", source, files),
            name="shop",
            files=files,
            run_date=date(2024, 5, 1),
            payload=INTERACTION_FIELDS,
        )
        for source, files in (
            (EVENTS, [with_content_hash(spark, find_files(spark, "shop", str(csv))[0])]),
            (JSONL, [with_content_hash(spark, find_files(spark, "shop", str(jsonl))[0])]),
        )
    ]
    rows = bronze[0].unionByName(bronze[1])
    judged = cleaned(rows, "interactions", settings=RULES, sources={"shop": EVENTS})
    lines = {
        (name, place): row
        for name, sent in (("rows.csv", poison.CSV_ROWS), ("rows.jsonl", poison.JSON_ROWS))
        for place, row in enumerate(sent)
    }
    # A good row tells no origin, but has the id that its line begins with.
    places = {row.event_id: place for place, row in lines.items() if row.fate == poison.TAKEN}
    fates = {}
    for event_id, file, row, reasons in judged.select(
        "event_id", "source_file", "row", "reject_reasons"
    ).collect():
        place = (file.rsplit("/", 1)[1], row) if reasons else places[event_id]
        fates[lines[place].kind] = reasons[0] if reasons else poison.TAKEN
    assert fates == {row.kind: row.fate for row in lines.values() if row.fate != poison.DROPPED}


@pytest.mark.parametrize("file", torture.FILES, ids=lambda file: file.kind)
def test_every_poisoned_file_is_refused_in_a_sentence(
    spark: SparkSession, tmp_path: Path, file: torture.File
) -> None:
    (tmp_path / file.name).write_bytes(file.content)
    source = EVENTS.model_copy(update={"format": "parquet" if file.name.endswith(".parquet") else "csv"})
    with pytest.raises(RecsysError) as refused:
        new_deliveries(spark, {"shop": source}, places={"shop": str(tmp_path)}, known={})
    sentence = str(refused.value)
    assert file.sentence in sentence
    assert "source 'shop'" in sentence
    assert "Exception" not in sentence
    assert "\tat " not in sentence


def test_a_file_that_vanishes_between_listing_and_reading_is_told(
    spark: SparkSession, tmp_path: Path
) -> None:
    path = poison.write(tmp_path, poison.CSV_ROWS[:1], "gone.csv", poison.CSV_HEADER)
    [file] = find_files(spark, "shop", str(path))
    path.unlink()
    with pytest.raises(InputError, match=r"gone\.csv: it vanished between listing and reading"):
        with_content_hash(spark, file)
    with pytest.raises(InputError, match=r"gone\.csv.*it vanished between listing and reading"):
        read_source(spark, "shop", EVENTS, [file])


def test_a_parquet_file_damaged_in_the_middle_is_told_when_it_is_written(
    spark: SparkSession, tmp_path: Path
) -> None:
    names = list(EVENTS.columns.values())
    path = tmp_path / "middle.parquet"
    pq.write_table(pa.table({name: [f"{name}{n}" for n in range(2000)] for name in map(str, names)}), path)
    content = bytearray(path.read_bytes())
    content[20 : len(content) // 2] = bytes(len(content) // 2 - 20)
    path.write_bytes(bytes(content))
    source = EVENTS.model_copy(update={"format": "parquet"})
    rows = read_source(spark, "shop", source, find_files(spark, "shop", str(path)))
    sentence = r"source 'shop': cannot read .*middle\.parquet as parquet"
    with pytest.raises(InputError, match=sentence), writing("shop", source):
        rows.agg(F.max("user_id")).collect()


def test_the_page_on_quality_has_the_table_of_poison() -> None:
    page = (ROOT / "docs" / "quality.md").read_text(encoding="utf-8")
    assert torture.table() in page


def test_there_are_more_than_twenty_kinds_and_each_has_a_name_of_its_own() -> None:
    kinds = [row.kind for row in (*poison.CSV_ROWS, *poison.JSON_ROWS)]
    kinds += [file.kind for file in torture.FILES] + [kind for kind, _ in torture.OTHERS]
    assert len(set(kinds)) == len(kinds) > 20
