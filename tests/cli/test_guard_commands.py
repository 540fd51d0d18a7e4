"""``charter compile``, ``guard trust`` and what ``serve`` makes of bundles that it should not take."""

from pathlib import Path

import pytest

from command import one_line_error, run
from sample_charter import source


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A charter, and what was compiled of it."""
    folder = tmp_path_factory.mktemp("compiled")
    (folder / "umbrellas.md").write_bytes(source())
    done = run(
        "charter", "compile", folder / "umbrellas.md", "-o", folder / "a.safetensors", "--data", folder / "data"
    )
    assert done.returncode == 0, done.stderr
    assert "no-umbrellas" in done.stdout
    assert "digest" in done.stdout
    return folder


def serve(folder: Path, bundle: Path, *arguments: str | Path) -> str:
    return one_line_error(
        run("serve", "--port", "0", "--guard-bundle", bundle, "--data", folder / "data", *arguments)
    )


def test_a_tampered_bundle_is_refused(folder: Path, tmp_path: Path) -> None:
    content = bytearray((folder / "a.safetensors").read_bytes())
    content[-1] ^= 1
    (tmp_path / "b.safetensors").write_bytes(content)
    assert "changed" in serve(folder, tmp_path / "b.safetensors", "--charter", folder / "umbrellas.md")


def test_a_bundle_of_another_charter_is_refused(folder: Path) -> None:
    assert "another charter" in serve(folder, folder / "a.safetensors")


def test_a_broken_charter_is_refused_by_line(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "broken.md").write_text("no charter")
    done = run("serve", "--port", "0", "--charter", tmp_path / "broken.md", "--data", folder / "data")
    assert done.returncode == 1
    assert "broken.md:1:" in done.stderr


def test_somebody_elses_bundle_is_taken_once_it_is_trusted(folder: Path, tmp_path: Path) -> None:
    path = tmp_path / "brought.safetensors"
    path.write_bytes((folder / "a.safetensors").read_bytes())
    elsewhere = tmp_path / "data"
    error = one_line_error(
        run(
            "serve",
            "--port",
            "0",
            "--guard-bundle",
            path,
            "--charter",
            folder / "umbrellas.md",
            "--data",
            elsewhere,
        )
    )
    assert "guard trust" in error
    done = run("guard", "trust", path, "--data", elsewhere)
    assert done.returncode == 0, done.stderr
    assert "is signed" in done.stdout


def test_a_request_that_nobody_knows_is_said_to_be_so(tmp_path: Path) -> None:
    assert "no record" in one_line_error(run("guard", "explain", "req_nothing", "--data", tmp_path))
