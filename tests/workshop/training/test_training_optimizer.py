"""Muon in float32: the same updates as torch's, within what bfloat16 rounds."""

import pytest
import torch

from commonweight.workshop.training.optimizer import Float32Muon, orthogonalize

pytestmark = pytest.mark.workshop


def make_matrices() -> list[torch.nn.Parameter]:
    torch.manual_seed(0)
    return [torch.nn.Parameter(torch.randn(shape)) for shape in ((48, 16), (16, 48), (32, 32))]


def test_updates_are_those_of_torch() -> None:
    ours, theirs = make_matrices(), make_matrices()
    begun = [matrix.detach().clone() for matrix in ours]
    optimizers = [
        kind(matrices, lr=0.02, weight_decay=0.1, momentum=0.95)
        for kind, matrices in ((Float32Muon, ours), (torch.optim.Muon, theirs))
    ]
    for _ in range(3):
        for matrices, optimizer in zip((ours, theirs), optimizers, strict=True):
            for matrix in matrices:
                torch.manual_seed(matrix.numel())
                matrix.grad = torch.randn_like(matrix)
            optimizer.step()
    for one, other, before in zip(ours, theirs, begun, strict=True):
        moved = (other - before).norm()
        assert moved > 0.1
        assert (one - other).norm() < 0.02 * moved


def test_singular_values_come_near_one() -> None:
    torch.manual_seed(1)
    for shape in ((40, 24), (24, 40)):
        found = orthogonalize(torch.randn(shape), (3.4445, -4.7750, 2.0315), 5, 1e-7)
        values = torch.linalg.svdvals(found)
        assert found.dtype == torch.float32
        assert float(values.min()) > 0.6
        assert float(values.max()) < 1.3


def test_what_has_no_gradient_stays() -> None:
    matrix = torch.nn.Parameter(torch.ones(4, 4))
    Float32Muon([matrix], lr=0.1).step()
    assert torch.equal(matrix, torch.ones(4, 4))
