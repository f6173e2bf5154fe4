import dataclasses

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="the losses need the 'train' extra")

from matting_compose.trainer.networks.losses import LOSSES, Prediction  # noqa: E402 (only once torch is known to be there)
from matting_compose.trainer.networks.network import fuse, trimap_masks  # noqa: E402

torch.set_num_threads(1)


def make_prediction(height=21, width=18, seed=0):
    """Two unlike mattes; the unknown region is their middle; everything float64."""
    generator = torch.Generator().manual_seed(seed)
    alpha, truth = torch.rand((2, 2, 1, height, width), generator=generator, dtype=torch.float64)
    foreground, background = torch.rand((2, 2, 3, height, width), generator=generator, dtype=torch.float64)
    unknown = torch.zeros(2, 1, height, width, dtype=torch.bool)
    unknown[..., height // 4 : height // 2, width // 3 :] = True
    return Prediction(alpha, truth, unknown, foreground, background)


def arrays(p):
    return [value.numpy() for value in vars(p).values() if isinstance(value, torch.Tensor)]


def test_every_loss_has_a_reference():
    """Those of alpha are compared with NumPy; those of a trimap have tests of their own."""
    assert {name for name in LOSSES if LOSSES[name].of == "alpha"} == set(REFERENCES)


def numpy_alpha_prediction(alpha, truth, unknown, foreground, background):
    return np.sqrt((alpha[unknown] - truth[unknown]) ** 2 + 1e-12).sum() / np.count_nonzero(unknown)


def composites(alpha, truth, foreground, background):
    return (a * foreground + (1 - a) * background for a in (alpha, truth))


def numpy_compositional(alpha, truth, unknown, foreground, background):
    predicted, true = composites(alpha, truth, foreground, background)
    where = np.repeat(unknown, 3, axis=1)
    return np.sqrt((predicted[where] - true[where]) ** 2 + 1e-12).sum() / (3 * np.count_nonzero(unknown))


def numpy_shm_prediction(alpha, truth, unknown, foreground, background):
    predicted, true = composites(alpha, truth, foreground, background)
    return 0.5 * np.abs(alpha - truth).mean() + 0.5 * np.abs(predicted - true).mean()


def correlate(picture, kernel):
    """Correlate an (H, W) picture with a kernel, its border repeated."""
    radius = len(kernel) // 2
    padded = np.pad(picture, radius, mode="edge")
    windows = np.lib.stride_tricks.sliding_window_view(padded, kernel.shape)
    return np.einsum("hwij,ij->hw", windows, kernel)


def burt_expand(small, shape):
    """Burt & Adelson's EXPAND from its definition, 4·Σ w(m, n)·small((i−m)/2, (j−n)/2), whole indices only."""
    kernel = np.array([1, 4, 6, 4, 1]) / 16
    out = np.zeros(shape)
    for i, j in np.ndindex(shape):
        for m, n in np.ndindex(5, 5):
            y, x = i - (m - 2), j - (n - 2)
            if y % 2 == 0 and x % 2 == 0:
                value = small[np.clip(y // 2, 0, small.shape[0] - 1), np.clip(x // 2, 0, small.shape[1] - 1)]
                out[i, j] += 4 * kernel[m] * kernel[n] * value
    return out


def laplacian_pyramid(picture):
    row = np.array([1, 4, 6, 4, 1]) / 16
    for _ in range(5):
        smaller = correlate(picture, np.outer(row, row))[::2, ::2]
        yield picture - burt_expand(smaller, picture.shape)
        picture = smaller


def numpy_laplacian(alpha, truth, unknown, foreground, background):
    """The pyramid of each matte by itself: the code takes that of the difference."""
    pyramids = [[list(laplacian_pyramid(m[0])) for m in mattes] for mattes in (alpha, truth)]
    total = 0.0
    for level in range(5):
        total += 2**level * np.mean([np.abs(a[level] - b[level]).mean() for a, b in zip(*pyramids, strict=True)])
    return total / 5


def numpy_gradient(alpha, truth, unknown, foreground, background):
    sobel = np.array([[-1, 0, 1], [-2, 0, 2], [-1, 0, 1]]) / 8
    magnitudes = [
        np.stack([np.hypot(correlate(m[0], sobel), correlate(m[0], sobel.T)) for m in mattes])
        for mattes in (alpha, truth)
    ]
    return np.abs(magnitudes[0] - magnitudes[1])[unknown[:, 0]].sum() / np.count_nonzero(unknown)


def numpy_l1(alpha, truth, unknown, foreground, background):
    return np.abs(alpha - truth).mean()


def numpy_charbonnier(alpha, truth, unknown, foreground, background):
    return (np.hypot(alpha[unknown] - truth[unknown], 1e-3) - 1e-3).sum() / np.count_nonzero(unknown)


def numpy_ssim(alpha, truth, unknown, foreground, background):
    """SSIM from its definition: weighted means, variances and the covariance about them, window by window."""
    distances = np.arange(-5, 6)
    weights = np.exp(-(distances[:, None] ** 2 + distances**2) / (2 * 1.5**2))
    weights /= weights.sum()
    total = []
    for x, y in zip(alpha[:, 0], truth[:, 0], strict=True):
        u, v = (np.lib.stride_tricks.sliding_window_view(np.pad(m, 5, mode="edge"), (11, 11)) for m in (x, y))
        mean_u, mean_v = ((weights * w).sum(axis=(2, 3), keepdims=True) for w in (u, v))
        var_u, var_v = ((weights * (w - m) ** 2).sum(axis=(2, 3)) for w, m in ((u, mean_u), (v, mean_v)))
        both = (weights * (u - mean_u) * (v - mean_v)).sum(axis=(2, 3))
        mean_u, mean_v = mean_u[..., 0, 0], mean_v[..., 0, 0]
        luminance = (2 * mean_u * mean_v + 1e-4) / (mean_u**2 + mean_v**2 + 1e-4)
        total.append((luminance * (2 * both + 9e-4) / (var_u + var_v + 9e-4)).mean())
    return 1 - np.mean(total)


REFERENCES = {
    "alpha_prediction": numpy_alpha_prediction,
    "compositional": numpy_compositional,
    "shm_prediction": numpy_shm_prediction,
    "laplacian": numpy_laplacian,
    "gradient": numpy_gradient,
    "l1": numpy_l1,
    "charbonnier": numpy_charbonnier,
    "ssim": numpy_ssim,
}


@pytest.mark.parametrize("name", REFERENCES)
@pytest.mark.parametrize("size", [(21, 18), (32, 32), (5, 3)])
def test_agrees_with_numpy(name, size):
    p = make_prediction(*size)
    assert LOSSES[name](p).item() == pytest.approx(REFERENCES[name](*arrays(p)), rel=1e-6)


@pytest.mark.parametrize("name", REFERENCES)
def test_gradients_are_right(name):
    p = make_prediction(6, 5)
    alpha = p.alpha.clone().requires_grad_()
    assert torch.autograd.gradcheck(lambda a: LOSSES[name](dataclasses.replace(p, alpha=a)), (alpha,))


@pytest.mark.parametrize("name", REFERENCES)
def test_perfect_alpha_costs_nothing_and_has_a_finite_gradient(name):
    p = make_prediction()
    alpha = p.truth.clone().requires_grad_()
    loss = LOSSES[name](dataclasses.replace(p, alpha=alpha))
    loss.backward()
    assert loss.item() == pytest.approx(0, abs=2e-6)
    assert alpha.grad.isfinite().all()


@pytest.mark.parametrize("name", REFERENCES)
def test_flat_mattes_have_a_finite_gradient(name):
    """Where a matte is flat, the magnitude of its gradient has a root at 0."""
    p = make_prediction()
    alpha = torch.ones_like(p.alpha).requires_grad_()
    LOSSES[name](dataclasses.replace(p, alpha=alpha)).backward()
    assert alpha.grad.isfinite().all()


@pytest.mark.parametrize("name", REFERENCES)
def test_nothing_unknown_is_no_nan(name):
    """A crop may hold no unknown pixel: the masked losses are 0, with a gradient to add to others."""
    p = make_prediction()
    alpha = p.alpha.clone().requires_grad_()
    loss = LOSSES[name](dataclasses.replace(p, alpha=alpha, unknown=torch.zeros_like(p.unknown)))
    loss.backward()
    assert alpha.grad.isfinite().all()
    if name in ("alpha_prediction", "charbonnier", "compositional", "gradient"):
        assert loss.item() == 0
        assert not alpha.grad.any()
    else:
        assert loss.item() > 0


@pytest.mark.parametrize("name", ["alpha_prediction", "charbonnier", "compositional"])
def test_known_pixels_do_not_count(name):
    p = make_prediction()
    elsewhere = dataclasses.replace(p, alpha=torch.where(p.unknown, p.alpha, torch.rand_like(p.alpha)))
    assert LOSSES[name](elsewhere).item() == LOSSES[name](p).item()


def test_fused_shm_is_dim_over_another_denominator():
    """With a one-hot trimap, SHM's whole-image means and DIM's sums over the unknown region differ by nothing else."""
    p = make_prediction()
    trimap = torch.full((2, 21, 18), 128, dtype=torch.uint8)
    trimap[:, :7], trimap[:, 15:] = 0, 255
    masks = trimap_masks(trimap)
    unknown, sure = masks[:, 2:3], masks[:, 1:2].double()
    p = dataclasses.replace(p, alpha=fuse(p.alpha, trimap), truth=torch.where(unknown, p.truth, sure), unknown=unknown)
    dim = 0.5 * LOSSES["alpha_prediction"](p) + 0.5 * LOSSES["compositional"](p)
    share = unknown.double().mean()
    assert 0.2 < share < 0.8
    assert LOSSES["shm_prediction"](p).item() == pytest.approx((dim * share).item(), rel=1e-6)


def test_constant_difference_has_no_laplacian():
    """EXPAND keeps what is constant, up to the borders, at sizes odd and even."""
    for height, width in ((1, 1), (2, 7), (33, 16)):
        p = make_prediction(height, width)
        assert LOSSES["laplacian"](dataclasses.replace(p, alpha=p.truth - 0.25)).item() == pytest.approx(0, abs=1e-12)


def test_ramp_has_unit_gradient():
    p = make_prediction(9, 12)
    ramp = torch.arange(12, dtype=torch.float64).expand(2, 1, 9, 12)
    inside = torch.zeros_like(p.unknown)
    inside[..., 1:-1, 1:-1] = True
    loss = LOSSES["gradient"](Prediction(ramp, torch.zeros_like(ramp), inside))
    assert loss.item() == pytest.approx(1, rel=1e-5)


@pytest.mark.parametrize("name", ["compositional", "shm_prediction"])
def test_composing_without_colours_says_what_to_do(name):
    p = make_prediction()
    with pytest.raises(ValueError, match=r"needs foreground and background.*build the data set with"):
        LOSSES[name](Prediction(p.alpha, p.truth, p.unknown))


@pytest.mark.parametrize("name", REFERENCES)
def test_parts_of_a_step_make_the_whole(name):
    """Two batches with unlike unknown regions, divided by their mean count, average to one batch of both."""
    p = make_prediction(32, 32)
    p.unknown[0, :, :14] = False
    count = p.unknown.sum() / 2
    parts = [(p.alpha, p.truth, p.unknown, p.foreground, p.background)] * 2
    halves = [Prediction(*(part[i : i + 1] for part in batch), count) for i, batch in enumerate(parts)]
    mean = sum(LOSSES[name](half) for half in halves) / 2
    assert mean.item() == pytest.approx(LOSSES[name](p).item(), rel=1e-12)


def make_trimaps(size=37):
    """Two true trimaps, alphas and random logits; float64."""
    generator = torch.Generator().manual_seed(1)
    trimap = torch.tensor([0, 128, 255], dtype=torch.uint8)[torch.randint(3, (2, size, size), generator=generator)]
    whole = torch.rand((2, 1, size, size), generator=generator, dtype=torch.float64)
    logits = torch.randn((2, 3, size, size), generator=generator, dtype=torch.float64)
    nothing = torch.empty(0)
    return Prediction(
        nothing, nothing, nothing, outputs={"trimap": logits, "auxiliary": -logits}, trimap=trimap, whole=whole
    )


def test_cross_entropy_is_that_of_the_masks_order():
    """Background, foreground, unknown: written down here once more, with NumPy."""
    p = make_trimaps()
    for name, sign in (("trimap", 1), ("auxiliary", -1)):
        logits = sign * p.outputs["trimap"].numpy()
        total = 0.0
        for channel, level in enumerate((0, 255, 128)):
            where = p.trimap.numpy() == level
            total += (np.log(np.exp(logits).sum(axis=1)) - logits[:, channel])[where].sum()
        assert LOSSES[name](p).item() == pytest.approx(total / p.trimap.numel(), rel=1e-9)


def test_semantic_loss_compares_means_of_16_px():
    """Parts of a square at the border count as they are."""
    p = make_trimaps()
    e = np.exp(p.outputs["trimap"].numpy())
    guess = (e[:, 1] + e[:, 2] / 2) / e.sum(axis=1) - p.whole.numpy()[:, 0]
    cells = [guess[:, y : y + 16, x : x + 16].mean(axis=(1, 2)) for y in range(0, 37, 16) for x in range(0, 37, 16)]
    assert LOSSES["semantic"](p).item() == pytest.approx(np.square(cells).mean() / 2, rel=1e-9)


@pytest.mark.parametrize("name", ["trimap", "auxiliary", "semantic"])
def test_gradients_of_logits_are_right(name):
    p = make_trimaps(5)
    logits = p.outputs["trimap"].clone().requires_grad_()
    outputs = lambda x: {"trimap": x, "auxiliary": x}  # noqa: E731
    assert torch.autograd.gradcheck(lambda x: LOSSES[name](dataclasses.replace(p, outputs=outputs(x))), (logits,))
