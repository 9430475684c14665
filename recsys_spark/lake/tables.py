"""Every table, declared once: name, columns, key, partitions. The names are a contract."""

from __future__ import annotations

from dataclasses import dataclass, field

from pyspark.sql.types import (
    ArrayType,
    BooleanType,
    DataType,
    DateType,
    DoubleType,
    FloatType,
    IntegerType,
    LongType,
    MapType,
    StringType,
    StructField,
    StructType,
    TimestampType,
)

STRING, DOUBLE, INT, LONG = StringType(), DoubleType(), IntegerType(), LongType()
DATE, TIMESTAMP, BOOLEAN = DateType(), TimestampType(), BooleanType()
STRINGS, FLOATS, INTS = ArrayType(STRING), ArrayType(FloatType()), ArrayType(INT)


@dataclass(frozen=True)
class Table:
    """A Delta table under the lake's root at `{layer}/{name}`.

    sought_by: the columns, beside those of the partitions, by whose bounds a reader may pass over files; None
    for all. Finding the bounds of every column costs a quarter of the time to write a wide table of texts.
    is_apart: its files are found by the log alone and lie in folders of random names, because the values of
    its partitions would not do as names of folders.
    """

    name: str
    columns: dict[str, DataType]
    key: tuple[str, ...]
    partition_by: tuple[str, ...] = ()
    sought_by: tuple[str, ...] | None = None
    is_apart: bool = False
    schema: StructType = field(init=False)

    def __post_init__(self) -> None:
        fields = [StructField(name, kind) for name, kind in self.columns.items()]
        object.__setattr__(self, "schema", StructType(fields))

    @property
    def path(self) -> str:
        return self.name.replace(".", "/")


# What every bronze row carries beside its payload. `row` counts from 0 within the file.
_DELIVERY: dict[str, DataType] = {
    "source": STRING,
    "source_file": STRING,
    "content_hash": STRING,
    "row": LONG,
    "delivered_at": TIMESTAMP,
    "ingested_at": TIMESTAMP,
    "ingest_date": DATE,
    "malformed": STRING,
}

INTERACTION_FIELDS = (
    "event_id",
    "user_id",
    "item_id",
    "event_type",
    "event_at",
    "quantity",
    "value",
    "basket_id",
    "cancels_event_id",
)
ITEM_FIELDS = (
    "item_id",
    "title",
    "category",
    "brand",
    "tags",
    "price",
    "released_at",
    "attributes",
    "is_available",
    "valid_from",
    "valid_to",
)
USER_FIELDS = (
    "user_id",
    "country",
    "region",
    "segment",
    "age_band",
    "is_consented",
    "valid_from",
    "valid_to",
)
AUDIENCE_FIELDS = ("audience", "user_id", "valid_from", "valid_to")
OUTCOME_FIELDS = (
    "event_id",
    "run_date",
    "channel",
    "campaign",
    "user_id",
    "item_id",
    "outcome_type",
    "event_at",
)


# What all rows of a delivered file share: partitions of bronze, so that no row has to carry it. Six columns
# of seventeen took a third of the time to write them; and which files bronze holds, its log knows.
OF_THE_FILE = ("ingest_date", "source", "source_file", "content_hash", "delivered_at", "ingested_at")


def _bronze(kind: str, payload: tuple[str, ...]) -> Table:
    """Payload as delivered: strings, so that nothing is lost before it is judged."""
    return Table(
        name=f"bronze.{kind}",
        columns={**_DELIVERY, **dict.fromkeys(payload, STRING)},
        key=("source", "content_hash", "row"),
        partition_by=OF_THE_FILE,
        sought_by=(),
        is_apart=True,
    )


BRONZE_INTERACTIONS = _bronze("interactions", INTERACTION_FIELDS)
BRONZE_ITEMS = _bronze("items", ITEM_FIELDS)
BRONZE_USERS = _bronze("users", USER_FIELDS)
BRONZE_AUDIENCES = _bronze("audiences", AUDIENCE_FIELDS)
BRONZE_OUTCOMES = _bronze("outcomes", OUTCOME_FIELDS)
BRONZE = {
    "interactions": BRONZE_INTERACTIONS,
    "items": BRONZE_ITEMS,
    "users": BRONZE_USERS,
    "audiences": BRONZE_AUDIENCES,
    "outcomes": BRONZE_OUTCOMES,
}

