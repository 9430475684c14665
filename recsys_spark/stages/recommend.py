"""Models to staged lists, the exact top K of the blend for each campaign, and to what goes with an item.

Both are made of one catalogue, which is here for the first time with factors, words and sales together.
"""

from __future__ import annotations

from collections.abc import Mapping

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from recsys_spark.data.baskets import baskets
from recsys_spark.data.reading import liked_on
from recsys_spark.data.snapshots import versions_on
from recsys_spark.data.validity import current_on
from recsys_spark.errors import ConfigError, InputError
from recsys_spark.lake.job import Job, Summary
from recsys_spark.lake.runs import gold_owner
from recsys_spark.lake.tables import (
    GOLD_SIMILAR,
    GOLD_STAGED,
)
from recsys_spark.models.history import with_fade
from recsys_spark.models.versions import preferences_of
from recsys_spark.names import HISTORY, HYBRID
from recsys_spark.push.audience import People, audience_of, people_on
from recsys_spark.ranking.blend import Variant
from recsys_spark.ranking.goes_with import Companions, companions_of
from recsys_spark.ranking.lists import Catalogue, lists
from recsys_spark.ranking.rankable import cold_items, hybrids, in_groups, rankable_catalogue, user_factors
from recsys_spark.ranking.reasons import explained
from recsys_spark.ranking.similar import similar_items
from recsys_spark.runtime.checkpoints import checkpointed


def run(job: Job) -> Summary:
    if not job.settings.campaigns:
        raise ConfigError(f"{job.settings.env}.toml has no [campaigns.NAME]: there is nobody to rank for.")
    version = job.run.run_id
    is_own = gold_owner(job.lake) in {None, job.settings.env}
    catalogue, companions = rankable_catalogue(job, version, job.run_date), None
    try:
        blends = hybrids(job, version)
        preferences = _preferences(job, blends)
        # Before the lists, whose reasons name them.
        similar, goes_with = _similar(job, catalogue, is_own=is_own)
        companions = _companions(job, catalogue, goes_with) if similar else None
        people = people_on(job.lake, job.run_date, settings=job.settings, preferences=preferences_of(job))
        staged = [
            _ranked(job, name, people, catalogue, blends, preferences, companions)
            for name in job.settings.campaigns
        ]
        whole = staged[0]
        for other in staged[1:]:
            whole = whole.unionByName(other)
        job.overwrite_partition(GOLD_STAGED, whole, run_id=version)
    finally:
        catalogue.release()
        if companions is not None:
            companions.shared.release()
    rows = job.lake.rows_written(GOLD_STAGED)
    lengths = lengths_of(job, version)
    users = sum(lists for lists, _ in lengths.values())
    notes = [
        f"{users:,} lists",
        f"{catalogue.size:,} items ranked",
        *short_lists(job, lengths, catalogue.size),
    ]
    figures = {("lists", ""): float(users), ("catalogue", ""): float(catalogue.size)}
    wrote = GOLD_STAGED.name
    if similar:
        figures["similar_items", ""] = float(similar)
        if is_own:
            wrote += f", {GOLD_SIMILAR.name}"
        else:
            notes.append(f"{GOLD_SIMILAR.name} stays as it is: it is another environment's")
    return Summary(users, rows, wrote, figures, tuple(notes))


def _similar(job: Job, catalogue: Catalogue, *, is_own: bool) -> tuple[int, DataFrame]:
    """Write what goes with each item of the catalogue, or none if that is switched off; how many rows, and
    the rows. Where the lake's gold is not the environment's own they are made for its lists alone."""
    settings, day = job.settings.similar, job.run_date
    stored = job.read(GOLD_SIMILAR).where(F.col("run_date") == F.lit(day))
    if settings.k == 0:
        if is_own:
            job.lake.delete(GOLD_SIMILAR, f"run_date = '{day}'")
        return 0, stored
    together = baskets(liked_on(job, day), run_date=day, days=settings.days, together=settings.together)
    with similar_items(
        catalogue,
        together,
        settings=settings,
        partitions=2 * job.spark.sparkContext.defaultParallelism,
        max_item_share=job.settings.ranking.max_item_share,
    ) as neighbours:
        rows = neighbours.withColumn("run_date", F.lit(day)).withColumn("run_id", F.lit(job.run.run_id))
        rows = rows.select(*GOLD_SIMILAR.columns)
        if not is_own:
            kept = checkpointed(rows)
            return kept.count(), kept
        job.overwrite_partition(GOLD_SIMILAR, rows, run_date=day)
    return job.lake.rows_written(GOLD_SIMILAR), job.read(GOLD_SIMILAR).where(F.col("run_date") == F.lit(day))


