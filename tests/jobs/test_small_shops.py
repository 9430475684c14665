"""Nights of shops that have next to nothing: what can be made is, and what cannot is told."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass, replace
from datetime import date
from io import StringIO
from pathlib import Path

import pytest
from deltalake import DeltaTable
from pyspark.sql import SparkSession

from recsys_spark.config.load import load_settings
from recsys_spark.errors import NothingOnSaleError
from recsys_spark.lake.job import Job
from recsys_spark.lake.tables import GOLD_RECOMMENDATIONS
from recsys_spark.night import guarded, run_night, stages_between
from recsys_spark.ranking.rankable import rankable_catalogue
from tests.conftest import ROOT
from tests.shop import PLACES, write_conf

RUN_DATE, NEXT_DATE = date(2024, 6, 2), date(2024, 6, 3)
USERS = ("ada", "bob", "cleo")
CONF = """
[sources.events]
kind = "interactions"
format = "csv"
path = "{root}/events.csv"
constants = {{ event_type = "purchase" }}
columns = {{ event_id = "id", user_id = "user", item_id = "item", event_at = "at" }}

[sources.items]
kind = "items"
format = "jsonl"
path = "{root}/items"
columns = {{ item_id = "sku", title = "name", is_available = "sold" }}

[als]
trainer = "cg"
rank = 4
iterations = 2

[gate]
max_first_slot_share = 1.0

[campaigns.again]
channel = "push"
k = 1
repeat_allowed = true
"""


@dataclass(frozen=True)
class OneItem:
    """A shop of one item that all bought in January and again in May.

    exit_code and told: of its night of RUN_DATE, run by the fixture.
    """

    root: Path
    spark: SparkSession
    exit_code: int = 0
    told: str = ""

    def run(self, day: date, stages: Sequence[str]) -> int:
        return guarded(lambda: run_night(load_settings("slice"), day, stages, spark=self.spark))

    def offer(self, name: str, *, is_sold: bool) -> None:
        item = {"sku": "tea", "name": "Tea", "sold": is_sold}
        (self.root / "items" / name).write_text(json.dumps(item) + "\n", "utf-8")


@pytest.fixture(scope="module")
def shop(spark: SparkSession, tmp_path_factory: pytest.TempPathFactory) -> Iterator[OneItem]:
    root = tmp_path_factory.mktemp("one-item")
    (root / "items").mkdir()
    days = [(user, day) for user in USERS for day in ("2024-01-07", "2024-05-20")]
    rows = [f"e{number},{user},tea,{day} 10:00:00" for number, (user, day) in enumerate(days)]
    (root / "events.csv").write_text("\n".join(["id,user,item,at", *rows]) + "\n", "utf-8")
    conf = write_conf(root / "conf", base=ROOT / "conf", shop=root, root=root, sources=())
    (conf / "slice.toml").write_text((PLACES + CONF).format(root=root), "utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RECSYS_CONF", str(conf))
        opened = OneItem(root, spark)
        opened.offer("first.jsonl", is_sold=True)
        told = StringIO()
        with redirect_stdout(told), redirect_stderr(told):
            code = opened.run(RUN_DATE, stages_between("ingest", "publish"))
        yield replace(opened, exit_code=code, told=told.getvalue())


def published(shop: OneItem) -> list[dict]:
    table = DeltaTable(str(shop.root / "lake" / GOLD_RECOMMENDATIONS.path))
    return table.to_pyarrow_table().to_pylist()


def test_a_shop_of_one_item_that_nobody_buys_for_the_first_time_has_its_lists(shop: OneItem) -> None:
    assert shop.exit_code == 0, shop.told
    assert "lists are made without content: no word is shared by 2 items" in shop.told
    assert (
        "new_items_only is not judged: nobody who could have a list had anything for the first" in shop.told
    )
    assert "repeats_allowed: NDCG@10 1.000" in shop.told
    rows = published(shop)
    assert sorted((row["user_id"], row["item_id"], row["rank"]) for row in rows) == [
        (user, "tea", 1) for user in USERS
    ]
    assert {row["reason"] for row in rows} == {"You have bought this before"}


def test_what_leaves_the_sale_after_lists_were_made_is_called_so_and_nothing_on_sale_is_a_sentence(
    shop: OneItem, capsys: pytest.CaptureFixture[str]
) -> None:
    """The item is sold out on the next day, and so is whatever was staged the day before."""
    shop.offer("second.jsonl", is_sold=False)
    assert shop.run(NEXT_DATE, stages_between("ingest", "clean")) == 0
    capsys.readouterr()
    assert shop.run(RUN_DATE, ["publish"]) == 4
    told = capsys.readouterr().err
    assert "again: not_on_sale 3, allowed <= 0" in told
    assert "unknown_items" not in told
    assert told.endswith("Next: recsys run --run-date 2024-06-02 --from recommend\n")
    assert len(published(shop)) == len(USERS), "the last good list stands"
    job = Job(shop.spark, load_settings("slice"), RUN_DATE)
    with pytest.raises(NothingOnSaleError, match="no item is on sale on 2024-06-02") as nothing:
        rankable_catalogue(job, job.run.run_id, RUN_DATE)
    assert nothing.value.exit_code == 3
