"lesion_seg.calibrate: what a fit on few photographs says of itself, and brute force for the threshold."
import json

import numpy as np
import pytest
from scipy.optimize import brentq

from lesion_seg.calibrate import (ENOUGH, TEMPERATURES, calibration_warnings, cross_entropy, fit_calibration,
                                  fit_temperature, fit_threshold,
                                  mean_jaccard, to_logit)
from lesion_seg.core import InputError
from lesion_seg.phantom import make_phantom


def forecasts(n, sharpness, seed=0, size=64):
    "Maps whose logits are `sharpness` times too large, and truths drawn from the right ones."
    rng = np.random.default_rng(seed)
    row, col = np.mgrid[:size, :size]
    maps, truths = [], []
    for _ in range(n):
        z = (rng.uniform(12, 22) - np.hypot(row - size / 2, col - size / 2)) / 3
        maps.append((1 / (1 + np.exp(-sharpness * z))).astype(np.float32))
        truths.append(rng.random(z.shape) < 1 / (1 + np.exp(-z)))
    return maps, truths


def test_two_photographs_are_fitted_within_bounds_and_with_a_word():
    "As it was found: two photographs, wrong where the network is sure, gave a temperature of 19.999 in silence."
    masks = [make_phantom(s, 64).mask for s in (1, 2)]
    wrong = [np.where(m, .02, .98).astype(np.float32) for m in masks]
    fit = fit_calibration(wrong, masks)
    assert TEMPERATURES == (.1, 10) and 9.9 < fit['temperature'] <= 10
    few, limit = fit['warnings']
    assert few.startswith('fitted on 2 photographs, which is few: temperature 10.00') and f'at least {ENOUGH}' in few
    assert limit.startswith('the temperature 10.00 lies at the limit of what is sought (0.1 to 10)')


def test_a_network_that_is_always_right_has_no_best_temperature():
    masks = [make_phantom(s, 64).mask for s in range(3)]
    fit = fit_calibration([np.where(m, .9, .1).astype(np.float32) for m in masks], masks)
    assert fit['temperature'] == pytest.approx(.1, rel=.01) and 'at the limit' in fit['warnings'][1]


def test_few_photographs_are_named_and_many_are_not():
    maps, truths = forecasts(22, 3)
    fit = fit_calibration(maps, truths)
    assert 2 < fit['temperature'] < 5 and fit['n'] == 22
    assert fit['warnings'] == [calibration_warnings(22, fit['temperature'])[0]]
    assert fit['warnings'][0].startswith('fitted on 22 photographs, which is few: ')
    assert not any(w.endswith('.') for w in fit['warnings']) and json.loads(json.dumps(fit)) == fit
    assert fit_calibration(*forecasts(ENOUGH, 3))['warnings'] == []
    assert calibration_warnings(1, 1.)[0].startswith('fitted on 1 photograph, which')


def test_the_temperature_is_where_the_derivative_vanishes():
    maps, truths = forecasts(6, 2.5)
    def slope(t): return cross_entropy(maps, truths, t * 1.001) - cross_entropy(maps, truths, t / 1.001)
    assert fit_temperature(maps, truths) == pytest.approx(brentq(slope, .5, 9), rel=2e-3)
    assert to_logit(np.array([.2])) == pytest.approx(-np.log(4))


@pytest.mark.parametrize('seed', range(3))
def test_mean_jaccard_by_counting(seed):
    maps, truths = forecasts(4, 2, seed, size=24)
    for t in (.2, .5, .71):
        found = [(p >= np.float32(t), m) for p, m in zip(maps, truths, strict=True)]
        want = np.mean([(a & b).sum() / (a | b).sum() for a, b in found])
        assert mean_jaccard(maps, truths, [t])[0] == pytest.approx(want, abs=1e-12)
    grid = [.3, .4, .5, .6]
    assert mean_jaccard(maps, truths, [fit_threshold(maps, truths, grid)])[0] == mean_jaccard(maps, truths, grid).max()


HALF = np.full((2, 2), .5)
NO = np.zeros((2, 2), bool)


@pytest.mark.parametrize('maps, masks, words', [
    ([], [], 'at least one'),
    ([HALF], [], 'are 1, the masks 0'),
    ([np.zeros((2, 3))], [np.zeros((3, 2), bool)], r'map 0: has the shape \(2, 3\)'),
    ([HALF * np.nan], [NO], 'outside'),
    ([HALF * -3], [NO], 'not logits'),
    ([HALF], [np.array([[0, 1], [1, 255]])], 'mask 0: holds values from 0 to 255'),
])
def test_maps_that_do_not_fit_are_refused(maps, masks, words):
    for f in (cross_entropy, fit_temperature, fit_threshold, fit_calibration):
        with pytest.raises(InputError, match=words): f(maps, masks)


def test_lesions_that_vanish_at_the_networks_size_are_counted():
    from lesion_seg.data import resize_mask
    small = np.zeros((900, 1200), bool)
    small[400:403, 600:603] = True
    maps, truths = forecasts(ENOUGH, 3)
    fit = fit_calibration([*maps, maps[0] * .1], [*truths, resize_mask(small, 64)])
    assert [w.split(':')[0] for w in fit['warnings']] == ['1 of 51 masks hold no lesion at the size of the network']