# What decides which of two rows of one key stands, in any order of deliveries; `Kind.precedence` says how.
_VERSION: dict[str, DataType] = {"source": STRING, "delivered_at": TIMESTAMP, "row": LONG, "row_hash": LONG}

SILVER_INTERACTIONS = Table(
    "silver.interactions",
    {
        "event_id": STRING,
        "user_id": STRING,
        "item_id": STRING,
        "event_type": STRING,
        "event_at": TIMESTAMP,
        "event_date": DATE,
        "quantity": DOUBLE,
        "value": DOUBLE,
        "basket_id": STRING,
        "cancels_event_id": STRING,
        **_VERSION,
    },
    key=("event_date", "source", "event_id"),
    partition_by=("event_date",),
    sought_by=("event_at", "quantity", "cancels_event_id"),  # returns and cancellations are looked for
)
SILVER_ITEMS = Table(
    "silver.items",
    {
        "item_id": STRING,
        "title": STRING,
        "category": STRING,
        "brand": STRING,
        "tags": STRINGS,
        "price": DOUBLE,
        "released_at": TIMESTAMP,
        "attributes": MapType(STRING, DOUBLE),
        "is_available": BOOLEAN,
        "valid_from": DATE,
        "valid_to": DATE,
        **_VERSION,
    },
    key=("item_id", "valid_from"),
)
SILVER_USERS = Table(
    "silver.users",
    {
        "user_id": STRING,
        "country": STRING,
        "region": STRING,
        "segment": STRING,
        "age_band": STRING,
        "is_consented": BOOLEAN,
        "valid_from": DATE,
        "valid_to": DATE,
        **_VERSION,
    },
    key=("user_id", "valid_from"),
)
SILVER_AUDIENCES = Table(
    "silver.audiences",
    {"audience": STRING, "user_id": STRING, "valid_from": DATE, "valid_to": DATE, **_VERSION},
    key=("audience", "user_id", "valid_from"),
)
SILVER_OUTCOMES = Table(
    "silver.outcomes",
    {
        "event_id": STRING,
        "run_date": DATE,
        "channel": STRING,
        "campaign": STRING,
        "user_id": STRING,
        "item_id": STRING,
        "outcome_type": STRING,
        "event_at": TIMESTAMP,
        "event_date": DATE,
        **_VERSION,
    },
    key=("event_date", "source", "event_id"),
    partition_by=("event_date",),
)
SILVER = {
    "interactions": SILVER_INTERACTIONS,
    "items": SILVER_ITEMS,
    "users": SILVER_USERS,
    "audiences": SILVER_AUDIENCES,
    "outcomes": SILVER_OUTCOMES,
}
SILVER_QUARANTINE = Table(
    "silver.quarantine",
    {
        "kind": STRING,
        "source": STRING,
        "source_file": STRING,
        "content_hash": STRING,
        "row": LONG,
        "reject_reasons": STRINGS,
        "raw": STRING,
        "ingest_date": DATE,
    },
    key=("kind", "source", "content_hash", "row"),
    partition_by=("ingest_date",),
)
SILVER_PREFERENCES = Table(
    "silver.preferences",
    {
        "run_date": DATE,
        "user_id": STRING,
        "item_id": STRING,
        "strength": DOUBLE,
        "events": LONG,
        "last_event_at": TIMESTAMP,
        "rating": DOUBLE,
        "is_excluded": BOOLEAN,
        "active_days": INT,
        "span_days": INT,
    },
    key=("run_date", "user_id", "item_id"),
    partition_by=("run_date",),
    sought_by=(),
)
SILVER_EXCLUDED_USERS = Table(
    "silver.excluded_users",
    {"run_date": DATE, "user_id": STRING, "reason": STRING, "observed": DOUBLE, "allowed": DOUBLE},
    key=("run_date", "user_id", "reason"),
    partition_by=("run_date",),
)

_MODEL: dict[str, DataType] = {"model_version": STRING}


