"""lesion_seg.metrics against values worked out by hand, brute force, scipy, scikit-learn and MONAI."""
import json
from pathlib import Path

import matplotlib
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import ndimage, stats

from lesion_seg import metrics as M
from lesion_seg.data import InputError

matplotlib.use('Agg')

E, F = np.zeros((6, 8), bool), np.ones((6, 8), bool)   # empty and full masks


def blobs(seed, shape=(48, 60), level=.15):
    "A pair of masks with ragged borders, holes and islands, often touching the border of the image"
    rng = np.random.default_rng(seed)
    base = ndimage.gaussian_filter(rng.normal(size=shape), 6)
    noise = [ndimage.gaussian_filter(rng.normal(size=shape), 2) for _ in 'ab']
    scores = [base / base.std() + level * n / n.std() for n in noise]
    return tuple(s > np.quantile(s, .7) for s in scores)


masks = arrays(bool, st.tuples(st.integers(1, 9), st.integers(1, 9)))
pairs = st.tuples(st.integers(1, 9), st.integers(1, 9)).flatmap(lambda s: st.tuples(arrays(bool, s), arrays(bool, s)))


# Golden cases: a 6 x 8 image (48 pixels) whose truth is the 4 x 4 square in rows 1-4, columns 1-4; counts are tp, fp, fn, tn.

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
    want = dict(dice=dice, jaccard=jaccard, pixel_accuracy=accuracy, sensitivity=sens, specificity=spec, precision=prec)
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
    for name in M.METRICS: assert 0 <= s[name] <= (M.image_diagonal(p.shape) if name in M.DISTANCES else 1)
    for name in ('dice', 'jaccard', 'pixel_accuracy', *M.DISTANCES, 'nsd', 'boundary_iou'):
        assert s[name] == pytest.approx(r[name], abs=1e-12)                       # symmetric
    assert s['jaccard'] == pytest.approx(s['dice'] / (2 - s['dice']), abs=1e-12)
    if p.any() and t.any(): assert s['precision'] == r['sensitivity']            # each is the other's mirror image
    assert sum(M.confusion(p, t)) == p.size


@given(masks)
def test_identity(m):
    assert M.score_pair(m, m, distances=True) == {n: 0. if n in M.DISTANCES else 1. for n in M.METRICS}


@given(pairs, st.sampled_from([(1, 1), (.5, .5), (2, .7)]))
@settings(max_examples=60)
def test_transposing_and_flipping_change_nothing(pair, spacing):
    p, t = pair
    a, b = M.score_pair(p, t, spacing, True), M.score_pair(p.T[::-1], t.T[::-1], spacing[::-1], True)
    assert a == pytest.approx(b, abs=1e-9)


# Empty masks

def test_empty_policy():
    both = M.score_pair(E, E, distances=True)
    assert both == {n: 0. if n in M.DISTANCES else 1. for n in M.METRICS}
    nothing_claimed = M.score_pair(E, SQUARE, distances=True)
    assert nothing_claimed == dict(dice=0, jaccard=0, pixel_accuracy=32/48, sensitivity=0, specificity=1, precision=0,
                                   hd95=10, assd=10, nsd=0, boundary_iou=0)      # 6 x 8: the diagonal is 10
    nothing_there = M.score_pair(SQUARE, E, spacing=(.5, .5), distances=True)
    assert nothing_there == dict(dice=0, jaccard=0, pixel_accuracy=32/48, sensitivity=1, specificity=32/48, precision=0,
                                 hd95=5, assd=5, nsd=0, boundary_iou=0)
    assert M.specificity(SQUARE, F) == 1


@given(pairs)
def test_no_real_pair_is_as_far_as_an_empty_one(pair):
    p, t = pair
    if p.any() and t.any(): assert M.hd95(p, t, percentile=100) < M.hd95(p & ~p, t)


# Input checks

