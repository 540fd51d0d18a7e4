"""Reading of charter files."""

from pathlib import Path

from commonweight.charter import DEFAULT, Charter, CharterError, parse
from commonweight.runtime.errors import UserError


def read_charter(path: Path | None) -> Charter:
    """Read a charter from a file; without one, the default.

    Raises:
        UserError: it is none.
    """
    try:
        return parse((DEFAULT if path is None else path).read_bytes())
    except CharterError as error:
        name = "the default charter" if path is None else str(path)
        reasons = "".join(f"\n  {name}:{problem.line}: {problem.text}" for problem in error.problems)
        raise UserError(f"{name} is no charter:{reasons}") from error
