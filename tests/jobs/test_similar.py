"""What a night says goes with an item, and how a person sees it."""

from __future__ import annotations

import json
from collections import defaultdict
from pathlib import Path

from typer.testing import CliRunner

from recsys_spark.cli import app
from recsys_spark.lake.tables import (
    GOLD_RECOMMENDATIONS,
    GOLD_SIMILAR,
    SILVER_ITEMS,
    SILVER_PREFERENCES,
)
from recsys_spark.ranking.goes_with import STRONGEST
from recsys_spark.ranking.reasons import REASONS
from tests.jobs.conftest import Night
from tests.shop import CATEGORIES, ITEMS, RUN_DATE
from tests.tables import rows_of


def test_every_item_goes_with_ten_others_mostly_of_what_its_buyers_love(night: Night) -> None:
    lists = defaultdict(list)
    for row in rows_of(night.job.lake, GOLD_SIMILAR):
        assert (str(row["run_date"]), row["run_id"]) == (RUN_DATE, night.job.run.run_id)
        lists[row["item_id"]].append(row)
    assert set(lists) == {f"i{item:03d}" for item in range(ITEMS)}
    alike = 0
    for name, rows in lists.items():
        rows.sort(key=lambda row: row["rank"])
        assert [row["rank"] for row in rows] == list(range(1, 11))
        assert len({row["similar_item_id"] for row in rows} - {name}) == 10
        order = [(-row["score"], row["similar_item_id"]) for row in rows]
        assert order == sorted(order)
        alike += sum(_category(row["similar_item_id"]) == _category(name) for row in rows)
    assert alike > 0.5 * 10 * ITEMS  # by chance a sixth


def test_a_reason_names_what_the_user_has_and_the_item_goes_with(night: Night) -> None:
    lake = night.job.lake
    title = {row["item_id"]: row["title"] for row in rows_of(lake, SILVER_ITEMS)}
    goes = defaultdict(set)
    for row in rows_of(lake, GOLD_SIMILAR):
        goes[row["similar_item_id"]].add(row["item_id"])
    liked: dict[str, list[tuple[float, str]]] = defaultdict(list)
    had = set()
    for row in rows_of(lake, SILVER_PREFERENCES):
        had.add((row["user_id"], row["item_id"]))
        if row["strength"] > 0:
            liked[row["user_id"]].append((-row["strength"], row["item_id"]))
    named = 0
    for row in rows_of(lake, GOLD_RECOMMENDATIONS):
        dearest = [item for _, item in sorted(liked[row["user_id"]])[:STRONGEST]]
        naming = [item for item in dearest if item in goes[row["item_id"]]]
        is_owned = (row["user_id"], row["item_id"]) in had
        if naming and not is_owned and title[naming[0]] != title[row["item_id"]]:
            assert row["reason"] == f"Goes with {title[naming[0]]}"
            named += 1
        else:
            assert row["reason"] == REASONS[row["source"]]
    assert named > 500


def test_a_person_sees_titles_best_first(night: Night, tmp_path: Path) -> None:
    file = tmp_path / "similar.json"
    options = ["--env", "slice", "--run-date", RUN_DATE, "--json", str(file)]
    done = CliRunner().invoke(app, ["similar", "--item", "i007", *options])
    assert done.exit_code == 0, done.output
    listed = json.loads(file.read_text(encoding="utf-8"))
    assert [row["rank"] for row in listed] == list(range(1, 11))
    assert all(CATEGORIES[_category(row["similar_item_id"])] in row["title"] for row in listed)
    assert listed[0]["similar_item_id"] in done.output


def test_what_goes_with_nothing_is_a_sentence(night: Night) -> None:
    for item, day, sentence in (
        ("i999", RUN_DATE, "nothing goes with item 'i999'"),
        ("i007", "2023-01-01", "no similar items of 2023-01-01"),
    ):
        done = CliRunner().invoke(app, ["similar", "--item", item, "--env", "slice", "--run-date", day])
        assert done.exit_code == 2
        assert sentence in done.stderr


def _category(item_id: str) -> int:
    return int(item_id[1:]) % len(CATEGORIES)