BAD = [
    (SQUARE, SQUARE.astype(np.uint8) * 255, 'the truth holds values from 0 to 255'),          # once gave Dice 1.99
    (SQUARE.astype(np.int8) * -1, SQUARE, 'the prediction holds values from -1 to 0'),
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
                                           ([[np.inf, 0]], 'sigmoid'), ([[0, 255]], 'holds floats')])
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
    return [(r, c) for r, c in np.argwhere(m) if not all(inside(r + i, c + j) for i, j in ((0, 1), (1, 0), (0, -1), (-1, 0)))]


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
        assert M.nsd(p, t, tol, spacing) == pytest.approx(sum(d <= tol for d in there + back) / len(there + back), abs=1e-12)


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
    bands = [m & ~ndimage.binary_erosion(m, np.ones((9, 5))) for m in (p, t)]        # 1.2 mm: 4 rows of 0.3, 2 columns of 0.6
    assert M.boundary_iou(p, t, 1.2, (.3, .6)) == pytest.approx((bands[0] & bands[1]).sum() / (bands[0] | bands[1]).sum(), abs=1e-12)


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
    for name in M.METRICS: assert b[name] == pytest.approx(a[name] * (.02 if name in M.DISTANCES else 1), abs=1e-9)


@pytest.mark.slow
@pytest.mark.parametrize('spacing', [None, (1., 1.), (.4, .25)])
def test_monai_agrees(spacing):
    torch, monai = pytest.importorskip('torch'), pytest.importorskip('monai.metrics')
    for seed in range(12):
        p, t = blobs(seed, (130, 170), level=.4)
        x, y = (torch.from_numpy(m)[None, None] for m in (p, t))
        kw = dict(include_background=True, spacing=spacing)
        assert M.hd95(p, t, spacing) == pytest.approx(monai.compute_hausdorff_distance(x, y, percentile=95, **kw).item(), rel=1e-5)
        assert M.assd(p, t, spacing) == pytest.approx(monai.compute_average_surface_distance(x, y, symmetric=True, **kw).item(), rel=1e-5)
        for tol in (.6, 1.2, 3.):
            assert M.nsd(p, t, tol, spacing) == pytest.approx(monai.compute_surface_dice(x, y, [tol], **kw).item(), rel=1e-5)
        dice = monai.compute_dice(x, y, include_background=True).item()
        assert M.dice(p, t) == pytest.approx(dice, rel=1e-6)
        assert M.jaccard(p, t) == pytest.approx(monai.compute_iou(x, y, include_background=True).item(), rel=1e-6)


# Intervals

values = st.lists(st.floats(0, 1), min_size=2, max_size=30)


@given(values, st.sampled_from([.5, .9, .95, .99]))
def test_t_interval_equals_scipy(x, level):
    lo, hi = M.t_interval(x, level)
    if np.std(x) > 1e-9:
        want = stats.ttest_1samp(x, 0).confidence_interval(level)
        assert (lo, hi) == pytest.approx((want.low, want.high), abs=1e-9)
    clipped = M.t_interval(x, level, bounds=(0, 1))
    assert 0 <= clipped[0] <= clipped[1] <= 1 and clipped == (min(max(lo, 0), 1), min(max(hi, 0), 1))


def test_one_value_has_no_interval():
    assert np.isnan(M.t_interval([.8])).all() and np.isnan(M.bootstrap_interval([.8])).all()


@pytest.mark.parametrize('f', [M.t_interval, M.bootstrap_interval, M.isic_2017_score, M.isic_2018_score, M.failure_rate])
@pytest.mark.parametrize('x', [[], [.5, np.nan], [np.inf, .1], [[.1, .2]]])
def test_bad_values_are_refused(f, x):
    with pytest.raises(InputError): f(x)


@pytest.mark.parametrize('level', [0, 1, 95, -.5])
def test_bad_levels_are_refused(level):
    with pytest.raises(InputError, match='level'): M.t_interval([.1, .2], level)
    with pytest.raises(InputError, match='level'): M.bootstrap_interval([.1, .2], level=level)


def test_bootstrap_equals_scipy_where_groups_are_single_images():
    x = np.random.default_rng(3).beta(6, 2, 150)
    want = stats.bootstrap((x,), np.mean, method='percentile', n_resamples=20000, random_state=0).confidence_interval
    assert M.bootstrap_interval(x, n=20000) == pytest.approx((want.low, want.high), abs=1e-3)


