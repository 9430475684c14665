"""The few fixed words of a mail, by language. What comes from data stays in its own language."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Phrases:
    language: str
    headline: str
    subject: str  # with {first} and {others}
    subject_of_one: str  # with {first}
    why: str  # with {brand}
    unsubscribe: str


_BY_LANGUAGE = {
    phrases.language: phrases
    for phrases in (
        Phrases(
            language="en",
            headline="Picked for you",
            subject="{first} and {others} more, picked for you",
            subject_of_one="{first}, picked for you",
            why="You receive this mail because you agreed to product suggestions from {brand}.",
            unsubscribe="Unsubscribe",
        ),
        Phrases(
            language="de",
            headline="Für Sie ausgesucht",
            subject="{first} und {others} weitere, für Sie ausgesucht",
            subject_of_one="{first}, für Sie ausgesucht",
            why="Sie erhalten diese E-Mail, weil Sie Produktvorschlägen von {brand} zugestimmt haben.",
            unsubscribe="Abmelden",
        ),
        Phrases(
            language="fr",
            headline="Choisis pour vous",
            subject="{first} et {others} autres, choisis pour vous",
            subject_of_one="{first}, choisi pour vous",
            why="Vous recevez ce message parce que vous avez accepté les suggestions de {brand}.",
            unsubscribe="Se désabonner",
        ),
        Phrases(
            language="es",
            headline="Elegidos para usted",
            subject="{first} y {others} más, elegidos para usted",
            subject_of_one="{first}, elegido para usted",
            why="Recibe este mensaje porque aceptó las sugerencias de productos de {brand}.",
            unsubscribe="Darse de baja",
        ),
    )
}


def phrases_for(locale: str | None) -> Phrases:
    """The words for `de`, `de-AT` or `de_AT`; English for a language we have no words for.

    >>> phrases_for("de_AT").unsubscribe, phrases_for("xx").language, phrases_for(None).language
    ('Abmelden', 'en', 'en')
    """
    language = (locale or "en").replace("_", "-").split("-")[0].casefold()
    return _BY_LANGUAGE.get(language, _BY_LANGUAGE["en"])
