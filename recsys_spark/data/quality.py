"""The Great Expectations gate on a cleaned batch, before anything of it reaches silver."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from recsys_spark.config import Clean, Quality
from recsys_spark.errors import QualityGateError

# Observed counts and shares only: a value of a person must not end up in a page.
_RESULT_FORMAT = {"result_format": "BASIC", "partial_unexpected_count": 0}


@dataclass(frozen=True)
class QualityResult:
    """One expectation's verdict; observed and allowed as a person would write them."""

    suite: str
    expectation: str
    column: str
    observed: str
    allowed: str
    is_success: bool


@dataclass(frozen=True)
class Check:
    """A frame and the expectations that it must meet: (GX class name, its arguments)."""

    suite: str
    rows: DataFrame
    expectations: list[tuple[str, dict[str, Any]]]


def interaction_check(good: DataFrame, *, quality: Quality, clean: Clean) -> Check:
    """What the good rows of a batch of interactions must be, as a table."""
    return Check(
        "silver.interactions",
        good,
        [
            ("ExpectTableRowCountToBeBetween", {"min_value": quality.min_rows}),
            *[
                ("ExpectColumnValuesToNotBeNull", {"column": name})
                for name in ("event_id", "user_id", "item_id", "event_at")
            ],
            ("ExpectColumnValuesToBeInSet", {"column": "event_type", "value_set": clean.event_types}),
            (
                "ExpectColumnValuesToBeBetween",
                {"column": "quantity", "min_value": 0, "max_value": clean.max_abs_value},
            ),
        ],
    )


def item_check(good: DataFrame, *, quality: Quality) -> Check:
    """What the good rows of a batch of items must be, as a table."""
    return Check(
        "silver.items",
        good,
        [
            ("ExpectTableRowCountToBeBetween", {"min_value": 1}),
            ("ExpectColumnValuesToNotBeNull", {"column": "item_id"}),
            ("ExpectColumnValuesToNotBeNull", {"column": "title", "mostly": 1 - quality.max_untitled_share}),
        ],
    )


def profile_check(profile: DataFrame, *, quality: Quality) -> Check:
    """What must hold between tables; `profile` is one row of shares (see `batch_profile`)."""
    between = "ExpectColumnValuesToBeBetween"
    return Check(
        "silver.interactions.profile",
        profile,
        [
            (between, {"column": "rejected_share", "max_value": quality.max_rejected_share}),
            (between, {"column": "unknown_item_share", "max_value": quality.max_unknown_item_share}),
            (between, {"column": "newest_age_days", "max_value": quality.max_age_days}),
            (between, {"column": "duplicate_ids", "max_value": 0}),
        ],
    )


def batch_profile(rows: DataFrame, good: DataFrame, known_items: DataFrame, *, run_date: date) -> DataFrame:
    """One row: rejected_share, duplicate_ids, newest_age_days, unknown_item_share of a batch."""
    rejected = rows.agg(F.avg((F.size("reject_reasons") > 0).cast("double")).alias("rejected_share"))
    events = good.agg(
        (F.count(F.lit(1)) - F.count_distinct("event_id")).cast("double").alias("duplicate_ids"),
        F.datediff(F.lit(run_date), F.min(F.greatest(F.lit("1970-01-01").cast("date"), F.col("event_date"))))
        .cast("double")
        .alias("_oldest"),
        F.greatest(F.datediff(F.lit(run_date), F.max("event_date")), F.lit(0))
        .cast("double")
        .alias("newest_age_days"),
    ).drop("_oldest")
    per_item = good.groupBy("item_id").agg(F.count(F.lit(1)).alias("events"))
    known = known_items.select("item_id").distinct().withColumn("is_known", F.lit(True))
    unknown = per_item.join(known, on="item_id", how="left").agg(
        F.try_divide(
            F.sum(F.when(F.col("is_known").isNull(), F.col("events")).otherwise(F.lit(0))), F.sum("events")
        )
        .cast("double")
        .alias("unknown_item_share")
    )
    return rejected.join(F.broadcast(events)).join(F.broadcast(unknown))


def validate(checks: list[Check], *, docs: Path) -> list[QualityResult]:
    """Run all checks and leave their Data Docs in `docs`; one result per expectation."""
    os.environ.setdefault("GX_ANALYTICS_ENABLED", "false")
    import great_expectations as gx  # noqa: PLC0415 - slow to import, and only this stage needs it
    import great_expectations.expectations as gxe  # noqa: PLC0415

    context = gx.get_context(mode="ephemeral")
    context.variables.progress_bars = {"globally": False, "metric_calculations": False}
    context.add_data_docs_site("night", _docs_site(docs))
    source = context.data_sources.add_spark("lake", persist=False)
    results: list[QualityResult] = []
    for check in checks:
        batch = source.add_dataframe_asset(check.suite).add_batch_definition_whole_dataframe("batch")
        suite = gx.ExpectationSuite(name=check.suite)
        for name, arguments in check.expectations:
            suite.add_expectation(getattr(gxe, name)(**arguments))
        suite = context.suites.add(suite)
        definition = gx.ValidationDefinition(name=check.suite, data=batch, suite=suite)
        outcome = context.validation_definitions.add(definition).run(
            batch_parameters={"dataframe": check.rows}, result_format=_RESULT_FORMAT
        )
        results.extend(_result(check.suite, result) for result in outcome.results)
    context.build_data_docs(site_names=["night"])
    return results


def require_success(results: list[QualityResult]) -> None:
    """Raise QualityGateError that names every failed expectation, observed and allowed."""
    failed = [result for result in results if not result.is_success]
    if failed:
        told = "; ".join(
            f"{result.suite}: {result.expectation}({result.column}) observed {result.observed}, "
            f"allowed {result.allowed}"
            for result in failed
        )
        raise QualityGateError(
            f"the cleaned batch was not merged: {told}. Next: recsys quarantine, then correct the delivery "
            "or the thresholds in [quality]."
        )


def _docs_site(docs: Path) -> Mapping[str, Any]:
    return {
        "class_name": "SiteBuilder",
        "store_backend": {"class_name": "TupleFilesystemStoreBackend", "base_directory": str(docs)},
        "site_index_builder": {"class_name": "DefaultSiteIndexBuilder"},
    }


def _result(suite: str, outcome: Any) -> QualityResult:
    arguments = outcome.expectation_config.kwargs
    found = outcome.result or {}
    failure = (outcome.exception_info or {}).get("exception_message")
    if failure:
        observed = f"failed to run: {failure}"
    elif "observed_value" in found:
        observed = f"{found['observed_value']:,}"
    else:
        observed = f"{found.get('unexpected_count', 0):,} of {found.get('element_count', 0):,} unexpected"
    return QualityResult(
        suite,
        str(outcome.expectation_config.type),
        str(arguments.get("column", "")),
        observed,
        _allowed(arguments),
        bool(outcome.success),
    )


def _allowed(arguments: Mapping[str, Any]) -> str:
    parts = []
    if arguments.get("min_value") is not None:
        parts.append(f">= {arguments['min_value']:,}")
    if arguments.get("max_value") is not None:
        parts.append(f"<= {arguments['max_value']:,}")
    if arguments.get("value_set"):
        parts.append("one of " + ", ".join(map(str, arguments["value_set"])))
    mostly = float(arguments.get("mostly", 1.0) or 1.0)
    if mostly < 1:
        parts.append(f"in {mostly:.1%} of rows")
    return " and ".join(parts) or "none unexpected"
