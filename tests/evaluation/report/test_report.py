"""The night's page: what it says, what it must never load, and what data must never become in it."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import zipfile
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from html.parser import HTMLParser
from pathlib import Path

import pytest

from recsys_spark.evaluation.report.charts import (
    FunnelBar,
    TimelineBar,
    colour_classes,
    event_kinds,
    every_day,
    funnel_starts,
    marked_days,
    stacked_area,
    timeline,
)
from recsys_spark.evaluation.report.charts_models import (
    contribution_bar,
    falling_shares,
    log_spaced,
    model_bars,
    rank_curves,
)
from recsys_spark.evaluation.report.contents import (
    FunnelStep,
    HistoryLine,
    LongTail,
    NightReport,
    QualityRow,
    Slot,
    StageRow,
    UserStory,
)
from recsys_spark.evaluation.report.render import render_report, write_report
from recsys_spark.evaluation.report.views import flattened, headline, is_safe_link, ordered_models, tail_row
from tests.conftest import ROOT

VOID = {"meta", "link", "br", "hr", "img", "input"}


class Page(HTMLParser):
    """The page as a browser would see it: elements, attributes, words; unbalanced tags are an error."""

    def __init__(self, html: str) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self._open: list[str] = []
        self.feed(html)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self._open.pop() == tag

    def handle_data(self, data):
        if self._open[-1:] != ["style"]:
            self.words.append(data.strip())

    def named(self, tag):
        return [attributes for name, attributes in self.elements if name == tag]

    @property
    def text(self):
        return " ".join(word for word in self.words if word)


def empty_night(**changes):
    night = NightReport(
        run_date=date(2017, 8, 31),
        run_id="r1",
        env="local",
        started_at=datetime(2017, 9, 1, 1, 30, tzinfo=UTC),
        seconds_total=0.0,
        peak_memory_gb=None,
        verdict="running",
    )
    return replace(night, **changes)


def full_night(**changes):
    slots = [
        Slot(
            2,
            "KIDS CEREAL 14.5 OZ",
            "COLD CEREAL",
            1.5,
            {"als": 1.0, "content": -0.5},
            "blend",
            "close to waffles",
        ),
        Slot(1, "FRZN ICE", "ICE", 2.25, {"als": 2.0, "history": 1.0}, "blend", "bought 12 times"),
    ]
    night = empty_night(
        verdict="published",
        seconds_total=412.6,
        peak_memory_gb=3.42,
        stages=[
            StageRow("ingest", 1000, 900, 38.2, "bronze.interactions"),
            StageRow("clean", 900, None, 61.0, ""),
        ],
        funnel=[
            FunnelStep("raw rows", 1000, "three files"),
            FunnelStep("good", 800, ""),
            FunnelStep("duplicates", 150, ""),
            FunnelStep("quarantined: no such item", 50, ""),
            FunnelStep("users", 42, ""),
            FunnelStep("list rows", 420, ""),
        ],
        events_per_day=[
            (date(2017, 8, 1), {"purchase": 10, "click": 3}),
            (date(2017, 8, 4), {"purchase": 7}),
        ],
        long_tail=LongTail(before=[6.0, 3.0, 1.0, 0.0], after=[2.0, 2.0, 2.0, 2.0]),
        metrics={
            "repeats_allowed": {
                "popularity": {"ndcg@10": 0.08, "recall@20": 0.06},
                "history": {"ndcg@10": 0.40, "recall@20": float("nan")},
                "hybrid": {"ndcg@10": 0.44, "recall@20": 0.3},
            }
        },
        intervals={"repeats_allowed": {"hybrid": {"ndcg@10": (0.42, 0.46)}}},
        verdicts={"repeats_allowed": "hybrid leads all 2 others; nearest is <history> by 0.04."},
        slices={"repeats_allowed": {"segment": {"gold <b>": (17, {"hybrid": 0.512, "history": 0.5})}}},
        users=[UserStory("u7", "frequent", [HistoryLine("FRZN ICE", "ICE", 12, date(2017, 7, 3))], slots)],
        quality=[
            QualityRow("silver", "not_null", "user_id", 0, 0, is_success=True),
            QualityRow("silver", "between", "quantity", "-4 to 9", "1 to 9", is_success=False),
        ],
        links={"Data Docs": "data_docs/index.html"},
        settings={"als": {"rank": 64}, "experiment": {"salt": "pepper"}},
        inputs={"silver.items": 4},
    )
    return replace(night, **changes)


# ------------------------------------------------------------------ the page


def test_a_task_says_who_wins_and_how_it_is_in_each_segment():
    text = Page(render_report(full_night())).text
    assert "hybrid leads all 2 others; nearest is <history> by 0.04." in text
    assert re.search(r"NDCG@10 by segment .* gold <b> 17 0\.512 0\.500 –", text)


def test_a_night_without_any_figures_is_a_page_of_sentences():
    page = Page(render_report(empty_night()))
    for sentence in (
        "No stage of this night has reported yet.",
        "No row counts were recorded for this night.",
        "There are no events up to this night.",
        "The models were not evaluated in this night.",
        "Item counts were not recorded for this night.",
        "No users were picked for this night's report.",
        "No expectation was checked in this night.",
        "No further documents belong to this night.",
        "No table versions were recorded.",
        "No settings were recorded.",
    ):
        assert sentence in page.text
    assert page.named("svg") == []


@pytest.mark.parametrize(
    "changes",
    [
        {"stages": []},
        {"funnel": []},
        {"events_per_day": []},
        {"events_per_day": [(date(2017, 8, 1), {})]},
        {"long_tail": LongTail()},
        {"long_tail": LongTail(before=[0.0, 0.0], after=[1.0])},
        {"metrics": {}},
        {"metrics": {"new_items_only": {}}},
        {"metrics": {"new_items_only": {"als": {}}}},
        {"metrics": {"new_items_only": {"als": {"ndcg@10": None}}}},
        {"users": [UserStory("u", "", [], [])]},
        {"users": [UserStory("u", "", [], [Slot(1, "", "", float("nan"), {}, "", "")])]},
        {"stages": [StageRow("ingest", None, None, 0.0, "")], "seconds_total": 0.0},
        {"funnel": [FunnelStep("raw rows", 0, "")]},
        {"quality": [], "links": {}, "settings": {}, "inputs": {}},
    ],
    ids=str,
)
def test_a_section_without_figures_never_breaks_the_page(changes):
    assert "Night of 31 Aug 2017" in Page(render_report(full_night(**changes))).text


def test_the_header_says_the_verdict_and_the_key_figures():
    text = Page(render_report(full_night())).text
    for figure in (
        "published",
        "users 42",
        "places in lists 420",
        "0.440",
        "+10.0 % against history at 0.400",
    ):
        assert figure in text
    assert "6 min 53 s" in text
    assert "3.4 GB" in text


def test_counts_given_outright_win_over_those_of_the_funnel():
    text = Page(render_report(full_night(user_count=7, list_count=9))).text
    assert "users 7" in text
    assert "lists 9" in text


def test_each_task_says_what_its_lists_weigh():
    sentences = ["weights learned", "all users: als 1; no weight without a gain: content"]
    text = Page(render_report(full_night(weights={"repeats_allowed": sentences}))).text
    assert "weights learned all users: als 1; no weight without a gain: content" in text


def test_a_rejected_night_says_why_in_its_own_words():
    html = render_report(full_night(verdict="rejected", verdict_reasons=["overlap 0.12 < 0.30"]))
    assert "overlap 0.12 < 0.30" in Page(html).text
    assert 'class="badge bad"' in html


def test_the_page_loads_nothing_and_runs_nothing():
    html = render_report(full_night())
    page = Page(html)
    assert not {"script", "img", "iframe", "object", "embed", "form", "base"} & {
        tag for tag, _ in page.elements
    }
    assert not any(
        "src" in attributes or any(a.startswith("on") for a in attributes) for _, attributes in page.elements
    )
    assert [link["href"] for link in page.named("link")] == ["data:,"]
    assert all(a["href"].startswith(("#", "data_docs/")) for a in page.named("a"))
    assert not re.search(r"@import|url\(|https?://", html)
    policy = next(meta["content"] for meta in page.named("meta") if meta.get("http-equiv"))
    assert policy.startswith("default-src 'none'")


def test_equal_nights_give_equal_bytes():
    assert render_report(full_night()) == render_report(full_night())


def test_every_drawing_has_a_title_and_a_description_and_every_table_has_headers():
    html = render_report(full_night())
    drawings = re.findall(r"<svg[^>]*>(.*?)</svg>", html, re.DOTALL)
    assert len(drawings) == 2 * 3 + 2 + 2 + 2  # both widths of three, two metrics, two tails, two slots
    assert all(re.match(r"<title>[^<]+</title><desc>[^<]+</desc>", drawing) for drawing in drawings)
    tables = re.findall(r"<table.*?</table>", html, re.DOTALL)
    assert tables
    assert all("<caption" in table and 'scope="col"' in table for table in tables)


HOSTILE = [
    ("<script>alert(1)</script>", "<script>alert(1)</script>"),
    ("=cmd|' /C calc'!A0", "=cmd|' /C calc'!A0"),
    ('"><img src=x onerror=alert(1)>', '"><img src=x onerror=alert(1)>'),
    ("{{ 7 * 7 }} {% raw %}", "{{ 7 * 7 }} {% raw %}"),
    ("👩‍👩‍👧 🍓 strawberries", "👩‍👩‍👧 🍓 strawberries"),
    ("חלב \u202eטרי", "חלב טרי"),
    ("two\r\nlines\x00", "two lines"),
]


@pytest.mark.parametrize(("title", "shown"), HOSTILE)
def test_what_comes_from_data_is_shown_as_text_everywhere(title, shown):
    night = full_night(
        run_id=title,
        env=title,
        verdict=title,
        verdict_reasons=[title],
        stages=[StageRow(title, 1, 1, 1.0, title)],
        funnel=[FunnelStep(title, 3, title)],
        events_per_day=[(date(2017, 8, 1), {title: 3})],
        metrics={title: {title: {title: 0.5}}},
        intervals={title: {title: {title: (0.4, 0.6)}}},
        users=[
            UserStory(
                title,
                title,
                [HistoryLine(title, title, 1, None)],
                [Slot(1, title, title, 1.0, {title: 1}, title, title)],
            )
        ],
        quality=[QualityRow(title, title, title, title, title, is_success=False)],
        links={title: title},
        settings={title: title},
        inputs={title: title},
    )
    html = render_report(night)
    page = Page(html)
    assert not {"script", "img"} & {tag for tag, _ in page.elements}
    assert not any(any(name.startswith("on") for name in attributes) for _, attributes in page.elements)
    assert page.words.count(shown) >= 10
    assert "\u202e" not in html


def test_a_title_of_ten_kilobytes_ends_in_an_ellipsis():
    slot = Slot(1, "x" * 10_000, "y" * 10_000, 1.0, {"als": 1.0}, "blend", "z" * 10_000)
    short = render_report(full_night(users=[UserStory("u", "", [], [])]))
    html = render_report(full_night(users=[UserStory("u", "", [], [slot])]))
    assert "x" * 69 + "…" in html
    assert "x" * 70 not in html
    assert len(html) - len(short) < 4_000


def test_slots_stand_in_the_order_of_their_ranks_with_readable_titles():
    text = Page(render_report(full_night())).text
    assert text.index("2.25") < text.index("1.50")
    assert "Frozen Ice" in text
    assert "Kids Cereal 14.5 OZ" in text


def test_failed_expectations_come_first_and_are_counted():
    text = Page(render_report(full_night())).text
    assert "1 of 2 expectations failed." in text
    assert text.index("quantity") < text.index("user_id")


def test_only_relative_and_https_links_can_be_followed():
    followed = ["a/b.html", "https://docs.example/x", "#users", "../up.html"]
    shown = [
        "javascript:alert(1)",
        "JavaScript:alert(1)",
        "data:text/html,x",
        "//evil.example",
        "http://plain.example",
        "java\tscript:alert(1)",
        " javascript:x",
        "\\\\evil",
    ]
    assert [is_safe_link(href) for href in followed] == [True] * len(followed)
    assert [is_safe_link(href) for href in shown] == [False] * len(shown)
    page = Page(render_report(full_night(links={"bad": "javascript:alert(1)"})))
    assert "bad: javascript:alert(1)" in page.text
    assert not any("javascript" in a["href"] for a in page.named("a"))


def test_secrets_among_the_settings_are_not_shown():
    settings = {
        "als": {"rank": 64},
        "smtp": {"password": "x1"},
        "experiment": {"salt": "x2"},
        "hash": {"key": "x3"},
    }
    assert dict(flattened(settings)) == {
        "als.rank": "64",
        "smtp.password": "not shown",
        "experiment.salt": "not shown",
        "hash.key": "not shown",
    }


# ------------------------------------------------------------------ written to disk


def test_the_report_appears_whole_and_leaves_nothing_else(tmp_path):
    path = write_report(full_night(), tmp_path / "reports" / "night.html")
    assert path.read_text(encoding="utf-8") == render_report(full_night())
    assert [entry.name for entry in path.parent.iterdir()] == ["night.html"]


def test_a_failed_write_leaves_the_old_report_in_place(tmp_path, monkeypatch):
    path = write_report(empty_night(), tmp_path / "night.html")
    before = path.read_bytes()

    def no_space(self, target):
        raise OSError("no space left on device")

    monkeypatch.setattr(Path, "replace", no_space)
    with pytest.raises(OSError, match="no space"):
        write_report(full_night(), path)
    assert path.read_bytes() == before
    assert [entry.name for entry in tmp_path.iterdir()] == ["night.html"]


def test_report_and_mail_render_from_a_zip_without_spark(tmp_path):
    package = ROOT / "recsys_spark"
    archive = tmp_path / "recsys_spark.zip"
    with zipfile.ZipFile(archive, "w") as target:
        for room in (
            "",
            "evaluation",
            "evaluation/report",
            "evaluation/report/templates",
            "push",
            "push/templates",
        ):
            for file in sorted((package / room).iterdir()):
                if file.is_file():
                    target.write(file, file.relative_to(package.parent))
    script = """
