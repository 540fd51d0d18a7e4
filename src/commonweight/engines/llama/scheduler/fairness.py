"""Virtual token counters: fair scheduling between tenants within a priority class.

A job's rank is its priority class, then the rows served to its tenant (fewest first), then its time of arrival.
Virtual token counters as in "Fairness in Serving Large Language Models" (Sheng et al., OSDI 2024): every computed
row is charged to its tenant, and a tenant that comes back starts a row ahead of the least served one: it is next,
and idling saves up no more credit than that.
"""

from collections import Counter


class VirtualTokenCounters:
    """Rows served to each tenant that has unfinished jobs."""

    def __init__(self) -> None:
        self._served: dict[str, int] = {}
        self._jobs: Counter[str] = Counter()

    @property
    def tenant_count(self) -> int:
        """Tenants with unfinished jobs."""
        return len(self._served)

    def add_job(self, tenant: str) -> None:
        """Count a new job of the tenant."""
        self._jobs[tenant] += 1
        if self._jobs[tenant] == 1:
            self._served[tenant] = min(self._served.values(), default=0) - 1

    def finish_job(self, tenant: str) -> None:
        """Count a finished job of the tenant."""
        self._jobs[tenant] -= 1
        if not self._jobs[tenant]:
            del self._jobs[tenant], self._served[tenant]

    def charge(self, tenant: str, rows: int) -> None:
        """Charge computed rows to the tenant."""
        self._served[tenant] += rows

    def get_counter(self, tenant: str) -> int:
        """Virtual counter of the tenant, in rows: comparable between tenants."""
        return self._served[tenant]
