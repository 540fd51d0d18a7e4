"""The error of this room."""

from commonweight.lineage.errors import WorkshopError


class EvaluationError(WorkshopError):
    """An evaluation that cannot run or go on; the message is a sentence for the terminal, without any text of a
    data set."""