def test_bootstrap_by_group_equals_a_plain_loop():
    rng = np.random.default_rng(5)
    groups = np.repeat([f'p{i}' for i in range(25)], rng.integers(1, 9, 25))
    x = 3 + rng.normal(size=25)[np.unique(groups, return_inverse=True)[1]] + .1 * rng.normal(size=len(groups))
    members = [x[groups == g] for g in np.unique(groups)]
    means = [np.concatenate([members[i] for i in rng.integers(25, size=25)]).mean() for _ in range(20000)]
    got, width = M.bootstrap_interval(x, groups, n=20000), np.ptp(np.quantile(means, [.025, .975]))
    assert got == pytest.approx(np.quantile(means, [.025, .975]), abs=.03 * width)
    assert np.ptp(got) > 1.5 * np.ptp(M.bootstrap_interval(x))          # knowing the patients makes us less sure


def test_bootstrap_is_repeatable_and_steered_by_its_seed():
    x = np.random.default_rng(0).random(40)
    assert M.bootstrap_interval(x, seed=1) == M.bootstrap_interval(x, seed=1) != M.bootstrap_interval(x, seed=2)


@pytest.mark.parametrize('nobody', [None, '', float('nan')])
def test_images_without_a_patient_are_not_lumped_into_one(nobody, table):
    with pytest.raises(InputError, match='2 of 3 images have no group'): M.bootstrap_interval([.1, .2, .3], ['p', nobody, nobody])
    with pytest.raises(InputError, match='1 of 30'): M.summarise(table.assign(group=[nobody] + ['p'] * 29))


def test_bootstrap_depends_on_membership_not_on_names_or_order():
    x, g = np.arange(12.), np.repeat(list('abcd'), 3)
    assert M.bootstrap_interval(x, g) == M.bootstrap_interval(x, [f'patient {i}' for i in np.repeat(range(4), 3)])
    order = np.random.default_rng(0).permutation(12)
    assert M.bootstrap_interval(x[order], g[order]) == pytest.approx(M.bootstrap_interval(x, g), abs=1e-12)


