"""Settings: TOML in, frozen and complete objects out; an overlay may only change what base has."""

from __future__ import annotations

import hashlib
import json
import os
import re
import tomllib
from collections.abc import Mapping
from importlib import resources
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from recsys_spark.errors import ConfigError, did_you_mean

TASKS = ("repeats_allowed", "new_items_only")
COMPONENTS = ("als", "content", "history", "popularity", "trial")
# What stands for popularity and trial where a user has nothing but a group: its popularity.
POPULARITY_GROUP = "popularity_group"
# The source of a slot that an item has which nobody has had yet.
COLD_ITEM = "cold_item"
SIMILAR_COMPONENTS = ("als", "content", "co_purchase")
# What groups items, and may be read as a whole beside its words.
CONTENT_GROUPS = ("category", "brand", "tags")
# What silver.users says of the groups that a user belongs to.
USER_GROUPS = ("country", "region", "segment", "age_band")
# What is known of an item as a number beside its source's own attributes.
PRICE, AGE_DAYS = "price", "age_days"
# Sections whose keys are names that the user invents; everything else must exist in base.toml.
NAMED_SECTIONS = {"sources", "campaigns"}
# What a list does not depend on: where things lie, how long they are kept, and in what pieces it is made.
PLACES = ("lake", "output", "ranking")

_VARIABLE_NAME = r"^([A-Za-z_][A-Za-z0-9_]*)?$"
_CREDENTIALS = re.compile(r"(?i)[?&;](user|username|password|pwd|sslpassword)=|//[^/@]*@")
_VARIABLE = re.compile(r"\$\{(?P<name>\w+)(?::-(?P<default>[^}]*))?\}")


class Section(BaseModel):
    """Base of every section: frozen, and a misspelt key is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Place(Section):
    path: str


class LakePlace(Place):
    wait_seconds: float = Field(ge=0)
    large_batch_rows: int = Field(ge=1, default=500_000)


class Source(Section):
    """How one delivered table maps to ours; see conf/base.toml for each key's meaning."""

    kind: Literal["interactions", "items", "users", "audiences", "outcomes"]
    format: Literal["csv", "jsonl", "parquet", "delta", "jdbc"]
    path: str = ""
    columns: dict[str, str | list[str]] = Field(default_factory=dict)
    constants: dict[str, str] = Field(default_factory=dict)
    attributes: dict[str, str] = Field(default_factory=dict)
    names: list[str] = Field(default_factory=list)
    separator: str = ","
    encoding: str = "UTF-8"
    header: bool = True
    quote: str = '"'
    quoted_newlines: bool = False
    tags_separator: str = ""
    time_format: str = "iso"
    version: int | None = Field(default=None, ge=0)
    url: str = ""
    table: str = ""
    partition_column: str = ""
    lower: int | str = ""
    upper: int | str = ""
    num_partitions: int = Field(default=1, gt=0)
    user_env: str = Field(default="", pattern=_VARIABLE_NAME)
    password_env: str = Field(default="", pattern=_VARIABLE_NAME)
    new_columns: Literal["ignore", "refuse"] = "ignore"
    retyped_columns: Literal["refuse", "accept"] = "refuse"

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
    def _attributes_of_items(self) -> Source:
        if self.attributes and self.kind != "items":
            raise ValueError(f"attributes belong to sources of kind 'items', not {self.kind!r}")
        for name in (PRICE, AGE_DAYS):
            if name in self.attributes:
                raise ValueError(f"attributes may not be called {name!r}: that is a number of its own")
        return self


