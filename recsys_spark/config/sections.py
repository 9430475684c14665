"""The sections of the settings: frozen, complete and typed. Their defaults stand in conf/base.toml alone."""

from __future__ import annotations

import hashlib
import json
import re
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from recsys_spark.errors import did_you_mean
from recsys_spark.names import AGE_DAYS, COMPONENTS, NEW_ITEMS_ONLY, PRICE, REPEATS_ALLOWED, TASKS

# What a list does not depend on: where things lie, how long they are kept, and in what pieces it is made.
PLACES = ("lake", "output", "ranking")

# Kinds whose rows are events: known by their source's ids, and true for ever.
WITH_EVENTS = ("interactions", "outcomes")

_VARIABLE_NAME = r"^([A-Za-z_][A-Za-z0-9_]*)?$"
_CREDENTIALS = re.compile(r"(?i)[?&;](user|username|password|pwd|sslpassword)=|//[^/@]*@")


class Section(BaseModel):
    """Base of every section: frozen, and a misspelt key is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Place(Section):
    path: str


class LakePlace(Place):
    wait_seconds: float = Field(ge=0)
    large_batch_rows: int = Field(ge=1)


class Source(Section):
    """How one delivered table maps to ours; see conf/base.toml for each key's meaning."""

    kind: Literal["interactions", "items", "users", "audiences", "outcomes"]
    format: Literal["csv", "jsonl", "parquet", "delta", "jdbc"]
    path: str
    columns: dict[str, str | list[str]]
    constants: dict[str, str]
    attributes: dict[str, str]
    names: list[str]
    separator: str
    encoding: str
    header: bool
    quote: str
    escape: str = Field(max_length=1)
    quoted_newlines: bool
    tags_separator: str
    time_format: str
    null_values: list[Annotated[str, Field(min_length=1)]]
    true_values: list[str]
    false_values: list[str]
    whole_ids: bool
    version: int | None = Field(default=None, ge=0)
    url: str
    table: str
    partition_column: str
    lower: int | str
    upper: int | str
    num_partitions: int = Field(gt=0)
    user_env: str = Field(pattern=_VARIABLE_NAME)
    password_env: str = Field(pattern=_VARIABLE_NAME)
    new_columns: Literal["ignore", "refuse"]
    retyped_columns: Literal["refuse", "accept"]
    same_events_as: str
    snapshot: bool

    @model_validator(mode="after")
    def _placed(self) -> Source:
        """Where the rows are, by format; and no secret among it, for settings are stored with each run."""
        if self.format != "jdbc":
            if not self.path:
                raise ValueError(f"format {self.format!r} needs path")
            return self
        if not (self.url.startswith("jdbc:") and self.table) or self.path:
            raise ValueError("format 'jdbc' needs url (jdbc:…) and table, and has no path")
        if _CREDENTIALS.search(self.url):
            raise ValueError("url holds credentials; name variables in user_env and password_env instead")
        bounds = (self.partition_column, str(self.lower), str(self.upper))
        if self.num_partitions > 1 and not all(bounds):
            raise ValueError("num_partitions above 1 needs partition_column, lower and upper")
        return self

    @model_validator(mode="after")
    def _readable(self) -> Source:
        if self.format == "csv" and not (self.separator and (self.header or self.names)):
            raise ValueError("format 'csv' needs a separator, and names where header is false")
        return self

    @model_validator(mode="after")
    def _whole(self) -> Source:
        if self.same_events_as and self.kind not in WITH_EVENTS:
            raise ValueError(f"same_events_as belongs to {' and '.join(WITH_EVENTS)}, not to {self.kind!r}")
        if self.snapshot and self.kind in WITH_EVENTS:
            raise ValueError(f"snapshot belongs to items, users and audiences, not to {self.kind!r}")
        if self.snapshot and self.num_partitions > 1:
            raise ValueError(
                "snapshot needs num_partitions = 1: unchanged partitions are not delivered again"
            )
        return self

    @model_validator(mode="after")
    def _understood(self) -> Source:
        """Words and times that can be read in one way only."""
        true, false = (
            {word.strip().lower() for word in words} for words in (self.true_values, self.false_values)
        )
        if both := sorted(true & false):
            raise ValueError(f"true_values and false_values both have {', '.join(map(repr, both))}")
        if fault := fault_of_pattern(self.time_format):
            raise ValueError(f"time_format {self.time_format!r} {fault}")
        return self

    @model_validator(mode="after")
    def _attributes_of_items(self) -> Source:
        if self.attributes and self.kind != "items":
            raise ValueError(f"attributes belong to sources of kind 'items', not {self.kind!r}")
        for name in (PRICE, AGE_DAYS):
            if name in self.attributes:
                raise ValueError(f"attributes may not be called {name!r}: that is a number of its own")
        return self