@given(st.integers(1, 200).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
@settings(max_examples=50)
def test_wilson_by_its_formula(kn):
    (k, n), z = kn, stats.norm.ppf(.975)
    p = k / n
    mid, half = p + z * z / (2 * n), z * (p * (1 - p) / n + z * z / (4 * n * n))**.5
    lo, hi = M.wilson_interval(k, n)
    assert (lo, hi) == pytest.approx(((mid - half) / (1 + z * z / n), (mid + half) / (1 + z * z / n)), abs=1e-9)
    assert 0 <= lo <= p + 1e-12 and p - 1e-12 <= hi <= 1


def test_isic_scores_of_hand_made_images():
    "Predictions of a 10 x 10 lesion in a 20 x 20 image with Jaccard 1, 0.65 exactly, 0.64, 0 and (both empty) 1"
    truth, empty = np.zeros((20, 20), bool), np.zeros((20, 20), bool)
    truth[:10, :10] = True
    def part(n): return truth & (np.cumsum(truth).reshape(20, 20) <= n)          # the first n pixels of the lesion
    table = M.evaluate([('a', None, truth, truth), ('b', None, part(65), truth), ('c', None, part(64), truth),
                        ('d', None, empty, truth), ('e', None, empty, empty)])
    assert table.jaccard.tolist() == pytest.approx([1, .65, .64, 0, 1], abs=1e-12)
    assert M.isic_2017_score(table.jaccard) == pytest.approx((1 + .65 + .64 + 0 + 1) / 5, abs=1e-12)
    assert M.isic_2018_score(table.jaccard) == pytest.approx((1 + .65 + 1) / 5, abs=1e-12)
    assert M.failure_rate(table.jaccard) == 2 / 5 and M.summarise(table)['failures'] == 2


# Tables, summaries, reports

@pytest.fixture(scope='module')
def table():
    return M.evaluate(((f'{i:03}', f'p{i // 3}', *blobs(i)) for i in range(30)), distances=True)


def test_the_unit_of_the_mean_is_the_image():
    "Neither pooled pixels (the large image would decide) nor means of batches (the last one would weigh too much)"
    large, small, none = (np.zeros((64, 64), bool) for _ in range(3))
    large[2:60, 2:60], small[:2, :2] = True, True
    items = [('l', None, large, large)] + [(f's{i}', None, none, small) for i in range(8)]
    summary = M.summarise(M.evaluate(items))
    assert summary['metrics']['dice']['mean'] == pytest.approx(1 / 9, abs=1e-12)
    assert M.dice(np.stack([i[2] for i in items]).reshape(-1, 64), np.stack([i[3] for i in items]).reshape(-1, 64)) > .99


def test_evaluate_keeps_order_and_counts(table):
    assert table.id.tolist() == [f'{i:03}' for i in range(30)] and set(zip(table.height, table.width, strict=True)) == {(48, 60)}
    assert (table[['tp', 'fp', 'fn', 'tn']].sum(axis=1) == 48 * 60).all()
    for i in (0, 17): assert table.loc[i, list(M.METRICS)].to_dict() == M.score_pair(*blobs(i), distances=True)
    assert set(table.unit) == {'px'} and 'hd95' not in M.evaluate([('a', None, *blobs(0))])
    assert M.evaluate([('a', None, *blobs(0))], distances=True, spacing=(.1, .1)).unit[0] == 'mm'


def test_evaluate_accepts_probabilities_and_names_the_image_that_is_wrong():
    p, t = blobs(0)
    assert M.evaluate([('a', '', p * .4, t)], threshold=.3).dice[0] == M.dice(p, t)
    assert M.evaluate([('a', '', p, t)]).group[0] == 'a'
    for bad, words in ((p * np.nan, 'NaN'), (p[:4], 'shape'), (p * 7., 'sigmoid')):
        with pytest.raises(InputError, match=f'^b: .*{words}'): M.evaluate([('a', None, p, t), ('b', None, bad, t)])
    with pytest.raises(InputError, match='^b: .*255'): M.evaluate([('b', None, p, t * np.uint8(255))])
    with pytest.raises(InputError, match='twice'): M.evaluate([('a', None, p, t)] * 2)
    with pytest.raises(InputError, match='no images'): M.evaluate([])


def test_evaluate_takes_items_one_by_one():
    alive = []

    def items():
        for i in range(5):
            alive.append(i)
            yield f'{i}', None, *blobs(i)
            if i == 2: raise RuntimeError('stop here')
    with pytest.raises(RuntimeError): M.evaluate(items())
    assert alive == [0, 1, 2]


def test_summary(table):
    s = M.summarise(table, level=.9, n=500, seed=7)
    assert (s['n'], s['groups'], s['level'], s['unit']) == (30, 10, .9, 'px') and list(s['metrics']) == list(M.METRICS)
    for name, m in s['metrics'].items():
        x = table[name]
        bounds = (0, np.inf) if name in M.DISTANCES else (0, 1)
        assert (m['mean'], m['std'], m['median']) == pytest.approx((x.mean(), x.std(), x.median()), abs=1e-12)
        assert m['ci'] == pytest.approx(M.t_interval(x, .9, bounds)) and 0 <= m['ci'][0] and (name in M.DISTANCES or m['ci'][1] <= 1)
        assert m['bootstrap_ci'] == pytest.approx(M.bootstrap_interval(x, table.group, .9, 500, 7))
    assert s['isic_2018'] == M.isic_2018_score(table.jaccard)
    assert s['isic_2018_ci'] == pytest.approx(M.bootstrap_interval(table.jaccard.where(table.jaccard >= .65, 0), table.group, .9, 500, 7))
    assert s['failures'] == (table.jaccard < .65).sum() and s['failure_rate_ci'] == list(M.wilson_interval(s['failures'], 30, .9))
    assert json.loads(json.dumps(s, allow_nan=False)) == s


def test_intervals_never_pass_one():
    t = pd.DataFrame(dict(id=list('abc'), group=list('abc'), jaccard=[1., 1., .7], dice=[1., 1., .8]))
    assert M.t_interval(t.dice)[1] > 1 and M.summarise(t)['metrics']['dice']['ci'][1] == 1


def test_text_report_format():
    t = pd.DataFrame(dict(id=list('abc'), group=list('aab'), dice=[.6, .8, 1.], jaccard=[.5, .7, .9]))
    lines = M.text_report(M.summarise(t)).splitlines()
    # t of 2 degrees of freedom 4.30265, s = 0.2: half width 0.4968, so the upper bounds pass 1 and are clipped
    assert lines[:4] == ['Evaluation Results', '=' * 50, 'dice: 0.8000 +/- 0.2000 (95% CI: [0.3032, 1.0000])',
                         'jaccard: 0.7000 +/- 0.2000 (95% CI: [0.2032, 1.0000])']
    assert 'ISIC 2018 score: 0.5333' in '\n'.join(lines) and 'Failures (Jaccard < 0.65): 1 of 3 = 0.3333 (95% Wilson CI' in '\n'.join(lines)
    assert '97.5% CI' in M.text_report(M.summarise(t, level=.975)) and '95%' not in M.text_report(M.summarise(t, level=.8))


def test_units_stand_in_the_report(table):
    assert '\nhd95 [px]: ' in M.text_report(M.summarise(table)) and '\nhd95 [mm]: ' in M.text_report(M.summarise(table.assign(unit='mm')))


@pytest.mark.parametrize('suffix', ['.csv', '.parquet', '.CSV'])
def test_tables_survive_a_round_trip(table, tmp_path, suffix):
    tricky = table.assign(id=['0007', 'NA', 'null', '1e5', 'Größe', 'a,b', ' c'] + table.id.tolist()[7:])
    path = M.save_table(tricky, tmp_path/f'scores{suffix}')
    pd.testing.assert_frame_equal(M.load_table(path), tricky, check_dtype=False, rtol=0, atol=0)
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


def test_nothing_half_written(table, tmp_path, monkeypatch):
    path = M.save_table(table, tmp_path/'t.csv')
    before = path.read_bytes()

    def fails(self, target, **_):
        Path(target).write_text('half a ta')
        raise OSError('disk full')
    monkeypatch.setattr(pd.DataFrame, 'to_csv', fails)
    with pytest.raises(OSError): M.save_table(table, path)
    assert path.read_bytes() == before and len(list(tmp_path.iterdir())) == 1
    with pytest.raises(ValueError): M.save_summary(dict(x=float('nan')), tmp_path/'s.json')
    assert len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize('text, words', [('a;b\n1;2\n', 'lacks the column id'), ('', 'not a table'),
                                         ('id,group,jaccard\na,a,x\n', 'x'), ('id,group,jaccard\na,a,\n', '')])
def test_foreign_tables_are_refused_by_name(tmp_path, text, words):
    (tmp_path/'t.csv').write_text(text)
    with pytest.raises(InputError, match=f't.csv.*{words}'): M.load_table(tmp_path/'t.csv')
    (tmp_path/'t.parquet').write_text(text)
    with pytest.raises(InputError, match='t.parquet'): M.load_table(tmp_path/'t.parquet')


def test_tables_with_holes_are_refused(table):
    for f in (M.summarise, M.plot_distribution, M.worst, lambda t: M.compare(t, table)):
        with pytest.raises(InputError, match='004: .*NaN'): f(table.assign(jaccard=table.jaccard.where(table.id != '004')))
        with pytest.raises(InputError, match='no images'): f(table[:0])
        with pytest.raises(InputError, match='lacks the column'): f(table.drop(columns='id'))


# Two models

def compared(ja, jb, groups=None, metric='jaccard', **kwargs):
    ids = [f'i{k}' for k in range(len(ja))]
    a, b = (pd.DataFrame({'id': ids, 'group': groups or ids, metric: j}) for j in (ja, jb))
    return M.compare(a, b[::-1], metric, **kwargs)


def test_compare_by_hand():
    r = compared([.9, .8, .5, .7], [.8, .8, .6, .705])
    assert r['difference'] == pytest.approx((.1 + 0 - .1 - .005) / 4, abs=1e-12)
    assert (r['wins'], r['ties'], r['losses'], r['n'], r['groups']) == (1, 2, 1, 4, 4)
    far = compared([3., 9., 1.], [5., 8., 4.], metric='hd95', tie=.5)
    assert (far['wins'], far['losses']) == (2, 1) and far['difference'] == pytest.approx(-4 / 3)     # a smaller distance wins
    assert json.loads(json.dumps(r, allow_nan=False)) == r


@given(st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), min_size=2, max_size=12))
@settings(max_examples=40)
def test_compare_is_antisymmetric(rows):
    a, b = map(list, zip(*rows, strict=True))
    r, s = compared(a, b), compared(b, a)
    assert (r['wins'], r['ties'], r['losses']) == (s['losses'], s['ties'], s['wins'])
    assert r['difference'] == pytest.approx(-s['difference'], abs=1e-12) and r['ci'] == pytest.approx([-x for x in s['ci'][::-1]], abs=1e-9)


