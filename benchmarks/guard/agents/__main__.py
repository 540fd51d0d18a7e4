"""Builds the files of agents' texts again from the packages that they are of.

``python -m benchmarks.guard.agents PACKAGES OUT`` reads wheels and tarballs in the folder ``PACKAGES`` (and, of
those that aren't there, what is installed in this environment) and writes four files of JSON lines to ``OUT``.
``python -m benchmarks.guard.agents --list pypi`` (or ``npm``) prints what to download.
"""

import argparse
import hashlib
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from benchmarks.guard.agents.texts import (
    SOURCES,
    Cut,
    Package,
    TextsError,
    cut_text,
    digest_text,
    open_installed,
    open_package,
    read_cuts,
    read_packages,
)


def read_files(package: Package, folder: Path) -> dict[str, str]:
    """Read a package's files from a folder of packages, or from what is installed.

    Raises:
        TextsError: it's in neither, or isn't the one that was cut.
    """
    pattern = package.file if package.sha256 else f"{package.file}-*.whl"
    path = next(iter(sorted(folder.glob(pattern))), None)
    if path is not None:
        found = hashlib.sha256(path.read_bytes()).hexdigest() if package.sha256 else ""
        if found != package.sha256:
            raise TextsError(f"{package.file} has the SHA-256 {found}, not {package.sha256}.")
        return open_package(path)
    installed = open_installed(package.name, package.version) if package.registry == "pypi" else None
    if installed is None:
        raise TextsError(f"{package.file} is neither in {folder} nor installed.")
    return installed


def build_line(cut: Cut, package: Package, files: Mapping[str, str]) -> dict[str, str | int]:
    """Build the line of a text.

    Raises:
        TextsError: the text isn't the one that was cut.
    """
    text = cut_text(files, cut.path, cut.lines, cut.view)
    if digest_text(text) != cut.sha256:
        raise TextsError(f"{package.file}: {cut.path} ({cut.view} {cut.lines}) has another digest.")
    return {"text": text, "y": 0, "cat": cut.kind, "id": cut.sha256[:16], "licence": package.licence}


def build_sources(
    packages: Mapping[str, Package], cuts: Sequence[Cut], folder: Path
) -> tuple[dict[str, list[str]], list[str]]:
    """Build the lines of all sources; also returns what is missing, a sentence each."""
    lines: dict[str, list[str]] = {name: [] for name in SOURCES}
    missing: list[str] = []
    for number, package in packages.items():
        wanted = [cut for cut in cuts if cut.package == number]
        try:
            files = read_files(package, folder)
        except TextsError as error:
            missing.append(f"{error} {len(wanted)} texts are left out.")
            continue
        for cut in wanted:
            try:
                line = build_line(cut, package, files)
            except TextsError as error:
                missing.append(str(error))
            else:
                lines[cut.source].append(json.dumps(line, ensure_ascii=False) + "\n")
    return lines, missing


def main(arguments: Sequence[str] | None = None) -> int:
    """Build the files, or print what to download. Returns 1 where a text is missing."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.guard.agents", description=__doc__)
    parser.add_argument("packages", nargs="?", type=Path, help="folder of wheels and tarballs")
    parser.add_argument("out", nargs="?", type=Path, help="folder to write to")
    parser.add_argument("--list", choices=("pypi", "npm"), help="print the packages of a registry, one a line")
    given = parser.parse_args(arguments)
    packages = read_packages()
    if given.list:
        between = {"pypi": "==", "npm": "@"}[given.list]
        for one in packages.values():
            if one.registry == given.list:
                print(f"{one.name}{between}{one.version}")
        return 0
    if given.packages is None or given.out is None:
        parser.error("name the folder of packages and the folder to write to")
    lines, missing = build_sources(packages, read_cuts(), given.packages)
    given.out.mkdir(parents=True, exist_ok=True)
    for name, rows in lines.items():
        (given.out / f"{name}.jsonl").write_text("".join(rows), encoding="utf-8")
        print(f"{name}: {len(rows)} texts")
    for sentence in missing:
        print(sentence, file=sys.stderr)
    return 1 if missing else 0


if __name__ == "__main__":
    sys.exit(main())
