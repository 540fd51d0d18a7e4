"""Settings of sources, filters and mixes: what a recipe may say, and what is refused."""

import pytest
from pydantic import ValidationError

from commonweight.workshop.data.locations import HubPath, LocalPath, PackagePath, WebFile, parse_location
from commonweight.workshop.data.settings import FilterSettings, MixSettings, SourceSettings

COMMIT = "0123456789abcdef" * 2 + "01234567"
URL = "https://example.org/texts/book.txt"


def declare(**changes: object) -> SourceSettings:
    return SourceSettings.model_validate({"name": "books", "from": "texts", "licence": "CC0-1.0"} | changes)


def test_locations_are_told_apart() -> None:
    assert isinstance(parse_location("texts/old.txt"), LocalPath)
    assert isinstance(parse_location("../texts"), LocalPath)
    hub = parse_location(f"hf:org/set@{COMMIT}/data/train.parquet")
    assert isinstance(hub, HubPath)
    assert (hub.repo, hub.revision, str(hub.path), hub.is_commit) == (
        "org/set",
        COMMIT,
        "data/train.parquet",
        True,
    )
    tag = parse_location("hf:org/set@v1.0")
    assert isinstance(tag, HubPath)
    assert tag.path is None
    assert not tag.is_commit
    assert parse_location(URL + "?x=1") == WebFile(URL + "?x=1", "book.txt")
    package = parse_location("package:commonweight.workshop/recipes/text.txt")
    assert isinstance(package, PackagePath)
    assert package.package == "commonweight.workshop"


@pytest.mark.parametrize(
    ("location", "says"),
    [
        ("/etc/texts", "relative to the recipe"),
        (" ", "relative to the recipe"),
        ("hf:set@v1", "hf:org/name@revision"),
        ("hf:org/set", "commit or a tag"),
        ("hf:org/set@main", "commit or a tag"),
        ("hf:../set@v1", "hf:org/name@revision"),
        ("hf:org/..@v1", "hf:org/name@revision"),
        ("hf:org/set@v1/../other", "leaves its folder"),
        ("hf:org/set@v1/a//b", "leaves its folder"),
        ("package:commonweight", "package:NAME/path"),
        ("package:commonweight/../../secrets.txt", "leaves its folder"),
        ("ftp://example.org/a.txt", "http"),
        ("https://example.org/", "name of a file"),
        ("https://example.org/%2e%2e", "name of a file"),
        ("https://example.org:99999999/a.txt", "is no URL"),
    ],
)
def test_a_location_that_names_nothing_fixed_is_refused(location: str, says: str) -> None:
    with pytest.raises(ValidationError, match=says):
        declare(**{"from": location, "sha256": "0" * 64})


def test_a_password_in_a_url_is_refused_and_not_repeated() -> None:
    with pytest.raises(ValueError, match="password") as raised:
        parse_location("https://me:hunter2@example.org/a.txt")
    assert "hunter2" not in str(raised.value)


@pytest.mark.parametrize("licence", [None, "", "  "])
def test_a_source_without_a_licence_is_refused_in_a_sentence(licence: str | None) -> None:
    with pytest.raises(ValidationError, match="The source 'books' has no licence"):
        declare(licence=licence)


def test_a_source_whose_licence_is_left_out_is_refused() -> None:
    with pytest.raises(ValidationError, match="The source 'books' has no licence"):
        SourceSettings.model_validate({"name": "books", "from": "texts"})


@pytest.mark.parametrize("licence", ["MIT OR Apache-2.0", "do what you want", "a" * 101, 7])
def test_a_licence_is_one_name(licence: object) -> None:
    with pytest.raises(ValidationError):
        declare(licence=licence)


def test_a_url_needs_its_digest() -> None:
    with pytest.raises(ValidationError, match="without sha256"):
        declare(**{"from": URL})
    assert declare(**{"from": URL, "sha256": "ab" * 32}).sha256 == "ab" * 32


@pytest.mark.parametrize(
    "changes",
    [
        {"license": "MIT"},
        {"location": "texts"},
        {"name": "a b"},
        {"name": ""},
        {"name": "a" * 65},
        {"format": "csv"},
        {"generator": ""},
        {"generator": "a\nb"},
        {"fields": {"body": "text"}},
        {"fields": {"text": ""}},
        {"limit": 0},
        {"sha256": "AB" * 32},
        {"row_characters": 255},
        {"row_characters": 1_000_001},
        {"max_megabytes": 0},
    ],
)
def test_unknown_keys_and_values_out_of_bounds_are_refused(changes: dict[str, object]) -> None:
    declare()
    with pytest.raises(ValidationError):
        declare(**changes)


@pytest.mark.parametrize(
    "changes",
    [
        {"near_duplicate_similarity": 0.59},
        {"near_duplicate_similarity": 1.01},
        {"min_characters": 0},
        {"min_characters": 10, "max_characters": 9},
        {"ngram": 8},
    ],
)
def test_filters_are_bounded(changes: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        FilterSettings.model_validate(changes)


@pytest.mark.parametrize(
    "changes",
    [
        {"weights": {}},
        {"weights": {"a": 0}},
        {"weights": {"a": -1}},
        {"weights": {"a": float("nan")}},
        {"weights": {"a": float("inf")}},
        {"validation": 0.51},
        {"validation": float("nan")},
        {"max_epochs": 0.5},
        {"characters": 0},
        {"seed": -1},
        {"temperature": 1},
    ],
)
def test_mixes_are_bounded(changes: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        MixSettings.model_validate({"weights": {"a": 1.0}} | changes)
