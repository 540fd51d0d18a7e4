"""The text of a release's licence: those that ship, copyright lines, and what a publisher's own file may hold."""

import re
from importlib import metadata, resources
from pathlib import Path

import pytest

from commonweight.lineage.licences import find_licence
from commonweight.workshop.release.documents import ReleaseError
from commonweight.workshop.release.licence_file import (
    check_licence_text,
    describe_text,
    find_licence_text,
    list_licence_texts,
    names_holder,
)

HOLDER = "2026 Ada Example <ada@example.org>"
WITH_HOLDER = ["BSD-2-Clause", "BSD-3-Clause", "ISC", "MIT"]
WHOLE = ["Apache-2.0", "CC-BY-4.0", "CC-BY-SA-3.0", "CC-BY-SA-4.0", "CC0-1.0", "LicenseRef-Public-Domain"]


def find_text(licence: str) -> str:
    return find_licence_text(licence, None, HOLDER if licence in WITH_HOLDER else None).decode()


def list_words(text: str) -> list[str]:
    return re.findall(r"[a-z0-9]+", text.lower())


def test_the_texts_that_ship_are_of_known_licences() -> None:
    assert list_licence_texts() == tuple(sorted([*WITH_HOLDER, *WHOLE]))
    for name in list_licence_texts():
        licence = find_licence(name)
        assert licence is not None
        assert licence.id == name
        assert names_holder(name) == (name in WITH_HOLDER)


@pytest.mark.parametrize("licence", [*WITH_HOLDER, *WHOLE])
def test_a_text_that_ships_is_recognised(licence: str) -> None:
    text = find_text(licence)
    assert check_licence_text(licence, text.encode())
    assert ("copyright line" in describe_text(licence, True)) == (licence in WITH_HOLDER)


@pytest.mark.parametrize("licence", WITH_HOLDER)
def test_the_holder_stands_in_the_text_and_nothing_is_left_open(licence: str) -> None:
    text = find_text(licence)
    assert [line for line in text.splitlines() if line.startswith("Copyright")] == [f"Copyright (c) {HOLDER}"]
    assert not re.search("<year>|<owner>|<copyright", text)
    # What replaces is no pattern.
    odd = "2026 \\1 \\g<0>"
    assert f"Copyright (c) {odd}\n" in find_licence_text(licence, None, odd).decode()


@pytest.mark.parametrize("licence", WITH_HOLDER)
def test_a_text_that_names_a_holder_needs_one(licence: str) -> None:
    with pytest.raises(ReleaseError, match="set copyright, such as"):
        find_licence_text(licence, None)


def test_a_licence_without_a_text_asks_for_one() -> None:
    with pytest.raises(
        ReleaseError, match=r"text of ODbL-1.0 does not ship; name a file .* Those that ship are Apache"
    ):
        find_licence_text("ODbL-1.0", None)


def test_no_path_is_a_licence() -> None:
    with pytest.raises(ReleaseError, match="does not ship"):
        find_licence_text("../licences/MIT", None)


@pytest.mark.parametrize(
    ("title", "lines"),
    [
        ("The MIT License (MIT)", ["Copyright (c) 2026 Ada"]),
        ("", ["Copyright 2026 Ada", "Copyright (c) 2025 Ben", "All rights reserved."]),
        ("MIT License", ["Copyright © 2026 Ada"]),
    ],
)
def test_a_publishers_own_text_is_known_whatever_its_layout(tmp_path: Path, title: str, lines: list[str]) -> None:
    body = find_text("MIT").partition(f"{HOLDER}\n")[2]
    wrapped = re.sub(r"(?<!\n)\n(?!\n)", " ", body)
    path = tmp_path / "LICENSE"
    path.write_text("\r\n".join([title, "", *lines, "", wrapped]), encoding="utf-8")
    assert check_licence_text("MIT", find_licence_text("MIT", str(path)))


@pytest.mark.parametrize("licence", WITH_HOLDER)
@pytest.mark.parametrize("where", ["above", "between", "below", "within"])
def test_a_text_with_a_term_more_is_not_the_known_one(licence: str, where: str) -> None:
    text, term = find_text(licence), "You shall dance."
    line = f"Copyright (c) {HOLDER}\n"
    changed = {
        "above": f"{term}\n{text}",
        "between": text.replace(line, f"{line}{term}\n{line}"),
        "below": f"{text}\n{term}\n",
        "within": text.replace(" the ", f" {term} the ", 1),
    }[where]
    assert changed != text
    try:
        is_known = check_licence_text(licence, changed.encode())
    except ReleaseError as error:
        assert "does not name" in str(error)
    else:
        assert not is_known
        assert describe_text(licence, is_known) == f"LICENSE names {licence}."


@pytest.mark.parametrize("licence", WHOLE)
def test_a_text_without_a_holder_is_taken_byte_for_byte(licence: str) -> None:
    changed = find_text(licence) + "\n"
    with pytest.raises(ReleaseError, match=f"LICENSE is not the text of {licence} that ships"):
        check_licence_text(licence, changed.encode())


@pytest.mark.parametrize("licence", [*WITH_HOLDER, *WHOLE])
def test_the_text_of_one_licence_is_not_that_of_another(licence: str) -> None:
    for other in {*WITH_HOLDER, *WHOLE} - {licence}:
        try:
            assert not check_licence_text(licence, find_text(other).encode())
        except ReleaseError:
            continue


@pytest.mark.workshop
def test_texts_equal_those_of_other_publishers() -> None:
    """Of two that are installed with libraries, so that a slip of ours shows."""
    theirs = resources.files("license_expression") / "data" / "cc-by-4.0.LICENSE"
    assert list_words(theirs.read_text(encoding="utf-8")) == list_words(find_text("CC-BY-4.0"))
    (bsd,) = (path for path in metadata.files("pypdfium2") or () if path.name == "BSD-3-Clause.txt")
    assert list_words(bsd.read_text()) == list_words(find_text("BSD-3-Clause").replace(HOLDER, "<year> <owner>"))


def test_share_alike_differs_where_it_should() -> None:
    plain, alike = find_text("CC-BY-4.0"), find_text("CC-BY-SA-4.0")
    assert "ShareAlike" not in plain
    assert "Attribution-ShareAlike 4.0 International" in alike
    assert "Attribution-ShareAlike 3.0 Unported" in find_text("CC-BY-SA-3.0")
