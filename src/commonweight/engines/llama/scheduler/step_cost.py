"""Cost model of a step, learned from measured step times.

It sizes prefill chunks, so that a step keeps the cadence of running streams, and decides whether draft rows,
which only *may* yield tokens, are worth their time. Rows with logits ("decode rows") and rows of prompts are
learned apart: the former are few and their cost has steps, so each size is remembered; the latter come in long
chunks whose cost per row mostly depends on the context, so recent ones count.

Timings are medians of the last few: a step that took long because the machine was busy leaves no trace.
"""

from bisect import bisect_left
from collections import deque

RECENT_STEPS = 15
"""Decode steps of a size that a median is taken of: what a row adds is small beside the noise of a whole step."""
RECENT_CHUNKS = 5
"""Prefill chunks that a median is taken of: few, since the cost of a row grows with the context it looks back
on."""
MAX_SIZE_AGE_STEPS = 1024
"""Decode steps after which the cost of a size not seen since is forgotten. A size that once looked too expensive
is not used, hence not measured: forgetting lets it be tried again."""
MAX_SINGLE_AGE_STEPS = 32
"""The same for a size that was seen once: it may have been a busy moment. Of two times the shorter one counts."""
MIN_CHUNK_ROWS = 16
"""Prompt rows that always fit, so that every prefill makes progress."""
MIN_OBSERVED_ROWS = 8
"""Prompt rows of a step below which its time says more about noise than about them."""
INITIAL_STEP_SECONDS = 0.01
"""Seconds of a step of one row before anything was observed."""
INITIAL_ROW_COST = 1 / 8
"""Cost of a further row, in steps of one row, before two sizes were observed: on the hopeful side, since a guess
that is too high would never be put to the test."""


class StepCostModel:
    """Running estimate of step seconds by rows on this machine. One for each model; calls take microseconds."""

    def __init__(self) -> None:
        self._sizes: dict[int, deque[float]] = {}
        self._last_seen: dict[int, int] = {}
        self._steps = 0
        self._prompt_row: deque[float] = deque(maxlen=RECENT_CHUNKS)
        self._curve: tuple[list[int], list[float]] | None = None

    def observe(self, rows: int, outputs: int, seconds: float) -> None:
        """Learn from a step that computed ``rows`` rows, ``outputs`` of them with logits, in ``seconds``."""
        # A step reads the weights once whatever it computes: its first row always pays for that.
        decode_rows = max(outputs, 1)
        if rows <= decode_rows:
            self._observe_decode(rows, seconds)
        elif rows - decode_rows >= MIN_OBSERVED_ROWS:
            beside = self.estimate_step_seconds(decode_rows) if self._sizes else 0.0
            self._prompt_row.append(max(seconds - beside, 0.0) / (rows - decode_rows))
            self._curve = None

    def estimate_step_seconds(self, rows: int) -> float:
        """Estimated seconds of a step of ``rows`` decode rows (1 or more).

        More rows may cost less: kernels work in tiles, and 8 or 16 rows were seen to be faster than 7 or 14.
        """
        sizes, costs = self._fresh_curve()
        if not sizes:
            return INITIAL_STEP_SECONDS * _estimate_initial_growth(rows)
        if rows <= sizes[0]:
            # At its cheapest, so that a step without drafts looks good until it was measured.
            return costs[0] * rows / sizes[0]
        if rows > sizes[-1]:
            return costs[-1] + (rows - sizes[-1]) * self._further_row(sizes, costs)
        right = bisect_left(sizes, rows)
        left = right - 1
        share = (rows - sizes[left]) / (sizes[right] - sizes[left])
        return costs[left] + share * (costs[right] - costs[left])

    def max_rows_to_try(self, rows: int) -> int:
        """Rows that a step with drafts on top of ``rows`` may have: at most twice as many as any measured size.
        A wrong extrapolation is then paid for few rows, and corrected for more."""
        sizes, _ = self._fresh_curve()
        return max(rows + 1, 2 * sizes[-1] if sizes else 0)

    def max_prompt_rows(self, seconds: float, beside: int, most: int) -> int:
        """Prompt rows, at least :data:`MIN_CHUNK_ROWS` and at most ``most`` (which wins), that can be computed
        beside ``beside`` decode rows in a step of about ``seconds`` seconds."""
        step = self.estimate_step_seconds(max(beside, 1))
        row = self._seconds_per_prompt_row()
        spare = seconds - step
        if spare >= row * most:
            return most
        fitting = int(spare / row) if spare > 0 else 0
        return min(max(fitting, MIN_CHUNK_ROWS), most)

    def estimate_prefill_seconds(self, rows: int) -> float:
        """Estimated seconds that so many rows of a prompt take, in chunks as large as recent ones."""
        return rows * self._seconds_per_prompt_row()

    def _observe_decode(self, rows: int, seconds: float) -> None:
        size = _classify_size(rows)
        self._steps += 1
        self._sizes.setdefault(size, deque(maxlen=RECENT_STEPS)).append(seconds)
        self._last_seen[size] = self._steps
        self._curve = None

    def _fresh_curve(self) -> tuple[list[int], list[float]]:
        """Sizes, ascending, and their costs; drops sizes that are too old."""
        if self._curve is None:
            ages = {size: self._steps - step for size, step in self._last_seen.items()}
            for size in [size for size, age in ages.items() if age > MAX_SIZE_AGE_STEPS]:
                del self._sizes[size], self._last_seen[size]
            sizes = sorted(
                size for size, seen in self._sizes.items() if len(seen) > 1 or ages[size] <= MAX_SINGLE_AGE_STEPS
            )
            self._curve = sizes, [_find_median(self._sizes[size]) for size in sizes]
        return self._curve

    def _seconds_per_prompt_row(self) -> float:
        return (
            _find_median(self._prompt_row)
            if self._prompt_row
            else INITIAL_ROW_COST * self.estimate_step_seconds(1)
        )

    def _further_row(self, sizes: list[int], costs: list[float]) -> float:
        """Cost of a row beyond the largest size seen."""
        if len(sizes) > 1:
            return max(costs[-1] - costs[0], 0.0) / (sizes[-1] - sizes[0])
        if self._prompt_row:
            return _find_median(self._prompt_row)
        return costs[0] * INITIAL_ROW_COST / _estimate_initial_growth(sizes[0])


def _classify_size(rows: int) -> int:
    """Sizes below 16 stand for themselves, larger ones share a class within about 6 %."""
    shift = max(rows.bit_length() - 4, 0)
    return (rows + (1 << shift >> 1)) >> shift << shift


def _estimate_initial_growth(rows: int) -> float:
    return 1.0 + (rows - 1) * INITIAL_ROW_COST


def _find_median(values: deque[float]) -> float:
    """The lower median: of two, the one that was less disturbed."""
    return sorted(values)[(len(values) - 1) // 2]
