"""The figures of the comparison with transformers' Trainer."""

import pytest

pytestmark = pytest.mark.workshop


def test_tokens_to_a_target_are_read_off_the_curve() -> None:
    from benchmarks.training.arms import Outcome, Run
    from benchmarks.training.compare import choose_best, interpolate_tokens, summarise

    def make(arm: str, lr: float, tokens: int, *bits: float, seconds: float = 10.0, seed: int = 0) -> Outcome:
        run = Run.model_validate({"arm": arm, "lr": lr, "seed": seed, "tokens": tokens})
        curve = [(tokens * (i + 1) // len(bits), value) for i, value in enumerate(bits)]
        return Outcome(run=run, parameters=1, curve=curve, seconds=seconds, cpu_seconds=seconds, muon_share=0.1)

    ours = make("ours", 0.02, 100, 3.0, 2.0, 1.0)
    assert interpolate_tokens(ours, 1.5) == pytest.approx(66 + 17)
    assert interpolate_tokens(ours, 3.5) == 33
    assert interpolate_tokens(ours, 0.5) == float("inf")
    outcomes = [
        ours,
        make("ours", 0.02, 100, 3.0, 2.0, 1.2, seed=1),
        make("ours", 0.01, 100, 3.0, 2.0, 1.9),
        make("ours", 0.02, 80, 3.0, 2.0, 1.45, seconds=8),
        make("ours", 0.02, 50, 3.0, 2.0, 1.8, seconds=5),
        make("trainer", 0.006, 100, 4.0, 2.0, 1.5, seconds=12),
        make("trainer", 0.003, 100, 4.0, 2.0, 1.6),
        make("ours-adamw-speed", 0.003, 20, 3.0, seconds=2),
        make("trainer-adamw-speed", 0.003, 20, 3.0, seconds=1.9),
    ]
    done = {outcome.run: outcome for outcome in outcomes}
    assert choose_best(done, "ours", 100) == 0.02
    figures = summarise(done, 100)
    assert figures["bits per byte, ours"] == 1.1
    assert figures["spread over seeds, ours"] == 0.2
    assert figures["tokens to the trainer's last loss, by shorter runs"] == 0.8
    assert figures["wall to the trainer's last loss"] == pytest.approx(8 / 12, abs=1e-3)
    assert figures["tokens per CPU second, same model and optimizer, ours to trainer"] == 0.95
