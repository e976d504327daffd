"""lesion_seg.metrics against values worked out by hand, brute force, scipy, scikit-learn and MONAI."""
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import ndimage

from lesion_seg import metrics as M
from lesion_seg.core import InputError

E, F = np.zeros((6, 8), bool), np.ones((6, 8), bool)   # empty and full masks
LENGTHS = ('hd95', 'assd', 'border_bias')
PERFECT = dict(dice=1, jaccard=1, pixel_accuracy=1, sensitivity=1, specificity=1, precision=1, area_ratio=1,
               hd95=0, assd=0, nsd=1, boundary_iou=1, border_bias=0, relative_bias=0)


def blobs(seed, shape=(48, 60), level=.15):
    "A pair of masks with ragged borders, holes and islands, often touching the border of the image"
    rng = np.random.default_rng(seed)
    base = ndimage.gaussian_filter(rng.normal(size=shape), 6)
    noise = [ndimage.gaussian_filter(rng.normal(size=shape), 2) for _ in 'ab']
    scores = [base / base.std() + level * n / n.std() for n in noise]
    return tuple(s > np.quantile(s, .7) for s in scores)


masks = arrays(bool, st.tuples(st.integers(1, 9), st.integers(1, 9)))
pairs = st.tuples(st.integers(1, 9), st.integers(1, 9)).flatmap(lambda s: st.tuples(arrays(bool, s), arrays(bool, s)))


# Golden cases: a 6 x 8 image (48 pixels) whose truth is the 4 x 4 square in rows 1-4, columns 1-4.
# Counts are tp, fp, fn, tn.

SQUARE = E.copy()
SQUARE[1:5, 1:5] = True


def box(r0, r1, c0, c1):
    m = E.copy()
    m[r0:r1, c0:c1] = True
    return m


GOLDEN = [  # prediction, counts, dice, jaccard, accuracy, sensitivity, specificity, precision
    (SQUARE, (16, 0, 0, 32), 1, 1, 1, 1, 1, 1),
    (E, (0, 0, 16, 32), 0, 0, 32/48, 0, 1, 0),
    (F, (16, 32, 0, 0), 32/64, 16/48, 16/48, 1, 0, 16/48),
    (box(1, 5, 3, 7), (8, 8, 8, 24), 16/32, 8/24, 32/48, 8/16, 24/32, 8/16),          # shifted by two columns
    (box(1, 5, 1, 4), (12, 0, 4, 32), 24/28, 12/16, 44/48, 12/16, 1, 1),              # one column short
    (box(0, 6, 6, 8), (0, 12, 16, 20), 0, 0, 20/48, 0, 20/32, 0),                     # beside it
]


@pytest.mark.parametrize('pred, counts, dice, jaccard, accuracy, sens, spec, prec', GOLDEN)
def test_golden_cases(pred, counts, dice, jaccard, accuracy, sens, spec, prec):
    assert M.confusion(pred, SQUARE) == counts
    want = dict(dice=dice, jaccard=jaccard, pixel_accuracy=accuracy, sensitivity=sens, specificity=spec, precision=prec,
                area_ratio=pred.sum() / 16)
    assert M.score_pair(pred, SQUARE) == pytest.approx(want, abs=1e-12)


def test_batch_equals_single_images():
    preds, truths = map(np.stack, zip(*[blobs(s) for s in range(20)], (np.zeros((48, 60), bool),) * 2, strict=True))
    batch = M.overlap(preds, truths)
    for i, (p, t) in enumerate(zip(preds, truths, strict=True)):
        assert {k: v[i] for k, v in batch.items()} == M.overlap(p, t)


def test_scikit_learn_agrees():
    sk = pytest.importorskip('sklearn.metrics')
    for seed in range(10):
        p, t = blobs(seed)
        tn, fp, fn, tp = sk.confusion_matrix(t.ravel(), p.ravel(), labels=[False, True]).ravel()
        assert M.confusion(p, t) == (tp, fp, fn, tn)
        s = M.score_pair(p, t)
        for name, f in dict(dice=sk.f1_score, jaccard=sk.jaccard_score, precision=sk.precision_score,
                            sensitivity=sk.recall_score, pixel_accuracy=sk.accuracy_score).items():
            assert s[name] == pytest.approx(f(t.ravel(), p.ravel()), abs=1e-12)


