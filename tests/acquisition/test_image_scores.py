from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import ndimage

from cryoquery.acquisition import image_scores
from cryoquery.acquisition.ensembles import ENSEMBLES
from cryoquery.acquisition.image_scores import BASE, GRADIENTS, STATISTICS, PixelScore, reduced
from cryoquery.acquisition.scores import entropy
from cryoquery.acquisition.strategies import STRATEGIES, strategy_of
from cryoquery.errors import ConfigError
from cryoquery.network.predict import Maps


def maps(seed: int = 0, content: tuple[int, int] = (20, 24)) -> Maps:
    """Two images of blobs and one on which nothing is predicted, padded to 24 × 24."""
    rng = np.random.default_rng(seed)
    blobs = np.stack([ndimage.gaussian_filter(rng.normal(size=(24, 24)), 2) for _ in range(3)])
    p = 1 / (1 + np.exp(-8 * blobs / blobs.std()))
    p[2] *= 0.4
    valid = np.zeros(p.shape, dtype=bool)
    valid[:, : content[0], : content[1]] = True
    return Maps(torch.from_numpy(p).float(), torch.from_numpy(valid), np.array([4.0, 5.0, 6.0]))


def plain(some: Maps, row: int) -> tuple[np.ndarray, np.ndarray]:
    """Probability and entropy of one image, without its padding."""
    valid = some.valid[row].numpy()
    inside = np.ix_(valid.any(axis=1), valid.any(axis=0))
    p = some.probability[row].double().numpy()[inside]
    return p, entropy(p)


ENTROPY = PixelScore("entropy")


def values(some: Maps, reduce, *arguments: float) -> np.ndarray:
    return reduce(ENTROPY(some), some, *arguments).numpy()


def test_mean_and_top_fraction() -> None:
    some = maps()
    for row in range(3):
        _, h = plain(some, row)
        assert values(some, image_scores.mean)[row] == pytest.approx(h.mean(), rel=1e-5)
        for fraction in (0.001, 0.05, 1.0):
            k = max(round(fraction * h.size), 1)
            expected = np.sort(h.ravel())[-k:].mean()
            found = values(some, image_scores.top_fraction, fraction)[row]
            assert found == pytest.approx(expected, rel=1e-5)


def test_foreground_boundary_and_objects_against_the_plain_way() -> None:
    some = maps()
    for row in range(2):
        p, h = plain(some, row)
        inside = p >= 0.5
        assert values(some, image_scores.foreground)[row] == pytest.approx(h[inside].mean(), rel=1e-5)
        square = np.ones((5, 5))
        band = ndimage.binary_dilation(inside, square) & ndimage.binary_dilation(~inside, square)
        assert values(some, image_scores.boundary, 2)[row] == pytest.approx(h[band].mean(), rel=1e-5)
        labels, n = ndimage.label(inside)
        means = [h[labels == i].mean() for i in range(1, n + 1)]
        assert n > 1
        assert values(some, image_scores.objects)[row] == pytest.approx(np.mean(means), rel=1e-5)
        expected = p.sum() / (np.pi / 4 * some.disc_px[row] ** 2)
        assert image_scores.n_particles(some)[row] == pytest.approx(expected, rel=1e-5)
        expected = p.var() / (p.mean() * (1 - p.mean()))
        assert image_scores.skill(some)[row] == pytest.approx(expected, rel=1e-5)
        assert values(some, image_scores.per_particle)[row] == pytest.approx(h.sum() / p.sum(), rel=1e-5)


def test_where_nothing_is_predicted_the_likeliest_pixels_stand_for_it() -> None:
    some = maps()
    p, h = plain(some, 2)
    k = round(0.01 * p.size)
    expected = h.ravel()[np.argsort(-p.ravel())[:k]].mean()
    for reduce, arguments in (
        (image_scores.foreground, ()),
        (image_scores.boundary, (3,)),
        (image_scores.objects, ()),
    ):
        assert values(some, reduce, *arguments)[2] == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("level", [0.0, 0.5, 1.0])
def test_scores_are_finite_whatever_is_predicted(level: float) -> None:
    flat = Maps(torch.full((2, 16, 16), level), maps().valid[:2, :16, :16], np.array([0.0, 1e9]))
    for reduce, arguments in (
        (image_scores.mean, ()),
        (image_scores.top_fraction, (0.05,)),
        (image_scores.foreground, ()),
        (image_scores.boundary, (3,)),
        (image_scores.objects, ()),
        (image_scores.per_particle, ()),
    ):
        found = values(flat, reduce, *arguments)
        assert np.isfinite(found).all()
        assert (found >= 0).all()
    assert np.isfinite(image_scores.n_particles(flat).numpy()).all()