def test_compare_resamples_patients():
    shift = np.repeat([.1, -.08, .05, .12, -.06, .09], 20)
    one, many = compared(.7 + shift, [.7] * 120), compared(.7 + shift, [.7] * 120, [f'p{k // 20}' for k in range(120)])
    assert one['ci'][0] > 0 > many['ci'][0]                      # 120 images convince, six patients do not


def test_compare_refuses_unlike_tables(table):
    with pytest.raises(InputError, match='003'): M.compare(table, table[table.id != '003'])
    with pytest.raises(InputError, match='002: .*groups'): M.compare(table, table.assign(group=table.group.where(table.id != '002', 'z')))
    with pytest.raises(InputError, match='twice'): M.compare(pd.concat([table, table]), table)


# Pictures

def test_worst_first(table):
    assert M.worst(table, 3).jaccard.tolist() == sorted(table.jaccard)[:3]
    assert M.worst(table, 3, 'hd95').hd95.tolist() == sorted(table.hd95)[:-4:-1]
    assert M.worst(table.assign(jaccard=1.), 2).id.tolist() == ['000', '001'] and len(M.worst(table, 99)) == 30


def test_plots(table, tmp_path):
    import matplotlib.pyplot as plt
    loaded = []

    def load(id):
        loaded.append(id)
        p, t = blobs(int(id))
        return np.full((*t.shape, 3), 200, np.uint8), p, t if id != loaded[0] else t & ~t
    fig = M.plot_worst(table, load, n=4, cols=3)
    assert loaded == M.worst(table, 4).id.tolist() and len(fig.axes) == 6
    assert [ax.get_title().split(':')[0] for ax in fig.axes[:4]] == loaded
    dist = M.plot_distribution(table, ('jaccard', 'hd95'))
    assert [ax.get_xlabel() for ax in dist.axes] == ['jaccard', 'hd95']
    assert sum(p.get_height() for p in dist.axes[0].patches) == 30
    dist.savefig(tmp_path/'d.png')
    assert (tmp_path/'d.png').stat().st_size > 1000 and not plt.get_fignums()      # returned, not left open


@given(pairs, st.sampled_from([0., .4, 1.]))
@settings(max_examples=30)
def test_overlay_colours_say_what_is_wrong(pair, alpha):
    p, t = pair
    image = np.full((*p.shape, 3), (200, 100, 50), np.uint8)
    out = M.overlay_errors(image, p, t, alpha)
    for r, c in np.ndindex(p.shape):
        colour = {(1, 1): (255, 255, 0), (1, 0): (255, 0, 0), (0, 1): (0, 255, 0), (0, 0): None}[int(p[r, c]), int(t[r, c])]
        want = image[r, c] if colour is None else np.round((1 - alpha) * image[r, c] + alpha * np.array(colour))
        assert (out[r, c] == want).all()
    assert (image == (200, 100, 50)).all()                       # the given image is left alone


def test_metrics_imports_neither_torch_nor_matplotlib():
    import subprocess
    import sys
    code = "import sys, lesion_seg.metrics; sys.exit(sum(m in sys.modules for m in ('torch', 'fastai', 'matplotlib', 'monai')))"
    assert subprocess.run([sys.executable, '-c', code], cwd=Path(M.__file__).parents[1]).returncode == 0
