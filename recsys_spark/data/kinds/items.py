"""Items: versions with validity dates."""

from __future__ import annotations

from collections.abc import Mapping

from pyspark.sql import Column
from pyspark.sql import functions as F

from recsys_spark.config import Clean, Source
from recsys_spark.data import rules
from recsys_spark.data.kinds.kind import Columns, Kind, flag, text, validity


def _broken(clean: Clean) -> dict[str, Column]:
    """reason -> condition, over bronze.items."""
    return {
        "malformed_row": F.col("malformed").isNotNull(),
        "missing_item_id": rules.is_blank("item_id"),
        "overlong_id": rules.is_longer("item_id", clean.max_id_length),
        "overlong_text": rules.any_of(
            rules.is_longer(name, clean.max_text_length) for name in ("title", "category", "brand", "tags")
        ),
        "bad_price": rules.is_bad_number("price", limit=clean.max_abs_value),
        "bad_validity": rules.bad_validity(),
    }


def _typed(clean: Clean, _sources: Mapping[str, Source]) -> tuple[Columns, Columns]:
    tags = F.filter(F.split(F.coalesce("tags", F.lit("")), rules.TAG_JOINER), lambda tag: F.trim(tag) != "")
    columns = {
        "item_id": F.col("item_id"),
        **{name: text(name) for name in ("title", "category", "brand")},
        "tags": tags,
        "price": rules.number("price"),
        "is_available": flag("is_available", default=True),
        **validity(),
    }
    return columns, _broken(clean)


ITEMS = Kind("items", required=("item_id",), identity=("item_id", "valid_from"), typed=_typed)
