"""The suite of a night's preferences: what models are trained on is judged before any is."""

from __future__ import annotations

from datetime import date

from pyspark.sql import DataFrame

from recsys_spark.config.sections import Quality
from recsys_spark.data.events import PAIR
from recsys_spark.data.gates.bounds import Check
from recsys_spark.data.gates.figures import (
    Figures,
    counted,
    duplicate_keys,
    preference_figures,
    unknown_items,
)
from recsys_spark.data.gates.past_nights import Past
from recsys_spark.data.gates.suites import preference_check

# What their figures are called in ops.metrics, and their Data Docs.
KIND = "preferences"


def preference_suite(
    pairs: DataFrame, known_items: DataFrame, *, cap: float, quality: Quality, run_date: date, past: Past
) -> tuple[Check, Figures]:
    """What a night's preferences must be, and the figures to record of them: three Spark jobs.

    pairs: the night's rows of silver.preferences.
    known_items: (item_id), every item that silver knows.
    cap: the largest strength that a pair may have, `preferences.cap`.
    quality: the thresholds.
    run_date: the night; the newest event's age in days counts from it.
    past: the figures of the nights before.
    """
    figures = counted(pairs, preference_figures(cap=cap))
    figures["unknown_items"] = unknown_items(pairs, known_items)
    figures["duplicate_keys"] = duplicate_keys(pairs, PAIR)
    return preference_check(figures, quality=quality, run_date=run_date, past=past), figures
