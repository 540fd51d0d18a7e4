"""Progress bars that the commands share."""

from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TaskProgressColumn, TextColumn, TimeElapsedColumn


class ProgressBar:
    """Progress bars, one for each task; shows nothing where the output is no terminal."""

    def __init__(self, console: Console) -> None:
        self._console = console
        columns = TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeElapsedColumn()
        self._progress = Progress(*columns, console=console, transient=True, disable=not console.is_terminal)
        self._tasks: dict[str, TaskID] = {}
        self._done: set[str] = set()

    def __enter__(self) -> "ProgressBar":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()

    def update(self, name: str, fraction: float) -> None:
        """Show how much of a task is done, from 0 to 1. Its bar vanishes at 1."""
        if name in self._done:
            return
        if name not in self._tasks:
            self._tasks[name] = self._progress.add_task(name, total=1.0)
            self._progress.start()
        self._progress.update(self._tasks[name], completed=fraction)
        if fraction >= 1:
            self._done.add(name)
            self._progress.remove_task(self._tasks.pop(name))
            if not self._tasks:
                self._progress.stop()


class LoadingBar(ProgressBar):
    """Progress bar of a loading model; where the output is no terminal, one line."""

    def update(self, name: str, fraction: float) -> None:
        """Show how much of a model is loaded, from 0 to 1."""
        task = f"Loading {name}"
        if not self._console.is_terminal and task not in self._tasks and task not in self._done:
            self._console.print(task, soft_wrap=True)
        super().update(task, fraction)
