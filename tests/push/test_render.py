"""A mail as a person, a mailbox and an attacker meet it."""

from __future__ import annotations

import re
import time
from dataclasses import replace
from datetime import date
from email.message import EmailMessage
from email.policy import SMTP
from html.parser import HTMLParser

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recsys_spark.push.render import (
    TILE_COLOURS,
    Mail,
    MailRefusedError,
    MailSlot,
    checked_url,
    humanise,
    monogram,
    render_mail,
    tile_colour,
)
from recsys_spark.titles import clip, one_line

SLOTS = [
    MailSlot(2, "a2", "FRZN ICE", "FRZN ICE", "Private", "People with similar baskets buy it"),
    MailSlot(1, "z1", "ICE - CRUSHED/CUBED 22 LB", "ICE", "", "You bought this 12 times"),
    MailSlot(3, "i3", "Crème brûlée & more", "Desserts"),
]
MAIL = Mail(
    user_id="pseudonym-7",
    run_date=date(2017, 8, 31),
    campaign="weekly",
    channel="email",
    brand_name="Corner Market",
    intro="Good morning!",
    slots=SLOTS,
    unsubscribe_url="https://shop.example/u?t=abc&x=1",
)


class Page(HTMLParser):
    def __init__(self, html):
        super().__init__(convert_charrefs=True)
        self.elements, self.words, self._skips = [], [], 0
        self.feed(html)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        self._skips += tag in {"style", "title"}

    def handle_endtag(self, tag):
        self._skips -= tag in {"style", "title"}

    def handle_data(self, data):
        if not self._skips and data.strip():
            self.words.append(data.strip())


def test_products_stand_in_the_order_of_their_ranks_with_readable_titles():
    words = Page(render_mail(MAIL).html).words
    titles = [
        word for word in words if word in {"Ice - Crushed/Cubed 22 LB", "Frozen Ice", "Crème brûlée & more"}
    ]
    assert titles == ["Ice - Crushed/Cubed 22 LB", "Frozen Ice", "Crème brûlée & more"]
    assert "Frozen Ice · Private" in words
    assert "You bought this 12 times" in words


def test_the_plain_text_says_the_same_without_any_markup():
    assert render_mail(replace(MAIL, sender_address="12 High Street")).text == (
        "Corner Market\n"
        "Picked for you\n"
        "\n"
        "Good morning!\n"
        "\n"
        "1. Ice - Crushed/Cubed 22 LB\n"
        "   Ice\n"
        "   You bought this 12 times\n"
        "\n"
        "2. Frozen Ice\n"
        "   Frozen Ice · Private\n"
        "   People with similar baskets buy it\n"
        "\n"
        "3. Crème brûlée & more\n"
        "   Desserts\n"
        "\n"
        "--\n"
        "You receive this mail because you agreed to product suggestions from Corner Market.\n"
        "Unsubscribe: https://shop.example/u?t=abc&x=1\n"
        "12 High Street\n"
    )


def test_the_headers_allow_to_unsubscribe_with_one_click():
    assert render_mail(MAIL).headers == {
        "List-Unsubscribe": "<https://shop.example/u?t=abc&x=1>",
        "List-Unsubscribe-Post": "List-Unsubscribe=One-Click",
    }
    links = [a for tag, a in Page(render_mail(MAIL).html).elements if tag == "a"]
    assert [link["href"] for link in links] == ["https://shop.example/u?t=abc&x=1"]


def test_the_subject_names_the_first_product_and_counts_the_others():
    assert render_mail(MAIL).subject == "Ice - Crushed/Cubed 22 LB and 2 more, picked for you"
    assert render_mail(replace(MAIL, slots=SLOTS[:1])).subject == "Frozen Ice, picked for you"
    assert render_mail(replace(MAIL, subject="This week")).subject == "This week"


def test_the_preview_shows_titles_rather_than_the_words_that_follow():
    html = render_mail(MAIL).html
    preview = re.search(r'<div class="preheader"[^>]*>(.*?)</div>', html, re.DOTALL).group(1)
    assert preview.startswith("Ice - Crushed/Cubed 22 LB · Frozen Ice · Crème brûlée &amp; more\u00a0")
    assert html.index("preheader", html.index("<body")) < html.index("Corner Market", html.index("<body"))


