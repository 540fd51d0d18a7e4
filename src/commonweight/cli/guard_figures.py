"""``commonweight guard eval --all``: every row of the table of figures that the data at hand allow."""

import contextlib
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from commonweight.runtime.errors import UserError

if TYPE_CHECKING:
    from commonweight.guard import Guard
    from commonweight.runtime.data import DataFolder
    from commonweight.runtime.settings import AssistantSettings
    from commonweight.workshop.heads.business import Business
    from commonweight.workshop.heads.evaluate import Evaluator
    from commonweight.workshop.heads.figure_table import Subject
    from commonweight.workshop.heads.figures import Figure
    from commonweight.workshop.heads.kept_scores import KeptScores

    OnProgress = Callable[[str, float], None]

KEPT_SCORES = "guard-scores.jsonl"
"""In the data folder: scores of evaluations, so that one that was stopped goes on."""


@dataclass(frozen=True)
class FiguresRequest:
    """What is to be measured."""

    paths: list[Path]
    groups: Sequence[str]
    """Names of groups of rows; none: all."""
    most: int | None
    seed: int
    marks: Path | None = None
    """Of first violating sentences in answers."""
    sessions: Path | None = None
    """Of agents."""


async def measure_figures(
    settings: "AssistantSettings", data: "DataFolder", request: FiguresRequest
) -> tuple["Subject", list["Figure"]]:
    """Measure the rows of all groups, with progress on the standard error."""
    from commonweight.cli.progress import LoadingBar, ProgressBar
    from commonweight.cli.terminal import make_console
    from commonweight.runtime.guard import find_encoder, read_bundle
    from commonweight.workshop.heads.agent_sessions import read_sessions
    from commonweight.workshop.heads.answer_marks import read_marks
    from commonweight.workshop.heads.business import drop_businesses, find_businesses, open_business_guard
    from commonweight.workshop.heads.figure_rows import GROUPS
    from commonweight.workshop.heads.figure_table import Subject
    from commonweight.workshop.heads.kept_scores import KeptScores
    from commonweight.workshop.heads.measurement import Measurement
    from commonweight.workshop.heads.sources import SourceError, find_files, read_source

    if unknown := [name for name in request.groups if name not in GROUPS]:
        raise UserError(f"--only {unknown[0]}: the groups of rows are {', '.join(GROUPS)}")
    marks = read_marks(request.marks) if request.marks else {}
    sessions = read_sessions(request.sessions) if request.sessions else []
    try:
        businesses = find_businesses(request.paths)
        sources = [read_source(path) for path in drop_businesses(find_files(request.paths), businesses)]
    except SourceError as error:
        raise UserError(str(error)) from error
    if not (sources or businesses):
        raise UserError("there are no files of labelled texts: NAME.jsonl or NAME.jsonl.gz")
    console = make_console(stderr=True)

    def report(line: str) -> None:
        console.print(line, style="dim", soft_wrap=True)

    key = data.load_key()
    with (
        contextlib.closing(KeptScores(data.path / KEPT_SCORES, key)) as kept,
        LoadingBar(console) as loading,
        ProgressBar(console) as bar,
    ):
        async with open_evaluator(settings, data, kept, loading.update) as evaluator:
            reads_states = evaluator.guard.reads_states
            base = read_bundle(settings.guard.bundle if settings.guard else None, key)

            @contextlib.asynccontextmanager
            async def open_business(business: "Business") -> AsyncIterator["Evaluator"]:
                # The same model, under another guard.
                guard = open_business_guard(business, base, find_encoder(), reads_states=reads_states)
                async with open_evaluator(settings, data, kept, lambda _name, _part: None, guard) as other:
                    yield other

            run = Measurement(
                evaluator=evaluator,
                sources={source.name: source for source in sources},
                businesses=businesses,
                open_business=open_business,
                marks=marks,
                sessions=sessions,
                most=request.most,
                seed=request.seed,
                on_progress=bar.update,
                report=report,
            )
            figures = [figure for name in request.groups or GROUPS async for figure in GROUPS[name](run)]
            return Subject.from_evaluator(evaluator), figures


@contextlib.asynccontextmanager
async def open_evaluator(
    settings: "AssistantSettings",
    data: "DataFolder",
    kept: "KeptScores | None",
    on_progress: "OnProgress",
    guard: "Guard | None" = None,
) -> AsyncIterator["Evaluator"]:
    """Open an evaluator on an assistant as a server has it. ``guard`` takes the place of the settings' one."""
    from commonweight.runtime.assistant import open_assistant
    from commonweight.turn.record import TurnRecorder
    from commonweight.workshop.heads.evaluate import Evaluator

    recorder = TurnRecorder()
    async with open_assistant(
        settings, data=data, guard=guard, listeners=[recorder], on_progress=on_progress
    ) as assistant:
        # A judge may be out of reach now and not later, so that nothing it had a part in is kept.
        judged = assistant.guard is not None and assistant.guard.judge is not None
        yield Evaluator(assistant, recorder, None if judged else kept)
