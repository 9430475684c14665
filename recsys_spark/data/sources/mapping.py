"""From their columns to ours, as texts."""

from __future__ import annotations

from collections.abc import Collection
from functools import reduce
from operator import and_

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F
from pyspark.sql.types import ArrayType, DataType, DecimalType, DoubleType, FloatType

from recsys_spark.config.sections import Source
from recsys_spark.data.kinds import KINDS
from recsys_spark.data.kinds.items import attributes_as_json
from recsys_spark.data.kinds.rules import TAG_JOINER, any_of, blank
from recsys_spark.errors import ConfigError, did_you_mean
from recsys_spark.lake.schema import column
from recsys_spark.lake.tables import FIELDS_BY_KIND

# Columns of a scanned frame beside the delivery's own, under names that no delivery has.
FILE, ROW, MALFORMED = "__recsys_file", "__recsys_row", "__recsys_malformed"
# The whole numbers below it are each a float of their own: beyond it two ids may be one already.
EXACT_DOUBLE, _EXACT_FLOAT = 2.0**53, 2.0**24
_WHOLE = r"^(-?\d+)\.0*$"


def check_mapping(name: str, source: Source) -> None:
    """Raise ConfigError unless the section maps every required field and no unknown one."""
    fields = FIELDS_BY_KIND[source.kind]
    mapped = {**source.columns, **source.constants, **({"attributes": ""} if source.attributes else {})}
    for field in mapped:
        if field not in fields:
            raise ConfigError(
                f"sources.{name} maps unknown field {field!r} of {source.kind}: have {', '.join(fields)}."
                f"{did_you_mean(field, fields)}"
            )
    missing = [field for field in KINDS[source.kind].required if field not in mapped]
    if missing:
        raise ConfigError(f"sources.{name} ({source.kind}) does not map {', '.join(missing)}.")


def their_columns(source: Source) -> dict[str, list[str]]:
    """Each column of theirs that the section reads -> our fields made of it, in the section's order."""
    fields: dict[str, list[str]] = {}
    for field, mapping in {**source.columns, **source.attributes}.items():
        for theirs in [mapping] if isinstance(mapping, str) else mapping:
            fields.setdefault(theirs, []).append(field)
    return fields


def mapped(scanned: DataFrame, source: Source, *, decimals: Collection[str] = ()) -> DataFrame:
    """source_file, row, malformed, and our fields as texts, of a frame that has all their columns.

    scanned: the delivered rows.
    source: their section.
    decimals: columns of texts that are decimal numbers where they were delivered.
    """
    types = {field.name: field.dataType for field in scanned.schema}
    types |= {name: DecimalType(38, 18) for name in decimals}
    payload = [_ours(field, theirs, source, types).alias(field) for field, theirs in source.columns.items()]
    payload += [F.lit(value).alias(field) for field, value in source.constants.items()]
    if source.attributes:
        payload.append(attributes_as_json(source).alias("attributes"))
    return scanned.select(
        F.col(FILE).alias("source_file"),
        F.col(ROW).alias("row"),
        F.coalesce(MALFORMED, *_no_ids(source, types)).alias("malformed"),
        *payload,
    )


def is_whole(number: Column, *, below: float) -> Column:
    """Whether a float is a whole number whose digits it holds exactly; null for null."""
    return (number == F.rint(number)) & (F.abs(number) < F.lit(below))


def _id(name: str, kind: DataType | None, *, whole_ids: bool) -> Column:
    """An id as text: of a column of numbers the whole number's digits, null where it is none."""
    if isinstance(kind, FloatType | DoubleType):
        return F.when(_is_id(name, kind), column(name).try_cast("long").cast("string"))
    text = column(name).cast("string")
    if isinstance(kind, DecimalType):
        return F.when(_is_id(name, kind), F.regexp_replace(text, _WHOLE, "$1"))
    return F.regexp_replace(text, _WHOLE, "$1") if whole_ids else text


def _is_id(name: str, kind: DataType) -> Column:
    if isinstance(kind, DecimalType):
        return column(name).cast("string").rlike(r"^-?\d+(\.0*)?$")
    return is_whole(column(name), below=_EXACT_FLOAT if isinstance(kind, FloatType) else EXACT_DOUBLE)


def _no_ids(source: Source, types: dict[str, DataType]) -> list[Column]:
    """For each column of numbers that ids are made of: a sentence where the number is none, else null.

    NaN is no number but says that none is given, as the word does.
    """
    sentences = []
    for name, fields in their_columns(source).items():
        kind = types.get(name)
        ids = [field for field in fields if field.endswith("_id")]
        if ids and isinstance(kind, FloatType | DoubleType | DecimalType):
            text = column(name).cast("string")
            told = F.concat(F.lit(f"{ids[0]}: "), text, F.lit(" is no whole number that it holds exactly"))
            sentences.append(F.when(~_is_id(name, kind) & (text != "NaN"), told))
    return sentences


def _ours(field: str, mapping: str | list[str], source: Source, types: dict[str, DataType]) -> Column:
    names = [mapping] if isinstance(mapping, str) else mapping
    if field == "tags":
        lists = {name for name, kind in types.items() if isinstance(kind, ArrayType)}
        return F.concat_ws(TAG_JOINER, *[_tags(name, source, is_list=name in lists) for name in names])
    if field.endswith("_id"):
        values = [_id(name, types.get(name), whole_ids=source.whole_ids) for name in names]
    else:
        values = [column(name).cast("string") for name in names]
    if len(values) == 1:
        return values[0]
    if field.endswith("_id"):
        return _joined_id(values, may_have_gaps=field == "cancels_event_id")
    return F.concat_ws(" ", *values)


def _joined_id(parts: list[Column], *, may_have_gaps: bool) -> Column:
    """The parts with a colon between them; null where one is missing, or every row without it were the same.

    With gaps, null only where all are missing: what names another event in part is a cancellation of an
    event that nobody knows, and no event of its own.
    """
    blanks = [blank(part) for part in parts]
    whole = F.concat_ws(":", *[F.coalesce(part, F.lit("")) for part in parts])
    return F.when(~(reduce(and_, blanks) if may_have_gaps else any_of(blanks)), whole)


def _tags(name: str, source: Source, *, is_list: bool) -> Column:
    """One or several tags: a list, a list in JSON, or a text that the section's separator splits."""
    if is_list:
        return column(name).cast("array<string>")
    value = column(name).cast("string")
    if source.tags_separator:
        value = F.replace(value, F.lit(source.tags_separator), F.lit(TAG_JOINER))
    if source.format == "jsonl":
        listed = F.concat_ws(TAG_JOINER, F.from_json(value, "array<string>"))
        return F.when(F.startswith(value, F.lit("[")), listed).otherwise(value)
    return value
