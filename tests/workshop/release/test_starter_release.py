"""The starter through its recipe to a release, and changes of that release. It reads gigabytes many times."""

import os
import shutil
from datetime import date
from pathlib import Path

import pytest
import yaml
from huggingface_hub import ModelCard
from tampering import list_large_changes
from tiny_build import write_key

from commonweight.lineage.build_folder import BuildFolder
from commonweight.workshop.recipe.build import Builder
from commonweight.workshop.recipe.parse import parse_recipe
from commonweight.workshop.recipe.releasing import release_build
from commonweight.workshop.recipe.shipped import read_shipped
from commonweight.workshop.release.verify import verify_release

pytestmark = [pytest.mark.workshop, pytest.mark.slow, pytest.mark.timeout(3600)]
_LINKED_BYTES = 1 << 20


@pytest.fixture(scope="module")
def starter_release(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The release of the recipe ``starter``, measured on one page only; not to be changed."""
    folder = tmp_path_factory.mktemp("starter")
    recipe = yaml.safe_load(read_shipped("starter"))
    recipe["stages"]["figures"]["tasks"][0]["limit"] = 1
    build = BuildFolder(folder / "build")
    Builder(parse_recipe(yaml.safe_dump(recipe).encode(), "starter"), build, folder, None, "2026-11-30").build(
        print
    )
    release_build(folder / "build", folder / "release", folder / "keys", date(2026, 11, 30), print)
    return folder / "release"


def test_the_card_names_the_base_and_that_it_was_quantised(starter_release: Path) -> None:
    card = yaml.safe_load(str(ModelCard((starter_release / "README.md").read_text()).data))
    assert card["base_model"] == "HuggingFaceTB/SmolLM2-135M-Instruct"
    assert card["base_model_relation"] == "quantized"
    assert "datasets" not in card


def test_changes_of_a_large_release_are_named(starter_release: Path, tmp_path: Path) -> None:
    key = starter_release / "signing-key.pub"
    assert verify_release(starter_release, key).passed
    changes = list(list_large_changes(starter_release, write_key(tmp_path / "other" / "key.pem", 7)))
    assert len(changes) == 12
    for number, change in enumerate(changes):
        folder = tmp_path / f"{number}" / "starter"
        _copy(starter_release, folder, change.file)
        change.apply(folder)
        trusted, alone = verify_release(folder, key), verify_release(folder)
        for report in (trusted, alone):
            assert any(change.file in f.text for f in report.failures), (change.name, report.failures)
        shutil.rmtree(folder.parent)
    assert verify_release(starter_release, key).passed, "a change went through a link"


def _copy(release: Path, folder: Path, changed: str) -> None:
    """Copy a release; large files that are not changed are linked."""

    def copy(source: str, target: str) -> None:
        path = Path(source)
        if path.stat().st_size > _LINKED_BYTES and path.relative_to(release).as_posix() != changed:
            os.link(source, target)
        else:
            shutil.copyfile(source, target)

    shutil.copytree(release, folder, copy_function=copy)
