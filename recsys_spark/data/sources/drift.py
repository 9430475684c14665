"""What a delivery has changed since the last one: missing, renamed, retyped and new columns."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from difflib import get_close_matches

from recsys_spark.config.sections import Source
from recsys_spark.data.kinds import KINDS
from recsys_spark.data.sources.columns import Layout, differing_by_case
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


def columns_of(layouts: Iterable[Layout]) -> dict[str, str]:
    """Every column of the delivery -> its class of types, in order of appearance."""
    return {name: type_class(kind) for layout in layouts for name, kind in layout.columns}


def faults(source: Source, layouts: Sequence[Layout], known: Mapping[str, str]) -> list[str]:
    """All differences that stop the stage, one sentence each, with the files they are in.

    known: column -> class of types, as earlier deliveries had them; empty at the first.
    """
    types = {**columns_of(reversed(layouts)), **known}
    files_by_sentence: dict[str, list[str]] = {}
    for layout in layouts:
        for sentence in (*_ambiguous(layout), *_missing(source, layout), *_retyped(source, layout, types)):
            files_by_sentence.setdefault(sentence, []).append(layout.file.name)
    if source.new_columns == "refuse":
        for name, files in new_columns(source, layouts, known).items():
            files_by_sentence[f"column {name!r} is new, and new_columns is 'refuse'."] = files
    return [f"{_files(files)}: {sentence}" for sentence, files in files_by_sentence.items()]


def require_same(
    sources: Mapping[str, Source],
    layouts: Mapping[str, Sequence[Layout]],
    known: Mapping[str, Mapping[str, str]],
) -> None:
    """Raise one ConfigError that lists every difference of every source."""
    sentences = []
    for name, source in sources.items():
        differences = faults(source, layouts[name], known.get(name, {}))
        if differences:
            has = ", ".join(columns_of(layouts[name]))
            sentences.append(
                f"source {name!r} ({source.path or source.table}): {' '.join(differences)} It has: {has}."
            )
    if sentences:
        raise ConfigError("\n  ".join(sentences))


def new_columns(source: Source, layouts: Sequence[Layout], known: Mapping[str, str]) -> dict[str, list[str]]:
    """Columns that no earlier delivery had and no field reads -> the files that have them."""
    read = their_columns(source)
    new: dict[str, list[str]] = {}
    for layout in layouts if known else ():
        for name in layout.names:
            if name not in known and name not in read:
                new.setdefault(name, []).append(layout.file.name)
    return new


def notes(source: Source, layouts: Sequence[Layout], known: Mapping[str, str]) -> list[str]:
    """What people should know of and nothing stops for: new columns, keys that no sampled row has."""
    sentences = [f"new column {name!r} is ignored" for name in new_columns(source, layouts, known)]
    sampled = {name for layout in layouts for name in (*layout.names, *layout.from_path)}
    if layouts and all(layout.is_sample for layout in layouts):
        absent = [name for name in their_columns(source) if name not in sampled]
        sentences += [f"key {name!r} is in none of the first rows" for name in absent]
    return sentences


def _ambiguous(layout: Layout) -> list[str]:
    return [
        f"columns {' and '.join(map(repr, group))} differ by case only; Spark cannot tell them apart."
        for group in differing_by_case(layout.names)
    ]


def _missing(source: Source, layout: Layout) -> list[str]:
    have = [*layout.names, *layout.from_path]
    sentences = []
    for theirs, fields in their_columns(source).items():
        if theirs in have or (layout.is_sample and not _is_lost(source, layout, theirs, fields)):
            continue
        hint = did_you_mean(theirs, have)
        sentences.append(f"column {theirs!r} (for {', '.join(fields)}) not found.{hint}")
    return sentences


def _is_lost(source: Source, layout: Layout, theirs: str, fields: Sequence[str]) -> bool:
    """Whether a key that the sampled rows lack is missing, and not only rare."""
    if not layout.names:
        return False
    unread = [name for name in layout.names if name not in their_columns(source)]
    is_required = any(field in KINDS[source.kind].required for field in fields)
    return is_required or bool(get_close_matches(theirs, unread, n=1, cutoff=_RENAMED))


def _retyped(source: Source, layout: Layout, known: Mapping[str, str]) -> list[str]:
    if source.retyped_columns == "accept":
        return []
    sentences = []
    for name, kind in layout.columns:
        was, now = known.get(name, ""), type_class(kind)
        if name in their_columns(source) and was and now and was != now:
            sentences.append(f"column {name!r} was {was} and is {now} ({kind}).")
    return sentences


def _files(names: Sequence[str]) -> str:
    rest = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + rest
