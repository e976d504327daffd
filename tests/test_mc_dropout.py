"MC dropout on the shipped model, and the properties of its maps."
import io

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image

from lesion_seg import mc_dropout as mc
from lesion_seg.bundle import Bundle, Calibration
from lesion_seg.core import InputError
from lesion_seg.phantom import make_phantom
from lesion_seg.unet import UNet

PROBABILITIES = arrays(np.float32, st.tuples(st.integers(1, 6), st.just(3), st.just(4)),
                       elements=st.floats(0, 1, width=32))


@pytest.fixture(scope='module')
def model(): return Bundle.shipped().model()


@pytest.fixture(scope='module')
def image(): return torch.from_numpy(make_phantom(3, 128).image).permute(2, 0, 1)[None] / 127.5 - 1


@pytest.mark.parametrize('size', [(128, 128), (97, 75), (64, 96)])
def test_shared_work_equals_whole_passes(model, image, size):
    x, rate = image[..., :size[0], :size[1]], mc.dropout_rate(model)
    with torch.no_grad():
        features = model.encode(x)
        passes = [model.decode(features, size, dropout=mc.DropoutMasks(rate, 4, slice(k, k + 1), 5)) for k in range(4)]
        naive = [z[0, 0].div(1.3).sigmoid().numpy() for z in passes]
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
    assert all(torch.equal(v, state[k]) for k, v in model.state_dict().items())
    assert all(p.requires_grad for p in model.parameters())
    assert not any(m._forward_hooks for m in model.modules())
    np.testing.assert_array_equal(inside.mean, mc.mc_predict(model, image, 3).mean)


def test_threads_do_not_disturb_each_other(model, image):
    from concurrent.futures import ThreadPoolExecutor
    alone = [mc.mc_samples(model, image, 3, seed=s) for s in range(6)]
    with ThreadPoolExecutor(3) as pool:
        for a, b in zip(alone, pool.map(lambda s:
            mc.mc_samples(model, image, 3, seed=s), range(6)), strict=True): np.testing.assert_allclose(a, b, atol=1e-6)


def test_a_model_without_dropout_is_refused(image):
    with pytest.raises(InputError, match='built without dropout'): mc.mc_predict(UNet((4, 8), 8, dropout=0.), image)


@settings(max_examples=60, deadline=None)
@given(PROBABILITIES)
def test_maps_stay_in_their_ranges(p):
    u = mc.Uncertainty.from_samples(p, keep=True)
    assert u.std.max() <= .5 + 1e-6
    assert (u.mutual_information <= u.entropy + 1e-6).all() and (u.mutual_information >= 0).all()
    np.testing.assert_allclose(u.std, p.astype(float).std(0), atol=1e-3)
    q = p.astype(float).clip(1e-12, 1 - 1e-12)
    # mean Kullback-Leibler divergence
    oracle = (q * np.log2(q / q.mean(0)) + (1 - q) * np.log2((1 - q) / (1 - q.mean(0)))).mean(0)
    np.testing.assert_allclose(u.mutual_information, oracle, atol=1e-3)
    order = np.random.default_rng(0).permutation(len(p))
    np.testing.assert_allclose(mc.Uncertainty.from_samples(p[order]).entropy, u.entropy, atol=1e-5)
    if len(p) > 1:
        assert 0 <= mc.pairwise_dice(u.masks) <= 1
        assert all(v >= -1e-6 and np.isfinite(v) for v in mc.lesion_scores(u).values())


# Pictures and sizes

def discs(shape=(40, 60)):
    row, col = np.indices(shape)
    distance = np.hypot(row - shape[0] / 2, col - shape[1] / 2)
    return np.stack([1 / (1 + np.exp(distance - r)) for r in (9, 11, 14)]).astype(np.float32)