def _model(name: str, columns: dict[str, DataType], key: tuple[str, ...]) -> Table:
    return Table(f"models.{name}", {**_MODEL, **columns}, ("model_version", *key), ("model_version",))


MODEL_USER_FACTORS = _model(
    "als_user_factors", {"user_index": INT, "user_id": STRING, "factors": FLOATS}, ("user_index",)
)
MODEL_ITEM_FACTORS = _model(
    "als_item_factors", {"item_index": INT, "item_id": STRING, "factors": FLOATS}, ("item_index",)
)
# Of items on sale without an event, mapped from their words.
MODEL_COLD_ITEM_FACTORS = _model("cold_item_factors", {"item_id": STRING, "factors": FLOATS}, ("item_id",))
# One row per iteration whose loss is known; `seconds` since the fit began. `started_from`: the version whose
# factors a warm start took, or null. Iteration 0, without a loss: nothing was trained, the factors are those
# of `started_from` and of users folded into them. `inputs`: versions of the bronze tables, as in ops.runs.
MODEL_ALS_TRAINING = _model(
    "als_training",
    {
        "iteration": INT,
        "loss": DOUBLE,
        "seconds": DOUBLE,
        "trainer": STRING,
        "started_from": STRING,
        "parameters": STRING,
        "inputs": MapType(STRING, LONG),
    },
    ("iteration",),
)
MODEL_CONTENT_VECTORS = _model(
    "content_vectors", {"item_id": STRING, "terms": INTS, "weights": FLOATS}, ("item_id",)
)
MODEL_CONTENT_TERMS = _model(
    "content_terms", {"term_index": INT, "term": STRING, "idf": DOUBLE}, ("term_index",)
)
MODEL_POPULARITY = _model(
    "popularity", {"item_id": STRING, "users": LONG, "new_users": LONG, "is_reference": BOOLEAN}, ("item_id",)
)
# `users`: what counts for popularity, a recent count, with the season mixed in. Of a group of users
# (`segment=gold`) shrunk towards everyone's; of `everyone` only where the season is mixed in.
MODEL_GROUP_POPULARITY = _model(
    "group_popularity", {"group": STRING, "item_id": STRING, "users": DOUBLE}, ("group", "item_id")
)
# `values` in the order of `names`, which every row of a version repeats.
MODEL_ITEM_FEATURES = _model(
    "item_features", {"item_id": STRING, "names": STRINGS, "values": FLOATS}, ("item_id",)
)
MODEL_USER_FEATURES = _model(
    "user_features", {"user_id": STRING, "names": STRINGS, "values": FLOATS}, ("user_id",)
)
# min_pairs: the bin, users with at least so many preferences for items on sale; 0 is the lowest.
MODEL_BLEND_WEIGHTS = _model(
    "blend_weights",
    {"task": STRING, "min_pairs": INT, "component": STRING, "weight": DOUBLE},
    ("task", "min_pairs", "component"),
)
MODEL_METRICS = _model(
    "metrics",
    {
        "judged_from": DATE,
        "judged_to": DATE,
        "task": STRING,
        "model": STRING,
        "metric": STRING,
        "value": DOUBLE,
        "low": DOUBLE,
        "high": DOUBLE,
        "users": LONG,
    },
    ("judged_from", "task", "model", "metric"),
)
# Trials of a search over parameters. A study is what can be compared: one window, input, configuration and
# code. `parameters`: JSON, by section.key; `value` is the mean of `ndcg` (NDCG@10 of the hybrid by task) over
# the `users` that the search may see, null for a trial that failed; `error` says of what.
MODEL_TUNE_TRIALS = Table(
    "models.tune_trials",
    {
        "study": STRING,
        "trial": INT,
        "run_date": DATE,
        "trained_to": DATE,
        "judged_from": DATE,
        "judged_to": DATE,
        "seed": LONG,
        "parameters": STRING,
        "state": STRING,
        "value": DOUBLE,
        "ndcg": MapType(STRING, DOUBLE),
        "users": LONG,
        "seconds": DOUBLE,
        "error": STRING,
        "recorded_at": TIMESTAMP,
    },
    key=("study", "trial"),
)

