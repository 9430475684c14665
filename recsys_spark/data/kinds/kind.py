"""What makes a kind of table: its silver columns, its row rules, and what makes two rows the same."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from pyspark.sql import Column
from pyspark.sql import functions as F

from recsys_spark.config.sections import Clean, Source
from recsys_spark.data.kinds import rules

FIRST_DAY, LAST_DAY = "1970-01-01", "9999-12-31"

Columns = dict[str, Column]
Typed = Callable[[Clean, Mapping[str, Source]], tuple[Columns, Columns]]


@dataclass(frozen=True)
class Kind:
    """One kind of delivered table.

    required: fields that a source must map. identity: the columns that name a thing, of which the latest
    delivery stands. typed: (settings, sources) -> (silver columns over bronze, reason -> broken rule).
    own_id: the bronze column that is the identity wherever it is given.
    """

    name: str
    required: tuple[str, ...]
    identity: tuple[str, ...]
    typed: Typed
    own_id: str = ""


def text(name: str) -> Column:
    """The text without blanks around it, null where nothing is left."""
    return F.when(~rules.is_blank(name), F.trim(F.col(name)))


def validity(sources: Mapping[str, Source]) -> Columns:
    """valid_from <= day < valid_to, by the time format of the row's source; always where it has no dates."""
    bounds = {"valid_from": FIRST_DAY, "valid_to": LAST_DAY}
    return {
        name: F.coalesce(F.to_date(rules.point_in_time(name, sources)), F.to_date(F.lit(always)))
        for name, always in bounds.items()
    }
