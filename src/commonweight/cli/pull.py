"""``commonweight pull``: downloads a model."""

from rich.filesize import decimal

from commonweight.catalog.integrity import WrongContentError, check_content
from commonweight.catalog.reference import StarterReference, parse_reference
from commonweight.catalog.resolve import resolve, resolve_local
from commonweight.catalog.starter import pull_starter
from commonweight.cli.terminal import make_console


def pull(reference: str | None) -> None:
    """Download a model unless it is here, compare it with its checksum, and print where it lies."""
    console = make_console()
    path = resolve_local(reference)
    if path is None:
        console.print(f"Pulling {reference or 'starter'} ...")
        path = resolve(reference)
    try:
        check_content(path)
    except WrongContentError:
        if not isinstance(parse_reference(reference), StarterReference):
            raise
        path = pull_starter()
        check_content(path)
    console.print(f"{path.stem}, {decimal(path.stat().st_size)}, is in", soft_wrap=True)
    console.print(f"    {path}", soft_wrap=True)
