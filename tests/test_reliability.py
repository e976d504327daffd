"Calibration and failure detection against scikit-learn and against loops."
import numpy as np
import pytest
from scipy.special import expit
from sklearn.calibration import calibration_curve
from sklearn.metrics import average_precision_score, brier_score_loss, log_loss, roc_auc_score

from lesion_seg.core import InputError
from lesion_seg.reliability import (ace, aupr, auroc, aurc, border_band, brier, calibration_summary, curve, ece,
                                    failure_report, fit_review, nll,
                                    reliability, review_recall, risk_coverage)


@pytest.fixture(scope='module')
def pixels():
    rng = np.random.default_rng(3)
    p = expit(rng.normal(-1, 2, (60, 80)))
    return p, rng.random(p.shape) < p ** 1.3


def ece_by_loop(p, y, bins):
    total = 0
    for b in range(bins):
        inside = (p >= b / bins) & (p < (b + 1) / bins)
        if inside.any(): total += inside.sum() / p.size * abs(p[inside].mean() - y[inside].mean())
    return total


@pytest.mark.parametrize('bins', [10, 15, 20])
def test_ece_against_a_loop_and_scikit_learn(pixels, bins):
    p, y = pixels
    r = reliability(p, y)
    assert ece(r, bins) == pytest.approx(ece_by_loop(p, y, bins), abs=1e-12)
    frequency, mean = calibration_curve(y.ravel(), p.ravel(), n_bins=bins)
    np.testing.assert_allclose(curve(r, bins)[1:], [mean, frequency], atol=1e-12)


def test_ace_against_scikit_learns_quantile_bins(pixels):
    p, y = pixels
    frequency, mean = calibration_curve(y.ravel(), p.ravel(), n_bins=15, strategy='quantile')
    # its cuts fall between ours
    assert ace(reliability(p, y)) == pytest.approx(np.abs(frequency - mean).mean(), abs=.004)


def test_equal_mass_bins_cover_every_pixel_once(pixels):
    share, p, y = curve(reliability(*pixels), 15, mass=True)
    assert share.sum() == pytest.approx(1) and (np.diff(p) > 0).all() and len(share) == 15
    assert share @ p == pytest.approx(pixels[0].mean()) and share @ y == pytest.approx(pixels[1].mean())
    heavy = reliability(np.r_[np.zeros(90), np.linspace(.1, .9, 10)], np.r_[np.zeros(90), np.ones(10)] > 0)
    assert curve(heavy, 5, mass=True)[0].sum() == pytest.approx(1)


def test_brier_and_nll_against_scikit_learn(pixels):
    p, y = pixels
    r = reliability(p, y)
    assert brier(r) == pytest.approx(brier_score_loss(y.ravel(), p.ravel()))
    assert nll(r) == pytest.approx(log_loss(y.ravel(), p.ravel()))


def test_sums_of_halves_are_the_sums_of_the_whole(pixels):
    p, y = pixels
    whole, halves = reliability(p, y), reliability(p[:20], y[:20]) + reliability(p[20:], y[20:])
    np.testing.assert_allclose([*whole.n, *whole.p, *whole.y, whole.square, whole.nll],
                               [*halves.n, *halves.p, *halves.y, halves.square, halves.nll])


def test_band_of_a_disc_is_a_ring():
    y, x = np.mgrid[:256, :256]
    r = np.hypot(y - 128, x - 128)
    band = border_band(r <= 60)
    assert band[(r > 52) & (r < 69)].all() and not band[(r < 48) | (r > 72)].any()
    small = border_band(np.hypot(*np.mgrid[-64:64, -64:64]) <= 30)
    assert small.mean() == pytest.approx(band.mean(), rel=.05), 'the width goes with the size of the map'


def test_summary_of_two_images_by_hand():
    p, y = [np.full((64, 64), .25), np.full((64, 64), .75)], [np.tile(np.arange(64) < 16, (64, 1))] * 2
    found, sums = calibration_summary(p, y)
    assert found['set']['ece'] == pytest.approx(.25)  # 0 for the first map, 1/2 for the second
    assert found['set']['image_ece'] == pytest.approx(.25)
    assert found['band']['images'] == 2 and sums['set'].n.sum() == 2 * 64 * 64
    with pytest.raises(InputError, match='holds no image'): calibration_summary([], [])
    with pytest.raises(InputError, match='have no border'): calibration_summary(p, [np.zeros((64, 64), bool)] * 2)


@pytest.mark.parametrize('ties', [False, True])
def test_failure_scores_against_scikit_learn(ties):
    rng = np.random.default_rng(5)
    failed = rng.random(200) < .2
    doubt = failed * .8 + rng.normal(0, 1, 200)
    if ties: doubt = doubt.round()
    assert auroc(doubt, failed) == pytest.approx(roc_auc_score(failed, doubt))
    assert aupr(doubt, failed) == pytest.approx(average_precision_score(failed, doubt))


def test_weights_are_copies():
    rng = np.random.default_rng(6)
    doubt, failed = rng.random(50).round(1), rng.random(50) < .3
    w = rng.integers(0, 3, (4, 50))
    for f in (auroc, aupr, review_recall, aurc):
        each = [f(np.repeat(doubt, n), np.repeat(failed, n)) for n in w]
        np.testing.assert_allclose(f(doubt, failed, w), each, rtol=1e-12, err_msg=f.__name__)


def test_a_perfect_order_and_its_opposite():
    j = np.linspace(.2, .99, 50)
    failed = j < .65
    assert auroc(1 - j, failed) == aupr(1 - j, failed) == 1 and auroc(j, failed) == 0
    assert review_recall(1 - j, failed) == pytest.approx(10 / failed.sum()) and review_recall(j, failed) == 0
    assert aurc(1 - j, 1 - j) < (1 - j).mean() < aurc(j, 1 - j)
    assert aurc(np.zeros(50), 1 - j) == pytest.approx((1 - j).mean())
    kept, risk = risk_coverage(1 - j, 1 - j)
    assert kept[-1] == 1 and risk[-1] == pytest.approx((1 - j).mean()) and (np.diff(risk) > 0).all()


def test_report_is_paired_and_draws_whole_groups():
    rng = np.random.default_rng(8)
    j = np.repeat(rng.beta(5, 1.5, 60), 3)
    groups = np.repeat(np.arange(60), 3)
    doubt = 1 - j + rng.normal(0, .1, 180)
    one = failure_report(dict(a=doubt, same=doubt), j, groups, n=400)
    assert one['same']['auroc_gain'] == [0, 0, 0]
    alone = failure_report(dict(a=doubt), j, None, n=400)
    def width(r): return r['a']['auroc'][2] - r['a']['auroc'][1]
    assert width(one) > 1.2 * width(alone), 'three images of a patient are not three patients'
    assert one['a']['auroc'][0] == pytest.approx(roc_auc_score(j < .65, doubt))


def test_review_threshold_flags_the_share():
    doubt = np.random.default_rng(9).random(200)
    assert (doubt > fit_review(doubt, .2)).sum() == 40
    with pytest.raises(InputError, match='not all of them finite'): fit_review(np.array([np.nan]))


def test_a_label_map_is_no_truth():
    with pytest.raises(InputError, match='the mask: holds values from 0 to 255'):
        reliability(np.full((2, 2), .5), np.array([[0, 1], [255, 0]]))