def test_maps_at_the_photographs_size():
    u = mc.Uncertainty.from_samples(discs(), size=(80, 120))
    large = u.resized()
    for name in ('mean', 'std', 'entropy', 'mutual_information'):
        a, b = getattr(u, name), getattr(large, name)
        assert b.shape == (80, 120) and b.dtype == np.float32
        np.testing.assert_allclose(b.reshape(40, 2, 60, 2).mean((1, 3)), a, atol=.03)
    assert large.masks.shape == (3, 80, 120) and large.masks.sum() == 4 * u.masks.sum() and large.size == (80, 120)
    np.testing.assert_array_equal(u.resized((40, 60)).masks, u.masks)
    a, b = mc.lesion_scores(u), mc.lesion_scores(large)
    assert a['disagreement'] == pytest.approx(b['disagreement'], abs=.01)
    assert a['area_variation'] == pytest.approx(b['area_variation'], abs=.01)
    assert u.resized((7, 9)).masks.shape == (3, 7, 9)


def test_the_size_has_to_be_known():
    u = mc.Uncertainty.from_samples(discs())
    for f, words in ((u.resized, 'is not known'), (lambda: u.resized((0, 5)), 'height and a width')):
        with pytest.raises(InputError, match=words): f()


def test_the_segmenter_knows_the_photographs_size():
    from lesion_seg.predict import Segmenter
    u = Segmenter().uncertainty(make_phantom(3, (150, 200)).image, n=3)
    assert u.size == (150, 200) and u.resized().std.shape == (150, 200) != u.std.shape


def test_rich_display_is_a_small_picture_with_scales():
    for shape in ((40, 60), (1500, 2000)):
        u = mc.Uncertainty.from_samples(discs(shape))
        png = u._repr_png_()
        with Image.open(io.BytesIO(png)) as im: assert max(im.size) < 900 and len(png) < 200_000
    titles = [ax.get_title() for ax in u.plot().axes[:4]]
    assert titles == ['mean probability', 'standard deviation', 'entropy (bit)', 'mutual information (bit)']
    assert len(u.plot().axes) == 8
    assert repr(u) == f'Uncertainty(3 samples of 1500 x 2000, mean standard deviation {u.std.mean():.3f})'


def test_lowered_mean_by_hand():
    u = mc.Uncertainty.from_samples(np.float32([[[.9, .6]], [[.5, .6]]]))
    np.testing.assert_allclose(mc.lowered_mean(u), [[.7 * (1 - 2 * .2), .6]], rtol=1e-5)
    assert mc.confidence_mask(u, .5).tolist() == [[False, True]]


def test_information_counts_only_what_the_samples_disagree_about():
    same = np.full((4, 9, 9), .5, np.float32)
    assert mc.lesion_scores(mc.Uncertainty.from_samples(same))['entropy_per_area'] == pytest.approx(1)
    assert mc.lesion_scores(mc.Uncertainty.from_samples(same))['information_per_area'] == pytest.approx(0, abs=1e-6)
    sure = np.stack([np.ones((9, 9)), np.zeros((9, 9))]).astype(np.float32)
    assert mc.lesion_scores(mc.Uncertainty.from_samples(sure))['information_per_area'] == pytest.approx(1)


@pytest.mark.parametrize('samples, words',
                         [(np.full((2, 3, 3), np.nan), 'NaN or values outside'),
                          (np.full((2, 3, 3), -4.), 'give probabilities'), (np.zeros((0, 3, 3)), 'at least one')])
def test_samples_that_are_no_probabilities(samples, words):
    with pytest.raises(InputError, match=words): mc.Uncertainty.from_samples(samples.astype(np.float32))


def test_one_sample_cannot_disagree():
    with pytest.raises(InputError, match='ask for at least two'):
        mc.lesion_scores(mc.Uncertainty.from_samples(discs()[:1]))


@pytest.mark.parametrize('rate', [0, 1, -.1, 2])
def test_a_rate_that_is_no_rate(model, image, rate):
    with pytest.raises(InputError, match=f'rate {rate}: is not between 0 and 1'):
        mc.mc_samples(model, image, 2, rate=rate)
