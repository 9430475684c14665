"""Users: versions with validity dates; consent and the groups they belong to, no address."""

from __future__ import annotations

from collections.abc import Mapping

from pyspark.sql import Column
from pyspark.sql import functions as F

from recsys_spark.config.sections import Clean, Source
from recsys_spark.data.kinds import rules
from recsys_spark.data.kinds.kind import Columns, Kind, flag, text, validity
from recsys_spark.names import USER_GROUPS

GROUPS = USER_GROUPS


def user_rules(clean: Clean, sources: Mapping[str, Source]) -> dict[str, Column]:
    """reason -> condition, over any bronze table of users with validity dates."""
    return {
        "malformed_row": F.col("malformed").isNotNull(),
        "missing_user_id": rules.is_blank("user_id"),
        "overlong_id": rules.is_longer("user_id", clean.max_id_length),
        "bad_validity": rules.bad_validity(sources),
    }


def _broken(clean: Clean, sources: Mapping[str, Source]) -> dict[str, Column]:
    """reason -> condition, over bronze.users."""
    overlong = rules.any_of(rules.is_longer(name, clean.max_text_length) for name in GROUPS)
    return {**user_rules(clean, sources), "overlong_text": overlong}


def _typed(clean: Clean, sources: Mapping[str, Source]) -> tuple[Columns, Columns]:
    columns = {
        "user_id": F.col("user_id"),
        **{name: text(name) for name in GROUPS},
        # Consent that is not stated is not given.
        "is_consented": flag("is_consented", default=False),
        **validity(sources),
    }
    return columns, _broken(clean, sources)


USERS = Kind(
    "users",
    required=("user_id",),
    identity=("user_id", "valid_from"),
    typed=_typed,
    # Who said no and yes at one moment said no.
    later=("NOT {}is_consented",),
)
