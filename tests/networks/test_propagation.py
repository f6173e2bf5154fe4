"""Propagation: the product is the matting Laplacian's, and what comes out is near closed form."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="networks need the 'train' extra")

import torch.nn.functional as F  # noqa: E402

from matting_compose.trainer.networks import propagation  # noqa: E402
from matting_compose.trainer.networks.propagation import (  # noqa: E402
    FLAT,
    MattingLaplacian,
    _times,
    enlarge,
    reduce,
    solve,
)


def picture(height: int = 64, width: int = 96) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Compose a soft disk of lively colours over others: image in 0..1, what is known, alpha."""
    rng = np.random.default_rng(3)
    y, x = np.mgrid[:height, :width]
    alpha = np.clip((height / 3 - np.hypot(y - height / 2, x - width / 2)) / 10 + 0.5, 0, 1)
    grain = [F.interpolate(torch.tensor(rng.uniform(0, 0.3, (1, 3, 4, 6))), size=(height, width), mode="bicubic")
             for _ in range(2)]  # fmt: skip
    layers = [shade.float() + torch.tensor(colour)[:, None, None]
              for shade, colour in zip(grain, ([0.6, 0.2, 0.1], [0.1, 0.3, 0.6]), strict=True)]  # fmt: skip
    truth = torch.tensor(alpha, dtype=torch.float32)[None, None]
    image = truth * layers[0] + (1 - truth) * layers[1]
    return image.clamp(0, 1), torch.cat((truth == 0, truth == 1), dim=1).float(), truth


def propagate(image: torch.Tensor, known: torch.Tensor) -> torch.Tensor:
    """Spread what is known, (N, 2, H, W), through a picture: alpha, (N, 1, H, W)."""
    return enlarge(solve(reduce(image), reduce(known)), image)


def test_the_product_is_the_laplacians() -> None:
    """pymatting writes the matrix down; products and the diagonal are those of it."""
    cf_laplacian = pytest.importorskip("pymatting").cf_laplacian
    image, _, _ = picture(12, 17)
    matrix = cf_laplacian(image[0].permute(1, 2, 0).double().numpy(), epsilon=9 * FLAT).toarray()
    laplacian = MattingLaplacian(image.double())
    alpha = torch.rand(1, 1, 12, 17, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    product = matrix @ alpha.numpy().ravel()
    np.testing.assert_allclose(_times(laplacian.weights, alpha).numpy().ravel(), product, atol=1e-7)
    np.testing.assert_allclose(laplacian.weights[12].numpy().ravel(), np.diag(matrix), atol=1e-7)


def test_what_is_linear_in_colour_costs_nothing() -> None:
    """Such an alpha, and so each constant, is in the null space; any other costs something."""
    image, _, truth = picture()
    laplacian = MattingLaplacian(image.double())
    line = 0.2 + 0.5 * image[:, :1].double() - 0.3 * image[:, 2:].double()
    assert abs(_times(laplacian.weights, torch.full_like(line, 0.7))).max() < 1e-9
    weights = laplacian.weights
    energy = [(alpha * _times(weights, alpha)).sum() for alpha in (line, truth.double(), torch.rand_like(line))]
    assert 0 < energy[0] < energy[1] < energy[2]


def test_it_is_near_closed_form() -> None:
    """Solved whole and at full size, by pymatting: the mean difference is small where anything was to be found."""
    pymatting = pytest.importorskip("pymatting")
    image, known, truth = picture(96, 128)
    unknown = known.sum(1)[0].numpy() == 0
    trimap = np.where(unknown, 0.5, known[0, 1].numpy())
    exact = pymatting.estimate_alpha_cf(image[0].permute(1, 2, 0).double().numpy(), trimap.astype(float))
    found, true = propagate(image, known)[0, 0].numpy(), truth[0, 0].numpy()
    assert np.abs(found - exact)[unknown].mean() < 0.05
    assert np.abs(found - true)[unknown].mean() < 0.05
    assert np.abs(trimap - true)[unknown].mean() > 0.2


def test_batches_are_solved_each_for_itself() -> None:
    """The other pictures of a batch change nothing, not even one without anything known."""
    image, known, _ = picture()
    nothing = torch.zeros_like(known)
    both = propagate(torch.cat((image, image)), torch.cat((known, nothing)))
    torch.testing.assert_close(both[:1], propagate(image, known), atol=1e-5, rtol=0)
    torch.testing.assert_close(both[1:], torch.full_like(both[1:], 0.5), atol=1e-4, rtol=0)


def test_the_smallest_picture_is_solved() -> None:
    """Three windows an eighth of its size are enough, and nothing known of one kind is no harm."""
    side = 3 * propagation.REDUCTION
    known = torch.zeros(1, 2, side, side)
    known[:, 0, :8] = 1
    found = propagate(torch.full((1, 3, side, side), 0.4), known)
    assert found.shape == (1, 1, side, side)
    assert bool(found.isfinite().all())
    assert found.max() < 0.5


def test_grey_and_flat_and_noisy_pictures_are_solved() -> None:
    """Where colours lie on a line, or do not differ at all, no determinant is left in float32: alpha stays finite."""
    noise = torch.rand(4, 1, 64, 64, generator=torch.Generator().manual_seed(0))
    checks = (torch.arange(64)[:, None] + torch.arange(64)).remainder(2).float().expand(4, 1, 64, 64)
    known = torch.zeros(4, 2, 64, 64)
    known[:, 0, :, :20] = known[:, 1, :, 44:] = 1
    for grey in (noise, noise.round(), checks, torch.zeros_like(noise), 0.5 + noise / 255):
        found = propagate(grey.expand(4, 3, 64, 64), known)
        assert bool(((found >= 0) & (found <= 1)).all())
        assert found[..., :16].mean() < 0.1
        assert found[..., 48:].mean() > 0.9