class Clean(Section):
    event_types: list[str]
    max_id_length: int = Field(gt=0)
    max_text_length: int = Field(gt=0)
    max_abs_value: float = Field(gt=0)
    future_tolerance_days: int = Field(ge=0)
    returns: Literal["take_back", "quarantine"] = "take_back"
    purchase_types: list[str] = Field(default_factory=lambda: ["purchase"])
    burst_seconds: float = Field(ge=0, le=86400, default=0.0)


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
    max_duplicate_share: float = Field(ge=0, le=1)
    max_unknown_item_share: float = Field(ge=0, le=1)
    max_untitled_share: float = Field(ge=0, le=1)
    max_age_days: int = Field(ge=0)
    history_nights: int = Field(gt=0)
    min_history_nights: int = Field(gt=0)
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
    max_identical_profiles: int = Field(default=0, ge=0)
    min_profile_items: int = Field(default=5, ge=1)
    max_one_item_profiles: int = Field(default=0, ge=0)
    min_one_item_events: int = Field(default=3, ge=1)


class Als(Section):
    rank: int = Field(gt=0, le=1024)
    iterations: int = Field(gt=0)
    regularization: float = Field(gt=0)
    alpha: float = Field(gt=0)
    user_blocks: int = Field(gt=0)
    item_blocks: int = Field(gt=0)
    checkpoint_interval: int = Field(gt=0)
    seed: int
    trainer: Literal["mllib", "cg", "svd", "item2vec"] = "mllib"
    feedback: Literal["implicit", "explicit"] = "implicit"
    scaling_exponent: float = Field(default=1.0, ge=0, le=2)
    cg_steps: int = Field(default=3, ge=1, le=1000)
    driver_pairs: int = Field(default=5_000_000, ge=0)
    tolerance: float = Field(default=0.001, ge=0, lt=1)
    warm_start: bool = False
    retrain_days: int = Field(default=1, ge=1)
    loss_every: int = Field(default=0, ge=0)

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
    features: list[str] = Field(default_factory=list)
    feature_weight: float = Field(default=0.5, gt=0, le=100)
    stop_words: list[StopWordLanguage] = ["english"]
    more_stop_words: list[str] = Field(default_factory=list)

    @model_validator(mode="after")
    def _each_feature_once(self) -> Content:
        if len({*self.features}) < len(self.features):
            raise ValueError(f"content.features names one twice: {', '.join(self.features)}")
        return self


class ColdItems(Section):
    """Factors from words for items without any event, and the places that lists keep for them."""

    enabled: bool
    places: float = Field(default=0.0, ge=0, le=0.5)
    dims: int = Field(gt=0, le=1000)
    length: float = Field(gt=0)
    prior: float = Field(default=1.0, ge=0)
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
        chosen = self.repeats_allowed if task == "repeats_allowed" else self.new_items_only
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
    audience: str = "everyone"
    honours_unsubscribes: bool = True
    brand_name: str = ""
    subject: str = ""
    unsubscribe_url: str = ""
    goes_with: bool | None = None

    @property
    def tells_goes_with(self) -> bool:
        """Whether a slot's reason names what the user has that it goes with; by default in mails."""
        return self.channel == "email" if self.goes_with is None else self.goes_with

    @property
    def task(self) -> str:
        """The task of TASKS that its lists are made for."""
        return "repeats_allowed" if self.repeat_allowed else "new_items_only"


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


class Delivery(Section):
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
    delivery: Delivery
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


def conf_dir() -> Path:
    """`RECSYS_CONF`, else ./conf, else the folder beside the checkout's package or inside the wheel."""
    named = os.environ.get("RECSYS_CONF")
    package = Path(str(resources.files("recsys_spark")))
    candidates = [Path(named)] if named else [Path("conf"), package.parent / "conf", package / "conf"]
    for candidate in candidates:
        if (candidate / "base.toml").is_file():
            return candidate.resolve()
    looked = ", ".join(str(candidate) for candidate in candidates)
    raise ConfigError(
        f"base.toml not found; looked in {looked}. Set RECSYS_CONF to the folder that holds it."
    )


