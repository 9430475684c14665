"""What a night leaves behind, looked at by readers that are not Spark, and by nights that follow."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from dataclasses import replace
from datetime import date, timedelta
from pathlib import Path
from urllib.parse import unquote

import pytest
from deltalake import DeltaTable
from pyspark.sql import SparkSession

from recsys_spark.config.load import load_settings
from recsys_spark.lake.job import Job
from recsys_spark.lake.tables import (
    GOLD_OUTBOX,
    GOLD_PUBLISHED_RUNS,
    GOLD_RECOMMENDATIONS,
    GOLD_SIMILAR,
    GOLD_STAGED,
    MODEL_METRICS,
    MODEL_POPULARITY,
    OPS_METRICS,
    OPS_QUALITY,
    SILVER_INTERACTIONS,
    SILVER_ITEMS,
    SILVER_OUTCOMES,
    SILVER_PREFERENCES,
    SILVER_QUARANTINE,
    Table,
)
from recsys_spark.models.versions import backtest_version
from recsys_spark.night import run_night, stages_between
from recsys_spark.stages import recommend
from tests.conftest import ROOT
from tests.jobs.conftest import Night
from tests.shop import ITEMS, LISTS, OUTCOMES, RUN_DATE, STRANGERS, UNASKED, USERS, write_conf

EARLIER = date(2024, 5, 5)


def rows_of(job: Job, table: Table) -> list[dict]:
    return DeltaTable(job.lake.path(table)).to_pyarrow_table().to_pylist()


def everyone() -> list[str]:
    """All users with an event, poisoned ones included."""
    return [*(f"u{user:03d}" for user in range(USERS)), *STRANGERS, *UNASKED]


def content(job: Job, table: Table) -> list[str]:
    return sorted(json.dumps(row, default=str, sort_keys=True) for row in rows_of(job, table))


def lists_of(job: Job, run_date: date) -> dict[tuple[str, str], list[tuple[str, float]]]:
    found: dict = defaultdict(list)
    for row in sorted(rows_of(job, GOLD_STAGED), key=lambda row: row["rank"]):
        if row["run_date"] == run_date:
            found[row["campaign"], row["user_id"]].append((row["item_id"], row["score"]))
    return dict(found)


def test_every_user_of_the_audience_has_a_whole_list(night: Night) -> None:
    lists = defaultdict(list)
    for row in rows_of(night.job, GOLD_RECOMMENDATIONS):
        lists[row["campaign"], row["user_id"]].append(row)
    items = {row["item_id"] for row in rows_of(night.job, SILVER_ITEMS)}
    half = {("again", f"u{user:03d}") for user in range(0, USERS, 2)}
    assert set(lists) == half | {("fresh", user) for user in everyone()}
    assert len(lists) == LISTS
    for rows in lists.values():
        rows.sort(key=lambda row: row["rank"])
        assert [row["rank"] for row in rows] == [1, 2, 3, 4, 5]
        assert len({row["item_id"] for row in rows}) == 5
        assert {row["item_id"] for row in rows} <= items
        scores = [row["score"] for row in rows]
        assert scores == sorted(scores, reverse=True)
        assert all(score == score and abs(score) != float("inf") for score in scores)


def test_a_list_without_repeats_holds_nothing_that_the_user_had_before(night: Night) -> None:
    had = {
        (row["user_id"], row["item_id"])
        for row in rows_of(night.job, SILVER_INTERACTIONS)
        if str(row["event_date"]) <= RUN_DATE
    }
    rows = rows_of(night.job, GOLD_RECOMMENDATIONS)
    assert not {(row["user_id"], row["item_id"]) for row in rows if row["campaign"] == "fresh"} & had
    assert {(row["user_id"], row["item_id"]) for row in rows if row["campaign"] == "again"} & had


def test_lists_that_a_small_catalogue_leaves_short_are_said(night: Night) -> None:
    asked = {
        name: campaign.model_copy(update={"k": 200 if name == "fresh" else campaign.k})
        for name, campaign in night.job.settings.campaigns.items()
    }
    job = replace(night.job, settings=night.job.settings.model_copy(update={"campaigns": asked}))
    lengths = recommend.lengths_of(job, night.job.run.run_id)
    assert recommend.short_lists(job, lengths, ITEMS) == [
        f"fresh: {len(everyone())} lists are shorter than k = 200 ({ITEMS} items known)"
    ]


def test_only_lists_of_users_who_consented_may_be_sent_and_only_those_are_rendered(night: Night) -> None:
    sendable = {row["user_id"]: row["is_sendable"] for row in rows_of(night.job, GOLD_RECOMMENDATIONS)}
    assert sendable == {user: user not in UNASKED and not user.endswith("0") for user in everyone()}
    outbox = rows_of(night.job, GOLD_OUTBOX)
    assert {row["user_id"] for row in outbox} == {user for user, may in sendable.items() if may}
    mails = {unquote(path.stem) for path in (night.job.output / RUN_DATE / "mails" / "fresh").glob("*.html")}
    assert mails == {user for user, may in sendable.items() if may}


def test_rows_in_are_good_quarantined_or_duplicate(night: Night) -> None:
    figures = {
        row["metric"]: row["value"]
        for row in rows_of(night.job, OPS_METRICS)
        if row["stage"] == "clean" and row["label"] == "interactions"
    }
    shop = night.shop
    assert figures == {
        "rows_in": shop.good + shop.rejected + shop.repeated,
        "rows_good": shop.good,
        "rows_quarantined": shop.rejected,
        "rows_duplicate": shop.repeated,
    }
    assert len(rows_of(night.job, SILVER_INTERACTIONS)) == shop.good
    reasons = Counter(
        tuple(row["reject_reasons"])
        for row in rows_of(night.job, SILVER_QUARANTINE)
        if not row["source"].startswith("poison")
    )
    assert reasons == {
        ("missing_user_id",): 1,
        ("missing_item_id",): 1,
        ("unparsable_time",): 1,
        ("future_time",): 1,
        ("bad_quantity",): 1,
        ("before_epoch",): 1,
        ("unknown_outcome_type",): 1,
    }


def test_each_poison_ends_as_the_readme_says_and_no_title_is_markup(night: Night) -> None:
    quarantine = rows_of(night.job, SILVER_QUARANTINE)
    assert night.shop.reasons == Counter(
        row["reject_reasons"][0] for row in quarantine if row["source"].startswith("poison")
    )
    assert len(night.shop.reasons) == 9
    taken = {
        row["event_id"] for row in rows_of(night.job, SILVER_INTERACTIONS) if row["user_id"] in STRANGERS
    }
    assert taken == {"bom", "nul", "emoji", "formula", "script", "float", "new"}
    pages = [path.read_text(encoding="utf-8") for path in night.job.output.rglob("*.html")]
    assert any("&lt;script&gt;alert(1)&lt;/script&gt; coffee" in page for page in pages)
    assert any("=cmd|" in page for page in pages)
    assert not any("<script>alert(1)" in page for page in pages)


def test_outcomes_are_merged_once_each_and_judged(night: Night) -> None:
    rows = rows_of(night.job, SILVER_OUTCOMES)
    assert sorted(row["event_id"] for row in rows) == [f"o{number:03d}" for number in range(OUTCOMES)]
    assert {row["event_date"] for row in rows} == {night.job.run_date}
    counts = {
        row["metric"]: row["value"]
        for row in rows_of(night.job, OPS_METRICS)
        if row["stage"] == "clean" and row["label"] == "outcomes"
    }
    assert counts == {
        "rows_in": OUTCOMES + 2,
        "rows_good": OUTCOMES,
        "rows_quarantined": 1,
        "rows_duplicate": 1,
    }


def test_the_export_holds_the_published_lists_in_order(night: Night) -> None:
    published = {
        (row["user_id"], row["rank"]): row["item_id"]
        for row in rows_of(night.job, GOLD_RECOMMENDATIONS)
        if row["campaign"] == "again" and row["is_sendable"]
    }
    text = (night.job.output / RUN_DATE / "exports" / "email-again.jsonl").read_text(encoding="utf-8")
    exported = {
        (line["user_id"], slot["rank"]): slot["item_id"]
        for line in map(json.loads, text.splitlines())
        for slot in line["items"]
    }
    assert exported == published


def test_history_carries_repeats_and_the_night_beats_popularity_in_its_backtest(night: Night) -> None:
    ndcg = {
        (row["task"], row["model"]): row["value"]
        for row in rows_of(night.job, MODEL_METRICS)
        if row["metric"] == "ndcg@10"
    }
    assert ndcg["repeats_allowed", "hybrid"] > 2 * ndcg["repeats_allowed", "popularity"]
    assert ndcg["new_items_only", "als"] > ndcg["new_items_only", "popularity"]
    assert ndcg["new_items_only", "history"] < ndcg["new_items_only", "hybrid"]


def test_no_event_after_a_day_reaches_the_models_of_that_day(night: Night) -> None:
    """The shop's events go on for four weeks after the run date, and for eight after the backtest's day."""
    job = night.job
    events = rows_of(job, SILVER_INTERACTIONS)
    assert max(row["event_date"] for row in events) > job.run_date

    def pairs(after: date, last: date) -> set[tuple[str, str]]:
        return {(row["user_id"], row["item_id"]) for row in events if after < row["event_date"] <= last}

    learned = {(row["user_id"], row["item_id"]) for row in rows_of(job, SILVER_PREFERENCES)}
    assert learned == pairs(date.min, job.run_date) < pairs(date.min, date.max)
    cutoff = job.run_date - timedelta(days=job.settings.evaluation.window_days)
    recent = timedelta(days=job.settings.popularity.window_days)
    counted: dict = defaultdict(dict)
    for row in rows_of(job, MODEL_POPULARITY):
        counted[row["model_version"]][row["item_id"]] = row["users"]
    for version, day in ((job.run.run_id, job.run_date), (backtest_version(job, cutoff), cutoff)):
        assert Counter(counted[version]) == Counter(item for _, item in pairs(day - recent, day))


def test_the_gate_and_its_docs_are_kept_and_show_no_value_of_a_person(night: Night) -> None:
    results = rows_of(night.job, OPS_QUALITY)
    assert {row["suite"] for row in results} == {
        "silver.items",
        "silver.interactions",
        "silver.interactions.profile",
        "silver.users",
        "silver.audiences",
        "silver.outcomes",
        "silver.preferences",
        "gold.recommendations",
        "publish.again",
        "publish.fresh",
    }
    assert all(row["is_success"] for row in results)
    pages = list((night.job.output / RUN_DATE / "data_docs").rglob("*.html"))
    assert any("silver" in str(page) for page in pages)
    assert not any("u017" in page.read_text(encoding="utf-8") for page in pages)


def test_the_commit_of_the_lists_names_its_run_and_verdict(night: Night) -> None:
    newest = DeltaTable(night.job.lake.path(GOLD_RECOMMENDATIONS)).history(1)[0]
    note = json.loads(newest["userMetadata"])
    assert note == {"run_id": night.job.run.run_id, "run_date": RUN_DATE, "verdict": "published"}
    [published] = rows_of(night.job, GOLD_PUBLISHED_RUNS)
    assert (published["run_id"], published["version"]) == (night.job.run.run_id, newest["version"])


def test_running_the_night_again_changes_no_row(night: Night, spark: SparkSession) -> None:
    tables = (
        SILVER_INTERACTIONS,
        SILVER_PREFERENCES,
        SILVER_QUARANTINE,
        GOLD_STAGED,
        GOLD_SIMILAR,
        GOLD_RECOMMENDATIONS,
        GOLD_OUTBOX,
    )
    before = {table.name: content(night.job, table) for table in tables}
    run_id = night.job.run.run_id
    run_night(
        night.job.settings,
        night.job.run_date,
        stages_between("ingest", "deliver", skip=["evaluate"]),
        spark=spark,
    )
    assert replace(night.job).run.run_id == run_id
    assert {table.name: content(night.job, table) for table in tables} == before


@pytest.mark.soak  # two more nights; in every run tests/data proves it for each stage's tables
def test_an_earlier_date_run_later_gives_what_that_night_would_have_given(
    night: Night, spark: SparkSession, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And no event after a run date reaches its lists: the other lake never held one."""
    run_night(night.job.settings, EARLIER, stages_between("ingest", "recommend"), spark=spark)
    past = tmp_path / "shop"
    past.mkdir()
    for path in night.shop.folder.iterdir():
        text = path.read_bytes()
        if path.name == "events.csv":
            header, *lines = text.splitlines(keepends=True)
            until = str(EARLIER).encode()
            text = header + b"".join(line for line in reversed(lines) if line.split(b",")[3][:10] <= until)
        (past / path.name).write_bytes(text)
    conf = write_conf(tmp_path / "conf", base=ROOT / "conf", shop=past, root=tmp_path)
    monkeypatch.setenv("RECSYS_CONF", str(conf))
    then = replace(night.job, settings=load_settings("slice"), run_date=EARLIER)
    run_night(then.settings, EARLIER, stages_between("ingest", "recommend"), spark=spark)
    assert lists_of(night.job, EARLIER) == lists_of(then, EARLIER)
    assert lists_of(then, EARLIER) != lists_of(night.job, date.fromisoformat(RUN_DATE))
