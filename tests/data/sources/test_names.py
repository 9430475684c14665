"""Files and folders of any name: what a store allows is read, whatever Spark or Hadoop takes it for."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import quote

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyspark.sql import SparkSession

from recsys_spark.config.sections import Source
from recsys_spark.data.sources import file_at, find_files, new_deliveries, with_content_hash
from recsys_spark.errors import ConfigError
from tests.settings import a_source

NAMES = (
    *("[1]", "{a,b}", "a{", "]x[", "[!a]", "*", "wh?t", "back\\slash", "\\[1\\]"),
    *(
        "2026-01-31T10:00:00",
        "a:b",
        ":x",
        "c:",
        "http:",
        "50%",
        "per%20cent",
        "a b",
        "a+b",
        "#1",
        "a=b;c",
        "ü'\"",
    ),
)
FOLDER = "sh[o]p {x,y} \\1"


def source(form: str, **more: object) -> Source:
    columns = {"event_id": "id", "user_id": "user", "item_id": "item", "event_at": "at"}
    return a_source(
        kind="interactions",
        format=form,
        path="/given/below",
        columns=columns,
        constants={"event_type": "purchase"},
        **more,
    )


def deliver(folder: Path, name: str, form: str) -> None:
    """One row of a user who is called as the file."""
    row = {"id": f"of {name}", "user": name, "item": "i", "at": "2024-05-01"}
    if form == "parquet":
        pq.write_table(pa.Table.from_pylist([row]), folder / f"{name}.parquet")
    elif form == "jsonl":
        text = f'{{"id": "x", "user": "u", "item": "i", "at": "{len(name)}"}}\n'
        (folder / f"{name}.jsonl").write_text(text, "utf-8")
    else:
        quoted = '"' + name.replace('"', '""') + '"'
        (folder / f"{name}.csv").write_text(f"id,user,item,at\ne,{quoted},i,2024-05-01\n", "utf-8")


@pytest.mark.parametrize(
    ("form", "more", "names"),
    [
        ("csv", {}, NAMES),
        ("csv", {"quoted_newlines": True}, ("[1]", "a:b", "{x\\")),
        ("parquet", {}, ("[1]", "a:b", "{x\\")),
    ],
)
def test_a_file_of_any_name_in_a_folder_of_any_name_is_read(
    spark: SparkSession, tmp_path: Path, form: str, more: dict, names: tuple[str, ...]
) -> None:
    folder = tmp_path / FOLDER / "day=2024-05"
    folder.mkdir(parents=True)
    for name in names:
        deliver(folder, name, form)
    shop = source(form, **more)
    taken = new_deliveries(spark, {"shop": shop}, places={"shop": str(tmp_path / FOLDER)}, known={})["shop"]
    assert taken.row_count == len(names)
    assert sorted(row["user_id"] for row in taken.rows.collect()) == sorted(names)
    for file in taken.files:
        again = file_at(spark, file.uri)
        assert again is not None, file.uri
        assert with_content_hash(spark, again).content_hash == file.content_hash


def test_what_lies_at_the_path_as_written_is_meant_and_else_it_is_a_glob(
    spark: SparkSession, tmp_path: Path
) -> None:
    for name in ("[ab]", "a", "b", "a:b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / f"in {name}.csv").write_text("x\n")
    (tmp_path / "10:00.csv").write_text("x\n")

    def found(path: str) -> list[str]:
        return [file.name for file in find_files(spark, "shop", str(tmp_path / path))]

    assert found("[ab]") == ["in [ab].csv"]
    assert found("[abc]") == ["in a.csv", "in b.csv"]
    assert found("{a,10:00.csv}") == ["10:00.csv", "in a.csv"]
    assert found("?") == ["in a.csv", "in b.csv"]
    assert found("a*/in*") == ["in a.csv", "in a:b.csv"]
    assert found("\\[ab\\]/*.csv") == ["in [ab].csv"]
    assert found("10:00.csv") == ["10:00.csv"]
    with pytest.raises(ConfigError, match="nothing at"):
        found("z*")


def test_a_file_that_is_gone_is_not_found_again(spark: SparkSession, tmp_path: Path) -> None:
    assert file_at(spark, f"file:{quote(str(tmp_path))}/gone%5B1%5D.csv") is None
