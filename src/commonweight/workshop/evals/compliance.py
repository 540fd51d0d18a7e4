"""Compliance: requests refused, complied with, or neither: by principle, in chat, tool loops, after a beginning.

The same requests are asked in several places. In ``tool_result`` the user asks for something harmless, and the
request arrives in what a tool returns; in ``forced`` the client supplies the beginning of the answer. What an
answer does is read by :mod:`answer_outcome`. Every outcome of a sample stands in its score, in the sum of its
group and in that of its principle, so that figures can be recomputed and runs can be paired.
"""

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from commonweight.workshop.evals.answer_outcome import OUTCOMES, Outcome, read_answer
from commonweight.workshop.evals.conversations import Conversation, make_chat, make_prefill, make_tool_loop
from commonweight.workshop.evals.datasets import Dataset, choose_rows
from commonweight.workshop.evals.errors import EvaluationError
from commonweight.workshop.evals.generation import Answer, Sample
from commonweight.workshop.evals.ledger import SampleLine
from commonweight.workshop.evals.results import Figure, Tally
from commonweight.workshop.evals.settings import (
    PLACES,
    ComplianceSettings,
    Group,
    Place,
    Principle,
    RequestSettings,
)

TASK = "compliance"

_GROUPS: tuple[Group, ...] = ("harmful", "look-alike", "ordinary")


@dataclass(frozen=True)
class Subject:
    """What a sample was about."""

    place: Place
    group: Group
    principle: Principle | None = None

    def name_metric(self, outcome: Outcome) -> str:
        """The metric of an outcome: "chat harmful comply", "forced harmful refuse cyber-attacks"."""
        words = [self.place, self.group, outcome, *([self.principle] if self.principle else [])]
        return " ".join(words)


@dataclass(frozen=True)
class Request:
    """A row of a data set."""

    number: int
    text: str
    principle: Principle | None
    beginning: str | None


def list_metrics(subject: Subject) -> Iterator[tuple[Outcome, str]]:
    """Outcomes and metrics that a sample counts in: those of its group, then those of its principle."""
    for outcome in OUTCOMES:
        yield outcome, Subject(subject.place, subject.group).name_metric(outcome)
    if subject.principle is not None:
        for outcome in OUTCOMES:
            yield outcome, subject.name_metric(outcome)


def read_score(score: Mapping[str, float]) -> tuple[Subject, Outcome] | None:
    """What a sample was about and what its answer did; None: it has no outcome, or is of another task."""
    found: tuple[Subject, Outcome] | None = None
    for metric, value in score.items():
        place, group, outcome, *rest = [*metric.split(" "), "", "", ""]
        principle = next(filter(None, rest), None)
        if value == 1 and place in PLACES and group in _GROUPS and outcome in OUTCOMES:
            is_narrower = found is None or principle is not None
            found = (Subject(place, group, principle), outcome) if is_narrower else found
    return found


def read_requests(requests: RequestSettings, limit: int | None, seed: int, dataset: Dataset) -> list[Request]:
    """Requests of a data set.

    Args:
        limit: how many, where the settings of the requests have no limit of their own.

    Raises:
        EvaluationError: a row has other fields, or there is none for the group.
    """
    name = requests.dataset
    found: list[Request] = []
    for number, row in enumerate(dataset.rows):
        text, label, beginning = row.get(requests.field), row.get("y"), row.get(requests.beginning)
        if not isinstance(text, str) or not text.strip() or label not in (0, 1, None):
            raise EvaluationError(
                f"row {number} of {name} needs a request in {requests.field}, and y, if it has one, is 0 or 1"
            )
        if beginning is not None and (not isinstance(beginning, str) or not beginning.strip()):
            raise EvaluationError(f"row {number} of {name} has a beginning that is no text")
        if row.get(requests.category) in requests.leave_out:
            continue
        if label is None or (label == 1) == (requests.group == "harmful"):
            principle = _find_principle(requests, number, row)
            found.append(Request(number, text, principle, beginning.rstrip() if beginning else None))
    if not found:
        raise EvaluationError(f"the data set {name} has no {requests.group} prompts")
    return [request for _, request in choose_rows(found, requests.limit or limit, seed)]


def make_samples(settings: ComplianceSettings, requests: RequestSettings, dataset: Dataset) -> list[Sample]:
    """Make samples of the requests of a group, place by place.

    Raises:
        EvaluationError: a row has other fields, or there is none for the group.
    """
    rows = read_requests(requests, settings.limit, settings.seed, dataset)
    samples = []
    for place in requests.places or settings.places:
        for row in rows:
            subject = Subject(place, requests.group, row.principle)
            conversation = _make_conversation(place, f"{requests.dataset}:{row.number}", row)
            metrics = dict.fromkeys((metric for _, metric in list_metrics(subject)), 0)
            samples += [
                Sample(
                    f"{requests.dataset}:{row.number}/{place}#{repeat}",
                    row.text,
                    partial(_score, subject, row.text),
                    conversation=conversation,
                    failed_score=metrics,
                    is_kept=True,
                )
                for repeat in range(settings.samples)
            ]
    return samples


def make_figures(
    settings: ComplianceSettings,
    requests: RequestSettings,
    lines: Sequence[SampleLine],
    make: Callable[..., Figure],
) -> list[Figure]:
    """Make figures of the lines of all samples of a group, in their order: shares of each outcome."""
    metrics = dict.fromkeys(metric for line in lines for metric in sorted(line.score, key=_order_metric))
    figures = []
    for metric in sorted(metrics, key=_order_metric):
        tallies = []
        for start in range(0, len(lines), settings.samples):
            own = [line for line in lines[start : start + settings.samples] if metric in line.score]
            if own:
                right = sum(line.score[metric] for line in own)
                tallies.append(Tally(right, len(own), sum(line.error is not None for line in own)))
        figures.append(make(metric, tallies))
    return figures


def _order_metric(metric: str) -> tuple[int, str, int]:
    """By place, then the group's own before those of principles, each with its three outcomes."""
    place, _group, outcome, *principle = metric.split(" ")
    places, outcomes = list[str](PLACES), list[str](OUTCOMES)
    return places.index(place), " ".join(principle), outcomes.index(outcome)


def _find_principle(requests: RequestSettings, number: int, row: Mapping[str, object]) -> Principle | None:
    own = row.get("principle")
    if own is not None:
        if not isinstance(own, str) or not own.replace("-", "").isalnum() or own != own.lower() or len(own) > 40:
            raise EvaluationError(f"row {number} of {requests.dataset} has a principle that is no principle's id")
        return own
    category = row.get(requests.category)
    return requests.principles.get(category) if isinstance(category, str) else None


def _make_conversation(place: Place, key: str, row: Request) -> Conversation:
    draw = int.from_bytes(hashlib.sha256(f"{place} {key}".encode()).digest()[:4], "big")
    if place == "tool_result":
        return make_tool_loop(row.text, draw)
    if place == "forced":
        return make_prefill(row.text, row.beginning, draw)
    return make_chat(row.text)


def _score(subject: Subject, request: str, answer: Answer) -> Mapping[str, int]:
    text = "\n".join(part for part in (answer.text, answer.calls) if part)
    reading = read_answer(request, text, is_forced=subject.place == "forced", refused=answer.refused)
    return {metric: int(outcome == reading.outcome) for outcome, metric in list_metrics(subject)}
