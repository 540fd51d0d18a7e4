"""Texts of agents: what the tables name, and building them again from packages."""

import hashlib
import io
import json
import re
import tarfile
import zipfile
from collections import Counter
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

import pytest
from benchmarks.guard.agents.__main__ import build_sources, main
from benchmarks.guard.agents.texts import (
    FOLDER,
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

from commonweight.workshop.heads.sources import load_notes, read_source

LICENCES = {"Apache-2.0", "BSD-2-Clause", "BSD-3-Clause", "CC0-1.0", "ISC", "MIT", "Unlicense"}
COMMITTED = "c14d9c3ee4715d12f47798cf1779023644499fd0d2b76792609572425e1e0793"
"""SHA-256 of ``texts.tsv``, which was committed before any score."""
CODE = 'GREETING = """You are a clerk.\nBe brief."""\n\n\ndef greet() -> str:\n    return "Hello"\n'
FILES = {"shop/prompts.py": CODE, "shop/notes.md": "# Notes\r\n\r\nTea is sold here.\r\n", "shop/logo.png": "\0\1"}


def make_wheel(folder: Path) -> Package:
    path = folder / "shop-1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as wheel:
        for name, text in FILES.items():
            wheel.writestr(name, text)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    return Package("1", "pypi", "shop", "1.0", path.name, digest, "us/shop", "MIT", "LICENSE")


def make_tarball(folder: Path) -> Package:
    path = folder / "till-2.0.tgz"
    with tarfile.open(path, "w:gz") as tarball:
        entry = tarfile.TarInfo("package/till.js")
        content = b"const till = 1;\nconst tea = 2;\n"
        entry.size = len(content)
        tarball.addfile(entry, io.BytesIO(content))
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    return Package("2", "npm", "till", "2.0", path.name, digest, "us/till", "ISC", "LICENSE")


def make_cut(source: str, package: str, path: str, lines: str, view: str, text: str) -> Cut:
    return Cut(source, package, path, lines, view, "sample", digest_text(text))


def test_they_are_what_was_committed_before_any_score() -> None:
    assert hashlib.sha256((FOLDER / "texts.tsv").read_bytes()).hexdigest() == COMMITTED


def test_the_tables_name_every_text_once_with_a_licence_that_permits() -> None:
    packages, cuts = read_packages(), read_cuts()
    assert Counter(cut.source for cut in cuts) == dict(zip(SOURCES, (700, 1000, 699, 1000), strict=True))
    assert len({cut.sha256 for cut in cuts}) == len(cuts)
    assert {cut.package for cut in cuts} == set(packages)
    for package in packages.values():
        assert set(package.licence.split(" AND ")) <= LICENCES
        assert package.repository.count("/") == 1
        assert package.licence_file
    for name in SOURCES:
        noted = set(load_notes()[name]["licence"].split(" AND "))
        used = {
            part for cut in cuts if cut.source == name for part in packages[cut.package].licence.split(" AND ")
        }
        assert noted == used
    assert sum((FOLDER / name).stat().st_size for name in ("packages.tsv", "texts.tsv")) < 1_500_000


def test_no_repository_is_in_calibration_and_test_and_none_fills_a_set() -> None:
    packages = read_packages()
    repositories: dict[str, Counter[str]] = {name: Counter() for name in SOURCES}
    for cut in read_cuts():
        repositories[cut.source][packages[cut.package].repository.lower()] += 1
    calibration = {*repositories["agent_system_calibration"], *repositories["agent_results_calibration"]}
    assert not calibration & {*repositories["agent_system"], *repositories["agent_results"]}
    for name, counts in repositories.items():
        assert max(counts.values()) <= (60 if "system" in name else 25)


def test_tests_train_nothing() -> None:
    notes = load_notes()
    assert [notes[name]["role"] for name in SOURCES] == ["material", "material", "unused", "unused"]


def test_texts_are_built_again_from_packages_in_a_folder(tmp_path: Path) -> None:
    wheel, tarball = make_wheel(tmp_path), make_tarball(tmp_path)
    listing = "       86 shop/notes.md\n".replace("86", str(len("# Notes\n\nTea is sold here.\n")).rjust(2))
    cuts = [
        make_cut("agent_system", "1", "shop/prompts.py", "1", "string", "You are a clerk.\nBe brief."),
        make_cut("agent_results", "1", "shop/notes.md", "1-3", "file", "# Notes\n\nTea is sold here."),
        make_cut("agent_results", "1", "shop/prompts.py", "5-6", "numbered", _NUMBERED),
        make_cut("agent_results", "1", "shop/", "", "list", f"{listing}{len(CODE):>9} shop/prompts.py"),
        make_cut("agent_results", "2", "till.js", "2-2", "file", "const tea = 2;"),
        make_cut(
            "agent_results", "2", "till", "", "grep:const", "till.js:1:const till = 1;\ntill.js:2:const tea = 2;"
        ),
    ]
    lines, missing = build_sources({"1": wheel, "2": tarball}, cuts, tmp_path)
    assert missing == []
    assert {name: len(rows) for name, rows in lines.items()} == dict(zip(SOURCES, (0, 0, 1, 5), strict=True))
    path = tmp_path / "agent_results.jsonl"
    path.write_text("".join(lines["agent_results"]))
    source = read_source(path)
    assert (source.name, source.licence) == ("agent_results", "ISC AND MIT")
    assert [row.text for row in source.rows][-2:] == ["const tea = 2;", _FOUND]
    assert not any(row.is_harmful for row in source.rows)
    assert [json.loads(line)["id"] for line in lines["agent_results"]] == [cut.sha256[:16] for cut in cuts[1:]]


_NUMBERED = '     5\tdef greet() -> str:\n     6\t    return "Hello"'
_FOUND = "till.js:1:const till = 1;\ntill.js:2:const tea = 2;"


def test_what_is_missing_is_said_and_the_rest_is_built(tmp_path: Path) -> None:
    wheel = make_wheel(tmp_path)
    packages = {
        "1": wheel,
        "2": replace(wheel, number="2", file="gone-1.0.tgz", registry="npm"),
        "3": replace(wheel, number="3", sha256="0" * 64),
    }
    good = make_cut("agent_results", "1", "shop/notes.md", "1-1", "file", "# Notes")
    cuts = [good, replace(good, path="shop/gone.md"), replace(good, sha256="0" * 64)]
    cuts += [replace(good, package="2"), replace(good, package="3")]
    lines, missing = build_sources(packages, cuts, tmp_path)
    assert len(lines["agent_results"]) == 1
    assert [
        re.sub(r"[0-9a-f]{64}", "DIGEST", sentence).replace(str(tmp_path), "FOLDER") for sentence in missing
    ] == [
        "shop/gone.md is not in the package.",
        "shop-1.0-py3-none-any.whl: shop/notes.md (file 1-1) has another digest.",
        "gone-1.0.tgz is neither in FOLDER nor installed. 1 texts are left out.",
        "shop-1.0-py3-none-any.whl has the SHA-256 DIGEST, not DIGEST. 1 texts are left out.",
    ]


@pytest.mark.parametrize("name", ["torn.whl", "torn.tgz"])
def test_a_torn_package_is_an_error_of_one_sentence(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"no archive")
    with pytest.raises(TextsError, match=rf"^{name} is no whole package"):
        open_package(tmp_path / name)


@pytest.mark.parametrize(
    ("code", "line", "problem"),
    [(CODE, "4", "No string begins in line 4."), ("def (", "1", "shop.py is no Python.")],
)
def test_strings_that_are_not_there_are_errors(code: str, line: str, problem: str) -> None:
    with pytest.raises(TextsError, match=f"^{problem}$"):
        cut_text({"shop.py": code}, "shop.py", line, "string")


def test_packages_that_are_installed_are_read_where_the_folder_lacks_them(tmp_path: Path) -> None:
    installed = version("iniconfig")
    files = open_installed("iniconfig", installed)
    assert files is not None
    assert "iniconfig/__init__.py" in files
    assert not any(path.endswith(("RECORD", ".pyc")) for path in files)
    assert open_installed("iniconfig", "0.0.0") is None
    assert open_installed("no-such-package-here", "1") is None
    package = Package("1", "pypi", "iniconfig", installed, f"iniconfig-{installed}", "", "a/b", "MIT", "LICENSE")
    first = files["iniconfig/__init__.py"].partition("\n")[0]
    cut = make_cut("agent_results", "1", "iniconfig/__init__.py", "1-1", "file", first)
    lines, missing = build_sources({"1": package}, [cut], tmp_path)
    assert (len(lines["agent_results"]), missing) == (1, [])


def test_the_command_lists_packages_and_says_what_it_lacks(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--list", "npm"]) == 0
    listed = capsys.readouterr().out.splitlines()
    assert len(listed) == sum(one.registry == "npm" for one in read_packages().values())
    assert all(re.fullmatch(r"@?[^@]+@[^@]+", line) for line in listed)
    with pytest.raises(SystemExit):
        main([str(tmp_path)])
    assert "name the folder of packages and the folder to write to" in capsys.readouterr().err