def fault_of_pattern(time_format: str) -> str:
    """Why a pattern would read a time as another one; empty where it would not, or where it is no pattern."""
    if time_format in ("iso", "seconds", "milliseconds"):
        return ""
    plain = re.sub("'[^']*'", "", time_format)
    has = {*plain}
    hours = has & {*"HhkK"}
    faults = {
        "has no year (yyyy)": not has & {*"yuY"},
        "has a day and no month: months are MM, and mm are minutes": "d" in has and not has & {*"ML"},
        "has hours and no minutes: minutes are mm, and MM are months": bool(hours)
        and "m" not in has
        and ("s" in has or re.search(r"[HhkK][^A-Za-z]*M", plain) is not None),
        "has DD beside a month: days of a month are dd": "D" in has and bool(has & {*"ML"}),
        "has hours up to 12 without a half of the day: hours up to 24 are HH, halves a": bool(hours & {*"hK"})
        and not has & {*"aB"},
    }
    return next((fault for fault, is_so in faults.items() if is_so), "")


class Clean(Section):
    event_types: list[str]
    max_id_length: int = Field(gt=0)
    max_text_length: int = Field(gt=0)
    max_abs_value: float = Field(gt=0)
    future_tolerance_days: int = Field(ge=0)
    returns: Literal["take_back", "quarantine"]
    purchase_types: list[str]
    burst_seconds: float = Field(ge=0, le=86400)


class Privacy(Section):
    """pseudonym_key_env is the name of a variable, never the key: settings are stored with each run."""

    pseudonym_key_env: str = Field(pattern=r"^([A-Za-z_][A-Za-z0-9_]*)?$")


class Features(Section):
    log1p: list[str]
    min_users: int = Field(ge=1)


class Quality(Section):
    min_rows: int = Field(ge=0)
    min_preferences: int = Field(ge=0)
    max_rejected_share: float = Field(ge=0, le=1)
    max_rejected_item_share: float = Field(ge=0, le=1)
    max_rejected_user_share: float = Field(ge=0, le=1)
    max_rejected_outcome_share: float = Field(ge=0, le=1)
    max_unmatched_unsubscribe_share: float = Field(ge=0, le=1)
    min_unsubscribes: int = Field(ge=1)
    max_duplicate_share: float = Field(ge=0, le=1)
    max_unknown_item_share: float = Field(ge=0, le=1)
    max_untitled_share: float = Field(ge=0, le=1)
    max_age_days: int = Field(ge=0)
    max_snapshot_loss: float = Field(ge=0, le=1)
    history_nights: int = Field(gt=0)
    min_history_nights: int = Field(gt=0)
    max_before_2000_share: float = Field(ge=0, le=1)
    max_january_share: float = Field(ge=0, le=1)
    max_first_of_month_share: float = Field(ge=0, le=1)
    min_history_rows: int = Field(ge=0)
    min_volume_ratio: float = Field(ge=0, le=1)
    max_volume_ratio: float = Field(ge=1)
    min_item_volume_ratio: float = Field(ge=0, le=1)
    max_item_volume_ratio: float = Field(ge=1)
    min_user_volume_ratio: float = Field(ge=0, le=1)
    max_user_volume_ratio: float = Field(ge=1)
    min_outcome_volume_ratio: float = Field(ge=0, le=1)
    max_outcome_volume_ratio: float = Field(ge=1)
    max_event_share_change: float = Field(ge=0, le=1)
    min_event_share_ratio: float = Field(ge=0, le=1)
    max_null_share_change: float = Field(ge=0, le=1)
    max_consent_share_change: float = Field(ge=0, le=1)

    @model_validator(mode="after")
    def _enough_history(self) -> Quality:
        if self.min_history_nights > self.history_nights:
            raise ValueError(
                f"quality.min_history_nights = {self.min_history_nights} is more than "
                f"quality.history_nights = {self.history_nights}: no night would ever be compared"
            )
        return self


