"""What a report tells of one night: plain values, filled by whoever ran it, drawn by `render`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime

Metrics = Mapping[str, Mapping[str, Mapping[str, float | None]]]
Intervals = Mapping[str, Mapping[str, Mapping[str, tuple[float, float]]]]
Slices = Mapping[str, Mapping[str, tuple[int, Mapping[str, float]]]]


@dataclass(frozen=True)
class StageRow:
    """One stage of the night. Rows are None where a stage has none to speak of."""

    stage: str
    rows_in: int | None
    rows_out: int | None
    seconds: float
    wrote: str = ""


@dataclass(frozen=True)
class FunnelStep:
    """How many rows reached this step. What starts with `duplicate`, `quarantine` … was taken off."""

    name: str
    rows: int
    note: str = ""

    @property
    def is_loss(self) -> bool:
        return self.name.casefold().startswith(("duplicate", "quarantine", "reject", "removed", "dropped"))


@dataclass(frozen=True)
class LongTail:
    """Per item, how often people chose it (before) and how often a list holds it (after); any order."""

    before: Sequence[float] = ()
    after: Sequence[float] = ()


@dataclass(frozen=True)
class HistoryLine:
    """A product in a user's past: how many times, and when last."""

    title: str
    category: str
    times: int
    last_at: date | datetime | None


@dataclass(frozen=True)
class Slot:
    """One place in a user's list; `components` holds what each component gave before weighting."""

    rank: int
    title: str
    category: str
    score: float
    components: Mapping[str, float]
    source: str
    reason: str


@dataclass(frozen=True)
class UserStory:
    """One user: what they did, beside what they are offered."""

    user_id: str
    segment: str
    history: Sequence[HistoryLine]
    slots: Sequence[Slot]


@dataclass(frozen=True)
class QualityRow:
    """One expectation of the gate, what was seen, and what would have been allowed."""

    suite: str
    expectation: str
    column: str
    observed: object
    allowed: object
    is_success: bool


@dataclass(frozen=True)
class NightReport:
    """One night. `metrics` is task → model → metric → value, `intervals` the same with (low, high).

    `verdicts` says for a task who wins; `slices` is task → kind → name → users, and NDCG@10 by model;
    `weights` is task → sentences on the weights that the night's lists were made with.
    """

    run_date: date
    run_id: str
    env: str
    started_at: datetime
    seconds_total: float
    peak_memory_gb: float | None
    verdict: str
    verdict_reasons: Sequence[str] = ()
    stages: Sequence[StageRow] = ()
    funnel: Sequence[FunnelStep] = ()
    events_per_day: Sequence[tuple[date, Mapping[str, int]]] = ()
    long_tail: LongTail = field(default_factory=LongTail)
    metrics: Metrics = field(default_factory=dict)
    intervals: Intervals = field(default_factory=dict)
    verdicts: Mapping[str, str] = field(default_factory=dict)
    slices: Mapping[str, Slices] = field(default_factory=dict)
    weights: Mapping[str, Sequence[str]] = field(default_factory=dict)
    users: Sequence[UserStory] = ()
    quality: Sequence[QualityRow] = ()
    links: Mapping[str, str] = field(default_factory=dict)
    settings: Mapping[str, object] = field(default_factory=dict)
    inputs: Mapping[str, object] = field(default_factory=dict)
    user_count: int | None = None
    list_count: int | None = None
