"""The figures of all staged lists of a night, for Great Expectations beside the gate on each campaign."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from recsys_spark.config.sections import Campaign
from recsys_spark.data.gates.figures import Figures, counted
from recsys_spark.push.gate import Verdict

KIND = "lists"
_NEVER_NULL = ("channel", "campaign", "user_id", "rank", "item_id", "score")
_COUNTED_BY_GATE = ("duplicates", "gaps", "not_finite", "unknown_items", "not_on_sale")


def list_figures(
    staged: DataFrame, *, campaigns: Mapping[str, Campaign], verdicts: Sequence[Verdict]
) -> Figures:
    """rows, null_values, out_of_range_rank, and what the gate counted, summed over the campaigns."""
    is_null = F.lit(False)
    for name in _NEVER_NULL:
        is_null = is_null | F.col(name).isNull()
    in_range = F.coalesce(F.col("rank").between(F.lit(1), _longest(campaigns)), F.lit(False))
    figures = counted(
        staged,
        {
            "rows": F.count(F.lit(1)),
            "null_values": F.count_if(is_null),
            "out_of_range_rank": F.count_if(~in_range),
        },
    )
    for check in _COUNTED_BY_GATE:
        figures[check] = sum(verdict.observed for verdict in verdicts if verdict.check == check)
    return figures


def _longest(campaigns: Mapping[str, Campaign]) -> Column:
    """The k of the row's campaign; null for one that is not configured."""
    longest = F.lit(None).cast("int")
    for name, campaign in campaigns.items():
        longest = F.when(F.col("campaign") == name, F.lit(campaign.k)).otherwise(longest)
    return longest