class Ratings(Section):
    """How a rating's `value` becomes a strength; an empty event_type: ratings count like any event."""

    event_type: str
    min: float
    max: float
    neutral: float
    low: Literal["exclude", "lower", "ignore"]

    @model_validator(mode="after")
    def _ordered(self) -> Ratings:
        if not self.min <= self.neutral < self.max:
            raise ValueError(
                f"preferences.ratings needs min <= neutral < max, got min = {self.min:g}, "
                f"neutral = {self.neutral:g}, max = {self.max:g}"
            )
        return self


class Preferences(Section):
    half_life_days: float = Field(gt=0)
    cap: float = Field(gt=0)
    event_weights: dict[str, Annotated[float, Field(ge=0, le=1e6)]]
    negative: dict[str, Literal["exclude", "lower"]]
    lower_weight: float = Field(gt=0, le=1e6)
    min_events_per_user: int = Field(ge=1)
    min_events_per_item: int = Field(ge=1)
    ratings: Ratings


class Bots(Section):
    """Limits beyond which a user is no person; 0 switches a rule off."""

    max_events_per_day: int = Field(ge=0)
    min_events: int = Field(ge=1)
    max_catalogue_share: float = Field(ge=0, le=1)
    min_items: int = Field(ge=1)
    max_same_second_share: float = Field(ge=0, le=1)
    max_item_share: float = Field(ge=0, le=1)
    max_identical_profiles: int = Field(ge=0)
    min_profile_items: int = Field(ge=1)
    max_one_item_profiles: int = Field(ge=0)
    min_one_item_events: int = Field(ge=1)


class Als(Section):
    rank: int = Field(gt=0, le=1024)
    iterations: int = Field(gt=0)
    regularization: float = Field(gt=0)
    alpha: float = Field(gt=0)
    user_blocks: int = Field(gt=0)
    item_blocks: int = Field(gt=0)
    checkpoint_interval: int = Field(gt=0)
    seed: int
    trainer: Literal["mllib", "cg", "svd", "item2vec"]
    feedback: Literal["implicit", "explicit"]
    scaling_exponent: float = Field(ge=0, le=2)
    cg_steps: int = Field(ge=1, le=1000)
    driver_pairs: int = Field(ge=0)
    tolerance: float = Field(ge=0, lt=1)
    warm_start: bool
    retrain_days: int = Field(ge=1)
    loss_every: int = Field(ge=0)

    @property
    def is_linear(self) -> bool:
        """Whether a user's factors are a plain sum over what they had, and no ALS."""
        return self.trainer in ("svd", "item2vec")

    @model_validator(mode="after")
    def _what_others_lack(self) -> Als:
        if self.trainer != "cg" and self.scaling_exponent != 1.0:
            raise ValueError(f'als.scaling_exponent = {self.scaling_exponent} needs als.trainer = "cg"')
        if self.trainer != "cg" and self.warm_start:
            raise ValueError(
                f'als.warm_start = true needs als.trainer = "cg": {self.trainer} cannot begin anywhere'
            )
        if self.is_linear and self.feedback == "explicit":
            raise ValueError(
                f'als.feedback = "explicit" needs "mllib" or "cg": {self.trainer} fits no ratings'
            )
        return self