import sys
from datetime import date, datetime
from recsys_spark.evaluation.report.render import NightReport, render_report
from recsys_spark.push.render import Mail, MailSlot, render_mail
night = NightReport(date(2017, 8, 31), "r", "e", datetime(2017, 9, 1), 1.0, None, "published")
assert "Night of 31 Aug 2017" in render_report(night)
slots = [MailSlot(1, "i", "ICE")]
assert "Ice" in render_mail(Mail("u", date(2017, 8, 31), "c", "email", "B", "", slots, "https://x.example/u")).html
assert "pyspark" not in sys.modules
import recsys_spark
print(recsys_spark.__file__)
"""
    env = {**os.environ, "PYTHONPATH": str(archive)}
    done = subprocess.run(
        [sys.executable, "-c", script], check=False, cwd=tmp_path, env=env, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert str(archive) in done.stdout


# ------------------------------------------------------------------ the drawings


def test_losses_listed_after_what_was_kept_span_what_was_read():
    bars = [
        FunnelBar(n, r, "", loss)
        for n, r, loss in [("raw", 10, False), ("good", 7, False), ("dup", 2, True), ("bad", 1, True)]
    ]
    assert funnel_starts(bars) == [0, 0, 7, 9]


def test_losses_listed_before_what_remains_are_taken_off_from_the_right():
    bars = [
        FunnelBar(n, r, "", loss)
        for n, r, loss in [("raw", 10, False), ("dup", 2, True), ("bad", 1, True), ("good", 7, False)]
    ]
    assert funnel_starts(bars) == [0, 8, 7, 0]


def test_days_without_events_count_as_zero():
    days = [(date(2017, 8, 1), {"buy": 5}), (date(2017, 8, 4), {"buy": 2, "click": 1})]
    assert every_day(days, ["buy", "click"]) == (date(2017, 8, 1), 1, [[5, 0, 0, 2], [0, 0, 0, 1]])


def test_years_of_days_become_whole_weeks():
    days = [(date(2010, 1, 1) + timedelta(days=i), {"buy": 1}) for i in range(1000)]
    first, per_point, counts = every_day(days, ["buy"])
    assert (first, per_point) == (date(2010, 1, 1), 7)
    assert counts == [[7.0] * 142]


def test_rare_kinds_of_event_are_summed_as_other():
    days = [(date(2017, 8, 1), {"a": 60, "b": 50, "c": 40, "d": 30, "e": 20, "f": 10})]
    kinds = event_kinds(days)
    assert kinds == ["a", "b", "c", "d", "other"]
    assert every_day(days, kinds)[2] == [[60], [50], [40], [30], [30]]


def test_an_axis_of_months_names_first_days_of_months():
    assert marked_days(date(2017, 1, 15), 200, most=8) == [date(2017, m, 1) for m in range(2, 9)]
    assert marked_days(date(2016, 12, 1), 730, most=4)[:2] == [date(2016, 12, 1), date(2017, 6, 1)]
    assert marked_days(date(2017, 8, 1), 3, most=8) == [date(2017, 8, 1), date(2017, 8, 2), date(2017, 8, 3)]


def test_the_area_chart_stacks_to_the_sum_of_the_day():
    days = [(date(2017, 8, 1), {"buy": 50, "click": 50}), (date(2017, 8, 2), {"buy": 100})]
    drawn = str(stacked_area(days, width=880, height=250))
    paths = re.findall(r'd="M([^"]*)Z"', drawn)
    top_of_stack = paths[1].split("L")[0].split()
    top_of_the_100 = paths[0].split("L")[1].split()
    assert top_of_stack[1] == top_of_the_100[1] == "10.0"


def test_shares_fall_and_sum_to_one_and_leave_out_what_nobody_chose():
    assert falling_shares([1, 0, 6, float("nan"), 3]) == [0.6, 0.3, 0.1]
    assert falling_shares([0, 0]) == []


def test_a_long_curve_is_drawn_by_three_hundred_points_with_both_ends():
    ranks = log_spaced(62_000)
    assert len(ranks) <= 300
    assert (ranks[0], ranks[-1]) == (0, 61_999)
    assert ranks == sorted(set(ranks))
    assert log_spaced(5) == [0, 1, 2, 3, 4]
    drawn = str(rank_curves({"x": falling_shares([1 / (i + 1) for i in range(62_000)])}, is_cumulative=False))
    assert len(drawn) < 8_000


def test_the_table_of_the_tail_counts_the_items_that_make_half_of_everything():
    row = tail_row("before", falling_shares([40, 30, 20, 10]))
    assert (row.items, row.half_of_all, row.top_ten) == (4, 2, pytest.approx(1.0))


def test_bars_of_one_metric_are_as_long_as_their_values():
    drawn = str(model_bars("ndcg@10", {"hybrid": 0.4, "als": 0.1, "gone": None}, highlight="hybrid"))
    widths = {
        class_: float(width)
        for class_, width in re.findall(r'<rect[^>]*class="(best|other)" width="([\d.]+)"', drawn)
    }
    assert widths["best"] == pytest.approx(4 * widths["other"], rel=0.01)
    assert "not measured" in drawn


def test_what_speaks_against_an_item_is_drawn_left_of_zero():
    drawn = str(
        contribution_bar(
            {"als": 2.0, "content": -1.0},
            classes=colour_classes(["als", "content"]),
            scale=(-1.0, 2.0),
            width=152,
        )
    )
    zero = float(re.search(r'<line x1="([\d.]+)"', drawn).group(1))
    bars = {
        c: (float(x), float(w))
        for x, c, w in re.findall(r'<rect x="([\d.]+)"[^>]*class="(c\d)" width="([\d.]+)"', drawn)
    }
    assert bars["c0"] == (zero, 100.0)
    assert bars["c1"] == (zero - 50.0, 50.0)


def test_a_component_keeps_its_colour_whoever_stands_beside_it():
    assert (
        colour_classes(["history", "als"])["history"]
        == colour_classes(["history", "popularity"])["history"]
        == "c2"
    )
    assert len(set(colour_classes(["als", "b", "a"]).values())) == 3


def test_the_blend_comes_first_and_the_others_by_ndcg():
    values = {
        "als": {"ndcg@10": 0.1},
        "b": {"ndcg@10": None},
        "history": {"ndcg@10": 0.4},
        "hybrid": {"ndcg@10": 0.2},
    }
    assert ordered_models(values, ["recall@20", "ndcg@10"]) == ["hybrid", "history", "als", "b"]


def test_the_headline_says_so_when_the_blend_loses():
    figure = headline(
        full_night(metrics={"new_items_only": {"hybrid": {"ndcg@10": 0.1}, "als": {"ndcg@10": 0.2}}})
    )
    assert figure is not None
    assert (figure.tone, figure.note) == ("bad", "-50.0 % against als at 0.200")


def test_stages_follow_each_other_on_the_time_axis():
    bars = [TimelineBar("ingest", 10.0, "", "phase-data"), TimelineBar("clean", 30.0, "", "phase-data")]
    drawn = str(timeline(bars, total_seconds=80.0, width=880))
    places = [(float(x), float(w)) for x, w in re.findall(r'<rect x="([\d.]+)"[^>]*width="([\d.]+)"', drawn)]
    (x1, w1), (x2, w2) = places
    assert x2 == pytest.approx(x1 + w1, abs=0.2)
    assert w2 == pytest.approx(3 * w1, rel=0.01)
    assert w1 == pytest.approx((880 - 165 - 118) / 8, abs=0.1)
