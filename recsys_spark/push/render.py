"""One user's list as a mail: HTML, the same in plain text, and the headers a mailbox asks for.

The control tags of `mail.html.j2` are HTML comments (`<!--% for … %-->`), so the template itself is a valid
page: its CSS is inlined once, before anything is filled in. A mail then costs one pass of a compiled
template instead of one parse of a page.
"""

from __future__ import annotations

import functools
import re
import unicodedata
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from importlib.resources import files

import css_inline
from jinja2 import Environment, StrictUndefined, Template

from recsys_spark.errors import RecsysError
from recsys_spark.push.phrases import Phrases, phrases_for
from recsys_spark.titles import clip, humanise, one_line

__all__ = ["Mail", "MailRefusedError", "MailSlot", "RenderedMail", "humanise", "render_mail"]

TITLE_LIMIT = 80
SUBJECT_LIMIT = 120  # telephones show some 40 characters, desks some 80
# White letters on each of these have a contrast of at least 4.5 (WCAG AA).
TILE_COLOURS = (
    "#4338ca",
    "#0f766e",
    "#b45309",
    "#be185d",
    "#1d4ed8",
    "#7c3aed",
    "#15803d",
    "#b91c1c",
    "#0e7490",
    "#a21caf",
)
# Keeps mail clients from filling the preview with the words that follow it.
_PREVIEW_PADDING = "\u00a0\u200c\u034f" * 60
_HTTPS_URL = re.compile(r"https://[A-Za-z0-9\[][!#-;=?-~]*")  # visible ASCII without quote and angle brackets


class MailRefusedError(RecsysError):
    """This mail may not go out as it is: a forged header, an unsafe address, an empty list."""


@dataclass(frozen=True)
class MailSlot:
    """One product of the list. `url`, when the shop has pages to link to, is https."""

    rank: int
    item_id: str
    title: str
    category: str = ""
    brand: str = ""
    reason: str = ""
    url: str | None = None


@dataclass(frozen=True)
class Mail:
    """What one user is sent. `user_id` is pseudonymous and appears nowhere in the mail.

    `sender_address` is the postal address that commercial mail must carry in many countries.
    `country` is not shown; it travels with the mail for the sender's rules.
    """

    user_id: str
    run_date: date
    campaign: str
    channel: str
    brand_name: str
    intro: str
    slots: Sequence[MailSlot]
    unsubscribe_url: str
    locale: str | None = None
    country: str | None = None
    subject: str | None = None
    sender_address: str = ""


@dataclass(frozen=True)
class RenderedMail:
    """A mail ready for `EmailMessage`; `headers` hold what the sender adds besides From, To and Subject."""

    subject: str
    html: str
    text: str
    headers: dict[str, str]


def render_mail(mail: Mail) -> RenderedMail:
    """The mail as a person reads it. Raises MailRefusedError on what must not leave the house."""
    if not mail.slots:
        raise MailRefusedError(f"Mail of {mail.run_date}, campaign {mail.campaign!r}: the list is empty.")
    phrases = phrases_for(mail.locale)
    slots = [_slot_view(slot) for slot in sorted(mail.slots, key=lambda slot: (slot.rank, slot.item_id))]
    subject = _subject(mail, phrases, slots)
    view = {
        "phrases": phrases,
        "subject": subject,
        "preheader": " · ".join(slot.title for slot in slots[:3]),
        "padding": _PREVIEW_PADDING,
        "brand_name": one_line(mail.brand_name),
        "intro": clip(mail.intro, 600),
        "slots": slots,
        "why": phrases.why.format(brand=one_line(mail.brand_name)),
        "unsubscribe_url": checked_url(mail.unsubscribe_url, "unsubscribe_url"),
        "sender_address": clip(mail.sender_address, 200),
    }
    # One-click unsubscription: RFC 8058, sections 3.1 and 3.2.
    headers = {
        "List-Unsubscribe": f"<{view['unsubscribe_url']}>",
        "List-Unsubscribe-Post": "List-Unsubscribe=One-Click",
    }
    html, text = _templates()
    return RenderedMail(subject, html.render(view), text.render(view), headers)


