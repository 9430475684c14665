"""Audiences: who is in a campaign, from when to when."""

from __future__ import annotations

from collections.abc import Mapping

from pyspark.sql import Column
from pyspark.sql import functions as F

from recsys_spark.config.sections import Clean, Source
from recsys_spark.data.kinds import rules
from recsys_spark.data.kinds.kind import Columns, Kind, validity
from recsys_spark.data.kinds.users import user_rules
from recsys_spark.data.kinds.values import is_missing


def _broken(clean: Clean, sources: Mapping[str, Source]) -> dict[str, Column]:
    """reason -> condition, over bronze.audiences."""
    overlong = rules.any_of(rules.is_longer(name, clean.max_id_length) for name in ("user_id", "audience"))
    return {
        **user_rules(clean, sources),
        "missing_audience": is_missing("audience", sources),
        "overlong_id": overlong,
    }


def _typed(clean: Clean, sources: Mapping[str, Source]) -> tuple[Columns, Columns]:
    columns = {"audience": F.col("audience"), "user_id": F.col("user_id"), **validity(sources)}
    return columns, _broken(clean, sources)


AUDIENCES = Kind(
    "audiences",
    required=("audience", "user_id"),
    identity=("audience", "user_id", "valid_from"),
    typed=_typed,
)
