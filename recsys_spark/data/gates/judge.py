"""Great Expectations as the judge of a batch: suites in, verdicts and Data Docs out.

What is judged are the figures of a batch: one row that Spark counted in one pass. On the rows themselves
each expectation would cost Spark jobs; on the figures a suite takes tenths of a second.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from threading import Thread
from typing import Any

from recsys_spark.data.gates.bounds import Bound, Check
from recsys_spark.errors import QualityGateError
from recsys_spark.lake.job import Job
from recsys_spark.lake.tables import OPS_QUALITY
from recsys_spark.runtime.rows import frame_of

_SITE = "night"
_RESULT_FORMAT = {"result_format": "BASIC", "partial_unexpected_count": 0}
_EXPECTATION = "expect_column_max_to_be_between"


@dataclass(frozen=True)
class QualityResult:
    """One expectation's verdict; observed and allowed as a person would write them."""

    suite: str
    expectation: str
    column: str
    observed: str
    allowed: str
    is_success: bool


def preload() -> None:
    """Begin to import Great Expectations in the background: seconds of work that Spark's jobs can hide."""
    Thread(target=_great_expectations, name="import-great-expectations", daemon=True).start()


def validate(checks: list[Check], *, docs: Path, stage: str) -> list[QualityResult]:
    """Judge all checks and leave their Data Docs in `docs`/`stage`; one result per bound.

    Earlier pages of the same stage are replaced, those of other stages stay; `docs`/index.html leads to all.
    """
    gx, _ = _great_expectations()
    context = gx.get_context(mode="ephemeral")
    context.variables.progress_bars = {"globally": False, "metric_calculations": False}
    context.add_data_docs_site(_SITE, _docs_site(docs / stage))
    source = context.data_sources.add_pandas("figures")
    results = [result for check in checks for result in _judged(context, source, check)]
    shutil.rmtree(docs / stage, ignore_errors=True)
    context.build_data_docs(site_names=[_SITE])
    _write_index(docs)
    return results


def judged(job: Job, checks: list[Check], *, stage: str) -> list[QualityResult]:
    """All checks judged: Data Docs of the stage, and the results in ops.quality_results whatever they are."""
    results = validate(checks, docs=job.output / f"{job.run_date}" / "data_docs", stage=stage)
    keep(job, results)
    return results


def require_success(results: list[QualityResult], *, what: str = "the cleaned batch was not merged") -> None:
    """Raise QualityGateError that names every failed expectation, observed and allowed."""
    failed = [result for result in results if not result.is_success]
    if failed:
        raise QualityGateError(
            f"{what}: {sentence(failed)}. Next: recsys quarantine, then correct the delivery or the "
            "thresholds in [quality]; recsys quarantine --discard FILE leaves a delivered file out for good."
        )


def sentence(failed: list[QualityResult]) -> str:
    """Suite, expectation, observed and allowed of each result, for a sentence."""
    return "; ".join(
        f"{result.suite}: {result.expectation}({result.column}) observed {result.observed}, "
        f"allowed {result.allowed}"
        for result in failed
    )


def keep(job: Job, results: list[QualityResult]) -> None:
    """Append the results to ops.quality_results, whatever the verdict."""
    now, run_id = datetime.now(UTC), job.run.run_id
    rows = [
        (
            run_id,
            job.run_date,
            result.suite,
            result.expectation,
            result.column,
            result.observed,
            result.allowed,
            result.is_success,
            now,
        )
        for result in results
    ]
    if rows:
        job.append(OPS_QUALITY, frame_of(job.spark, rows, OPS_QUALITY.schema))


def _great_expectations() -> tuple[Any, Any]:
    os.environ.setdefault("GX_ANALYTICS_ENABLED", "false")
    import great_expectations as gx  # noqa: PLC0415 - slow to import, and only the gates need it
    import great_expectations.expectations as gxe  # noqa: PLC0415

    return gx, gxe


def _judged(context: Any, source: Any, check: Check) -> list[QualityResult]:
    """Run one suite on its one row of figures."""
    import pandas as pd  # noqa: PLC0415 - slow to import, and only the gates need it

    gx, gxe = _great_expectations()
    batch = source.add_dataframe_asset(check.suite).add_batch_definition_whole_dataframe("batch")
    suite = gx.ExpectationSuite(name=check.suite)
    for bound in check.bounds:
        suite.add_expectation(
            gxe.ExpectColumnMaxToBeBetween(
                column=bound.column, min_value=bound.low, max_value=bound.high, notes=bound.meaning
            )
        )
    definition = gx.ValidationDefinition(name=check.suite, data=batch, suite=context.suites.add(suite))
    outcome = context.validation_definitions.add(definition).run(
        batch_parameters={"dataframe": pd.DataFrame([check.figures], dtype="float64")},
        result_format=_RESULT_FORMAT,
    )
    by_column = {result.expectation_config.kwargs["column"]: result for result in outcome.results}
    return [_result(check, bound, by_column[bound.column]) for bound in check.bounds]


def _result(check: Check, bound: Bound, outcome: Any) -> QualityResult:
    observed = (outcome.result or {}).get("observed_value")
    return QualityResult(
        check.suite,
        _EXPECTATION,
        bound.column,
        "could not be judged" if observed is None else _number(observed),
        _allowed(bound),
        bool(outcome.success),
    )


def _allowed(bound: Bound) -> str:
    parts = []
    if bound.low is not None:
        parts.append(f">= {_number(bound.low)}")
    if bound.high is not None:
        parts.append(f"<= {_number(bound.high)}")
    return " and ".join(parts)


def _number(value: float) -> str:
    return f"{int(value):,}" if float(value).is_integer() else f"{value:.4g}"


def _docs_site(folder: Path) -> Mapping[str, Any]:
    return {
        "class_name": "SiteBuilder",
        "store_backend": {"class_name": "TupleFilesystemStoreBackend", "base_directory": str(folder)},
        "site_index_builder": {"class_name": "DefaultSiteIndexBuilder"},
    }


def _write_index(docs: Path) -> None:
    """One page that leads to the Data Docs of each stage."""
    stages = sorted(page.parent.name for page in docs.glob("*/index.html"))
    links = "".join(f'<li><a href="{stage}/index.html">{stage}</a></li>' for stage in stages)
    page = (
        '<!doctype html><html lang="en"><meta charset="utf-8"><title>Data Docs</title>'
        f"<h1>Data Docs</h1><p>What each stage of the night was judged by.</p><ul>{links}</ul></html>\n"
    )
    (docs / "index.html").write_text(page, encoding="utf-8")