@pytest.mark.parametrize("level", [0.0, 1e-10, 1e-5, 0.1, 0.5, 0.77, 1 - 1e-7, 1.0])
def test_a_map_that_says_the_same_of_all_pixels_has_no_skill(level: float) -> None:
    flat = Maps(torch.full((2, 16, 16), level), maps().valid[:2, :16, :16], None)
    assert image_scores.skill(flat).numpy() == pytest.approx(0, abs=1e-6)
    sure = torch.zeros(1, 16, 16)
    sure[:, 4:9, 4:9] = 1
    assert image_scores.skill(Maps(sure, torch.ones(1, 16, 16, dtype=bool), None)) == 1


def test_padding_does_not_count() -> None:
    some = maps()
    elsewhere = some.probability.clone()
    elsewhere[~some.valid] = 0.5
    other = Maps(elsewhere, some.valid, some.disc_px)
    for reduce, arguments in (
        (image_scores.mean, ()),
        (image_scores.top_fraction, (0.05,)),
        (image_scores.foreground, ()),
        (image_scores.boundary, (3,)),
        (image_scores.objects, ()),
        (image_scores.per_particle, ()),
    ):
        assert np.array_equal(values(some, reduce, *arguments), values(other, reduce, *arguments))
    assert torch.equal(image_scores.skill(some), image_scores.skill(other))


def test_counting_particles_takes_their_diameter() -> None:
    some = maps()
    with pytest.raises(ConfigError, match="diameter is not known"):
        image_scores.n_particles(Maps(some.probability, some.valid, None))


def test_mutual_information_is_what_the_members_disagree_on() -> None:
    """Two members: alike in doubt, alike in certainty, certain of opposites."""
    p = torch.tensor([[0.5, 1.0, 0.0]]), torch.tensor([[0.5, 1.0, 1.0]])
    together = Maps(
        ((p[0] + p[1]) / 2)[None],
        torch.ones((1, 1, 3), dtype=torch.bool),
        None,
        expected_entropy=((entropy(p[0]) + entropy(p[1])) / 2)[None],
    )
    ln2 = float(np.log(2))
    assert PixelScore("mutual_information", "dihedral")(together).flatten().tolist() == pytest.approx(
        [0, 0, ln2]
    )
    assert PixelScore("expected_entropy", "dihedral")(together).flatten().tolist() == pytest.approx(
        [ln2, 0, 0]
    )
    assert PixelScore("entropy", "dihedral")(together).flatten().tolist() == pytest.approx([ln2, 0, ln2])


def test_the_gradient_of_the_last_layer_against_autograd() -> None:
    """At the predicted label, apart for pixels predicted to be particle and background."""
    torch.manual_seed(0)
    h, head = torch.randn(2, 3, 5, 6), torch.nn.Conv2d(3, 1, 1)
    valid = torch.ones((2, 5, 6), dtype=torch.bool)
    valid[1, 3:] = False
    logits = head(h)[:, 0]
    with torch.no_grad():
        found = STATISTICS[GRADIENTS](Maps(torch.sigmoid(logits), valid, None, decoder=h))
    for row in range(2):
        label = (logits[row] >= 0).float()
        parts = []
        for value in (1.0, 0.0):
            head.zero_grad()
            loss = torch.nn.functional.binary_cross_entropy_with_logits(
                head(h[row : row + 1])[0, 0], label, reduction="none"
            )
            (loss[valid[row] & (label == value)].sum() / valid[row].sum()).backward()
            parts += [head.weight.grad.flatten(), head.bias.grad]
        assert torch.allclose(found[row], torch.cat(parts), atol=1e-6)


def test_a_key_says_all_that_a_signal_depends_on() -> None:
    assert [signal.key for signal in BASE] == ["least_confidence", "entropy", "margin", "features"]
    a, b = (next(iter(strategy_of(f"top(top_fraction(entropy, {f}))").needs)) for f in (0.05, 0.1))
    assert a != b
    assert STATISTICS[a](maps()).tolist() != STATISTICS[b](maps()).tolist()
    again = reduced(image_scores.mean, "mean", PixelScore("entropy", "dihedral"))
    assert (again.key, again.ensemble) == ("entropy@dihedral", "dihedral")
    for row in STRATEGIES.values():
        for signal in row.strategy.needs:
            assert signal.ensemble in ("", *ENSEMBLES)
