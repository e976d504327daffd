"MC dropout on the shipped model, and the properties of its maps."
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from lesion_seg import mc_dropout as mc
from lesion_seg.bundle import Bundle, Calibration
from lesion_seg.core import InputError
from lesion_seg.phantom import make_phantom
from lesion_seg.unet import UNet

PROBABILITIES = arrays(np.float32, st.tuples(st.integers(1, 6), st.just(3), st.just(4)), elements=st.floats(0, 1, width=32))


@pytest.fixture(scope='module')
def model(): return Bundle.shipped().model()


@pytest.fixture(scope='module')
def image(): return torch.from_numpy(make_phantom(3, 128).image).permute(2, 0, 1)[None] / 127.5 - 1


@pytest.mark.parametrize('size', [(128, 128), (97, 75), (64, 96)])
def test_shared_work_equals_whole_passes(model, image, size):
    x, rate = image[..., :size[0], :size[1]], mc.dropout_rate(model)
    with torch.no_grad():
        naive = [model.decode(model.encode(x), size, dropout=mc.DropoutMasks(rate, 4, slice(k, k + 1), 5))[0, 0].div(1.3).sigmoid().numpy() for k in range(4)]
    assert np.std(naive, 0).max() > .01
    np.testing.assert_allclose(mc.mc_samples(model, x, 4, seed=5, calibration=Calibration(1.3)), naive, atol=1e-5)


def test_nothing_is_left_on_the_model(model, image):
    state = {k: v.clone() for k, v in model.state_dict().items()}
    try:
        model.train()
        model.blocks[0].eval()
        modes = [m.training for m in model.modules()]
        inside = mc.mc_predict(model, image, 3)
        assert [m.training for m in model.modules()] == modes
        with pytest.raises(InputError): mc.mc_predict(model, image[..., :16], 3)  # too small
        assert [m.training for m in model.modules()] == modes
    finally: model.eval()
    assert all(torch.equal(v, state[k]) for k, v in model.state_dict().items()) and all(p.requires_grad for p in model.parameters())
    assert not any(m._forward_hooks for m in model.modules())
    np.testing.assert_array_equal(inside.mean, mc.mc_predict(model, image, 3).mean)


def test_threads_do_not_disturb_each_other(model, image):
    from concurrent.futures import ThreadPoolExecutor
    alone = [mc.mc_samples(model, image, 3, seed=s) for s in range(6)]
    with ThreadPoolExecutor(3) as pool:
        for a, b in zip(alone, pool.map(lambda s: mc.mc_samples(model, image, 3, seed=s), range(6)), strict=True): np.testing.assert_allclose(a, b, atol=1e-6)


def test_a_model_without_dropout_is_refused(image):
    with pytest.raises(InputError, match='built without dropout'): mc.mc_predict(UNet((4, 8), 8, dropout=0.), image)


@settings(max_examples=60, deadline=None)
@given(PROBABILITIES)
def test_maps_stay_in_their_ranges(p):
    u = mc.Uncertainty.from_samples(p, keep=True)
    assert u.std.max() <= .5 + 1e-6 and (u.mutual_information <= u.entropy + 1e-6).all() and (u.mutual_information >= 0).all()
    np.testing.assert_allclose(u.std, p.astype(float).std(0), atol=1e-3)
    q = p.astype(float).clip(1e-12, 1 - 1e-12)
    oracle = (q * np.log2(q / q.mean(0)) + (1 - q) * np.log2((1 - q) / (1 - q.mean(0)))).mean(0)  # mean Kullback-Leibler divergence
    np.testing.assert_allclose(u.mutual_information, oracle, atol=1e-3)
    order = np.random.default_rng(0).permutation(len(p))
    np.testing.assert_allclose(mc.Uncertainty.from_samples(p[order]).entropy, u.entropy, atol=1e-5)
    if len(p) > 1:
        assert 0 <= mc.pairwise_dice(u.masks) <= 1
        assert all(v >= -1e-6 and np.isfinite(v) for v in mc.lesion_scores(u).values())