@given(pairs)
def test_properties(pair):
    p, t = pair
    s, r = M.score_pair(p, t, distances=True), M.score_pair(t, p, distances=True)
    for name, m in M.METRICS.items():
        if m.may_be_undefined and np.isnan(s[name]):
            assert t.any() < p.any() or name in M.BIAS and p.any() < t.any()
        else: assert m.bounds[0] <= s[name] <= (M.image_diagonal(p.shape) if m.is_length else m.bounds[1])
    assert np.isnan(s['border_bias']) or -s['assd'] - 1e-9 <= s['border_bias'] <= s['assd'] + 1e-9
    # what is too wide the other way round is too narrow
    assert s['border_bias'] == pytest.approx(-r['border_bias'], abs=1e-12, nan_ok=True)
    for name in ('dice', 'jaccard', 'pixel_accuracy', 'hd95', 'assd', 'nsd', 'boundary_iou'):
        assert s[name] == pytest.approx(r[name], abs=1e-12)                       # symmetric
    assert s['jaccard'] == pytest.approx(s['dice'] / (2 - s['dice']), abs=1e-12)
    if p.any() and t.any(): assert s['precision'] == r['sensitivity']            # each is the other's mirror image
    assert sum(M.confusion(p, t)) == p.size


@given(masks)
def test_identity(m):
    assert M.score_pair(m, m, distances=True) == PERFECT


@given(pairs, st.sampled_from([(1, 1), (.5, .5), (2, .7)]))
@settings(max_examples=60)
def test_transposing_and_flipping_change_nothing(pair, spacing):
    p, t = pair
    a, b = M.score_pair(p, t, spacing, True), M.score_pair(p.T[::-1], t.T[::-1], spacing[::-1], True)
    assert a == pytest.approx(b, abs=1e-9, nan_ok=True)


# Empty masks

def test_empty_policy():
    both = M.score_pair(E, E, distances=True)
    assert both == PERFECT
    nothing_claimed = M.score_pair(E, SQUARE, distances=True)
    want = dict(dice=0, jaccard=0, pixel_accuracy=32/48, sensitivity=0, specificity=1, precision=0, area_ratio=0,
                hd95=10, assd=10, nsd=0, boundary_iou=0, border_bias=np.nan,
                relative_bias=np.nan)     # 6 x 8: the diagonal is 10
    assert nothing_claimed == pytest.approx(want, nan_ok=True)
    nothing_there = M.score_pair(SQUARE, E, spacing=(.5, .5), distances=True)
    want = dict(dice=0, jaccard=0, pixel_accuracy=32/48, sensitivity=1, specificity=32/48, precision=0,
                area_ratio=np.nan,
                hd95=5, assd=5, nsd=0, boundary_iou=0, border_bias=np.nan, relative_bias=np.nan)
    assert nothing_there == pytest.approx(want, nan_ok=True)
    assert M.specificity(SQUARE, F) == 1


@given(pairs)
def test_no_real_pair_is_as_far_as_an_empty_one(pair):
    p, t = pair
    if p.any() and t.any(): assert M.hd95(p, t, percentile=100) < M.hd95(p & ~p, t)


# Input checks

BAD = [
    (SQUARE, SQUARE.astype(np.uint8) * 255, 'the truth: holds values from 0 to 255'),          # once gave Dice 1.99
    (SQUARE.astype(np.int8) * -1, SQUARE, 'the prediction: holds values from -1 to 0'),
    (SQUARE * .9, SQUARE, 'binarise'),
    (SQUARE * np.nan, SQUARE, 'floating-point'),
    (SQUARE, SQUARE[:, :1], 'shape'),
    (SQUARE[None], SQUARE, 'shape'),
    (SQUARE[..., None], SQUARE[..., None], '2 axes'),
    (SQUARE[None], SQUARE[None], '2 axes'),
    (SQUARE[:0], SQUARE[:0], 'no pixels'),
    (SQUARE.astype(object), SQUARE, 'array of object'),
]


@pytest.mark.parametrize('pred, truth, words', BAD)
def test_bad_masks_are_refused(pred, truth, words):
    for f in (M.score_pair, M.hd95, M.assd, M.nsd, M.boundary_iou):
        with pytest.raises(InputError, match=words): f(pred, truth)


def test_integer_masks_of_0_and_1_are_masks():
    for dtype in (np.uint8, np.int64, bool): assert M.dice(SQUARE.astype(dtype), SQUARE) == 1


@pytest.mark.parametrize('values, words', [([[.1, np.nan]], '1 NaN'), ([[-3, 3.]], 'sigmoid'), ([[0, 1.01]], 'sigmoid'),
                                           ([[np.inf, 0]], 'sigmoid'), ([[0, 255]], 'not of floats')])
