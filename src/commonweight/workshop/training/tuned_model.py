"""What a stage that trained a model further writes: the model, its adapter, the effective configuration."""

from pathlib import Path
from typing import Any

from commonweight.workshop.training.adapter import merge_adapter, write_adapter
from commonweight.workshop.training.adapter_files import ADAPTER
from commonweight.workshop.training.effective_config import write_effective_config
from commonweight.workshop.training.model import save_model
from commonweight.workshop.training.tokenizer import copy_tokenizer
from commonweight.workshop.training.trainer import make_lora
from commonweight.workshop.training.tuning_settings import TuningSettings


def write_tuned_model(
    trainer: Any,  # noqa: ANN401 - any of TRL's
    settings: TuningSettings,
    base: Path,
    base_id: str | None,
    output: Path,
) -> None:
    """Writes the model folder. An adapter is stored, and what is stored is merged into the base as it was.

    Args:
        base: the model folder that training began with.
        base_id: its name at its publisher.
    """
    copy_tokenizer(base, output)
    if settings.lora is None:
        save_model(trainer.model, output)
    else:
        write_adapter(trainer.model, output / ADAPTER, base, base_id)
        save_model(merge_adapter(base, output / ADAPTER), output)
    adapters = make_lora(settings.lora)
    write_effective_config(output, trainer.args, adapters, quantised_base=settings.quantised_base)
