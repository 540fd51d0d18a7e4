"""An engine process that reads states only while jobs want them: ``python -m benchmarks.guard.untapping CONFIG``.

The engine's own keeps reading the layers of a probe that it was once given. So without a guard, by turns with one,
it would pay for part of it.
"""

from unittest import mock

from commonweight.engines.llama.process import worker
from commonweight.engines.llama.scheduler import scheduler
from commonweight.engines.llama.scheduler.prefix_reuse import Leaders
from commonweight.engines.llama.scheduler.sequence import Sequence


class UntappingScheduler(scheduler.Scheduler):
    """Selects no layers from when a job without a probe starts, until one with a probe does."""

    def _start(self, seq: Sequence, leaders: Leaders) -> None:
        if self._tapped and seq.job.probe is None and not any(one.job.probe for one in self._running):
            self._tapped.clear()
            self._taps.select_layers(())
        super()._start(seq, leaders)


if __name__ == "__main__":
    with mock.patch.object(worker, "Scheduler", UntappingScheduler):
        worker.main()
