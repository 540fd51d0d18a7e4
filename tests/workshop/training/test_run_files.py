"""Files of a run elsewhere: which are read, and what is wrong with others."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from commonweight.workshop.training.run_files import (
    INDEX,
    STATE,
    check_shapes,
    find_last,
    find_run_files,
    read_history,
    read_shapes,
)
from commonweight.workshop.training.settings import TrainingError

pytestmark = pytest.mark.workshop


def write_tensors(path: Path, **shapes: tuple[int, ...]) -> None:
    save_file({name: np.zeros(shape, np.float32) for name, shape in shapes.items()}, path)


def test_an_adapter_comes_before_a_whole_model(tmp_path: Path) -> None:
    write_tensors(tmp_path / "model.safetensors", a=(2,))
    assert find_run_files(tmp_path).names == ("model.safetensors",)
    write_tensors(tmp_path / "adapter_model.safetensors", a=(2,))
    (tmp_path / "adapter_config.json").write_text("{}")
    assert find_run_files(tmp_path).names == ("adapter_config.json", "adapter_model.safetensors")


def test_all_shards_are_read(tmp_path: Path) -> None:
    names = {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}
    (tmp_path / INDEX).write_text(json.dumps({"weight_map": names}))
    write_tensors(tmp_path / names["a"], a=(2, 3))
    with pytest.raises(TrainingError, match=f"has not all of the files that its {INDEX} names$"):
        find_run_files(tmp_path)
    write_tensors(tmp_path / names["b"], b=(4,))
    run = find_run_files(tmp_path)
    assert run.weights == tuple(sorted(names.values()))
    assert read_shapes([tmp_path / name for name in run.weights]) == {"a": (2, 3), "b": (4,)}


@pytest.mark.parametrize("content", ["{", "[]", "{}", '{"weight_map": {"a": "../x"}}', '{"weight_map": 3}'])
def test_an_index_that_leads_nowhere(tmp_path: Path, content: str) -> None:
    (tmp_path / INDEX).write_text(content)
    with pytest.raises(TrainingError, match=INDEX):
        find_run_files(tmp_path)


def test_the_last_checkpoint_has_the_log(tmp_path: Path) -> None:
    write_tensors(tmp_path / "model.safetensors", a=(2,))
    for step in (9, 100, 20):
        (tmp_path / f"checkpoint-{step}").mkdir()
        entries = [{"step": step, "num_tokens": 7.0 * step}, {"step": step, "eval_loss": 1.5}]
        (tmp_path / f"checkpoint-{step}" / STATE).write_text(json.dumps({"log_history": entries}))
    (tmp_path / "checkpoint-last").mkdir()
    run = find_run_files(tmp_path)
    assert run.state == f"checkpoint-100/{STATE}"
    history = read_history(run)
    assert find_last(history, "num_tokens") == 700
    assert find_last(history, "epoch") is None


@pytest.mark.parametrize("content", ["{}", '{"log_history": 3}', '{"log_history": [{}]}', '{"log_history": [1]}'])
def test_a_log_that_is_none(tmp_path: Path, content: str) -> None:
    write_tensors(tmp_path / "model.safetensors", a=(2,))
    (tmp_path / STATE).write_text(content)
    with pytest.raises(TrainingError, match=r"^trainer_state.json of the run is not the state of a trainer$"):
        read_history(find_run_files(tmp_path))


WANTED = {"embed": (4, 2), "out": (2,)}


@pytest.mark.parametrize(
    ("found", "says"),
    [
        ({"embed": (4, 2)}, "the run lacks out, which the model that it began with has"),
        (WANTED | {"more": (1,)}, "the run has more, which the model that it began with lacks"),
        (
            WANTED | {"lm_head.weight": (1,)},
            "the run has lm_head.weight, which the model that it began with lacks",
        ),
        (WANTED | {"out": (3,)}, r"out of the run has the shape \(3,\), and \(2,\) is wanted"),
    ],
)
def test_shapes_that_do_not_fit(found: dict[str, Any], says: str) -> None:
    with pytest.raises(TrainingError, match=f"^{says}$"):
        check_shapes(found, WANTED)


def test_an_output_that_is_tied_may_be_there_twice() -> None:
    check_shapes(WANTED | {"lm_head.weight": (4, 2)}, WANTED, is_tied=True)
    check_shapes(WANTED, WANTED | {"lm_head.weight": (4, 2)}, is_tied=True)


def test_a_folder_without_weights(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match=r"holds neither adapter_model.safetensors nor model.safetensors"):
        find_run_files(tmp_path)
    with pytest.raises(TrainingError, match="is no folder of a run"):
        find_run_files(tmp_path / "missing")
    (tmp_path / "adapter_model.safetensors").write_bytes(b"torn")
    with pytest.raises(TrainingError, match=r"has an adapter without its adapter_config.json"):
        find_run_files(tmp_path)
    with pytest.raises(TrainingError, match="is not a sound safetensors file"):
        read_shapes([tmp_path / "adapter_model.safetensors"])