def test_a_mail_becomes_a_message_that_any_mailer_can_send():
    rendered = render_mail(MAIL)
    message = EmailMessage(policy=SMTP)
    message["Subject"] = rendered.subject
    for name, value in rendered.headers.items():
        message[name] = value
    message.set_content(rendered.text)
    message.add_alternative(rendered.html, subtype="html")
    wire = message.as_bytes()
    assert b"List-Unsubscribe-Post: List-Unsubscribe=One-Click\r\n" in wire
    assert wire.count(b"\r\nContent-Type: text/") == 2


def test_css_is_in_the_elements_and_only_media_queries_stay_in_the_head():
    html = render_mail(MAIL).html
    style = re.search(r"<style>(.*?)</style>", html, re.DOTALL).group(1)
    assert "prefers-color-scheme: dark" in style
    assert "max-width: 480px" in style
    assert not re.sub(r"@media[^{]*\{(?:[^{}]*\{[^{}]*\})*[^{}]*\}", "", style).strip()
    titles = [
        a for tag, a in Page(html).elements if tag == "p" and (a.get("class") or "").startswith("title")
    ]
    assert len(titles) == 3
    assert all("font-weight: 700" in a["style"] for a in titles)
    assert not re.search(r"<!--|\{\{|%-->|@import|url\(|<img|<script", html)
    assert html.index('<meta charset="utf-8">') < 200


def test_a_user_appears_nowhere_in_the_mail():
    rendered = render_mail(MAIL)
    assert "pseudonym-7" not in rendered.html + rendered.text + rendered.subject + str(rendered.headers)


def test_a_locale_chooses_the_fixed_words_and_english_stands_in_for_the_rest():
    german = render_mail(replace(MAIL, locale="de-AT"))
    assert "Abmelden" in german.text
    assert '<html lang="de">' in german.html
    assert render_mail(replace(MAIL, locale="xx")).html == render_mail(MAIL).html


def test_a_product_with_an_address_is_a_link():
    slot = MailSlot(1, "i", "Tea", url="https://shop.example/p?a=1&b=2")
    html = render_mail(replace(MAIL, slots=[slot])).html
    assert 'href="https://shop.example/p?a=1&amp;b=2"' in html
    assert next(a["href"] for tag, a in Page(html).elements if tag == "a") == "https://shop.example/p?a=1&b=2"


# ------------------------------------------------------------------ what data and settings may not do


@pytest.mark.parametrize(
    "title",
    [
        "<script>alert(1)</script>",
        '"><img src=x onerror=alert(1)>',
        "{{ 7 * 7 }}<!--% if x %-->",
        "=cmd|' /C calc'!A0",
    ],
)
def test_what_comes_from_data_is_text_wherever_it_stands(title):
    slot = MailSlot(1, title, title, title, title, title)
    rendered = render_mail(replace(MAIL, slots=[slot], intro=title, brand_name=title, sender_address=title))
    page = Page(rendered.html)
    assert not {"script", "img"} & {tag for tag, _ in page.elements}
    assert not any(any(name.startswith("on") for name in a) for _, a in page.elements)
    assert page.words.count(title) == 5  # brand, intro, title, reason, sender
    assert title in rendered.text


def test_a_long_title_is_cut_and_a_title_over_many_lines_is_one():
    slots = [MailSlot(1, "i", "x" * 10_000), MailSlot(2, "j", "two\r\nBcc: a@b.example\n\nlines")]
    rendered = render_mail(replace(MAIL, slots=slots))
    assert "x" * 79 + "…" in rendered.html
    assert len(rendered.html) < 20_000
    assert "2. two Bcc: a@b.example lines\n" in rendered.text
    assert "\n" not in rendered.subject


def test_right_to_left_titles_set_their_own_direction_and_cannot_turn_the_page():
    html = render_mail(replace(MAIL, slots=[MailSlot(1, "i", "חלב \u202eטרי 🍓")])).html
    assert re.search(r'<p class="title text"[^>]*dir="auto"[^>]*>חלב טרי 🍓</p>', html)
    assert "\u202e" not in html


@pytest.mark.parametrize("breaks", ["\r\nBcc: x@y.example", "\n", "\r", "\x00", "\u2028", "\x85", "\x0b"])
def test_a_line_break_in_subject_brand_or_address_is_refused(breaks):
    with pytest.raises(MailRefusedError, match="subject"):
        render_mail(replace(MAIL, subject=f"Hello{breaks}"))
    with pytest.raises(MailRefusedError, match="brand_name"):
        render_mail(replace(MAIL, brand_name=f"Shop{breaks}"))
    with pytest.raises(MailRefusedError, match="unsubscribe_url"):
        render_mail(replace(MAIL, unsubscribe_url=f"https://shop.example/u{breaks}"))