# The languages whose stop words Spark knows.
StopWordLanguage = Literal[
    "danish",
    "dutch",
    "english",
    "finnish",
    "french",
    "german",
    "hungarian",
    "italian",
    "norwegian",
    "portuguese",
    "russian",
    "spanish",
    "swedish",
    "turkish",
]


class Content(Section):
    fields: list[Literal["title", "category", "brand", "tags"]]
    ngram: int = Field(ge=1, le=3)
    min_items: int = Field(ge=1)
    max_terms: int = Field(gt=0)
    features: list[str]
    feature_weight: float = Field(gt=0, le=100)
    stop_words: list[StopWordLanguage]
    more_stop_words: list[str]

    @model_validator(mode="after")
    def _each_feature_once(self) -> Content:
        if len({*self.features}) < len(self.features):
            raise ValueError(f"content.features names one twice: {', '.join(self.features)}")
        return self


class ColdItems(Section):
    """Factors from words for items without any event, and the places that lists keep for them."""

    enabled: bool
    places: float = Field(ge=0, le=0.5)
    dims: int = Field(gt=0, le=1000)
    length: float = Field(gt=0)
    prior: float = Field(ge=0)
    min_items: int = Field(ge=10)
    seed: int


class History(Section):
    """How what a user bought before fades once it is overdue; 0 = not at all."""

    overdue_half_life: float = Field(ge=0)


class Popularity(Section):
    """Recent popularity; on request by groups, for users without a history, and with the season."""

    window_days: int = Field(gt=0)
    by: list[Literal["country", "region", "segment", "age_band"]]
    group_prior: float = Field(gt=0)
    max_groups: int = Field(ge=1, le=256)
    season_weight: float = Field(ge=0, lt=1)
    season_days: int = Field(gt=0, le=180)

    @property
    def is_plain(self) -> bool:
        """Whether popularity is everyone's recent one and nothing else."""
        return not self.by and self.season_weight == 0

    @model_validator(mode="after")
    def _each_group_once(self) -> Popularity:
        if len({*self.by}) < len(self.by):
            raise ValueError(f"popularity.by names a column twice: {', '.join(self.by)}")
        return self


class Blend(Section):
    reference_days: int = Field(gt=0)
    weights: Literal["fixed", "learned"]
    bins: list[Annotated[int, Field(ge=0)]]
    min_users: int = Field(ge=2)
    max_users: int = Field(ge=2)
    candidates: int = Field(ge=10)
    repeats_allowed: dict[str, float]
    new_items_only: dict[str, float]

    def fixed(self, task: str) -> dict[str, float]:
        """Configured weight per component for the task; a component that is not named weighs nothing."""
        chosen = self.repeats_allowed if task == REPEATS_ALLOWED else self.new_items_only
        return {component: float(chosen.get(component, 0.0)) for component in COMPONENTS}

    @model_validator(mode="after")
    def _known_components(self) -> Blend:
        for task in TASKS:
            for name in getattr(self, task):
                if name not in COMPONENTS:
                    raise ValueError(f"blend.{task} names {name!r}.{did_you_mean(name, COMPONENTS)}")
        return self


class Similar(Section):
    """Which items go with an item; als, content and co_purchase are the weights of its three parts."""

    k: int = Field(ge=0, le=1000)
    neighbours: Literal["sold", "on_sale"]
    together: Literal["basket", "user"]
    days: int = Field(gt=0)
    max_lines: int = Field(gt=0)
    min_shared: int = Field(ge=1)
    shrinkage: float = Field(gt=0)
    als: float = Field(ge=0)
    content: float = Field(ge=0)
    co_purchase: float = Field(ge=0)


