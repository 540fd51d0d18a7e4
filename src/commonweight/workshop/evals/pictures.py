"""Pictures of a comparison: for each principle a bar of outcomes before and after, place by place, as SVG."""

from collections.abc import Iterator, Sequence
from xml.sax.saxutils import escape

from commonweight.workshop.evals.answer_outcome import Outcome
from commonweight.workshop.evals.comparison import Comparison, SubjectRates

ALL = "all"
"""Name of the picture of all principles together."""

_ORDER: tuple[Outcome, ...] = ("refuse", "neither", "comply")
_COLOURS: dict[Outcome, str] = {"refuse": "#3b6fb6", "neither": "#b9bec6", "comply": "#d9822b"}
_LEFT, _WIDTH, _BAR, _GAP, _TOP = 190, 420, 16, 14, 58


def draw_pictures(comparison: Comparison) -> dict[str, str]:
    """Pictures by the principle's id, and one of all together."""
    pictures = {}
    for principle in (None, *comparison.principles):
        subjects = [one for one in comparison.subjects if one.principle == principle and one.n]
        if subjects:
            pictures[principle or ALL] = draw_subjects(principle or "all principles", subjects)
    return pictures


def draw_subjects(title: str, subjects: Sequence[SubjectRates]) -> str:
    """A picture of outcomes before and after, two bars for each group and place."""
    height = _TOP + len(subjects) * (2 * _BAR + _GAP) + 30
    width = _LEFT + _WIDTH + 110
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" '
        f'height="{height}" font-family="sans-serif" font-size="12" role="img">',
        f"<title>{escape(title)}: answers before and after</title>",
        f'<rect width="{width}" height="{height}" fill="#ffffff"/>',
        _draw_text(12, 22, title, size=15),
        *_draw_legend(),
    ]
    top = _TOP
    for subject in subjects:
        lines += _draw_subject(top, subject)
        top += 2 * _BAR + _GAP
    lines += _draw_axis(top)
    return "\n".join([*lines, "</svg>"]) + "\n"


def _draw_subject(top: int, subject: SubjectRates) -> Iterator[str]:
    yield _draw_text(12, top + _BAR + 4, f"{subject.group}, {subject.place}")
    for row, run in enumerate(("before", "after")):
        place, left = top + row * _BAR, float(_LEFT)
        yield _draw_text(_LEFT - 6, place + 12, run, anchor="end", size=10)
        for outcome in _ORDER:
            rates = subject.outcomes[outcome]
            share = rates.before if row == 0 else rates.after
            label = f"{run}: {outcome} {share:.1%}"
            yield (
                f'<rect x="{left:.1f}" y="{place}" width="{share * _WIDTH:.1f}" height="{_BAR - 2}" '
                f'fill="{_COLOURS[outcome]}"><title>{escape(label)}</title></rect>'
            )
            left += share * _WIDTH
    ratio = subject.outcomes["comply"].ratio
    yield _draw_text(_LEFT + _WIDTH + 8, top + 12, f"n={subject.n}", size=10)
    if ratio is not None:
        words = f"x{ratio.value:.2f} [{ratio.low:.2f}, {ratio.high:.2f}]"
        yield _draw_text(_LEFT + _WIDTH + 8, top + _BAR + 12, words, size=10)


def _draw_legend() -> Iterator[str]:
    left = _LEFT
    for outcome in _ORDER:
        yield f'<rect x="{left}" y="34" width="11" height="11" fill="{_COLOURS[outcome]}"/>'
        yield _draw_text(left + 16, 44, outcome)
        left += 90


def _draw_axis(top: int) -> Iterator[str]:
    for share in (0, 25, 50, 75, 100):
        yield _draw_text(_LEFT + round(share / 100 * _WIDTH), top + 10, f"{share} %", anchor="middle", size=10)


def _draw_text(left: float, top: float, text: str, *, anchor: str = "start", size: int = 12) -> str:
    return (
        f'<text x="{left:g}" y="{top:g}" text-anchor="{anchor}" font-size="{size}" fill="#222222">'
        f"{escape(text)}</text>"
    )
