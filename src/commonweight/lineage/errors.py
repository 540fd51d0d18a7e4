"""The error that all rooms of the workshop derive theirs from."""


class WorkshopError(ValueError):
    """Making a model, or checking one, cannot go on; the message is one sentence for the terminal."""
