"""Gathers one night out of the lake's tables and writes its report."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from operator import itemgetter
from pathlib import Path
from typing import Any

from pyspark.sql import DataFrame, Row, Window
from pyspark.sql import functions as F

from recsys_spark.data.events import as_of
from recsys_spark.data.snapshots import versions_on
from recsys_spark.data.validity import current_on, known_on
from recsys_spark.evaluation.report.contents import (
    FunnelStep,
    HistoryLine,
    LongTail,
    NightReport,
    QualityRow,
    Slot,
    StageRow,
    UserStory,
)
from recsys_spark.evaluation.report.render import write_report
from recsys_spark.evaluation.sentences import weight_sentences
from recsys_spark.evaluation.stored import Stored, stored
from recsys_spark.lake.job import Job
from recsys_spark.lake.runs import Run
from recsys_spark.lake.tables import (
    GOLD_STAGED,
    MODEL_METRICS,
    OPS_METRICS,
    OPS_QUALITY,
    OPS_RUNS,
    SILVER_INTERACTIONS,
    SILVER_ITEMS,
)
from recsys_spark.models.versions import backtest_version, preferences_of
from recsys_spark.names import HEADLINE, MAE, RMSE, STAGES
from recsys_spark.ranking.blend import Variant
from recsys_spark.ranking.rankable import hybrids

_EVENT_DAYS = 365
_STORIES = 3
_SHOWN = (
    HEADLINE,
    "precision@10",
    "recall@10",
    "f1@10",
    "map@10",
    "hit_rate@10",
    "coverage@10",
    "mean_popularity@10",
    "diversity@10",
    "serendipity@10",
    RMSE,
    MAE,
)
_HISTORY_LINES = 12


def report_path(job: Job) -> Path:
    return job.output / str(job.run_date) / "report.html"


def make_report(job: Job) -> Path:
    """Write the night's report from what the lake holds of it, whatever its verdict; returns its path."""
    return write_report(gather(job), report_path(job))


def gather(job: Job) -> NightReport:
    """Everything the report tells of the run that was opened last for the date."""
    opened = job.run
    figures = _figures(job, opened)
    quality = _quality(job, opened)
    verdict, reasons = _verdict(job, opened, quality)
    staged = job.read(GOLD_STAGED).where(F.col("run_id") == opened.run_id)
    first_slots = staged.where("rank = 1")
    pairs = preferences_of(job).where(F.col("strength") > 0)
    stages = _stages(figures)
    judged = _judged(job)
    blends = hybrids(job, opened.run_id)
    return NightReport(
        run_date=job.run_date,
        run_id=opened.run_id,
        env=opened.env,
        started_at=_started_at(job, opened),
        seconds_total=sum(stage.seconds for stage in stages),
        peak_memory_gb=max(
            (value for (_, metric, _), value in figures.items() if metric == "peak_gb"), default=None
        ),
        verdict=verdict,
        verdict_reasons=reasons,
        stages=stages,
        funnel=_funnel(figures),
        events_per_day=_events_per_day(job),
        long_tail=_long_tail(pairs, staged),
        metrics=_shown(judged),
        verdicts=judged.verdicts,
        slices=judged.slices,
        weights=weight_sentences(blends, job.settings.blend),
        users=_stories(job, staged, pairs, blends),
        quality=quality,
        links={"Data Docs of Great Expectations": "data_docs/index.html"}
        if (job.output / str(job.run_date) / "data_docs" / "index.html").exists()
        else {},
        settings=job.settings.meaning(),
        inputs=opened.inputs,
        user_count=first_slots.select("user_id").distinct().count(),
        list_count=first_slots.count(),
    )


Figures = dict[tuple[str, str, str], float]


def _figures(job: Job, opened: Run) -> Figures:
    """(stage, metric, label) -> the value recorded last for this run."""
    rows = job.read(OPS_METRICS).where(F.col("run_id") == opened.run_id).orderBy("recorded_at").collect()
    return {(row["stage"], row["metric"], row["label"]): row["value"] for row in rows}


