"""Tests of a charter: the rates of refusal that it requires, measured on labelled texts."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from commonweight.charter import Charter
from commonweight.charter.principle import Requirement
from commonweight.guard.heads.calibration import Interval, estimate_share
from commonweight.workshop.heads.evaluate import ScoredText


@dataclass(frozen=True)
class CharterTest:
    """One requirement of a charter, with the measured rate."""

    principle: str | None
    """None: of the charter as a whole."""
    data: str
    """Name of the source."""
    limit: float
    is_lower_limit: bool
    """At least that share is refused, of harmful texts. Otherwise at most, of harmless ones."""
    share: Interval | None
    """The share that was refused; None: the source is not there."""
    texts: int = 0

    @property
    def passed(self) -> bool:
        """Whether the requirement holds, as far as there is data."""
        if self.share is None:
            return True
        return self.share.value >= self.limit if self.is_lower_limit else self.share.value <= self.limit


def list_requirements(charter: Charter) -> list[tuple[str | None, Requirement]]:
    """List the requirements of a charter, and of its principles by their ids."""
    whole: list[tuple[str | None, Requirement]] = [(None, one) for one in charter.tests]
    return whole + [(principle.id, one) for principle in charter.principles for one in principle.tests]


def judge_requirements(charter: Charter, scored: Mapping[str, Sequence[ScoredText]]) -> list[CharterTest]:
    """Judge all requirements. ``scored``: texts by the names of their sources."""
    results: list[CharterTest] = []
    for principle, requirement in list_requirements(charter):
        for is_lower, limit in ((False, requirement.most_refused), (True, requirement.least_refused)):
            if limit is None:
                continue
            if requirement.data not in scored:
                results.append(CharterTest(principle, requirement.data, limit, is_lower, None))
                continue
            found = [one for one in scored[requirement.data] if one.row.is_harmful == is_lower]
            rows = [one.outcome for one in found if one.outcome.is_read]
            hits = sum(row.is_refused and principle in (None, row.principle) for row in rows)
            share = estimate_share(hits, len(rows))
            results.append(CharterTest(principle, requirement.data, limit, is_lower, share, len(rows)))
    return results