def test_bad_probabilities_are_refused(values, words):
    with pytest.raises(InputError, match=words): M.binarise(np.array(values))


def test_the_threshold_itself_counts():
    assert M.binarise(np.float32([[.5, .49999]])).tolist() == [[True, False]]


@pytest.mark.parametrize('spacing', [(0, 1), (1, -1), (1, np.nan), (1,), (1, 1, 1), 2, 'ab'])
def test_bad_spacing_is_refused(spacing):
    with pytest.raises(InputError, match='two positive lengths'): M.hd95(SQUARE, SQUARE[::-1], spacing)


# Distances against brute force

def brute_surface(m):
    def inside(r, c): return 0 <= r < m.shape[0] and 0 <= c < m.shape[1] and m[r, c]
    around = ((0, 1), (1, 0), (0, -1), (-1, 0))
    return [(r, c) for r, c in np.argwhere(m) if not all(inside(r + i, c + j) for i, j in around)]


def brute_distances(p, t, spacing):
    a, b = brute_surface(p), brute_surface(t)
    def d(x, y): return (((x[0] - y[0]) * spacing[0])**2 + ((x[1] - y[1]) * spacing[1])**2)**.5
    return [min(d(x, y) for y in b) for x in a], [min(d(x, y) for x in a) for y in b]


def brute_percentile(d, q=.95):
    d, at = sorted(d), q * (len(d) - 1)
    return d[int(at)] + (at - int(at)) * (d[min(int(at) + 1, len(d) - 1)] - d[int(at)])


@pytest.mark.parametrize('spacing', [(1., 1.), (.5, .3)])
@pytest.mark.parametrize('seed', range(8))
def test_distances_by_brute_force(seed, spacing):
    p, t = blobs(seed, (22, 26), level=.5)
    there, back = brute_distances(p, t, spacing)
    assert M.hd95(p, t, spacing) == pytest.approx(max(brute_percentile(there), brute_percentile(back)), abs=1e-9)
    assert M.hd95(p, t, spacing, percentile=100) == pytest.approx(max(there + back), abs=1e-9)
    assert M.assd(p, t, spacing) == pytest.approx(sum(there + back) / len(there + back), abs=1e-9)
    for tol in (0, .55, 1.01, 2.3):
        assert M.nsd(p, t, tol, spacing) == pytest.approx(sum(d <= tol for d in there + back) / len(there + back),
                                                          abs=1e-12)


@pytest.mark.parametrize('seed', range(8))
def test_distances_by_distance_transform(seed):
    p, t = blobs(seed, (90, 130))
    sp, s_t = (m ^ ndimage.binary_erosion(m) for m in (p, t))
    there, back = (ndimage.distance_transform_edt(~to, sampling=(.2, .3))[of] for of, to in ((sp, s_t), (s_t, sp)))
    got = M.surface_distances(p, t, (.2, .3))
    np.testing.assert_allclose(got[0], there, atol=1e-12)
    np.testing.assert_allclose(got[1], back, atol=1e-12)


@pytest.mark.parametrize('seed', range(6))
@pytest.mark.parametrize('layers', [1, 2, 7])
def test_boundary_iou_by_repeated_erosion(seed, layers):
    "The definition of Cheng et al.: pad by one, erode `d` times by a 3 x 3 square, subtract"
    p, t = blobs(seed)
    bands = [m & ~ndimage.binary_erosion(np.pad(m, 1), np.ones((3, 3)), iterations=layers)[1:-1, 1:-1] for m in (p, t)]
    want = (bands[0] & bands[1]).sum() / (bands[0] | bands[1]).sum()
    assert M.boundary_iou(p, t, width=layers) == pytest.approx(want, abs=1e-12)
    assert M.boundary_iou(p, t, width=layers * .3, spacing=(.3, .3)) == pytest.approx(want, abs=1e-12)


def test_boundary_iou_with_oblong_pixels():
    p, t = blobs(4)
    # 1.2 mm: 4 rows of 0.3, 2 columns of 0.6
    bands = [m & ~ndimage.binary_erosion(m, np.ones((9, 5))) for m in (p, t)]
    want = (bands[0] & bands[1]).sum() / (bands[0] | bands[1]).sum()
    assert M.boundary_iou(p, t, 1.2, (.3, .6)) == pytest.approx(want, abs=1e-12)