def load_settings(env: str) -> Settings:
    """Settings of one environment: base.toml, then {env}.toml on top, then ${VARIABLES} filled in."""
    folder = conf_dir()
    base = _read_toml(folder / "base.toml")
    overlay_path = folder / f"{env}.toml"
    if not overlay_path.is_file():
        known = sorted(path.stem for path in folder.glob("*.toml") if path.stem != "base")
        raise ConfigError(
            f"no environment {env!r} in {folder}: have {', '.join(known)}.{did_you_mean(env, known)}"
        )
    merged = _overlaid(base, _read_toml(overlay_path), overlay_path.name)
    values = _expanded(merged, where=overlay_path.name)
    home = os.environ.get("RECSYS_HOME") or str(folder.parent)
    try:
        settings = Settings.model_validate({**values, "env": env, "home": home})
    except ValidationError as error:
        raise ConfigError(_first_fault(error, overlay_path.name)) from None
    return settings


def resolve_path(settings: Settings, path: str) -> str:
    """An absolute path or URI: relative ones start at `home`, `package:x/y` inside an installed package."""
    if path.startswith("package:"):
        return _package_path(path.removeprefix("package:"))
    if "://" in path or path.startswith(("file:", "/")):
        return path
    return str(Path(settings.home) / path)


def _package_path(inside: str) -> str:
    package, _, rest = inside.partition("/")
    spec = find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise ConfigError(
            f"the source package {package!r} is not installed. Next: pip install {package.replace('_', '-')}"
        )
    return str(Path(next(iter(spec.submodule_search_locations))) / rest)


def _read_toml(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path.name} is not valid TOML: {error}") from None


def _overlaid(base: dict[str, Any], overlay: Mapping[str, Any], file: str, at: str = "") -> dict[str, Any]:
    result = dict(base)
    for key, value in overlay.items():
        path = f"{at}{key}"
        if key not in base and path.split(".", maxsplit=1)[0] not in NAMED_SECTIONS:
            raise ConfigError(
                f"{file} sets keys base.toml does not have: ['{path}']."
                f"{did_you_mean(path, [f'{at}{name}' for name in base])}"
            )
        replaces_whole = at == "blend." or path in {"preferences.event_weights", "preferences.negative"}
        if isinstance(value, dict) and isinstance(base.get(key), dict) and not replaces_whole:
            result[key] = _overlaid(base[key], value, file, f"{path}.")
        else:
            result[key] = value
    return result


def _expanded(value: Any, *, where: str) -> Any:
    if isinstance(value, dict):
        return {key: _expanded(item, where=where) for key, item in value.items()}
    if isinstance(value, list):
        return [_expanded(item, where=where) for item in value]
    if isinstance(value, str):
        return _VARIABLE.sub(lambda match: _variable(match, where), value)
    return value


def _variable(match: re.Match[str], where: str) -> str:
    name, default = match["name"], match["default"]
    value = os.environ.get(name) or default
    if value is None:
        raise ConfigError(f"{where} needs the environment variable {name}. Next: export {name}=…")
    return value


def _first_fault(error: ValidationError, file: str) -> str:
    faults = []
    for fault in error.errors():
        place = ".".join(str(part) for part in fault["loc"])
        # A whole section is no help, and may hold what was refused because it is secret.
        is_told = fault["type"] not in {"missing", "extra_forbidden"}
        is_plain = is_told and not isinstance(fault["input"], dict)
        got = f", got {fault['input']!r}" if is_plain else ""
        hint = _key_hint(fault["loc"]) if fault["type"] == "extra_forbidden" else ""
        faults.append(f"{place or 'settings'}: {fault['msg']}{got}{hint}")
    return f"{file} (on base.toml): " + "; ".join(faults)


def _key_hint(location: tuple[int | str, ...]) -> str:
    section: Any = Settings
    for part in location[:-1]:
        if isinstance(section, type) and issubclass(section, BaseModel) and part in section.model_fields:
            annotation = section.model_fields[str(part)].annotation
            section = getattr(annotation, "__args__", (None, annotation))[1] if annotation else None
    if isinstance(section, type) and issubclass(section, BaseModel):
        return did_you_mean(str(location[-1]), section.model_fields)
    return ""
