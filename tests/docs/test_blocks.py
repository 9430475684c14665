"""Every block of code in README and quickstart is run here, or is a part of a file that is."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
from pathlib import Path

import pytest
from pyspark.sql import SparkSession

from recsys_spark.commands.run.night import the_night
from recsys_spark.config.load import load_settings
from recsys_spark.lake.store import Lake
from recsys_spark.lake.tables import SILVER_INTERACTIONS, SILVER_QUARANTINE, SILVER_USERS
from recsys_spark.night import parse_date
from tests.conftest import ROOT, Frame
from tests.docs.pages import Block, blocks

SNIPPETS = ROOT / "docs" / "snippets"
PAGES = ("README.md", "docs/quickstart.md")
# What the shell of a reader runs; the rest of a line is a comment.
SHELL = {"make", ".venv/bin/recsys", "mkdir", "cp"}


def of(language: str) -> list[Block]:
    return [block for page in PAGES for block in blocks(page) if block.language == language]


def commands() -> list[list[str]]:
    return [shlex.split(line, comments=True) for block in of("bash") for line in block.text.splitlines()]


def test_every_block_is_of_a_kind_that_is_tested_here():
    assert {block.language for page in PAGES for block in blocks(page)} <= {"bash", "toml", "csv"}
    assert {words[0] for words in commands() if words} <= SHELL


@pytest.mark.parametrize("language", ["toml", "csv"])
def test_data_and_settings_are_parts_of_the_files_that_the_night_below_reads(language):
    files = [path.read_text("utf-8") for path in sorted(SNIPPETS.glob(f"*.{language}"))]
    assert of(language)
    for block in of(language):
        assert any(block.text in text for text in files), block


@pytest.fixture
def reader(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of a reader who typed the quickstart's commands up to the run, each of which must succeed."""
    for folder in ("conf", "docs"):
        (tmp_path / folder).mkdir()
    for path in (ROOT / "conf").iterdir():
        (tmp_path / "conf" / path.name).write_bytes(path.read_bytes())
    (tmp_path / "docs" / "snippets").symlink_to(SNIPPETS)
    monkeypatch.setenv("RECSYS_CONF", str(tmp_path / "conf"))
    monkeypatch.setenv("RECSYS_HOME", str(tmp_path))
    for name in ("RECSYS_LAKE", "RECSYS_OUTPUT"):
        monkeypatch.delenv(name, raising=False)
    for line in quickstart():
        if shlex.split(line, comments=True)[:1] in (["mkdir"], ["cp"]):
            subprocess.run(["bash", "-ec", line], cwd=tmp_path, check=True)
    return tmp_path


def quickstart() -> list[str]:
    """The lines that the quickstart has its reader type."""
    own = [block for block in blocks("docs/quickstart.md") if block.language == "bash"]
    return [line for block in own for line in block.text.splitlines()]


def run_as_typed(last: str) -> None:
    """The quickstart's `recsys run` in this process, up to a stage: what it does once it has parsed its line."""
    [words] = [words for words in map(shlex.split, quickstart()) if words[:2] == [".venv/bin/recsys", "run"]]
    given = dict(zip(words[2::2], words[3::2], strict=True))
    assert given.keys() == {"--env", "--run-date"}
    the_night(load_settings(given["--env"]), parse_date(given["--run-date"]), last=last)


def test_the_quickstart_s_shop_is_read_and_its_one_bad_date_quarantined(
    spark: SparkSession, reader: Path
) -> None:
    run_as_typed("clean")
    lake = Lake(spark, str(reader / "data" / "mine" / "lake"))
    orders = len((SNIPPETS / "orders.csv").read_text("utf-8").splitlines()) - 1
    assert lake.read(SILVER_INTERACTIONS).count() == orders - 1
    assert [row["reject_reasons"] for row in lake.read(SILVER_QUARANTINE).collect()] == [["unparsable_time"]]
    users = {row["user_id"]: row["is_consented"] for row in lake.read(SILVER_USERS).collect()}
    assert {name for name, may in users.items() if not may} == {"dan"}


@pytest.mark.soak  # a whole night of ten stages
def test_the_quickstart_ends_in_lists_and_mails(spark: SparkSession, reader: Path) -> None:
    run_as_typed("deliver")
    output = reader / "data" / "mine" / "output" / "2025-08-31"
    lines = (output / "exports" / "email-weekly.jsonl").read_text("utf-8").splitlines()
    lists = [json.loads(line) for line in lines]
    mails = {path.stem for path in (output / "mails" / "weekly").glob("*.html")}
    # Everybody has a list, hugo without an order too; dan does not consent.
    consenting = {"anna", "ben", "carla", "eva", "finn", "gina", "hugo"}
    assert mails == {one["user_id"] for one in lists} == consenting
    assert all(1 <= len(one["items"]) <= 5 for one in lists)
    assert "Leaf and Bean" in (output / "mails" / "weekly" / "anna.html").read_text("utf-8")
    assert (output / "report.html").exists()


def test_the_quickstart_says_how_many_rows_and_lists_there_are() -> None:
    text = re.sub(r"\s+", " ", (ROOT / "docs" / "quickstart.md").read_text("utf-8"))
    assert "`7 lists` and `1 withheld without consent`" in text
    orders = (SNIPPETS / "orders.csv").read_text("utf-8").splitlines()
    items = (SNIPPETS / "items.csv").read_text("utf-8").splitlines()
    assert f"has {len(orders) - 1} lines, the last with a date that is none" in text
    assert f"has {len(items) - 1} items" in text


def test_the_kernel_is_used_as_its_page_shows(spark: SparkSession, frame: Frame, tmp_path):
    [block] = [block for block in blocks("docs/kernel.md") if block.language == "python"]
    assert 'parquet("lists")' in block.text
    text = block.text.replace('parquet("lists")', f'parquet("{tmp_path}/lists")')
    names = {
        "users": frame("user_id string, factors array<float>", [("u", [1.0, 0.0]), ("v", [0.0, 1.0])]),
        "items": frame(
            "item_id string, factors array<float>, category string",
            [("a", [3.0, 0.0], "x"), ("b", [2.0, 1.0], "x"), ("c", [1.0, 2.0], "x"), ("d", [0.5, 3.0], "y")],
        ),
        "seen": frame("user_id string, item_id string", [("u", "a")]),
        "on_sale": frame("item_id string", [("a",), ("b",), ("c",), ("d",)]),
    }
    exec(text, names)
    rows = spark.read.parquet(str(tmp_path / "lists")).orderBy("user_id", "rank").collect()
    assert [(row["user_id"], row["item_id"]) for row in rows] == [
        ("u", "b"),
        ("u", "c"),
        ("u", "d"),
        ("v", "d"),
        ("v", "c"),
        ("v", "b"),
    ]
