"""The error of this room."""


class EvaluationError(ValueError):
    """An evaluation that cannot run or go on; the message is a sentence for the terminal, without any text of a
    data set."""
