"""The learner: what one step does, however its samples are split, and how large the next one is."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="training needs the 'train' extra")

from matting_compose.trainer.data.stream import open_stream  # noqa: E402
from matting_compose.trainer.training.learner import Learner, learning_rate  # noqa: E402 (only once torch is known to be there)
from runs import CPU, tiny  # noqa: E402


def test_accumulating_is_a_larger_batch(finished: Path) -> None:
    """Two batches of four to a step move the weights as one batch of eight does, whatever their unknown regions."""
    losses = ("losses.laplacian=1", "losses.gradient=0.5", "losses.compositional=1")
    one, two = tiny("stream.batch=8", *losses), tiny("stream.batch=4", "optimiser.accumulate=2", *losses)
    learners = []
    for config in (one, two):
        taught_one = Learner(config, CPU)
        stream = iter(open_stream(finished, batch=config.stream.batch, crop=32, sizes=(32, 48), colours=True))
        numbers = []
        for step in range(2):
            batches = [next(stream) for _ in range(config.optimiser.accumulate)]
            numbers.append(taught_one.step(step, batches).numbers)
        learners.append((taught_one, torch.stack(numbers)))
    torch.testing.assert_close(learners[0][1], learners[1][1], rtol=1e-3, atol=1e-4)
    for a, b in zip(*(one.network.parameters() for one, _ in learners), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=2e-4)


def test_clip_and_average_do_what_they_say(finished: Path) -> None:
    """A clipped step of plain size; the average moves towards the weights, statistics included, by its decay."""
    batch = next(iter(open_stream(finished, batch=2, crop=32, sizes=(32,))))
    seen: list[float] = []

    class Measuring(torch.optim.Adam):
        def step(self, closure: Any = None) -> None:  # type: ignore[override]
            grads = [p.grad for group in self.param_groups for p in group["params"]]
            seen.append(float(torch.linalg.vector_norm(torch.cat([g.flatten() for g in grads]))))
            super().step(closure)

    for clip, wanted in ((0.0, None), (0.01, 0.01)):
        trained = Learner(tiny(f"optimiser.clip={clip}", "network.norm=batch"), CPU)
        trained._optimiser.__class__ = Measuring
        assert trained.ema is not None
        before = [value.clone() for value in trained.ema.state_dict().values()]
        numbers = trained.step(0, [batch]).numbers
        assert seen[-1] == pytest.approx(wanted or float(numbers[1]), rel=1e-3)
        states = trained.ema.state_dict().values(), trained.network.state_dict().values()
        for old, kept, now in zip(before, *states, strict=True):  # normalisation's statistics, too
            wanted_value = old * 0.1 + now * 0.9 if now.is_floating_point() else now  # decay (1 + 0) / (10 + 0)
            torch.testing.assert_close(kept, wanted_value)


def test_the_rate_follows_its_schedule() -> None:
    """It rises in a line and falls by half a cosine, to nothing at the end; a constant one stays."""
    settings = tiny("optimiser.schedule=cosine", "optimiser.warmup=4", "optimiser.rate=1").optimiser
    rates = [learning_rate(settings, step, 24) for step in range(25)]
    np.testing.assert_allclose(rates[:5], [0.2, 0.4, 0.6, 0.8, 1])
    assert rates[14] == pytest.approx(0.5)
    assert rates[24] == pytest.approx(0, abs=1e-9)
    assert all(a > b for a, b in pairwise(rates[4:]))
    constant = tiny("optimiser.rate=1").optimiser
    assert {learning_rate(constant, step, 24) for step in range(30)} == {1.0}
