"""User ids replaced by keyed hashes before anything is stored, where the configuration asks for it."""

from __future__ import annotations

import hmac
import os

import pyarrow as pa
from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F
from pyspark.sql.pandas.functions import arrow_udf
from pyspark.sql.types import StringType

from recsys_spark.config.sections import Privacy, Source
from recsys_spark.data.kinds.rules import BLANKS
from recsys_spark.errors import ConfigError
from recsys_spark.runtime.workers import warm_worker

LENGTH = 32
# Ids can be tried one after the other; a key shorter than this could be too.
_MIN_KEY_BYTES = 16
_WITHHELD = "withheld: the line may hold a user id"


def pseudonym_key(privacy: Privacy) -> bytes | None:
    """The key that the environment holds, or None where pseudonyms are off.

    Raises ConfigError where the named variable is not set, or too short to keep a secret.
    """
    name = privacy.pseudonym_key_env
    if not name:
        return None
    key = os.environb.get(name.encode(), b"")
    if len(key) < _MIN_KEY_BYTES:
        state = f"holds {len(key)} bytes" if key else "is not set"
        raise ConfigError(
            f"privacy.pseudonym_key_env names the environment variable {name}, which {state}. Expected a "
            f"secret of at least {_MIN_KEY_BYTES} bytes, the same every night. Next: export {name}=…"
        )
    return key


def key_mark(key: bytes | None) -> str:
    """What tells one key from another, and gives nothing of it away; `plain` without a key."""
    return "plain" if key is None else hmac.digest(key, b"recsys: which key is this?", "sha256").hex()[:8]


def require_same_key(metrics: DataFrame, key: bytes | None) -> None:
    """Raise ConfigError where earlier nights of this lake (ops.metrics) used another key, or none.

    Two keys in one lake would make two strangers of every user.
    """
    marks = metrics.where(F.col("metric") == "user_ids").select("label").distinct().collect()
    others = sorted({row["label"] for row in marks} - {key_mark(key)})
    if others:
        raise ConfigError(
            f"the user ids of this lake were made with key {others[0]}, and this night has key "
            f"{key_mark(key)} ('plain' is none). Expected one key for all nights. "
            "Next: set privacy.pseudonym_key_env and its variable as before, or start a new lake."
        )


def pseudonymous(column: Column, key: bytes) -> Column:
    """The first 32 hex digits of HMAC-SHA256(key, UTF-8 bytes of the text); null and blank stay as they are.

    Computed in Python workers: an expression of Spark would carry the key as a literal, which plans,
    event logs and error messages print.
    """

    def hashed(ids: pa.Array) -> pa.Array:
        warm_worker()
        return pa.array([_hashed(value, key) for value in ids.to_pylist()], pa.string())

    # As bytes: a text from outside need not be valid UTF-8, and the row rules judge it later.
    # Spark's stubs ask for a third argument, which Spark warns of: the hints above say the same.
    replaced = arrow_udf(hashed, StringType())  # type: ignore[call-overload]
    return replaced(column.cast("binary"))


def _hashed(value: bytes | None, key: bytes) -> str | None:
    if value is None:
        return None
    # The twin of `rules.blank`: what is no id is judged as it came. Most begin with a visible character.
    if not b" " < value[:1] < b"\x7f" and not value.decode(errors="replace").strip(BLANKS):
        return value.decode()
    return hmac.digest(key, value, "sha256").hex()[:LENGTH]


def personal_fields(source: Source) -> list[str]:
    """The fields that hold a user id: user_id, and whatever is mapped from the same delivered columns."""
    theirs = set(_names(source.columns.get("user_id", [])))
    sharing = (field for field, mapping in source.columns.items() if theirs & set(_names(mapping)))
    return sorted({"user_id", *sharing})


def without_plain_ids(mapped: DataFrame, source: Source, key: bytes | None) -> DataFrame:
    """Mapped rows of any source with pseudonyms in the place of user ids; the same rows without a key.

    A line that could not be split is withheld too: nobody knows where in it the id stands.
    """
    if key is None or "user_id" not in mapped.columns:
        return mapped
    replaced = {
        field: pseudonymous(F.col(field), key) for field in personal_fields(source) if field in mapped.columns
    }
    withheld = F.when(F.col("malformed").isNotNull(), F.lit(_WITHHELD))
    return mapped.withColumns({**replaced, "malformed": withheld})


def _names(mapping: str | list[str]) -> list[str]:
    return [mapping] if isinstance(mapping, str) else mapping