def _stages(figures: Figures) -> list[StageRow]:
    wrote = {stage: label for stage, metric, label in figures if metric == "wrote"}
    return [
        StageRow(
            stage,
            int(figures.get((stage, "rows_in", ""), 0)),
            int(figures.get((stage, "rows_out", ""), 0)),
            figures[stage, "seconds", ""],
            wrote.get(stage, ""),
        )
        for stage in STAGES
        if (stage, "seconds", "") in figures
    ]


def _funnel(figures: Figures) -> list[FunnelStep]:
    def of(stage: str, metric: str, label: str = "") -> int:
        return int(figures.get((stage, metric, label), 0))

    steps = []
    if ("clean", "rows_in", "interactions") in figures:
        steps.append(FunnelStep("Rows delivered", of("clean", "rows_in", "interactions")))
        reasons = {
            label.partition(":")[2]: int(value)
            for (stage, metric, label), value in figures.items()
            if stage == "clean" and metric == "reject_reason" and label.startswith("interactions:")
        }
        note = ", ".join(f"{reason} {rows:,}" for reason, rows in sorted(reasons.items()))
        steps.append(FunnelStep("Quarantined", of("clean", "rows_quarantined", "interactions"), note))
        steps.append(FunnelStep("Duplicates", of("clean", "rows_duplicate", "interactions")))
        steps.append(FunnelStep("Good events", of("clean", "rows_good", "interactions")))
    steps.append(FunnelStep("User-item pairs", of("preferences", "rows_out"), "up to the run date"))
    steps.append(FunnelStep("Staged list rows", of("recommend", "rows_out")))
    steps.append(FunnelStep("Lists", of("recommend", "lists")))
    return [step for step in steps if step.rows or step.is_loss]


def _verdict(job: Job, opened: Run, quality: list[QualityRow]) -> tuple[str, list[str]]:
    states = job.read(OPS_RUNS).where(F.col("run_id") == opened.run_id).orderBy(F.desc("recorded_at"))
    newest = states.where("state IN ('published', 'rejected')").first()
    failed = [row for row in quality if not row.is_success]
    reasons = [
        f"{row.suite}: {row.expectation} {row.column} {row.observed}, allowed {row.allowed}" for row in failed
    ]
    if newest is not None:
        return str(newest["state"]), reasons
    return ("rejected", reasons) if failed else ("staged", ["not published yet"])


def _started_at(job: Job, opened: Run) -> Any:
    first = job.read(OPS_RUNS).where(F.col("run_id") == opened.run_id).agg(F.min("recorded_at")).first()
    return first[0] if first else None


def _events_per_day(job: Job) -> list[tuple[Any, dict[str, int]]]:
    """Events of the year up to the run date; later ones are not this night's business."""
    events = as_of(job.read(SILVER_INTERACTIONS), job.run_date)
    recent = events.where(F.col("event_date") > F.lit(job.run_date - timedelta(days=_EVENT_DAYS)))
    rows = recent.groupBy("event_date", "event_type").count().orderBy("event_date", "event_type").collect()
    days: dict[Any, dict[str, int]] = {}
    for row in rows:
        days.setdefault(row["event_date"], {})[row["event_type"]] = row["count"]
    return list(days.items())


def _long_tail(pairs: DataFrame, staged: DataFrame) -> LongTail:
    def counts(rows: DataFrame) -> list[float]:
        per_item = rows.groupBy("item_id").count().groupBy("count").agg(F.count(F.lit(1)).alias("items"))
        return [float(row["count"]) for row in per_item.collect() for _ in range(row["items"])]

    return LongTail(before=counts(pairs), after=counts(staged))


def _judged(job: Job) -> Stored:
    cutoff = job.run_date - timedelta(days=job.settings.evaluation.window_days)
    rows = job.read(MODEL_METRICS).where(F.col("model_version") == backtest_version(job, cutoff))
    return stored(row.asDict() for row in rows.collect())