def test_score_pair_equals_its_parts():
    p, t = blobs(6)
    s = M.score_pair(p, t, (.3, .6), True, tolerance=.7, width=1.2)
    assert s['hd95'] == M.hd95(p, t, (.3, .6)) and s['assd'] == M.assd(p, t, (.3, .6))
    assert s['nsd'] == M.nsd(p, t, .7, (.3, .6)) and s['boundary_iou'] == M.boundary_iou(p, t, 1.2, (.3, .6))


def test_boundary_iou_defaults_to_two_percent_of_the_diagonal():
    p, t = blobs(3, (300, 400))                     # the diagonal is 500
    assert M.boundary_iou(p, t) == M.boundary_iou(p, t, width=10) != M.boundary_iou(p, t, width=11)


def test_nsd_defaults_to_one_percent_of_the_diagonal():
    p, t = blobs(3, (300, 400))
    assert M.nsd(p, t) == M.nsd(p, t, 5) == M.score_pair(p, t, distances=True)['nsd'] != M.nsd(p, t, 4)
    assert M.nsd(p, t, spacing=(.1, .1)) == M.nsd(p, t, 5)


def test_the_place_in_the_image_does_not_matter():
    p, t = blobs(1, (40, 40))
    p, t = np.pad(p, 5), np.pad(t, 5)
    big = [np.zeros((400, 300), bool) for _ in 'ab']
    for m, b in zip((p, t), big, strict=True): b[310:360, 7:57] = m
    options = dict(distances=True, tolerance=2, width=3)
    a, b = M.score_pair(p, t, **options), M.score_pair(*big, **options)
    for name in ('hd95', 'assd', 'nsd', 'boundary_iou', 'dice'): assert a[name] == pytest.approx(b[name], abs=1e-12)


def test_spacing_scales_lengths_only():
    p, t = blobs(2)
    a, b = M.score_pair(p, t, distances=True), M.score_pair(p, t, spacing=(.02, .02), distances=True)
    for name in M.METRICS: assert b[name] == pytest.approx(a[name] * (.02 if name in LENGTHS else 1), abs=1e-9)


@pytest.mark.slow
@pytest.mark.parametrize('spacing', [None, (1., 1.), (.4, .25)])
def test_monai_agrees(spacing):
    torch, monai = pytest.importorskip('torch'), pytest.importorskip('monai.metrics')
    for seed in range(12):
        p, t = blobs(seed, (130, 170), level=.4)
        x, y = (torch.from_numpy(m)[None, None] for m in (p, t))
        kw = dict(include_background=True, spacing=spacing)
        hausdorff = monai.compute_hausdorff_distance(x, y, percentile=95, **kw).item()
        assert M.hd95(p, t, spacing) == pytest.approx(hausdorff, rel=1e-5)
        mean = monai.compute_average_surface_distance(x, y, symmetric=True, **kw).item()
        assert M.assd(p, t, spacing) == pytest.approx(mean, rel=1e-5)
        for tol in (.6, 1.2, 3.):
            surface_dice = monai.compute_surface_dice(x, y, [tol], **kw).item()
            assert M.nsd(p, t, tol, spacing) == pytest.approx(surface_dice, rel=1e-5)
        dice = monai.compute_dice(x, y, include_background=True).item()
        assert M.dice(p, t) == pytest.approx(dice, rel=1e-6)
        assert M.jaccard(p, t) == pytest.approx(monai.compute_iou(x, y, include_background=True).item(), rel=1e-6)


# Bias

def disc(radius, shift=0, shape=(200, 240)):
    row, col = np.indices(shape)
    return np.hypot(row - shape[0] / 2, col - shape[1] / 2 - shift) <= radius


@pytest.mark.parametrize('radius', [30, 55, 80])
def test_bias_of_discs(radius):
    "Concentric discs: the signed distance is the difference of the radii, the ratio that of their squares."
    p, t = disc(radius), disc(50)
    assert M.border_bias(p, t) == pytest.approx(radius - 50, abs=.4)
    assert M.border_bias(p, t, (.1, .1)) == pytest.approx((radius - 50) / 10, abs=.04)
    assert M.relative_bias(p, t) == pytest.approx((radius - 50) / 100, abs=.004) == M.relative_bias(p, t, (.1, .1))
    assert M.area_ratio(p, t) == pytest.approx((radius / 50)**2, rel=.01)
    assert M.border_bias(disc(50, 12), t) == pytest.approx(0, abs=.05) and M.assd(disc(50, 12), t) > 5


