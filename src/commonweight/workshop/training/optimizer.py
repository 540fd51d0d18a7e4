"""Muon for the matrices inside the layers, AdamW for the rest, and the schedule of their learning rates."""

import torch

from commonweight.workshop.training.settings import PretrainSettings


def build_optimizers(model: torch.nn.Module, settings: PretrainSettings) -> list[torch.optim.Optimizer]:
    """Two optimizers that share the parameters: embeddings and norms go to AdamW."""
    matrices: list[torch.nn.Parameter] = []
    rest: list[torch.nn.Parameter] = []
    for name, parameter in model.named_parameters():
        is_matrix = parameter.ndim == 2 and ".layers." in name
        (matrices if is_matrix else rest).append(parameter)
    return [
        torch.optim.Muon(matrices, lr=settings.muon_lr, weight_decay=settings.weight_decay, momentum=0.95),
        torch.optim.AdamW(rest, lr=settings.adamw_lr, weight_decay=0.0, betas=(0.9, 0.95), fused=True),
    ]


def scale_learning_rate(settings: PretrainSettings, step: int) -> float:
    """Share of the peak learning rate at a step, counted from 0: warm-up, stable, decay to near zero."""
    total = settings.total_steps
    warmup = round(settings.warmup_share * total)
    decay = round(settings.decay_share * total)
    if step < warmup:
        return (step + 1) / (warmup + 1)
    if step >= total - decay:
        return (total - step) / (decay + 1)
    return 1.0


def set_learning_rate(optimizers: list[torch.optim.Optimizer], settings: PretrainSettings, step: int) -> float:
    """Sets both optimizers' rates for a step; returns the share of the peak."""
    scale = scale_learning_rate(settings, step)
    for optimizer, peak in zip(optimizers, (settings.muon_lr, settings.adamw_lr), strict=True):
        for group in optimizer.param_groups:
            group["lr"] = peak * scale
    return scale
