"""A comparison as lines of text, for terminals and files."""

from collections.abc import Iterator, Sequence

from commonweight.workshop.evals.comparison import Comparison
from commonweight.workshop.evals.contamination import Contamination
from commonweight.workshop.evals.paired import Interval
from commonweight.workshop.evals.targets import Target

MAX_LISTED = 5
"""Row ids that the contamination report names; the rest stands in the file."""


def format_comparison(comparison: Comparison, targets: Sequence[Target]) -> str:
    """All tables, one below the other."""
    parts = [
        _format_table(_list_subjects(comparison)),
        _format_table(_list_changes(comparison)),
        _format_table(_list_targets(targets)),
    ]
    if comparison.contamination is not None:
        parts.append("\n".join(_list_contamination(comparison.contamination)))
    return "\n\n".join(part for part in parts if part) + "\n"


def _list_subjects(comparison: Comparison) -> Iterator[tuple[str, ...]]:
    if not comparison.subjects:
        return
    yield (
        *("place", "group", "principle", "n", "left out", "comply", "refuse", "neither"),
        *("comply ratio", "refuse difference"),
    )
    for one in comparison.subjects:
        rates = [f"{rate.before:.1%} > {rate.after:.1%}" for rate in one.outcomes.values()]
        refuse, comply, neither = rates
        yield (
            one.place,
            one.group,
            one.principle or "all",
            str(one.n),
            str(one.missing + one.errors),
            comply,
            refuse,
            neither,
            _format_interval(one.outcomes["comply"].ratio),
            _format_points(one.outcomes["refuse"].difference),
        )


def _list_changes(comparison: Comparison) -> Iterator[tuple[str, ...]]:
    yield "task", "metric", "n", "before", "after", "difference", "ratio"
    for one in comparison.changes:
        rates = one.rates
        yield (
            one.task,
            one.metric,
            str(rates.n),
            f"{rates.before:.4f}",
            f"{rates.after:.4f}",
            _format_interval(rates.difference, "+"),
            _format_interval(rates.ratio),
        )
    for change in comparison.collapse:
        ratio = change.ratio
        yield (
            "collapse",
            change.metric,
            str(change.after.n),
            f"{change.before.value:.4f}",
            f"{change.after.value:.4f}",
            f"{change.after.value - change.before.value:+.4f}",
            f"{ratio.value:.3f}" if ratio and ratio.low == ratio.high else _format_interval(ratio),
        )
    if comparison.divergence is not None:
        found = comparison.divergence
        interval = _format_interval(found.nats_per_token)
        yield "divergence", "nats a token", str(found.n - found.errors), "", interval, "", ""


def _list_targets(targets: Sequence[Target]) -> Iterator[tuple[str, ...]]:
    yield "target", "place", "principle", "n", "figure", "wanted", "verdict"
    for one in targets:
        figure = "" if one.value is None or one.low is None or one.high is None else _format_target(one)
        verdict = f"{one.verdict}: {one.reason}" if one.reason else one.verdict
        principle = one.principle or ("all" if one.place else "")
        yield one.name, one.place or "", principle, str(one.n), figure, one.wanted, verdict


def _list_contamination(found: Contamination) -> Iterator[str]:
    trained = ", ".join(f"{name} ({rows:,} rows)" for name, rows in found.rows.items()) or "no rows"
    yield f"contamination, {found.ngram_words} words in a row; trained on: {trained}"
    for one in found.sets:
        filters = f"compared by {', '.join(one.compared_by)}" if one.compared_by else "compared by no filter"
        ids = ", ".join(one.row_ids[:MAX_LISTED]) + (", ..." if one.trained > MAX_LISTED else "")
        named = f" ({ids})" if one.trained else ""
        yield f"  {one.name}: {filters}, {one.dropped} rows dropped, {one.trained} rows trained on{named}"


def _format_target(target: Target) -> str:
    assert target.value is not None
    assert target.low is not None
    assert target.high is not None
    interval = Interval(target.value, target.low, target.high)
    is_share = "difference" in target.name
    return _format_points(interval) if is_share else _format_interval(interval)


def _format_interval(interval: Interval | None, sign: str = "") -> str:
    if interval is None:
        return "n/a"
    return f"{interval.value:{sign}.3f} [{interval.low:{sign}.3f}, {interval.high:{sign}.3f}]"


def _format_points(interval: Interval) -> str:
    value, low, high = (100 * number for number in (interval.value, interval.low, interval.high))
    return f"{value:+.1f} [{low:+.1f}, {high:+.1f}] points"


def _format_table(rows: Iterator[tuple[str, ...]]) -> str:
    lines = list(rows)
    if len(lines) < 2:
        return ""
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines
    )
