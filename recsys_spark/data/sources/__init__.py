"""Sources: from what is delivered to rows of texts tied to their file and content."""

from recsys_spark.data.sources.bronze import bronze_rows, one_slash, rows_by_file, shared_by_file
from recsys_spark.data.sources.deliveries import Delivery, new_deliveries, read_source
from recsys_spark.data.sources.failures import reading, writing
from recsys_spark.data.sources.files import SourceFile, file_at, find_files, with_content_hash
from recsys_spark.data.sources.known import Known, content_of

__all__ = [
    "Delivery",
    "Known",
    "SourceFile",
    "bronze_rows",
    "content_of",
    "file_at",
    "find_files",
    "new_deliveries",
    "one_slash",
    "read_source",
    "reading",
    "rows_by_file",
    "shared_by_file",
    "with_content_hash",
    "writing",
]