def _shown(judged: Stored) -> dict[str, dict[str, dict[str, float]]]:
    return {
        task: {model: {name: of[name] for name in _SHOWN if name in of} for model, of in models.items()}
        for task, models in judged.metrics.items()
    }


def _quality(job: Job, opened: Run) -> list[QualityRow]:
    """The newest result of every expectation of this run."""
    rows = job.read(OPS_QUALITY).where(F.col("run_id") == opened.run_id).orderBy("recorded_at").collect()
    newest = {(row["suite"], row["expectation"], row["column_name"]): row for row in rows}
    return [
        QualityRow(
            row["suite"],
            row["expectation"],
            row["column_name"],
            row["observed"],
            row["allowed"],
            row["is_success"],
        )
        for row in newest.values()
    ]


def _stories(job: Job, staged: DataFrame, pairs: DataFrame, blends: Mapping[str, Variant]) -> list[UserStory]:
    """Three users with a long, a middling and a short history, one campaign each in turn."""
    lengths = pairs.groupBy("user_id").count()
    listed = lengths.join(staged.where("rank = 1"), on="user_id", how="left_semi")
    ordered = listed.orderBy(F.desc("count"), "user_id").select("user_id").toArrow()["user_id"].to_pylist()
    chosen = [ordered[len(ordered) * place // 10] for place in (1, 5, 9)] if len(ordered) >= 10 else ordered
    items = known_on(job.read(SILVER_ITEMS), job.run_date, "item_id").select("item_id", "title", "category")
    campaigns = list(job.settings.campaigns)
    campaign_of = {user: campaigns[place % len(campaigns)] for place, user in enumerate(chosen[:_STORIES])}
    their = F.col("user_id").isin(*campaign_of)
    strongest = Window.partitionBy("user_id").orderBy(F.desc("strength"), "item_id")
    strong = pairs.where(their).withColumn("place", F.row_number().over(strongest))
    histories = strong.where(F.col("place") <= _HISTORY_LINES).join(items, on="item_id", how="left").collect()
    slots = staged.where(their).join(items, on="item_id", how="left").collect()
    users = current_on(
        versions_on(job.lake, job.settings, "users", job.run_date).where(their), job.run_date, "user_id"
    )
    segments = {row["user_id"]: row["segment"] for row in users.collect()}
    return [
        _story(
            user,
            segments.get(user) or "unknown",
            campaign,
            blend=blends[job.settings.campaigns[campaign].task],
            history=sorted((row for row in histories if row["user_id"] == user), key=itemgetter("place")),
            slots=sorted(
                (row for row in slots if (row["user_id"], row["campaign"]) == (user, campaign)),
                key=itemgetter("rank"),
            ),
        )
        for user, campaign in campaign_of.items()
    ]


def _story(
    user: str, segment: str, campaign: str, *, blend: Variant, history: list[Row], slots: list[Row]
) -> UserStory:
    return UserStory(
        user_id=user,
        segment=f"{segment} · {campaign}",
        history=[
            HistoryLine(
                row["title"] or row["item_id"], row["category"] or "", row["events"], row["last_event_at"]
            )
            for row in history
        ],
        slots=[
            Slot(
                row["rank"],
                row["title"] or row["item_id"],
                row["category"] or "",
                row["score"],
                _contributions(blend, row),
                row["source"],
                row["reason"],
            )
            for row in slots
        ],
    )


def _contributions(blend: Variant, slot: Row) -> dict[str, float]:
    """What each component gave to the score after weighting: the bars then add up to the score.

    A slot does not say which bin's weights it was made with; they are those that give its score.
    """
    given = [
        {name: value * weights.get(name, 0.0) for name, value in slot["component_scores"].items()}
        for weights in (blend.weights, *blend.longer.values())
    ]
    return min(given, key=lambda parts: abs(sum(parts.values()) - slot["score"]))
