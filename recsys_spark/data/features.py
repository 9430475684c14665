"""Numbers and groups of items and users as vectors, scaled by rules that no partitioning changes."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from datetime import date

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from recsys_spark.config.sections import Features, Source
from recsys_spark.data.kinds.users import GROUPS
from recsys_spark.errors import ConfigError, did_you_mean
from recsys_spark.names import AGE_DAYS, PRICE

OTHER, UNKNOWN = "other", "unknown"
# Sums are of values in [-1, 1]: exact to 18 digits behind the point, with room for 10^12 items.
_EXACT = "decimal(20,18)"


def number_names(sources: Mapping[str, Source], settings: Features) -> tuple[str, ...]:
    """The numbers known of items: price, age_days, then the attributes of all sources in ascending order.

    Raises ConfigError where features.log1p names none of them.
    """
    names = (PRICE, AGE_DAYS, *sorted({name for source in sources.values() for name in source.attributes}))
    for name in settings.log1p:
        if name not in names:
            raise ConfigError(
                f"features.log1p names {name!r}: have {', '.join(names)}.{did_you_mean(name, names)}"
            )
    return names


def item_features(
    items: DataFrame, day: date, *, names: Sequence[str], log1p: Collection[str] = ()
) -> DataFrame:
    """(item_id, names, values): each number standardised over `items`, then 1 where it is missing, else 0.

    `items` holds one row an item with price, released_at and attributes as they hold on the day. Age is
    in days, 0 before the release. Numbers in `log1p` become sign(x)·log(1 + |x|). A missing number is
    the median of those given. Then (x - mean) / standard deviation over all items, or 0 where all are
    equal. Medians are exact and sums are of decimals, so partitions and order change no bit.
    """
    numbers = {f"n{place}": _number(name, day, is_log1p=name in log1p) for place, name in enumerate(names)}
    raw = items.select("item_id", *[number.alias(column) for column, number in numbers.items()])
    extent = raw.agg(*[stat for column in numbers for stat in _extent(column)])
    centred = raw.crossJoin(F.broadcast(extent)).select(
        "item_id",
        *[_centred(column).alias(column) for column in numbers],
        *[F.col(column).isNull().cast("float").alias(f"{column}_is_missing") for column in numbers],
    )
    moments = centred.agg(*[stat for column in numbers for stat in _moments(column)])
    values = [value for column in numbers for value in (_standardised(column), F.col(f"{column}_is_missing"))]
    labels = [F.lit(label) for name in names for label in (name, f"{name}_is_missing")]
    return centred.crossJoin(F.broadcast(moments)).select(
        "item_id", F.array(*labels).alias("names"), F.array(*values).alias("values")
    )


def user_features(users: DataFrame, *, min_users: int) -> DataFrame:
    """(user_id, names, values): 1 for the user's country, region, segment and age band, 0 for the others.

    `users` holds one row a user. Names are `country=NZ` and the like: the groups of at least `min_users`
    users in ascending order, then `country=other` for those of smaller ones and `country=unknown`.
    """
    given = users.select("user_id", *[F.coalesce(name, F.lit(UNKNOWN)).alias(name) for name in GROUPS])
    own = F.array(*[_label(place) for place in range(len(GROUPS))])
    named = given.select(F.explode(own).alias("label")).groupBy("label").agg(F.count(F.lit(1)).alias("users"))
    large = named.where(F.col("users") >= min_users).where("label.rank = 0").select("label")
    always = F.array(
        *[
            F.struct(F.lit(place).alias("place"), F.lit(rank).alias("rank"), F.lit(value).alias("value"))
            for place in range(len(GROUPS))
            for rank, value in ((1, OTHER), (2, UNKNOWN))
        ]
    )
    labels = F.array_sort(F.concat(F.collect_list("label"), always))
    names = large.agg(F.transform(labels, _name).alias("names"))
    # Users are many, and the ways to belong to four groups are few: vectors are made once for each way.
    ways = given.select(*GROUPS).distinct().crossJoin(F.broadcast(names))
    belongs = F.array(*[_column_of(name) for name in GROUPS])
    vectors = ways.select(*GROUPS, "names", belongs.alias("belongs")).select(
        *GROUPS,
        "names",
        F.transform("names", lambda name: F.array_contains("belongs", name).cast("float")).alias("values"),
    )
    return given.join(vectors, on=list(GROUPS), how="inner").select("user_id", "names", "values")


def _number(name: str, day: date, *, is_log1p: bool) -> Column:
    if name == PRICE:
        number = F.col("price")
    elif name == AGE_DAYS:
        number = F.greatest(F.datediff(F.lit(day), F.col("released_at")), F.lit(0)).cast("double")
        number = F.when(F.col("released_at").isNotNull(), number)
    else:
        number = F.try_element_at("attributes", F.lit(name))
    return F.signum(number) * F.log1p(F.abs(number)) if is_log1p else number


def _extent(column: str) -> list[Column]:
    """The median of what is given, and how far the farthest lies from it."""
    median = F.median(column)
    reach = F.greatest(F.max(column) - median, median - F.min(column))
    return [median.alias(f"{column}_median"), reach.alias(f"{column}_reach")]


def _centred(column: str) -> Column:
    """The distance from the median in units of the reach, in [-1, 1]: 0 for a missing number."""
    distance = F.try_divide(F.col(column) - F.col(f"{column}_median"), F.col(f"{column}_reach"))
    return F.coalesce(distance, F.lit(0.0)).cast(_EXACT)


def _moments(column: str) -> list[Column]:
    """Mean and standard deviation of the centred number.

    The median lies within one standard deviation of the mean, so that the difference of squares loses
    one bit at most.
    """
    exact = F.col(column)
    mean = F.sum(exact).cast("double") / F.count(F.lit(1))
    square = F.sum((exact * exact).cast(_EXACT)).cast("double") / F.count(F.lit(1))
    return [
        mean.alias(f"{column}_mean"),
        F.sqrt(F.greatest(square - mean * mean, F.lit(0.0))).alias(f"{column}_sd"),
    ]


def _standardised(column: str) -> Column:
    above = F.col(column).cast("double") - F.col(f"{column}_mean")
    return F.coalesce(F.try_divide(above, F.col(f"{column}_sd")), F.lit(0.0)).cast("float")


def _label(place: int) -> Column:
    """(place of the field, rank, value): sorts by field, then large groups before other and unknown."""
    value = F.col(GROUPS[place])
    rank = F.when(value == UNKNOWN, F.lit(2)).when(value == OTHER, F.lit(1)).otherwise(F.lit(0))
    return F.struct(F.lit(place).alias("place"), rank.alias("rank"), value.alias("value"))


def _name(label: Column) -> Column:
    """`country=NZ` and the like, of a label."""
    return F.concat_ws("=", F.get(F.array(*[F.lit(name) for name in GROUPS]), label["place"]), label["value"])


def _column_of(group: str) -> Column:
    """The name of the column in which a row's group is counted: its own, or that of the small ones."""
    own = F.concat_ws("=", F.lit(group), F.col(group))
    return F.when(F.array_contains("names", own), own).otherwise(F.lit(f"{group}={OTHER}"))
