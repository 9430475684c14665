"""Why a slot is there: the source that carried it, as a sentence for the person who gets it."""

from __future__ import annotations

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from recsys_spark.names import ALS, COLD_ITEM, CONTENT, HISTORY, POPULARITY, POPULARITY_GROUP, TRIAL

# One sentence per source; what a person is told about why an item is there.
REASONS = {
    HISTORY: "You have bought this before",
    ALS: "Customers with a similar basket buy this",
    CONTENT: "Similar to what you buy",
    POPULARITY: "Popular with other customers lately",
    POPULARITY_GROUP: "Popular with customers like you lately",
    TRIAL: "Many customers are trying this",
    COLD_ITEM: "New here, and close to what you buy",
}
# Of what nobody has had, where neither factors nor words speak for it: to somebody without a history, say.
NEW = "New here"
# Before the title of what the user has, where the slot's item is among those that go with it.
GOES_WITH = "Goes with "


def explained(ranked: DataFrame, cold_items: DataFrame | None = None) -> DataFrame:
    """Adds the reason that is told for each slot's source.

    cold_items (item_id): those whose factors are from their words; where als carried one, or the prior of
    what is popular, the source becomes cold_item, as it is in places that were kept for such. Such a slot is
    close to what the user buys only where its component_scores say so, if `ranked` has them. Where `ranked`
    has a column goes_with, a title that is not null is the reason of a slot that is neither a repeat nor new
    to everyone, whatever carried it.
    """
    reason = F.create_map(*[F.lit(text) for pair in REASONS.items() for text in pair])
    source = F.col("source")
    if cold_items is not None:
        cold = cold_items.select("item_id", F.lit(True).alias("_is_cold"))
        ranked = ranked.join(F.broadcast(cold), on="item_id", how="left")
        by_prior = source.isin(ALS, POPULARITY, TRIAL, POPULARITY_GROUP) & F.col("_is_cold")
        source = F.when(by_prior, F.lit(COLD_ITEM)).otherwise(source)
    sourced = ranked.withColumn("source", source).drop("_is_cold")
    why = reason[F.col("source")]
    if "component_scores" in ranked.columns:
        is_close = _speaks(ALS) | _speaks(CONTENT)
        why = F.when((F.col("source") == COLD_ITEM) & ~is_close, F.lit(NEW)).otherwise(why)
    if "goes_with" in ranked.columns:
        is_companion = F.col("goes_with").isNotNull() & ~F.col("source").isin(HISTORY, COLD_ITEM)
        why = F.when(is_companion, F.concat(F.lit(GOES_WITH), "goes_with")).otherwise(why)
    return sourced.withColumn("reason", why).drop("goes_with")


def _speaks(component: str) -> Column:
    """Whether the component gave the slot's item anything."""
    given = F.col("component_scores")[component]
    return F.coalesce((given > 0) & ~F.isnan(given), F.lit(False))
