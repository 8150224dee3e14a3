"""Dates as people type them, and the condition over the date taken that they stand for."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime

from turkish_clip.errors import InputError
from turkish_clip.photo import FIRST_YEAR, LAST_YEAR

PLAIN = re.compile(r"([0-9]{4})(?:-([0-9]{1,2}))?(?:-([0-9]{1,2}))?")


class DateError(InputError):
    """A date that is none, or a span without a day."""


@dataclass(frozen=True)
class Taken:
    """A span of time in which photographs were taken.

    Attributes:
        after: its beginning, which is in it; None for no beginning.
        before: its end, which is not in it; None for no end.
    """

    after: datetime | None = None
    before: datetime | None = None

    @classmethod
    def parse(cls, after: str | None, before: str | None) -> Taken | None:
        """Reads the two dates of a span, each a year, month or day, which stand for their first moment.

        Args:
            after: such as "2024", "2024-06" or "2024-06-15"; None for no beginning.
            before: likewise; None for no end.

        Returns:
            The span; None where neither is given.

        Raises:
            DateError: one is no date, or the end is not after the beginning.
        """
        if after is None and before is None:
            return None
        taken = cls(*(None if text is None else first_moment(text) for text in (after, before)))
        if taken.after and taken.before and taken.after >= taken.before:
            advice = "exchange them" if taken.after > taken.before else "name a later end"
            raise DateError(
                f"expected a time from {after} on and before {before}, got an end that is not after the beginning; "
                f"{advice}: the day, month or year of --before is not in it"
            )
        return taken

    @property
    def condition(self) -> str:
        """The condition in SQL, as `ImageIndex.search` takes it.

        >>> Taken.parse("2024-06", "2024-07-15").condition
        "taken >= timestamp '2024-06-01 00:00:00' AND taken < timestamp '2024-07-15 00:00:00'"
        """
        earliest, latest = datetime(FIRST_YEAR, 1, 1), datetime(LAST_YEAR + 1, 1, 1)
        ends = ((">=", self.after), ("<", self.before))
        held = [(sign, min(max(end, earliest), latest)) for sign, end in ends if end]
        return " AND ".join(f"taken {sign} timestamp '{end.isoformat(' ')}'" for sign, end in held)

    def holds(self, taken: datetime | None) -> bool:
        """Returns whether a date lies in the span; no date does not."""
        if taken is None:
            return False
        return (self.after is None or taken >= self.after) and (self.before is None or taken < self.before)


def first_moment(text: str) -> datetime:
    """Returns the first moment of a year, month or day.

    Raises:
        DateError: it is none.

    >>> first_moment("2024-06")
    datetime.datetime(2024, 6, 1, 0, 0)
    """
    match = PLAIN.fullmatch(text.strip())
    try:
        if match is None:
            raise ValueError
        return datetime(int(match[1]), int(match[2] or 1), int(match[3] or 1))
    except ValueError as error:
        raise DateError(
            f"expected a date such as 2024, 2024-06 or 2024-06-15, got {text!r:.40}; write it in one of these forms"
        ) from error


def both(where: str | None, taken: Taken | None) -> str | None:
    """Returns one condition for a condition of the user's and a span.

    Args:
        where: in SQL; None for none.
        taken: None for none.
    """
    from turkish_clip.search.storage import one_condition

    if taken is None:
        return where
    return taken.condition if where is None else f"{one_condition(where)} AND {taken.condition}"
