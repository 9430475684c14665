"""What every page keeps to: whom it is for, its length, its sentences, its links."""

from __future__ import annotations

import pytest

from recsys_spark.errors import did_you_mean
from tests.conftest import ROOT
from tests.docs.pages import anchors, first_words, links, pages, sentences, text_of, written

LINES = {
    "README.md": 130,
    "ARCHITECTURE.md": 130,
    "CONTRIBUTING.md": 80,
    "docs/quickstart.md": 120,
    "docs/concepts.md": 120,
    "docs/data.md": 150,
    "docs/quality.md": 150,
    "docs/campaigns.md": 150,
    "docs/models.md": 120,
    "docs/evaluation.md": 150,
    "docs/operations.md": 150,
    "docs/kernel.md": 90,
    "docs/results.md": 180,
    "docs/sizing.md": 90,
}
DECISION_LINES = 110
WORDS = 40


@pytest.mark.parametrize("page", [page for page in pages() if page != "CHANGELOG.md"])
def test_a_page_says_first_whom_it_is_for(page):
    assert first_words(page).startswith(("For ", "Who ")), first_words(page)


@pytest.mark.parametrize("page", written())
def test_no_sentence_is_longer_than_one_breath(page):
    long = [sentence for sentence in sentences(page) if len(sentence.split()) > WORDS]
    assert long == []


def test_pages_stay_as_short_as_they_are_meant_to_be():
    limits = {**LINES, **{page: DECISION_LINES for page in pages() if page.startswith("docs/decisions/")}}
    long = {page: len(text_of(page).splitlines()) for page in limits}
    assert {page: count for page, count in long.items() if count > limits[page]} == {}


@pytest.mark.parametrize("page", pages())
def test_every_link_leads_somewhere(page):
    dead = []
    for link in links(page):
        if link.startswith(("http://", "https://", "mailto:")):
            continue
        name, _, anchor = link.partition("#")
        target = (ROOT / page).parent / name if name else ROOT / page
        if not target.exists():
            dead.append(f"{link}: no such file.{did_you_mean(name, pages())}")
        elif anchor and target.suffix == ".md" and anchor not in anchors(target):
            dead.append(f"{link}: no such heading.{did_you_mean(anchor, anchors(target))}")
    assert dead == []
