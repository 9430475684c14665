"""Users: versions with validity dates; consent and the groups they belong to, no address."""

from __future__ import annotations

from collections.abc import Mapping

from pyspark.sql import Column
from pyspark.sql import functions as F

from recsys_spark.config.sections import Clean, Source
from recsys_spark.data.kinds import rules
from recsys_spark.data.kinds.kind import Columns, Kind, validity
from recsys_spark.data.kinds.values import flag, is_missing, words
from recsys_spark.names import USER_GROUPS

GROUPS = USER_GROUPS


def user_rules(clean: Clean, sources: Mapping[str, Source]) -> dict[str, Column]:
    """reason -> condition, over any bronze table of users with validity dates."""
    return {
        "malformed_row": F.col("malformed").isNotNull(),
        "missing_user_id": is_missing("user_id", sources),
        "overlong_id": rules.is_longer("user_id", clean.max_id_length),
        "bad_validity": rules.bad_validity(sources),
    }


def _broken(clean: Clean, sources: Mapping[str, Source]) -> dict[str, Column]:
    """reason -> condition, over bronze.users."""
    overlong = rules.any_of(rules.is_longer(name, clean.max_text_length) for name in GROUPS)
    unreadable = _is_consented(sources).isNull()
    return {**user_rules(clean, sources), "overlong_text": overlong, "unreadable_flag": unreadable}


def _is_consented(sources: Mapping[str, Source]) -> Column:
    """Consent that is not stated is not given."""
    return flag("is_consented", sources, missing=F.lit(False))


def _typed(clean: Clean, sources: Mapping[str, Source]) -> tuple[Columns, Columns]:
    columns = {
        "user_id": F.col("user_id"),
        **{name: words(name, sources) for name in GROUPS},
        "is_consented": _is_consented(sources),
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
