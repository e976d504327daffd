"""lesion_seg.contours: oracles by hand and by scipy, properties of the way from a map to mask, border and measures."""
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage
from scipy.spatial.distance import pdist

from lesion_seg import contours as S


def blobs(seed, shape=(64, 64), sigma=4):
    "A smooth random probability map, with regions, holes and lesions that run out of the picture."
    z = ndimage.gaussian_filter(np.random.default_rng(seed).normal(size=shape), sigma)
    return (1 / (1 + np.exp(-4 * z / z.std()))).astype(np.float32)


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 40), st.integers(1, 40), st.integers(1, 400), st.integers(1, 90), st.integers(0, 99), st.floats(.05, .95))
def test_mask_is_the_thresholded_probability(h, w, H, W, seed, t):
    small = np.random.default_rng(seed).random((h, w), dtype=np.float32)
    p = S.resize_probability(small, (H, W))
    assert p.dtype == np.float32 and p.shape == (H, W) and 0 <= p.min() <= p.max() <= 1
    assert np.array_equal(S.resize_threshold(small, (H, W), t), p >= np.float32(t))


@pytest.mark.parametrize('size', [(480, 641), (1001, 333), (64, 64), (40, 50)])
@pytest.mark.parametrize('axis', [0, 1])
def test_linear_ramp_keeps_its_place(size, axis):
    ramp = np.linspace(0, 1, 64, dtype=np.float32)
    small = np.tile(ramp, (64, 1)) if axis else np.tile(ramp[:, None], (1, 64))
    n = size[axis]
    want = ((np.arange(n) + .5) * 64 / n - .5) / 63
    got = S.resize_probability(small, size).take(size[1 - axis] // 2, axis=1 - axis)
    inner = slice(n // 32, -(n // 32))
    assert np.allclose(got[inner], want[inner], atol=1e-4 if n >= 64 else 2e-3)   # shrinking, Pillow's filter has few taps


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000))
def test_clean_mask_agrees_with_scipy(seed):
    m = blobs(seed, (40, 50), 2) > .5
    assert np.array_equal(S.clean_mask(m, largest=False), ndimage.binary_fill_holes(m))
    lab, n = ndimage.label(m)
    got = S.clean_mask(m, fill_holes=False)
    assert got.sum() == max((lab == i).sum() for i in range(1, n + 1)) and not (got & ~m).any()


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000))
def test_feret_equals_the_largest_pair_distance(seed):
    pts = np.random.default_rng(seed).normal(size=(60, 2)) * [30, 5]
    assert S.feret_diameter(pts) == pytest.approx(pdist(pts).max(), rel=5e-6)


def soft_disc(h, w, r, y0, x0):
    y, x = np.mgrid[:h, :w] + .5
    return (1 / (1 + np.exp(np.hypot(y - y0, x - x0) - r))).astype(np.float32)


@pytest.mark.parametrize('size', [(64, 64), (301, 299)])
def test_polygons_have_the_area_of_the_mask(size):
    for seed in range(6):
        small = blobs(seed, sigma=6)
        rings = [r for p in S.find_polygons(small, .5, size) for r in p]
        assert sum(map(S.ring_area, rings)) == pytest.approx(S.resize_threshold(small, size, .5).sum(), rel=.02)


def test_perimeter_and_diameter_of_a_disc():
    (ring,), = S.find_polygons(soft_disc(160, 160, 45, 80, 70), .5, (800, 800))
    assert S.perimeter([ring]) == pytest.approx(2 * np.pi * 225, rel=.01)
    assert S.feret_diameter(ring) == pytest.approx(450, rel=.01)
    assert np.allclose((ring.min(0) + ring.max(0)) / 2, [350, 400], atol=.5)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000))
def test_box_and_centre_agree_with_scipy(seed):
    m = blobs(seed, (31, 47), 2) > .8
    if not m.any(): return
    assert S.bounding_box(m) == ndimage.find_objects(m.astype(int))[0]
    assert np.allclose(S.centre_of_area(m), np.array(ndimage.center_of_mass(m)) + .5)


@pytest.mark.parametrize('seed', range(8))
def test_keyhole_keeps_the_area_and_all_points(seed):
    for rings in S.find_polygons(blobs(seed), .4, (200, 300)):
        one = S.keyhole(rings)
        assert S.ring_area(one) == pytest.approx(sum(map(S.ring_area, rings)), abs=1e-6)
        assert (one[0] == one[-1]).all() and {tuple(p) for r in rings for p in r} == {tuple(p) for p in one}
