"""Errors a person can act on: what, where, got, expected, and the next command.

Exit codes: 0 done, 1 anything else, 2 wrong use or configuration, 3 input rejected by a
quality gate, 4 output rejected by the publish gate (the last good list stands).
"""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches


class RecsysError(Exception):
    """A fault with one clear sentence; the edge prints it without a stack trace."""

    exit_code = 1


class ConfigError(RecsysError):
    """The command line, a setting or the machine is not as the job needs it."""

    exit_code = 2


class InputError(RecsysError):
    """A source cannot be taken as it was delivered (unreadable, empty, nothing for the date)."""

    exit_code = 3


class NothingToLearnError(InputError):
    """A component of the blend cannot be made: nothing speaks for it. Lists can do without."""


class NothingToJudgeError(InputError):
    """Nothing tells how good lists are: no models of the day, or nobody had anything in the days after it."""


class NothingOnSaleError(InputError):
    """No item may be recommended on the day: there can be no list."""


class QualityGateError(InputError):
    """The cleaned batch failed its expectations; nothing of it was merged."""


class PublishGateError(RecsysError):
    """The staged lists failed the publish gate; the last good list stands."""

    exit_code = 4


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """` Did you mean x?` for the nearest known name, or an empty string."""
    candidates = list(known)
    by_folded = {candidate.casefold(): candidate for candidate in candidates}
    if name.casefold() in by_folded:
        return f" Did you mean {by_folded[name.casefold()]}?"
    nearest = get_close_matches(name, candidates, n=1, cutoff=0.5)
    return f" Did you mean {nearest[0]}?" if nearest else ""