def checked_url(url: str, name: str) -> str:
    """The address itself when it is plain https; anything that could forge a header or run is refused."""
    if not _HTTPS_URL.fullmatch(url):
        raise MailRefusedError(
            f"{name}: got {clip(ascii(url), 80)}, expected an https address of visible ASCII characters."
        )
    return url


def _subject(mail: Mail, phrases: Phrases, slots: Sequence[SlotView]) -> str:
    """The subject given, or one made of the first title. Given text with a line break is refused,
    not mended: whoever wrote it into the configuration should see it.
    """
    for name, given in (("subject", mail.subject or ""), ("brand_name", mail.brand_name)):
        if any(unicodedata.category(letter) in {"Cc", "Zl", "Zp"} for letter in given):
            raise MailRefusedError(f"{name}: got {clip(ascii(given), 80)}, expected one line.")
    if mail.subject:
        return clip(mail.subject, SUBJECT_LIMIT)
    form = phrases.subject if len(slots) > 1 else phrases.subject_of_one
    return form.format(first=clip(slots[0].title, 60), others=len(slots) - 1)


# ------------------------------------------------------------------ slots


@dataclass(frozen=True)
class SlotView:
    """A product as the templates show it: readable, bounded, one line each."""

    title: str
    group: str
    reason: str
    monogram: str
    colour: str
    url: str | None


def _slot_view(slot: MailSlot) -> SlotView:
    category = readable(slot.category, 60)
    group = " · ".join(part for part in (category, readable(slot.brand, 40)) if part)
    return SlotView(
        title=readable(slot.title, TITLE_LIMIT) or readable(slot.item_id, TITLE_LIMIT),
        group=group,
        reason=clip(slot.reason, 140),
        monogram=monogram(category or slot.title),
        colour=tile_colour(category or slot.title),
        url=checked_url(slot.url, f"url of item {clip(slot.item_id, 40)}") if slot.url else None,
    )


def readable(text: str, limit: int) -> str:
    return clip(humanise(clip(text, 4 * limit)), limit)


def monogram(category: str) -> str:
    """The first letters of the first two words; a bullet when there is none.

    >>> monogram("frozen breakfast foods"), monogram("Cheese"), monogram("")
    ('FB', 'C', '•')
    """
    words = re.findall(r"[^\W_]+", category)
    return "".join(word[0] for word in words[:2]).upper() or "•"


def tile_colour(category: str) -> str:
    """The same colour for a category in every mail of every night."""
    return TILE_COLOURS[zlib.crc32(category.casefold().encode("utf-8", "replace")) % len(TILE_COLOURS)]


# ------------------------------------------------------------------ templates


@functools.cache
def _templates() -> tuple[Template, Template]:
    """The compiled pair: HTML with its CSS already inlined, and plain text."""
    folder = files("recsys_spark.push") / "templates"
    html = _environment(is_html=True).from_string(
        inlined((folder / "mail.html.j2").read_text(encoding="utf-8"))
    )
    text = _environment(is_html=False).from_string((folder / "mail.txt.j2").read_text(encoding="utf-8"))
    return html, text


def inlined(template: str) -> str:
    """The template with its CSS in style attributes; media queries stay in the head."""
    inliner = css_inline.CSSInliner(keep_at_rules=True, load_remote_stylesheets=False)
    page = str(inliner.inline(template))
    # The inliner puts the media queries first; a declared encoding must come within the first kilobyte.
    declared = '<meta charset="utf-8">'
    return page.replace(declared, "", 1).replace("<head>", f"<head>{declared}", 1)


def _environment(*, is_html: bool) -> Environment:
    """Escaping for HTML only: in plain text an escaped ampersand would be read as written."""
    return Environment(
        autoescape=is_html,  # noqa: S701
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        block_start_string="<!--%" if is_html else "{%",
        block_end_string="%-->" if is_html else "%}",
    )
