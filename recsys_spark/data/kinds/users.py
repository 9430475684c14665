"""Users: versions with validity dates; consent, country, segment, no address."""

from __future__ import annotations

from collections.abc import Mapping

from pyspark.sql import Column
from pyspark.sql import functions as F

from recsys_spark.config import Clean, Source
from recsys_spark.data import rules
from recsys_spark.data.kinds.kind import Columns, Kind, flag, text, validity


def user_rules(clean: Clean) -> dict[str, Column]:
    """reason -> condition, over bronze.users."""
    return {
        "malformed_row": F.col("malformed").isNotNull(),
        "missing_user_id": rules.is_blank("user_id"),
        "overlong_id": rules.is_longer("user_id", clean.max_id_length),
        "bad_validity": rules.bad_validity(),
    }


def _typed(clean: Clean, _sources: Mapping[str, Source]) -> tuple[Columns, Columns]:
    columns = {
        "user_id": F.col("user_id"),
        "country": text("country"),
        "segment": text("segment"),
        # Consent that is not stated is not given.
        "is_consented": flag("is_consented", default=False),
        **validity(),
    }
    return columns, user_rules(clean)


USERS = Kind("users", required=("user_id",), identity=("user_id", "valid_from"), typed=_typed)
