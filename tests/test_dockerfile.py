"""The container image can be built from what the build context lets in."""

from fnmatch import fnmatchcase
from pathlib import Path

ROOT = Path(__file__).parent.parent


def copied_sources() -> list[str]:
    """Sources of COPY instructions, but those of other stages."""
    instructions = (line.split() for line in (ROOT / "deploy/Dockerfile").read_text().splitlines())
    return [
        source
        for name, *arguments in filter(None, instructions)
        if name == "COPY" and not arguments[0].startswith("--from")
        for source in arguments[:-1]
    ]


def is_in_context(path: str) -> bool:
    """Whether ``.dockerignore`` lets a path in: the last pattern that fits it, or a folder above it, decides."""
    above = [path, *(str(parent) for parent in Path(path).parents if parent != Path())]
    is_in = True
    for line in (ROOT / ".dockerignore").read_text().splitlines():
        pattern = line.removeprefix("!")
        if any(fnmatchcase(name, pattern) for name in above):
            is_in = line.startswith("!")
    return is_in


def test_every_source_of_the_image_is_there_and_let_in() -> None:
    sources = copied_sources()
    assert len(sources) > 4
    assert [source for source in sources if not (ROOT / source).exists()] == []
    assert [source for source in sources if not is_in_context(source)] == []


def test_nothing_else_is_let_in() -> None:
    assert [path for path in (".git", "tests", "deploy", "docs/operations.md") if is_in_context(path)] == []
