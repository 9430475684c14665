"""What a catalogue and lists are made of, from plain rows."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
from pyspark.sql import DataFrame, SparkSession

from recsys_spark.runtime.rows import frame_of

SCHEMAS = {
    "items": "item_id string",
    "factors": "item_id string, factors array<float>",
    "vectors": "item_id string, terms array<int>, weights array<float>",
    "popularity": "item_id string, users long, new_users long, is_reference boolean",
    "group_popularity": "group string, item_id string, users double",
    "cold": "item_id string",
    "candidates": "item_id string",
    "forbidden": "group string, item_id string",
    "users": "user_id string",
    "preferences": "user_id string, item_id string, strength double",
    "user_factors": "user_id string, factors array<float>",
    "exclude": "user_id string, item_id string",
}


def frames(spark: SparkSession, **rows: Iterable[tuple[Any, ...]]) -> dict[str, DataFrame]:
    """Arguments of `catalogue_of` and `lists`, each a frame of the rows that are given under its name."""
    return {name: frame_of(spark, given, SCHEMAS[name]) for name, given in rows.items()}


def ids(names: Iterable[str]) -> list[tuple[str]]:
    return [(name,) for name in names]


def factor_rows(letter: str, factors: np.ndarray, places: Iterable[int]) -> list[tuple[str, list[float]]]:
    """The rows of a matrix at these places, under the names letter00, letter01 …"""
    return [(f"{letter}{place:02d}", [float(value) for value in factors[place]]) for place in places]


def word_rows(words: np.ndarray) -> list[tuple[str, list[int], list[float]]]:
    """Terms and weights of items i00, i01 …: what is not 0 in their rows."""
    return [
        (f"i{item:02d}", np.flatnonzero(row).tolist(), [float(weight) for weight in row[row > 0]])
        for item, row in enumerate(words)
    ]
