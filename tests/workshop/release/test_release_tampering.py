"""Changes of a release: every one is named, and those that a whole rewrite hides are exactly the ones listed."""

import shutil
from pathlib import Path

import pytest
from tampering import list_changes
from tiny_build import write_key

from commonweight.workshop.release.report import WITHOUT_KEY, Report
from commonweight.workshop.release.verify import verify_release

pytestmark = pytest.mark.workshop
pytest_plugins = ["release_fixtures"]


def test_the_untouched_release_passes(whole_release: Path) -> None:
    trusted = verify_release(whole_release, whole_release / "signing-key.pub")
    assert trusted.passed, trusted.failures
    assert not set(WITHOUT_KEY) & set(trusted.undetectable)
    alone = verify_release(whole_release)
    assert alone.passed, alone.failures
    assert set(WITHOUT_KEY) <= set(alone.undetectable)


@pytest.mark.timeout(300)
def test_every_change_is_named(whole_release: Path, tmp_path: Path) -> None:
    other_key = write_key(tmp_path / "other" / "key.pem", 7)
    key = whole_release / "signing-key.pub"
    changes = list(list_changes(whole_release, other_key))
    assert len(changes) >= 200
    assert len({change.name for change in changes}) == len(changes)
    wrong = []
    for number, change in enumerate(changes):
        folder = tmp_path / f"{number}" / "tiny"
        shutil.copytree(whole_release, folder)
        change.apply(folder)
        trusted, alone = verify_release(folder, key), verify_release(folder)
        if trusted.passed or not (_names(trusted, change.file) or _names(trusted, "signing-key.pub")):
            wrong.append((change.name, "with the key", trusted.failures))
        if alone.passed == change.is_visible or (change.is_visible and not _names(alone, change.file)):
            wrong.append((change.name, "without the key", alone.failures))
        shutil.rmtree(folder.parent)
    assert not wrong, "\n".join(map(str, wrong))


def _names(report: Report, file: str) -> bool:
    return any(file in (failure.file or "") or file in failure.text for failure in report.failures)
