"""Settings of the alignment stages, and the one error that they raise. Imports no engine."""

from commonweight.lineage.errors import WorkshopError


class AlignmentError(WorkshopError):
    """What stops an alignment stage: no fitting rows, terms that forbid it, a model that does not answer."""
