"""What a delivery has changed since the last one: missing, renamed, retyped and new columns."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from difflib import get_close_matches

from recsys_spark.config.sections import Source
from recsys_spark.data.kinds import KINDS
from recsys_spark.data.sources.columns import Found, differing_by_case
from recsys_spark.data.sources.mapping import their_columns
from recsys_spark.errors import ConfigError, did_you_mean

# A key that many rows of JSON may lack counts as renamed only when a very similar one came.
_RENAMED = 0.8
_CLASSES = (
    (r"timestamp|int96", "timestamp"),
    (r"u?int\d|int|bigint|smallint|tinyint", "integer"),
    (r"decimal", "decimal"),
    (r"float|double|halffloat", "float"),
    (r"string|large_string|binary|large_binary|varchar|char", "text"),
    (r"date", "date"),
    (r"bool", "boolean"),
)
_SHOWN = 3


def type_class(kind: str) -> str:
    """`integer` for int32 and bigint: types that print a value alike are one; empty where unknown."""
    return next((name for pattern, name in _CLASSES if re.match(pattern, kind)), kind)


def columns_of(founds: Iterable[Found]) -> dict[str, str]:
    """Every column of the delivery -> its class of types, in order of appearance."""
    return {name: type_class(kind) for found in founds for name, kind in found.columns}


def faults(source: Source, founds: Sequence[Found], known: Mapping[str, str]) -> list[str]:
    """All differences that stop the stage, one sentence each, with the files they are in.

    known: column -> class of types, as earlier deliveries had them; empty at the first.
    """
    types = {**columns_of(reversed(founds)), **known}
    told: dict[str, list[str]] = {}
    for found in founds:
        for sentence in (*_ambiguous(found), *_missing(source, found), *_retyped(source, found, types)):
            told.setdefault(sentence, []).append(found.file.name)
    if source.new_columns == "refuse":
        for name, files in new_columns(source, founds, known).items():
            told[f"column {name!r} is new, and new_columns is 'refuse'."] = files
    return [f"{_files(files)}: {sentence}" for sentence, files in told.items()]


def require_same(
    sources: Mapping[str, Source],
    founds: Mapping[str, Sequence[Found]],
    known: Mapping[str, Mapping[str, str]],
) -> None:
    """Raise one ConfigError that lists every difference of every source."""
    told = []
    for name, source in sources.items():
        differences = faults(source, founds[name], known.get(name, {}))
        if differences:
            has = ", ".join(columns_of(founds[name]))
            told.append(
                f"source {name!r} ({source.path or source.table}): {' '.join(differences)} It has: {has}."
            )
    if told:
        raise ConfigError("\n  ".join(told))


def new_columns(source: Source, founds: Sequence[Found], known: Mapping[str, str]) -> dict[str, list[str]]:
    """Columns that no earlier delivery had and no field reads -> the files that have them."""
    read = their_columns(source)
    new: dict[str, list[str]] = {}
    for found in founds if known else ():
        for name in found.names:
            if name not in known and name not in read:
                new.setdefault(name, []).append(found.file.name)
    return new


def notes(source: Source, founds: Sequence[Found], known: Mapping[str, str]) -> list[str]:
    """What people should know of and nothing stops for: new columns, keys that no sampled row has."""
    told = [f"new column {name!r} is ignored" for name in new_columns(source, founds, known)]
    sampled = {name for found in founds for name in (*found.names, *found.from_path)}
    if founds and all(found.is_sample for found in founds):
        absent = [name for name in their_columns(source) if name not in sampled]
        told += [f"key {name!r} is in none of the first rows" for name in absent]
    return told


def _ambiguous(found: Found) -> list[str]:
    return [
        f"columns {' and '.join(map(repr, group))} differ by case only; Spark cannot tell them apart."
        for group in differing_by_case(found.names)
    ]


def _missing(source: Source, found: Found) -> list[str]:
    have = [*found.names, *found.from_path]
    told = []
    for theirs, fields in their_columns(source).items():
        if theirs in have or (found.is_sample and not _is_lost(source, found, theirs, fields)):
            continue
        told.append(f"column {theirs!r} (for {', '.join(fields)}) not found.{did_you_mean(theirs, have)}")
    return told


def _is_lost(source: Source, found: Found, theirs: str, fields: Sequence[str]) -> bool:
    """Whether a key that the sampled rows lack is missing, and not only rare."""
    if not found.names:
        return False
    unread = [name for name in found.names if name not in their_columns(source)]
    is_required = any(field in KINDS[source.kind].required for field in fields)
    return is_required or bool(get_close_matches(theirs, unread, n=1, cutoff=_RENAMED))


def _retyped(source: Source, found: Found, known: Mapping[str, str]) -> list[str]:
    if source.retyped_columns == "accept":
        return []
    told = []
    for name, kind in found.columns:
        was, now = known.get(name, ""), type_class(kind)
        if name in their_columns(source) and was and now and was != now:
            told.append(f"column {name!r} was {was} and is {now} ({kind}).")
    return told


def _files(names: Sequence[str]) -> str:
    rest = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + rest
