"""The border guard: a frame is what its table declares, or every difference is named."""

from __future__ import annotations

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from recsys_spark.errors import RecsysError
from recsys_spark.lake.tables import Table


class SchemaError(RecsysError):
    """A frame does not have the columns that its table declares: a fault in the code."""


def conform(rows: DataFrame, table: Table) -> DataFrame:
    """`rows` with exactly the table's columns in the table's order.

    Raises SchemaError that lists all missing, unexpected and retyped columns at once.
    """
    wanted = table.columns
    given = {column.name: column.dataType for column in rows.schema.fields}
    missing = [name for name in wanted if name not in given]
    unexpected = [name for name in given if name not in wanted]
    retyped = [
        f"{name}: {given[name].simpleString()} (expected {kind.simpleString()})"
        for name, kind in wanted.items()
        if name in given and given[name].simpleString() != kind.simpleString()
    ]
    if missing or unexpected or retyped:
        raise SchemaError(f"{table.name}: missing={missing} unexpected={unexpected} retyped={retyped}")
    return rows.select(*wanted)


def column(name: str) -> Column:
    """The column of this name, whatever characters it has."""
    escaped = name.replace("`", "``")
    return F.col(f"`{escaped}`")