class Campaign(Section):
    """Who gets a list, how long it is, and whether it may hold what the user already had."""

    channel: str
    k: int = Field(gt=0, le=1000)
    repeat_allowed: bool
    audience: str
    honours_unsubscribes: bool
    brand_name: str
    subject: str
    unsubscribe_url: str
    goes_with: bool | None = None

    @property
    def tells_goes_with(self) -> bool:
        """Whether a slot's reason names what the user has that it goes with; by default in mails."""
        return self.channel == "email" if self.goes_with is None else self.goes_with

    @property
    def task(self) -> str:
        """The task of TASKS that its lists are made for."""
        return REPEATS_ALLOWED if self.repeat_allowed else NEW_ITEMS_ONLY


class Ranking(Section):
    max_item_share: float = Field(gt=0, le=1)


class Evaluation(Section):
    window_days: int = Field(gt=0)
    k: list[int]
    max_users: int = Field(ge=2)
    bootstrap_samples: int = Field(gt=0)
    seed: int


class Gate(Section):
    min_user_share: float = Field(ge=0, le=1)
    max_short_list_share: float = Field(ge=0, le=1)
    max_first_slot_share: float = Field(ge=0, le=1)


class Sending(Section):
    formats: list[Literal["jsonl", "html"]]
    max_mails: int = Field(ge=0)


class Settings(Section):
    env: str
    home: str
    lake: LakePlace
    output: Place
    clean: Clean
    privacy: Privacy
    features: Features
    quality: Quality
    preferences: Preferences
    bots: Bots
    als: Als
    content: Content
    cold_items: ColdItems
    history: History
    popularity: Popularity
    blend: Blend
    similar: Similar
    evaluation: Evaluation
    ranking: Ranking
    gate: Gate
    sending: Sending
    sources: dict[str, Source] = Field(default_factory=dict)
    campaigns: dict[str, Campaign] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _explicit_has_ratings(self) -> Settings:
        """Low ratings must be there to be learned from: preferences keep those that exclude."""
        ratings = self.preferences.ratings
        if self.als.feedback == "explicit" and not (ratings.event_type and ratings.low == "exclude"):
            raise ValueError(
                'als.feedback = "explicit" needs preferences.ratings with an event_type and low = "exclude", '
                f"got event_type = {ratings.event_type!r}, low = {ratings.low!r}"
            )
        return self

    @model_validator(mode="after")
    def _events_of_another(self) -> Settings:
        """A source has the events of one that has its own, and that is known."""
        for name, source in self.sources.items():
            other = self.sources.get(source.same_events_as)
            if source.same_events_as and (
                other is None or other is source or other.kind != source.kind or other.same_events_as
            ):
                known = [
                    one
                    for one, section in self.sources.items()
                    if one != name and section.kind == source.kind and not section.same_events_as
                ]
                raise ValueError(
                    f"sources.{name}.same_events_as is {source.same_events_as!r}, expected another source of "
                    f"kind {source.kind!r} that has events of its own: {', '.join(known) or 'there is none'}."
                    f"{did_you_mean(source.same_events_as, known)}"
                )
        return self

    @property
    def same_events(self) -> dict[str, str]:
        """source -> the one whose events it has too."""
        return {name: source.same_events_as for name, source in self.sources.items() if source.same_events_as}

    def meaning(self) -> dict[str, Any]:
        """All that can change a list: the settings without places."""
        values = self.model_dump(mode="json", exclude={*PLACES, "env", "home"})
        for source in values["sources"].values():
            for place in ("path", "url", "user_env", "password_env"):
                source.pop(place)
        return values

    def fingerprint(self) -> str:
        """16 hex digits over `meaning()`: equal for equal configuration, wherever it runs."""
        return digest(self.meaning())


def digest(value: Any) -> str:
    """16 hex digits of SHA-256 over the canonical JSON of `value`."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()[:16]
