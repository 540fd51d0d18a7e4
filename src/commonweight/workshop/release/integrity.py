"""Integrity of a release folder: its files against SHA256SUMS, and the signature over them."""

from collections.abc import Mapping
from pathlib import Path

from commonweight.lineage.digests import digest_file
from commonweight.workshop.release.documents import MAX_LINES_BYTES, ReleaseError, quote, read_file
from commonweight.workshop.release.layout import (
    PUBLIC_KEY,
    SIGNATURE,
    SUMS,
    list_files,
    read_sums,
)
from commonweight.workshop.release.report import Checks
from commonweight.workshop.release.signature import load_public_key, read_signed_digests

WEIGHT_SUFFIXES = (".gguf", ".safetensors")
QUICK_BYTES = 4 << 20
"""Weights from this size on are only sampled by a quick verification."""


def check_listing(folder: Path, checks: Checks) -> dict[str, int] | None:
    """List the files of a folder.

    Returns:
        Sizes by name; None where a link, a pipe or an odd name is among them, so that nothing should be opened.
    """
    sizes, problems = list_files(folder)
    for problem in problems:
        checks.fail(problem.sentence, problem.file)
    return None if problems else sizes


def check_files(folder: Path, sizes: Mapping[str, int], checks: Checks, quick: bool) -> dict[str, str]:
    """Compare the files of a folder with its list of digests.

    Returns:
        Digests by name, as the list has them; empty where it cannot be read.
    """
    try:
        sums = read_sums(folder)
    except ReleaseError as error:
        checks.fail(str(error), SUMS)
        return {}
    expected = sums.keys() | {SUMS, SIGNATURE}
    for name in sorted(sizes.keys() - expected):
        checks.fail(f"{name} is not in {SUMS}.", name)
    for name in sorted(expected - {SIGNATURE} - sizes.keys()):
        checks.fail(f"{name} is missing.", name)
    for name in {SUMS, SIGNATURE} & sums.keys():
        checks.fail(f"{SUMS} names {name}, which cannot be in it.", SUMS)
    hashed = total = 0
    for name in sorted(sizes.keys() & sums.keys()):
        is_weights = name.endswith(WEIGHT_SUFFIXES)
        if not is_weights and sizes[name] > MAX_LINES_BYTES:
            checks.fail(f"{name} is larger than {MAX_LINES_BYTES >> 20} MiB, and holds no weights.", name)
            continue
        if quick and is_weights and sizes[name] > QUICK_BYTES:
            continue
        hashed, total = hashed + 1, total + sizes[name]
        if digest_file(folder / name) != sums[name]:
            checks.fail(f"{name} is not the file that {SUMS} names: its digest differs.", name)
    if not checks.statements:
        checks.add(
            "proved", f"{hashed} files with {total} bytes are those of {SUMS}, and there are no others.", SUMS
        )
    return sums


def check_signature(folder: Path, sums: Mapping[str, str], trusted: bytes | None, checks: Checks) -> None:
    """Check the signature, by the trusted key where there is one, and that it is over every file.

    Args:
        trusted: public key, as ``load_public_key`` gives it.
    """
    if not (folder / SIGNATURE).exists():
        checks.fail(f"The release is not signed: {SIGNATURE} is missing.", SIGNATURE)
        return
    try:
        enclosed = load_public_key(read_file(folder / PUBLIC_KEY), PUBLIC_KEY)
    except ReleaseError as error:
        if not checks.has_failures(PUBLIC_KEY):  # said already where it is missing
            checks.fail(str(error), PUBLIC_KEY)
        return
    if trusted is not None and enclosed != trusted:
        checks.fail(f"{PUBLIC_KEY} is not the trusted key.", PUBLIC_KEY)
    try:
        signed = read_signed_digests(folder, enclosed if trusted is None else trusted)
        actual = {**sums, SUMS: digest_file(folder / SUMS)}
    except (ReleaseError, OSError) as error:
        sentence = str(error) if isinstance(error, ReleaseError) else f"{SUMS} cannot be read."
        checks.fail(sentence, SIGNATURE)
        return
    differing = sorted(name for name in signed.keys() | actual.keys() if signed.get(name) != actual.get(name))
    for name in differing[:10]:
        checks.fail(f"{SIGNATURE} is over another {quote(name)} than {SUMS} names.", name)
    if differing or checks.has_failures(PUBLIC_KEY):
        return
    if trusted is None:
        checks.add(
            "proved",
            f"{SIGNATURE} over {len(signed)} files was made by the holder of the enclosed key, whoever that is.",
            SIGNATURE,
        )
    else:
        checks.add("proved", f"{SIGNATURE} over {len(signed)} files was made with the trusted key.", SIGNATURE)