_LISTS: dict[str, DataType] = {
    "run_date": DATE,
    "channel": STRING,
    "campaign": STRING,
    "user_id": STRING,
    "rank": INT,
    "item_id": STRING,
    "score": DOUBLE,
    "component_scores": MapType(STRING, DOUBLE),
    "source": STRING,
    "reason": STRING,
    "arm": STRING,
    "is_sendable": BOOLEAN,
    "propensity": DOUBLE,
    "model_version": STRING,
    "run_id": STRING,
}
GOLD_STAGED = Table(
    "gold.staged_recommendations",
    {**_LISTS, "env": STRING},
    key=("run_id", "channel", "campaign", "user_id", "rank"),
    partition_by=("run_id",),
    sought_by=("channel", "campaign", "user_id"),
)
GOLD_RECOMMENDATIONS = Table(
    "gold.recommendations",
    _LISTS,
    key=("run_date", "channel", "campaign", "user_id", "rank"),
    partition_by=("run_date",),
    sought_by=("channel", "campaign", "user_id"),
)
# What goes with an item on sale; component_scores before their weights, source the one that gave most.
GOLD_SIMILAR = Table(
    "gold.similar_items",
    {
        "run_date": DATE,
        "item_id": STRING,
        "rank": INT,
        "similar_item_id": STRING,
        "score": DOUBLE,
        "component_scores": MapType(STRING, DOUBLE),
        "source": STRING,
        "run_id": STRING,
    },
    key=("run_date", "item_id", "rank"),
    partition_by=("run_date",),
)
GOLD_PUBLISHED_RUNS = Table(
    "gold.published_runs",
    {
        "run_date": DATE,
        "run_id": STRING,
        "version": LONG,
        "verdict": STRING,
        "figures": MapType(STRING, DOUBLE),
        "inputs": MapType(STRING, LONG),
        "config_hash": STRING,
        "code_hash": STRING,
        "published_at": TIMESTAMP,
    },
    key=("run_date", "version"),
)
GOLD_OUTBOX = Table(
    "gold.outbox",
    {
        "run_date": DATE,
        "channel": STRING,
        "campaign": STRING,
        "user_id": STRING,
        "run_id": STRING,
        "state": STRING,
        "file": STRING,
        "content_hash": STRING,
    },
    key=("run_date", "channel", "campaign", "user_id"),
    partition_by=("run_date",),
)

OPS_RUNS = Table(
    "ops.runs",
    {
        "run_id": STRING,
        "run_date": DATE,
        "env": STRING,
        "state": STRING,
        "inputs": MapType(STRING, LONG),
        "input_hash": STRING,
        "config_hash": STRING,
        "code_hash": STRING,
        "settings": STRING,
        "recorded_at": TIMESTAMP,
    },
    key=("run_id", "state", "recorded_at"),
)
OPS_METRICS = Table(
    "ops.metrics",
    {
        "run_id": STRING,
        "run_date": DATE,
        "stage": STRING,
        "metric": STRING,
        "label": STRING,
        "value": DOUBLE,
        "recorded_at": TIMESTAMP,
    },
    key=("run_id", "stage", "metric", "label", "recorded_at"),
)
# Columns that deliveries had, to tell new and retyped ones by; `type` is a class of types or empty.
OPS_SOURCE_COLUMNS = Table(
    "ops.source_columns",
    {"source": STRING, "column_name": STRING, "type": STRING, "run_date": DATE, "recorded_at": TIMESTAMP},
    key=("source", "column_name", "recorded_at"),
)
OPS_QUALITY = Table(
    "ops.quality_results",
    {
        "run_id": STRING,
        "run_date": DATE,
        "suite": STRING,
        "expectation": STRING,
        "column_name": STRING,
        "observed": STRING,
        "allowed": STRING,
        "is_success": BOOLEAN,
        "recorded_at": TIMESTAMP,
    },
    key=("run_id", "suite", "expectation", "column_name", "recorded_at"),
)
FIELDS_BY_KIND = {
    "interactions": INTERACTION_FIELDS,
    "items": ITEM_FIELDS,
    "users": USER_FIELDS,
    "audiences": AUDIENCE_FIELDS,
    "outcomes": OUTCOME_FIELDS,
}