def _companions(job: Job, catalogue: Catalogue, similar: DataFrame) -> Companions | None:
    """What goes with what, for the reasons of the campaigns that want it."""
    if not any(campaign.tells_goes_with for campaign in job.settings.campaigns.values()):
        return None
    items = current_on(
        versions_on(job.lake, job.settings, "items", job.run_date), job.run_date, "item_id"
    ).select("item_id", "title")
    return companions_of(similar.select("item_id", "rank", "similar_item_id"), items, catalogue)


def _preferences(job: Job, blends: Mapping[str, Variant]) -> DataFrame:
    """The night's own, with what is left of history where a campaign's lists make use of it."""
    tasks = {campaign.task for campaign in job.settings.campaigns.values()}
    pairs = preferences_of(job)
    if not any(HISTORY in blends[task].components for task in tasks):
        return pairs
    return with_fade(pairs, run_date=job.run_date, settings=job.settings.history)


def _ranked(
    job: Job,
    name: str,
    people: People,
    catalogue: Catalogue,
    blends: Mapping[str, Variant],
    preferences: DataFrame,
    companions: Companions | None,
) -> DataFrame:
    campaign, version = job.settings.campaigns[name], job.run.run_id
    # Asked for once, and read four times on the way to lists.
    audience = checkpointed(audience_of(campaign, people))
    if audience.isEmpty():
        raise InputError(
            f"campaign {name!r}: audience {campaign.audience!r} has no user on {job.run_date}. "
            "Next: check sources of kind 'audiences', or the campaign's audience."
        )
    variant = blends[campaign.task]
    ranked = lists(
        in_groups(job, audience, job.run_date),
        preferences=preferences,
        user_factors=user_factors(job, version),
        catalogue=catalogue,
        variants=[variant],
        k=campaign.k,
        partitions=job.spark.sparkContext.defaultParallelism,
        carried=["is_sendable"],
        in_order=True,
        companions=companions if campaign.tells_goes_with else None,
    )
    cold = cold_items(job, version) if job.settings.cold_items.enabled else None
    return explained(ranked, cold).select(
        F.lit(job.run_date).alias("run_date"),
        F.lit(campaign.channel).alias("channel"),
        F.lit(name).alias("campaign"),
        "user_id",
        "rank",
        "item_id",
        "score",
        "component_scores",
        "source",
        "reason",
        F.lit(HYBRID).alias("arm"),
        "is_sendable",
        F.lit(1.0).alias("propensity"),
        F.lit(version).alias("model_version"),
        F.lit(version).alias("run_id"),
        F.lit(job.run.env).alias("env"),
    )


def lengths_of(job: Job, version: str) -> dict[str, tuple[int, int]]:
    """By campaign the number of its lists, and of those that are shorter than its K."""
    ranks = job.read(GOLD_STAGED).where(F.col("run_id") == version).groupBy("campaign", "rank").count()
    lists = {(row["campaign"], row["rank"]): row["count"] for row in ranks.collect()}
    return {
        name: (lists.get((name, 1), 0), lists.get((name, 1), 0) - lists.get((name, campaign.k), 0))
        for name, campaign in job.settings.campaigns.items()
    }


def short_lists(job: Job, lengths: Mapping[str, tuple[int, int]], size: int) -> list[str]:
    """A sentence per campaign with lists shorter than its K."""
    longest = {name: campaign.k for name, campaign in job.settings.campaigns.items()}
    return [
        f"{name}: {short:,} lists are shorter than k = {longest[name]} ({size:,} items known)"
        for name, (_, short) in lengths.items()
        if short
    ]
