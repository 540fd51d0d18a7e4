"""The layout of a release folder: names of its files, which names are allowed, and the list of digests."""

import os
import re
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from commonweight.workshop.release.documents import ReleaseError, quote, read_file

CARD, LICENCE, NOTICE = "README.md", "LICENSE", "NOTICE"
DECLARATION, PARITY, GATE, BOM = "release.json", "parity.json", "gate.json", "bom.cdx.json"
RESULTS, SAMPLES = "results.json", "samples.jsonl"
"""Files of an evaluation, in a sub-folder of :data:`EVALUATION_FOLDER`."""
EVALUATION_FOLDER = "evaluation"
SUMS, PUBLIC_KEY, SIGNATURE = "SHA256SUMS", "signing-key.pub", "model.sig"
SAFETENSORS = "safetensors"
"""Sub-folder of the model in Hugging Face's layout."""
WEIGHTS = f"{SAFETENSORS}/model.safetensors"

MAX_FILES = 10_000
MAX_RELEASE_BYTES = 4 << 40
_PART = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,126}")
_MAX_PARTS = 3
_SUM = re.compile(r"([0-9a-f]{64})  ([^\x00-\x1f]{1,400})")
_SPARSE_BYTES = 1 << 20
"""Files from this size on that are holes for the most part are refused."""


@dataclass(frozen=True)
class Problem:
    """A file that is not as it should be."""

    file: str
    sentence: str


def name_evaluation(number: int, subject: str) -> str:
    """The folder of the evaluation with a number, from 1."""
    return f"{EVALUATION_FOLDER}/{subject}-{number}"


def is_allowed_name(name: str) -> bool:
    """Whether a relative path is plain: few parts of ASCII letters, digits and ``._+-``, none hidden."""
    parts = name.split("/")
    return len(parts) <= _MAX_PARTS and all(_PART.fullmatch(part) for part in parts)


def list_files(folder: Path) -> tuple[dict[str, int], list[Problem]]:
    """Files under a folder with their sizes, and what is wrong with the others; follows no link."""
    found: dict[str, int] = {}
    problems: list[Problem] = []
    pending = [(folder, "")]
    total = 0
    while pending:
        place, prefix = pending.pop()
        for entry in sorted(os.scandir(place), key=lambda item: os.fsencode(item.name)):
            name = prefix + entry.name
            status = entry.stat(follow_symlinks=False)
            if len(found) + len(problems) >= MAX_FILES:
                return found, [*problems, Problem(name, f"The release has more than {MAX_FILES} files.")]
            if not is_allowed_name(name):
                problems.append(Problem(name, f"{quote(name)} has a name that no file of a release has."))
            elif stat.S_ISLNK(status.st_mode):
                problems.append(Problem(name, f"{name} is a link; releases hold regular files only."))
            elif stat.S_ISDIR(status.st_mode):
                pending.append((Path(entry.path), f"{name}/"))
            elif not stat.S_ISREG(status.st_mode):
                problems.append(Problem(name, f"{name} is not a regular file."))
            elif status.st_size > _SPARSE_BYTES and status.st_blocks * 512 < status.st_size // 64:
                problems.append(Problem(name, f"{name} is a hole for the most part, {status.st_size} bytes long."))
            else:
                found[name] = status.st_size
                total += status.st_size
    folded = {name.lower(): name for name in found}
    problems += [
        Problem(name, f"{name} and {folded[name.lower()]} differ in case only.")
        for name in found
        if folded[name.lower()] != name
    ]
    if total > MAX_RELEASE_BYTES:
        problems.append(Problem("", f"The release is larger than {MAX_RELEASE_BYTES >> 40} TiB."))
    return dict(sorted(found.items())), problems


def encode_sums(digests: Mapping[str, str]) -> bytes:
    """The bytes of ``SHA256SUMS``, which ``sha256sum -c`` reads."""
    return "".join(f"{digests[name]}  {name}\n" for name in sorted(digests)).encode()


def read_sums(folder: Path) -> dict[str, str]:
    """Digests by name out of ``SHA256SUMS``.

    Raises:
        ReleaseError: it is missing, or a line of it is not as it should be.
    """
    data = read_file(folder / SUMS)
    try:
        lines = data.decode("ascii").split("\n")
    except UnicodeDecodeError as error:
        raise ReleaseError(f"{SUMS} has characters that are not ASCII.") from error
    if lines.pop() != "":
        raise ReleaseError(f"{SUMS} is cut off: its last line does not end.")
    digests: dict[str, str] = {}
    for number, line in enumerate(lines, start=1):
        match = _SUM.fullmatch(line)
        if match is None or not is_allowed_name(match[2]):
            raise ReleaseError(f"{SUMS}, line {number}, is not a digest and a plain name.")
        if match[2] in digests:
            raise ReleaseError(f"{SUMS} names {match[2]} twice.")
        digests[match[2]] = match[1]
    if encode_sums(digests) != data:
        raise ReleaseError(f"{SUMS} is not sorted by name.")
    return digests
