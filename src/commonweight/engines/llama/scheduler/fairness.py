"""Who comes next: classes of priority first, then the tenant that has been served least, then order of arrival.

Virtual token counters as in "Fairness in Serving Large Language Models" (Sheng et al., OSDI 2024): every computed
row is charged to its tenant, and a tenant that comes back starts a row ahead of the least served one: it is next,
and idling saves up no more credit than that.
"""

from collections import Counter


class Fairness:
    """What tenants with unfinished jobs have been served, in rows."""

    def __init__(self) -> None:
        self._served: dict[str, int] = {}
        self._jobs: Counter[str] = Counter()

    @property
    def tenants(self) -> int:
        """Tenants with unfinished jobs."""
        return len(self._served)

    def enter(self, tenant: str) -> None:
        """A job of the tenant has come."""
        self._jobs[tenant] += 1
        if self._jobs[tenant] == 1:
            self._served[tenant] = min(self._served.values(), default=0) - 1

    def leave(self, tenant: str) -> None:
        """A job of the tenant is done."""
        self._jobs[tenant] -= 1
        if not self._jobs[tenant]:
            del self._jobs[tenant], self._served[tenant]

    def charge(self, tenant: str, rows: int) -> None:
        """Rows were computed for the tenant."""
        self._served[tenant] += rows

    def rows_served(self, tenant: str) -> int:
        """Rows computed for a tenant, in the virtual count that comparisons are made in."""
        return self._served[tenant]