@pytest.mark.parametrize(
    "url",
    [
        "",
        "http://shop.example/u",
        "javascript:alert(1)",
        "mailto:a@b.example",
        "https://",
        "https:///u",
        "https://shop.example/a b",
        "https://shop.example/>,<https://evil.example",
        'https://shop.example/"x',
        "https://shöp.example/",
    ],
)
def test_an_address_that_is_not_plain_https_is_refused(url):
    with pytest.raises(MailRefusedError):
        checked_url(url, "unsubscribe_url")
    if url:
        with pytest.raises(MailRefusedError, match="url of item i"):
            render_mail(replace(MAIL, slots=[MailSlot(1, "i", "Tea", url=url)]))


def test_a_mail_without_products_is_refused():
    with pytest.raises(MailRefusedError, match="the list is empty"):
        render_mail(replace(MAIL, slots=[]))


@settings(max_examples=150, deadline=None)
@given(st.text(max_size=200), st.text(max_size=60), st.text(max_size=60))
def test_no_title_category_or_reason_breaks_a_mail_or_its_encoding(title, category, reason):
    rendered = render_mail(replace(MAIL, slots=[MailSlot(1, "i", title, category, "", reason)]))
    rendered.html.encode("utf-8")
    rendered.text.encode("utf-8")
    message = EmailMessage(policy=SMTP)
    message["Subject"] = rendered.subject
    assert {tag for tag, _ in Page(rendered.html).elements} <= {
        *(
            "html",
            "head",
            "meta",
            "title",
            "style",
            "body",
            "div",
            "table",
            "tbody",
            "tr",
            "td",
            "p",
            "h1",
            "a",
        )
    }


def test_a_thousand_mails_take_a_few_seconds():
    render_mail(MAIL)
    started = time.perf_counter()
    for _ in range(1000):
        render_mail(MAIL)
    assert time.perf_counter() - started < 5  # 0.5 s on the development machine


# ------------------------------------------------------------------ titles, tiles


@pytest.mark.parametrize(
    ("shouted", "readable"),
    [
        ("ICE - CRUSHED/CUBED", "Ice - Crushed/Cubed"),
        ("FRZN ICE", "Frozen Ice"),
        ("ICE 22 LB", "Ice 22 LB"),
        ("FLUID MILK 1/2 GAL", "Fluid Milk 1/2 GAL"),
        ("12PK COLA", "12PK Cola"),
        ("KELLOGG'S CORN FLAKES 14.5 OZ", "Kellogg's Corn Flakes 14.5 OZ"),
        ("BBQ SAUCE FOR THE GRILL", "BBQ Sauce for the Grill"),
        ("T-SHIRTS", "T-Shirts"),
        ("M&M", "M&M"),
        ("CAFÉ AU LAIT", "Café Au Lait"),
        ("PT CRUISER", "Pt Cruiser"),
        ("iPhone 7 case", "iPhone 7 case"),
        ("牛乳 500", "牛乳 500"),
        ("", ""),
    ],
)
def test_a_shouted_title_is_made_readable_and_others_are_left_alone(shouted, readable):
    assert humanise(shouted) == readable


@settings(max_examples=300, deadline=None)
@given(st.text(max_size=80))
def test_making_readable_twice_changes_nothing_more_and_keeps_one_line(title):
    once = humanise(title)
    assert one_line(once) == once
    assert clip(once, 20) == clip(clip(once, 20), 20)
    assert len(clip(title, 20)) <= 20
    if any(letter.islower() for letter in once):
        assert humanise(once) == once


def test_a_category_has_the_same_monogram_and_colour_everywhere():
    assert monogram("Frozen Breakfast Foods") == "FB"
    assert monogram("- / -") == "•"
    assert tile_colour("Cheese") == tile_colour("CHEESE")
    assert {tile_colour(f"category {i}") for i in range(200)} == set(TILE_COLOURS)


def test_white_letters_can_be_read_on_every_tile():
    def channel(value):
        return value / 12.92 if value <= 0.03928 else ((value + 0.055) / 1.055) ** 2.4

    for colour in TILE_COLOURS:
        r, g, b = (channel(int(colour[i : i + 2], 16) / 255) for i in (1, 3, 5))
        contrast = 1.05 / (0.2126 * r + 0.7152 * g + 0.0722 * b + 0.05)
        assert contrast >= 4.5, colour
