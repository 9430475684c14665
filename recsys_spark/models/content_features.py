"""What is known of an item beside its words, as further dimensions of its content vector.

A number is one dimension: its standardised value, held within ±3, 0 where it is missing, so that who buys
what is dear is shown what is dear. A group (category, brand, tags) has a dimension for each value of enough
items: 1 over the square root of the number of the item's values. With w `feature_weight` an item's vector is

    [words, w·number_1, …, w·group_1, …] / max(its length, 1)

words being its TF-IDF vector of length 1, or none: an item that is known by little alone stays near nothing.
"""

from __future__ import annotations

from collections.abc import Sequence

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from recsys_spark.config.sections import Content
from recsys_spark.errors import ConfigError, did_you_mean
from recsys_spark.names import CONTENT_GROUPS

FARTHEST = 3.0  # standard deviations: beyond them an item is no further from the others
_WEIGHTS = "map<string,float>"


def check_features(settings: Content, numbers: Sequence[str]) -> None:
    """ConfigError where content.features names what is neither a group nor among the items' numbers."""
    known = (*CONTENT_GROUPS, *numbers)
    for name in settings.features:
        if name not in known:
            raise ConfigError(
                f"content.features names {name!r}: have {', '.join(known)}.{did_you_mean(name, known)}"
            )


def feature_weights(items: DataFrame, numbers: DataFrame, settings: Content) -> DataFrame:
    """(item_id, features): the weight of each dimension that is not 0, by its name.

    `items` holds one row an item with category, brand, tags; `numbers` (item_id, names, values) as
    `data.features.item_features` gives them. A number's dimension is called as it is, that of a group's value
    `brand=Maker`. Values of fewer than min_items items have none; of more than max_terms values of a group
    those of most items, ties by name, have one.
    """
    groups = [name for name in settings.features if name in CONTENT_GROUPS]
    given = [name for name in settings.features if name not in CONTENT_GROUPS]
    weight = F.lit(settings.feature_weight)
    parts = [_numbers(numbers, given)] if given else []
    parts += [_group(items, name, settings) for name in groups]
    whole = items.select("item_id")
    for place, part in enumerate(parts):
        whole = whole.join(part.withColumnRenamed("part", f"part_{place}"), on="item_id", how="left")
    nothing = F.create_map().cast(_WEIGHTS)
    maps = [F.coalesce(f"part_{place}", nothing) for place in range(len(parts))]
    together = F.map_concat(*maps) if maps else nothing
    scaled = F.transform_values(together, lambda _, value: (weight * value).cast("float"))
    return whole.select("item_id", F.map_filter(scaled, lambda _, value: value != 0).alias("features"))


def _numbers(numbers: DataFrame, names: Sequence[str]) -> DataFrame:
    """(item_id, part): each number within its bounds; a missing one, and nothing else, is left out."""
    values = F.map_from_arrays("names", "values")
    held = [
        item
        for name in names
        for item in (F.lit(name), _within(F.try_element_at(values, F.lit(name)), name, values))
    ]
    return numbers.select("item_id", F.create_map(*held).cast(_WEIGHTS).alias("part"))


def _within(value: Column, name: str, values: Column) -> Column:
    is_missing = F.try_element_at(values, F.lit(f"{name}_is_missing")) > 0
    held = F.greatest(F.least(value, F.lit(FARTHEST)), F.lit(-FARTHEST))
    return F.when(is_missing | value.isNull(), F.lit(0.0)).otherwise(held)


def _group(items: DataFrame, name: str, settings: Content) -> DataFrame:
    """(item_id, part): the item's values in the group, all alike, of length 1 together."""
    values = F.col(name) if name == "tags" else F.array(F.col(name))
    named = items.select("item_id", F.explode(F.array_distinct(F.array_compact(values))).alias("value"))
    named = named.select("item_id", F.concat(F.lit(f"{name}="), F.col("value")).alias("value"))
    counts = named.groupBy("value").agg(F.count(F.lit(1)).alias("items"))
    kept = counts.where(F.col("items") >= settings.min_items).orderBy(F.desc("items"), "value")
    own = named.join(kept.limit(settings.max_terms).select("value"), on="value", how="left_semi")
    each = own.groupBy("item_id").agg(F.array_sort(F.collect_list("value")).alias("values"))
    alike = F.transform("values", lambda _: F.lit(1.0) / F.sqrt(F.size("values")))
    return each.select("item_id", F.map_from_arrays("values", alike).cast(_WEIGHTS).alias("part"))
