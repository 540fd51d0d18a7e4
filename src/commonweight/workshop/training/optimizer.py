"""Muon for the matrices inside the layers, AdamW for the rest, and the schedule of their learning rates."""

import math
from collections.abc import Callable

import torch

from commonweight.workshop.training.settings import PretrainSettings


class Float32Muon(torch.optim.Muon):
    """torch's Muon with its orthogonalisation in float32.

    torch computes it in bfloat16, which processors without instructions for that only emulate: on one with AVX2 it
    took 57 % of the time that a model of a million parameters trained for. In float32 it also gives about the same
    weights everywhere.
    """

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:
        """Update the matrices that have gradients."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for matrix in group["params"]:
                if matrix.grad is None:
                    continue
                state = self.state[matrix]
                if "momentum_buffer" not in state:
                    state["momentum_buffer"] = torch.zeros_like(matrix)
                momentum = state["momentum_buffer"].lerp_(matrix.grad, 1 - group["momentum"])
                update = matrix.grad.lerp(momentum, group["momentum"]) if group["nesterov"] else momentum
                update = orthogonalize(update, group["ns_coefficients"], group["ns_steps"], group["eps"])
                rows, columns = matrix.shape
                matrix.mul_(1 - group["lr"] * group["weight_decay"])
                matrix.add_(update, alpha=-group["lr"] * math.sqrt(max(1, rows / columns)))
        return loss


def orthogonalize(
    matrix: torch.Tensor, coefficients: tuple[float, float, float], steps: int, eps: float
) -> torch.Tensor:
    """Bring a matrix's singular values near 1, by Newton-Schulz iterations (https://kellerjordan.github.io/posts/muon)."""
    a, b, c = coefficients
    is_tall = matrix.size(0) > matrix.size(1)
    found = matrix.T if is_tall else matrix
    found = found / found.norm().clamp(min=eps)
    for _ in range(steps):
        gram = found @ found.T
        found = torch.addmm(found, torch.addmm(gram, gram, gram, beta=b, alpha=c), found, beta=a)
    return found.T if is_tall else found


def build_optimizers(model: torch.nn.Module, settings: PretrainSettings) -> list[torch.optim.Optimizer]:
    """Two optimizers that share the parameters: embeddings and norms go to AdamW."""
    matrices: list[torch.nn.Parameter] = []
    rest: list[torch.nn.Parameter] = []
    for name, parameter in model.named_parameters():
        is_matrix = parameter.ndim == 2 and ".layers." in name
        (matrices if is_matrix else rest).append(parameter)
    return [
        Float32Muon(matrices, lr=settings.muon_lr, weight_decay=settings.weight_decay, momentum=0.95),
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
