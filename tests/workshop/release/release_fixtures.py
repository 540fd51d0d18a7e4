"""Fixtures: a tiny build and its release, made once."""

import shutil
from pathlib import Path

import pytest
from tiny_build import TinyBuild, make_build


@pytest.fixture(scope="session")
def whole_build(tmp_path_factory: pytest.TempPathFactory) -> TinyBuild:
    """A build with its gate; not to be changed."""
    return _make_build(tmp_path_factory.mktemp("build"))


@pytest.fixture(scope="session")
def whole_release(whole_build: TinyBuild, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A release; not to be changed."""
    output = tmp_path_factory.mktemp("releases") / "tiny"
    whole_build.run_release(output)
    return output


@pytest.fixture
def release(whole_release: Path, tmp_path: Path) -> Path:
    """A copy of the release, to be changed."""
    return Path(shutil.copytree(whole_release, tmp_path / "tiny"))


@pytest.fixture
def build(tmp_path: Path) -> TinyBuild:
    """A build, to be changed."""
    return _make_build(tmp_path / "build")


def _make_build(folder: Path) -> TinyBuild:
    build = make_build(folder)
    build.run_gate()
    return build
