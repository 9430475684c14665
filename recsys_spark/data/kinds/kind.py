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

    required: fields that a source must map. identity: the columns that name a thing, of which one row stands.
    typed: (settings, sources) -> (silver columns over bronze, reason -> broken rule). own_id: the bronze
    column that is the last of the identity wherever it is given. later: SQL of what decides between rows of
    one moment of delivery before their place in the file does; the greater value stands.
    """

    name: str
    required: tuple[str, ...]
    identity: tuple[str, ...]
    typed: Typed
    own_id: str = ""
    later: tuple[str, ...] = ()

    def precedence(self, side: str = "") -> list[str]:
        """SQL of what says which of two rows of one thing stands: the greater value, the first one first.

        It is a total order of all rows that differ, so no order of files or partitions matters. side: `s.`
        or `t.` where a statement reads rows of two frames.
        """
        parts = ("{}delivered_at", *self.later, "{}row", "{}row_hash", "{}source")
        return [part.format(side) for part in parts]


def whose_events(sources: Mapping[str, Source]) -> Column:
    """Whose ids the row's source gives: its own, or those of the source that has the same events."""
    name = F.col("source")
    for source_name, source in sources.items():
        if source.same_events_as:
            is_meant = F.col("source") == source_name
            name = F.when(is_meant, F.lit(source.same_events_as)).otherwise(name)
    return name


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