@pytest.mark.parametrize('seed', range(6))
def test_bias_by_a_loop(seed):
    p, t = blobs(seed, (22, 26), level=.5)
    there, back = brute_distances(p, t, (.5, .3))
    signed = [-d if t[x] else d for d, x in zip(there, map(tuple, brute_surface(p)), strict=True)]
    signed += [d if p[x] else -d for d, x in zip(back, map(tuple, brute_surface(t)), strict=True)]
    assert M.border_bias(p, t, (.5, .3)) == pytest.approx(sum(signed) / len(signed), abs=1e-9)


# The registry, and pixels that nobody knows

def test_a_metric_from_minus_one_to_one_is_one_call(monkeypatch):
    monkeypatch.setattr(M, 'METRICS', dict(M.METRICS))
    def mcc(c): return (c.tp * c.tn - c.fp * c.fn) / ((c.tp + c.fp) * (c.tp + c.fn) * (c.tn + c.fp) * (c.tn + c.fn))**.5
    M.register_metric(M.Metric('mcc', mcc, (-1, 1)))
    assert M.score_pair(~SQUARE, SQUARE)['mcc'] == -1
    assert M.overlap(box(1, 5, 3, 7), SQUARE)['mcc'] == pytest.approx((8 * 24 - 64) / (16 * 32))
    assert M.METRICS['mcc'].error(-1) == 2 and M.METRICS['hd95'].error(7) == 7


@given(pairs, st.randoms())
def test_unknown_pixels_do_not_matter(pair, random):
    p, t = pair
    known = np.array([[random.random() < .7 for _ in row] for row in p])
    known.flat[0] = True
    # anything may stand there
    lies = [np.where(known, m, [[random.random() < .5 for _ in row] for row in m]) for m in pair]
    assert M.confusion(p, t, known) == M.confusion(*lies, known) and sum(M.confusion(p, t, known)) == known.sum()
    assert M.confusion(p, t, known) == M.confusion(p[known][None], t[known][None])
    assert M.score_pair(*lies, distances=True,
                        known=known) == pytest.approx(M.score_pair(p, t, distances=True, known=known), nan_ok=True)


def test_known_pixels_are_checked():
    for known, words in ((E, 'marks no pixel'), (F[:3], 'shape'), (F * 255, '255')):
        with pytest.raises(InputError, match=words): M.score_pair(SQUARE, SQUARE, known=known)


# Pictures and imports

@given(pairs, st.sampled_from([0., .4, 1.]))
@settings(max_examples=30)
def test_overlay_colours_say_what_is_wrong(pair, alpha):
    p, t = pair
    image = np.full((*p.shape, 3), (200, 100, 50), np.uint8)
    out = M.overlay_errors(image, p, t, alpha)
    for r, c in np.ndindex(p.shape):
        colours = {(1, 1): (255, 255, 0), (1, 0): (255, 0, 0), (0, 1): (0, 255, 0), (0, 0): None}
        colour = colours[int(p[r, c]), int(t[r, c])]
        want = image[r, c] if colour is None else np.round((1 - alpha) * image[r, c] + alpha * np.array(colour))
        assert (out[r, c] == want).all()
    assert (image == (200, 100, 50)).all()                       # the given image is left alone


def test_numbers_out_of_range_are_refused():
    image = np.zeros((6, 8, 3), np.uint8)
    for alpha in (-.1, 1.1, 40):
        with pytest.raises(InputError, match=f'alpha {alpha}: is not within'): M.overlay_errors(image, SQUARE, F, alpha)
    for percentile in (-1, 101):
        with pytest.raises(InputError, match=f'percentile {percentile}: '): M.hd95(SQUARE, F, percentile=percentile)


def test_metrics_imports_nothing_heavy():
    import subprocess
    import sys
    heavy = ('torch', 'fastai', 'pandas', 'matplotlib', 'monai')
    code = f'import sys, lesion_seg.metrics; sys.exit(sum(m in sys.modules for m in {heavy}))'
    assert subprocess.run([sys.executable, '-c', code], cwd=Path(M.__file__).parents[1]).returncode == 0


def test_a_tolerance_includes_its_own_length():
    "Three pixels of 0.4 mm are 1.2000000000000002 mm in floating point, and within 1.2 mm."
    a, b = np.zeros((2, 12, 12), bool)
    a[5, 4] = b[5, 7] = True
    assert M.nsd(a, b, tolerance=1.2, spacing=(.4, .4)) == 1
    assert M.nsd(a, b, tolerance=1.19, spacing=(.4, .4)) == 0
