"""Items: versions with validity dates, words, and numbers beside the words."""

from __future__ import annotations

from collections.abc import Mapping

from pyspark.sql import Column
from pyspark.sql import functions as F

from recsys_spark.config.sections import Clean, Source
from recsys_spark.data.kinds import rules
from recsys_spark.data.kinds.kind import Columns, Kind, validity
from recsys_spark.data.kinds.values import flag, is_mapped, is_missing, not_nothing, words


def attributes_as_json(source: Source) -> Column:
    """The source's numeric columns as one JSON object of texts, by our names in ascending order."""
    pairs = [
        part
        for name, theirs in sorted(source.attributes.items())
        for part in (F.lit(name), F.col(f"`{theirs}`").cast("string"))
    ]
    return F.to_json(F.create_map(*pairs))


def _delivered() -> Column:
    """The given attributes as texts, in ascending order of their names; blank ones are not given.

    Null for a text that is no JSON object, or that gives one name twice.
    """
    parsed = F.from_json(F.col("attributes"), "map<string,string>")
    names = F.map_keys(parsed)
    given = F.map_filter(parsed, lambda _, value: ~rules.blank(value))
    return F.when(
        F.size(F.array_distinct(names)) == F.size(names),
        F.map_from_entries(F.array_sort(F.map_entries(given))),
    )


def _bad_attribute(limit: float) -> Column:
    """An attribute that is given but no finite number within the limit, or attributes that cannot be read."""
    values = F.map_values(_delivered())
    has_bad = F.exists(values, lambda value: ~_is_number(value, limit))
    return ~rules.is_blank("attributes") & F.coalesce(has_bad, F.lit(True))


def _is_number(value: Column, limit: float) -> Column:
    number = value.try_cast("double")
    return F.coalesce(~F.isnan(number) & (F.abs(number) <= limit), F.lit(False))


def _broken(clean: Clean, sources: Mapping[str, Source], *, released_at: Column) -> dict[str, Column]:
    """reason -> condition, over bronze.items."""
    is_negative = F.coalesce(rules.number("price") < 0, F.lit(False))
    return {
        "malformed_row": F.col("malformed").isNotNull(),
        "missing_item_id": is_missing("item_id", sources),
        "overlong_id": rules.is_longer("item_id", clean.max_id_length),
        "overlong_text": rules.any_of(
            rules.is_longer(name, clean.max_text_length) for name in ("title", "category", "brand", "tags")
        ),
        "bad_price": rules.is_bad_number("price", limit=clean.max_abs_value) | is_negative,
        "bad_attribute": _bad_attribute(clean.max_abs_value),
        "unparsable_time": ~rules.is_blank("released_at") & released_at.isNull(),
        "unreadable_flag": _is_available(sources).isNull(),
        "bad_validity": rules.bad_validity(sources),
    }


def _is_available(sources: Mapping[str, Source]) -> Column:
    """Of a source that does not map it every item is on sale; where it is mapped, what is not said is not."""
    return flag("is_available", sources, missing=~is_mapped("is_available", sources))


def _typed(clean: Clean, sources: Mapping[str, Source]) -> tuple[Columns, Columns]:
    delivered = F.split(F.coalesce("tags", F.lit("")), rules.TAG_JOINER)
    tags = F.array_compact(F.transform(delivered, lambda tag: not_nothing(tag, sources, decode=True)))
    released_at = rules.point_in_time("released_at", sources)
    columns = {
        "item_id": F.col("item_id"),
        **{name: words(name, sources, decode=True) for name in ("title", "category", "brand")},
        "tags": tags,
        "price": rules.number("price"),
        "released_at": released_at,
        "attributes": F.transform_values(_delivered(), lambda _, value: value.try_cast("double")),
        "is_available": _is_available(sources),
        **validity(sources),
    }
    return columns, _broken(clean, sources, released_at=released_at)


ITEMS = Kind("items", required=("item_id",), identity=("item_id", "valid_from"), typed=_typed)
