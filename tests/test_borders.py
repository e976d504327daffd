"Three borders, from the network to the file: nested everywhere, the same on both runtimes, and no channel taken for another."
import json
from dataclasses import asdict, replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from lesion_seg.bundle import (BORDERS, METADATA, ONNX_INT8, Border, Bundle, Calibration, check_metadata, revise,
                               save_bundle, usual_borders)
from lesion_seg.calibrate import calibrated, fit_borders
from lesion_seg.callbacks import Distil, batch_scores
from lesion_seg.core import InputError
from lesion_seg.gradcam import explain
from lesion_seg.loss import DiceBCELoss
from lesion_seg.manifest import Manifest
from lesion_seg.onnx import export_onnx, open_session, parity
from lesion_seg.phantom import make_phantom, write_phantoms
from lesion_seg.predict import Segmentation, Segmenter
from lesion_seg.quantize import quantize_onnx
from lesion_seg.report import calibrate_bundle, evaluate_manifest
from lesion_seg.unet import LesionUNet, NestedBorders, UNet, with_borders

SIDE, PHANTOMS = 64, [make_phantom(i, 64) for i in range(24)]


def as_tensor(phantoms):
    return torch.from_numpy(np.stack([p.image for p in phantoms])).permute(0, 3, 1, 2) / 127.5 - 1


@pytest.fixture(scope='module')
def nets():
    "A small network that learned phantoms for some seconds, and the same with three borders."
    torch.manual_seed(0)
    net, loss = LesionUNet('resnet10t', decoder=[24, 16, 12, 8]), DiceBCELoss()
    x, y = as_tensor(PHANTOMS), torch.from_numpy(np.stack([p.mask for p in PHANTOMS]))[:, None].float()
    optimiser = torch.optim.Adam(net.parameters(), 5e-3)
    for _ in range(12):
        for part in torch.randperm(len(x)).split(8):
            optimiser.zero_grad()
            loss(net(x[part]), y[part]).backward()
            optimiser.step()
    return net.eval(), with_borders(net.eval(), tight=1.5, wide=2)


@pytest.fixture(scope='module')
def manifest(tmp_path_factory):
    return write_phantoms(tmp_path_factory.mktemp('p'), n=8, size=(72, 96), seed=5)


@pytest.fixture(scope='module')
def three(nets, tmp_path_factory):
    "A bundle with three borders, exported."
    bundle = save_bundle(tmp_path_factory.mktemp('three') / 'bundle', nets[1], size=SIDE, temperature=1.5)
    export_onnx(revise(bundle, review=dict(score='disagreement', threshold=.05), calibration=CURVE), opset=17)
    return Bundle.load(bundle.path)


CURVE = dict(power=1.3, scale=1.2, doubt=.6, usual=.8, span=3.)


@pytest.fixture(scope='module')
def one(nets, tmp_path_factory):
    return save_bundle(tmp_path_factory.mktemp('one') / 'bundle', nets[0], size=SIDE, temperature=1.5)


def is_nested(result):
    tight, middle, wide = (result.borders[name].mask for name in BORDERS)
    return not (tight & ~middle).any() and not (middle & ~wide).any()


# The network

def test_nested_borders_are_what_the_formula_says():
    m, a, b = torch.randn(3, 2, 1, 5, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    tight, middle, wide = NestedBorders()(torch.cat([m, a, b], 1)).split(1, 1)
    assert torch.equal(middle, m)
    assert torch.allclose(tight, m - (1 + b.exp()).log()) and torch.allclose(wide, m + (1 + a.exp()).log())


@pytest.mark.parametrize('options', [dict(decoder=[16, 16, 8, 8]), dict(), dict(last_cross=True)])
def test_a_network_with_one_border_becomes_one_with_three(options):
    torch.manual_seed(1)
    net = LesionUNet('resnet18', **options).eval()
    grown = with_borders(net, tight=.7, wide=2.5)
    x = torch.randn(2, 3, 65, 70)
    with torch.no_grad(): old, new = net(x), grown(x)
    assert torch.equal(new[:, 1:2], old)
    assert torch.allclose(old - .7, new[:, :1], atol=1e-5) and torch.allclose(old + 2.5, new[:, 2:], atol=1e-5)
    assert grown.architecture == net.architecture | {'borders': True} and 'borders' not in net.architecture
    assert not grown.training and with_borders(net.train()).training
    grown.train()(x).square().mean().backward() # the steps learn
    last = [p for n, p in grown.named_parameters() if n.startswith('final_up.0' if 'decoder' in options else 'head')]
    assert len(last) == 2 and all(p.grad[len(p) // 3:].abs().max() > 0 for p in last)


def test_other_networks_are_refused():
    with pytest.raises(InputError, match="model 'unet': cannot be given three borders"): with_borders(UNet((8, 16), 32))
    with pytest.raises(InputError, match='above 0'): with_borders(LesionUNet(decoder=[8] * 4), tight=0)


# The bundle

def metadata(**changes):
    return dict(schema=1, architecture={'name': 'lesion_unet'}, size=64, mean=[.5] * 3, std=[.5] * 3, threshold=.5,
                temperature=1., weights_sha256='0' * 64, training={}, metrics={}, versions={}) | changes


def stored(channels=(0, 0, 0), thresholds=(.8, .5, .2)):
    return {n: dict(channel=c, threshold=t) for n, c, t in zip(BORDERS, channels, thresholds, strict=True)}


@pytest.mark.parametrize('borders', [
    stored(thresholds=(.4, .5, .2)), stored(thresholds=(.8, .5, .6)), stored(thresholds=(.8, .6, .2)),
    stored(thresholds=(1., .5, .2)), stored(channels=(0, 1, 2)), stored(channels=(0, 0, True)), {'tight': stored()['tight']},
    stored() | {'middle': .5}, stored() | {'other': stored()['wide']}])
def test_borders_that_are_not_nested_or_not_there_are_refused(borders):
    with pytest.raises(InputError, match='borders must be tight, middle and wide'):
        check_metadata(metadata(borders=borders), 'bundle.json')


def test_borders_of_three_channels_have_their_order():
    three = {'name': 'lesion_unet', 'borders': True}
    good = metadata(architecture=three, borders=stored((0, 1, 2), (.4, .5, .6)))
    assert check_metadata(good, 'x') == good
    for channels in ((0, 0, 0), (2, 1, 0), (0, 1, 3)):
        with pytest.raises(InputError, match='nested'): check_metadata(good | dict(borders=stored(channels)), 'x')
    with pytest.raises(InputError, match='true or false'):
        check_metadata(metadata(architecture={'name': 'lesion_unet', 'borders': 'yes'}), 'x')


def test_bundles_say_their_channels(one, three):
    assert (one.channels, three.channels) == (1, 3) and 'borders' not in one.info
    assert one.borders == usual_borders(.5) == dict(tight=Border(0, .85), middle=Border(0, .5), wide=Border(0, .25))
    assert three.borders == dict(tight=Border(0, .5), middle=Border(1, .5), wide=Border(2, .5))


@given(st.integers(0, 2**32 - 1), st.floats(.3, 3), st.floats(0, 2))
@settings(max_examples=30)
def test_calibration_keeps_maps_nested(seed, power, doubt):
    z = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) * 4
    nested = NestedBorders()(z).clamp(-12, 12) # `to_logit` knows no more than 14
    curve = Calibration(2., power, 1.3, doubt, .7, 5.)
    p = curve.channels(nested)
    assert (p.diff(dim=1) >= 0).all()
    for channel in range(3): # the oracle works in numpy, one map at a time
        maps = [(nested[i, channel].sigmoid().numpy(), nested[i, 1].sigmoid().numpy()) for i in range(2)]
        expected = [calibrated(own, curve, judged) for own, judged in maps]
        assert np.allclose(p[:, channel], expected, atol=2e-4)
    assert curve.logit(.25) == pytest.approx(-2 * (1.3 * np.log(3)) ** (1 / power))


# Who takes one channel takes the middle one

def test_training_scores_and_distillation_take_the_middle_border(nets):
    one, three = nets
    x = as_tensor(PHANTOMS[:4])
    y = torch.from_numpy(np.stack([p.mask for p in PHANTOMS[:4]])).long()
    with torch.no_grad(): a, b = (batch_scores(net(x), y) for net in nets)
    assert all(torch.equal(s, t) for s, t in zip(a, b, strict=True))
    with pytest.raises(InputError, match='the maps'): batch_scores(torch.zeros(4, 2, 8, 8), y)
    targets = []
    for net in nets:
        teacher = Distil([(net, Calibration(2., **CURVE))], weight=1.)
        teacher.learn = type('L', (), dict(x=x, y=y, training=True, yb=None))()
        teacher.before_batch()
        targets.append(teacher.learn.yb[0])
    assert targets[1].shape == (4, 1, 64, 64) and torch.allclose(*targets)


def test_heat_map_explains_the_middle_border(one, three):
    three = replace(three, info=one.info | dict(architecture=three.architecture))
    maps = [explain(b, PHANTOMS[30 % 24].image) for b in (one, three)]
    assert np.array_equal(maps[0].pixels, maps[1].pixels) and maps[0].score == pytest.approx(maps[1].score, abs=1e-4)
    assert np.allclose(maps[0].raw, maps[1].raw, atol=1e-5)


def test_uncertainty_is_that_of_the_middle_border_on_both_runtimes(one, three):
    photo = PHANTOMS[3].image
    plain = replace(one, info=one.info | dict(calibration=CURVE))
    expected = Segmenter(plain, runtime='torch').uncertainty(photo, 5).mean
    for runtime in ('torch', 'onnxruntime'):
        assert np.allclose(Segmenter(three, runtime=runtime).uncertainty(photo, 5).mean, expected, atol=1e-5)


# From photograph to masks

def test_runtimes_agree_on_all_borders(three):
    assert parity(three.file('model.onnx'), three) < 1e-5
    [answer] = open_session(three.file('model.onnx')).get_outputs()
    assert (answer.name, answer.shape) == ('probability', ['batch', 3, 'height', 'width'])
    photos = [make_phantom(100 + i, (90, 120)).image for i in range(3)]
    fast, slow = (list(Segmenter(three, runtime=r).predict_many(photos, tta=True)) for r in ('onnxruntime', 'torch'))
    for a, b in zip(fast, slow, strict=True):
        assert a.channels.shape == (3, SIDE, SIDE) and np.allclose(a.channels, b.channels, atol=1e-5)
        assert (np.diff(a.channels, axis=0) >= 0).all() and is_nested(a)


@pytest.mark.parametrize('opset', [13, pytest.param(18, marks=pytest.mark.slow)])
def test_every_opset_has_three_channels(three, opset, tmp_path):
    file = export_onnx(three, tmp_path / 'x.onnx', opset=opset)
    assert open_session(file).get_outputs()[0].shape == ['batch', 3, 'height', 'width']


def test_symmetries_turn_every_channel_back(three):
    "A network that answers with the colours themselves: turned, answered and turned back, nothing has moved."
    from lesion_seg.predict import d4_maps
    batch = np.random.default_rng(0).integers(0, 256, (2, 16, 16, 3), np.uint8)
    maps = d4_maps(lambda x: np.moveaxis(x, -1, 1).astype(np.float32), batch)
    assert maps.shape == (2, 8, 3, 16, 16)
    assert (maps == np.moveaxis(batch, -1, 1)[:, None]).all()


def test_each_border_has_its_own_map_and_threshold(three):
    three = replace(three, info=three.info | dict(borders=stored((0, 1, 2), (.6, .5, .4))))
    segmenter, photo = Segmenter(three, runtime='torch'), PHANTOMS[1].image
    maps = segmenter.backend.probabilities(photo[None])[0]
    results = {name: segmenter.predict(photo, border=name) for name in BORDERS}
    for i, (name, threshold) in enumerate(zip(BORDERS, (.6, .5, .4), strict=True)):
        r = results[name]
        assert (r.border, r.threshold) == (name, threshold) and np.array_equal(r.small, maps[i])
        assert np.array_equal(r.mask, results['middle'].with_border(name).mask)
        assert r.with_border('middle').threshold == .5
        assert np.array_equal(r.probability, maps[i])
    areas = [results[name].mask.sum() for name in BORDERS]
    assert areas == sorted(areas) and areas[0] < areas[2]
    lowered = segmenter.predict(photo, threshold=.2, border='wide')
    assert lowered.threshold == .2 and lowered.borders['middle'].threshold == .5 and lowered.borders['tight'].threshold == .6
    with pytest.raises(InputError, match="border 'narrow': is not known; choose from tight, middle, wide"):
        segmenter.predict(photo, border='narrow')
    with pytest.raises(InputError, match='with_border'): Segmentation(maps[2], (64, 64), border='wide')


def test_a_result_holds_small_maps_only(three):
    result = Segmenter(three, runtime='torch').predict(make_phantom(7, (600, 800)).image, border='wide')
    held = [v for k, v in vars(result).items() if isinstance(v, np.ndarray) and k != 'source']
    assert {a.size for a in held} == {SIDE**2, 3 * SIDE**2} and result.small.base is result.channels


def test_default_border_of_a_network_with_one_is_what_it_was(one, nets):
    photo = make_phantom(50, (100, 140)).image
    middle = Segmenter(one, runtime='torch').predict(photo)
    alone = Segmentation(middle.small, (100, 140), .5, largest=False)
    assert np.array_equal(middle.mask, alone.mask) and middle.measure() == alone.measure()
    assert np.array_equal(middle.with_border('wide').mask, middle.with_threshold(.25).mask)
    assert np.array_equal(middle.with_border('tight').mask, middle.with_threshold(.85).mask)


def random_maps(seed, n):
    "`n` nested random maps with many regions and holes."
    rng = np.random.default_rng(seed)
    z = ndimage.gaussian_filter(rng.normal(size=(24, 24)), rng.uniform(.7, 3))
    steps = [ndimage.gaussian_filter(abs(rng.normal(size=(24, 24))), 1) * rng.uniform(0, 3) for _ in range(2)]
    z = 3 * z / z.std()
    maps = [z - steps[0], z, z + steps[1]] if n == 3 else [z]
    return np.array([1 / (1 + np.exp(-m)) for m in maps], np.float32)


@given(st.integers(0, 2**32 - 1), st.sampled_from([1, 3]), st.booleans(), st.booleans(),
       st.tuples(*[st.floats(.02, .98)] * 3), st.tuples(st.integers(3, 70), st.integers(3, 70)))
@settings(max_examples=150)
def test_masks_are_nested_in_every_case(seed, n, largest, fill_holes, thresholds, size):
    maps = random_maps(seed, n)
    levels = {name: Border(i if n == 3 else 0, t) for i, (name, t) in enumerate(zip(BORDERS, thresholds, strict=True))}
    middle = Segmentation(maps[n // 2], size, thresholds[1], largest=largest, fill_holes=fill_holes, channels=maps,
                          levels=levels)
    plain = Segmentation(maps[n // 2], size, thresholds[1], largest=largest, fill_holes=fill_holes)
    assert np.array_equal(middle.mask, plain.mask) # the others have no say in it
    for results in (middle.borders, middle.with_border('wide').borders, middle.with_border('tight').borders):
        tight, centre, wide = (results[name].mask for name in BORDERS)
        assert not (tight & ~centre).any() and not (centre & ~wide).any()
        small = [results[name].cleaned >= np.float32(results[name].threshold) for name in BORDERS]
        assert not (small[0] & ~small[1]).any() and not (small[1] & ~small[2]).any()
        if largest: assert all(ndimage.label(m)[1] <= 1 for m in (tight, centre, wide))
        if fill_holes: assert all(np.array_equal(m, ndimage.binary_fill_holes(m)) for m in (tight, centre, wide))
    moved = middle.with_threshold(thresholds[0])
    assert is_nested(moved) and is_nested(middle.with_border('wide').with_threshold(thresholds[0]))


def test_regions_are_not_exchanged():
    "As the largest region at a high level may be another one than at a low level: a faint large spot, a dark small one."
    y, x = np.mgrid[:64, :64]
    small = np.maximum(.95 * (np.hypot(y - 16, x - 16) < 5), .6 * (np.hypot(y - 42, x - 42) < 16)).astype(np.float32)
    middle = Segmentation(small, (64, 64), .5, largest=True)
    assert middle.mask[42, 42] and not middle.mask[16, 16]
    assert not middle.with_border('tight').mask.any() # nothing of the faint spot reaches 0.85
    assert 'its mask is empty' in middle.with_border('tight').notes()[0] and not middle.notes()
    assert np.array_equal(middle.with_border('wide').mask, middle.mask)


# Calibration

def brute_force(maps, masks, threshold, highs, lows):
    def jaccard(a, b): return 1. if not (a | b).any() else (a & b).sum() / (a | b).sum()
    best = {}
    for high in highs:
        for low in lows:
            scores = []
            for m, truth in zip(maps, masks, strict=True):
                own = [m[0], m[len(m) // 2], m[-1]]
                middle = own[1] >= np.float32(threshold)
                three = own[0] >= np.float32(high), middle, own[2] >= np.float32(low)
                scores.append(max(jaccard(a, truth) for a in (three[0] & middle, middle, three[2] | middle)))
            best[high, low] = np.mean(scores)
    return best


@pytest.mark.parametrize('n', [1, 3])
def test_levels_are_the_best_pair(n):
    maps = [random_maps(seed, n) for seed in range(6)]
    rng = np.random.default_rng(0)
    masks = [m[rng.integers(n)] + rng.normal(0, .1, m[0].shape) >= rng.choice([.25, .5, .8]) for m in maps]
    grid = (.1, .2, .35, .6, .75, .9)
    borders, best = fit_borders(maps, masks, .5, grid)
    tried = brute_force(maps, masks, .5, (.6, .75, .9, .85) if n == 1 else (*grid, .5), (.1, .2, .35, .25) if n == 1 else (*grid, .5))
    assert best == pytest.approx(max(tried.values()))
    assert tried[borders['tight'].threshold, borders['wide'].threshold] == pytest.approx(best)
    assert borders['middle'] == usual_borders(.5, n)['middle']


@pytest.mark.parametrize('which', ['one', 'three'])
def test_calibration_fits_all_borders_and_repeats_itself(which, manifest, request, tmp_path):
    bundle = request.getfixturevalue(which)
    copy = save_bundle(tmp_path / 'b', bundle.model(), size=SIDE)
    new = calibrate_bundle(copy, manifest, say=lambda _: None)
    fit = new.info['metrics']['calibration']
    assert new.info['borders'] == fit['borders'] == {k: asdict(b) for k, b in Bundle.load(copy.path).borders.items()}
    assert new.borders['middle'] == Border(which == 'three', new.threshold)
    assert fit['best_of_three'] >= fit['jaccard'][1]
    text = (copy.path / METADATA).read_text()
    calibrate_bundle(copy.path, manifest, say=lambda _: None)
    assert (copy.path / METADATA).read_text() == text


def test_middle_border_is_calibrated_as_without_the_others(one, three, manifest, tmp_path):
    fits = []
    for name, bundle in dict(one=one, three=three).items():
        copy = save_bundle(tmp_path / name, bundle.model(), size=SIDE)
        fits.append(calibrate_bundle(copy, manifest, say=lambda _: None).info)
    for key in ('temperature', 'threshold', 'calibration', 'largest'): assert fits[0][key] == pytest.approx(fits[1][key], rel=1e-4)
    assert fits[0]['review']['threshold'] == pytest.approx(fits[1]['review']['threshold'], abs=1e-5)


def test_scores_are_those_of_the_border_asked_for(three, manifest):
    tables = {name: evaluate_manifest(three, Manifest(list(manifest)[:3]), border=name) for name in BORDERS}
    areas = [tables[name][['tp', 'fp']].sum(axis=1).tolist() for name in BORDERS] if 'tp' in tables['tight'] else None
    assert not tables['tight'].equals(tables['wide'])
    if areas: assert all(a <= b <= c for a, b, c in zip(*areas, strict=True))


# Eight bits

def test_eight_bits_know_three_borders(three, tmp_path):
    copy = save_bundle(tmp_path / 'b', three.model(), size=SIDE)
    export_onnx(copy, opset=17) # its exporter is the quick one
    quantize_onnx(copy.path, (p.image for p in PHANTOMS), n=8, at_least=.5)
    bundle = Bundle.load(copy.path)
    assert bundle.file(ONNX_INT8).is_file()
    exact, rounded = (Segmenter(bundle, precision=p).predict(PHANTOMS[5].image) for p in ('float32', 'int8'))
    assert rounded.channels.shape == (3, SIDE, SIDE) and is_nested(rounded)
    assert 0 < np.abs(exact.channels - rounded.channels).mean() < .1


def test_record_compares_borders(three, tmp_path):
    result = Segmenter(three, runtime='torch').predict(make_phantom(9, (80, 60)).image, spacing=(.1, .2), border='wide')
    result.save(tmp_path, 'x', kinds='json')
    record = json.loads((tmp_path / 'x.json').read_text())
    assert record['border'] == 'wide' and list(record['borders']) == list(BORDERS)
    for name, summary in record['borders'].items():
        area = int(result.borders[name].mask.sum())
        assert summary == dict(threshold=.5, area_px=area, area_fraction=area / 4800, area_mm2=pytest.approx(area * .02))
    assert record['measures']['area_px'] == record['borders']['wide']['area_px']
    assert 'wide border' in repr(result) and 'border' not in repr(result.with_border('middle'))
    assert result.geojson()['properties']['border'] == 'wide'


# Commands

@pytest.fixture(scope='module')
def work(three, tmp_path_factory):
    "Two photographs whose names look like those of results."
    from PIL import Image
    folder = tmp_path_factory.mktemp('w')
    for i, name in enumerate(('x.png', 'x_tight.png', 'y.png')):
        Image.fromarray(make_phantom(40 + i, (50, 60 + i)).image).save(folder / name)
    return folder


def command(capfd, *words):
    from lesion_seg.cli import main
    code = main([str(w) for w in words])
    out, err = capfd.readouterr()
    return code, out, err


def test_all_borders_of_a_folder(work, three, tmp_path, capfd):
    import csv

    from lesion_seg.data import read_mask
    code, out, _ = command(capfd, 'segment', work, '-b', three.path, '-o', tmp_path, '--border', 'all', '--save', 'mask,json,coco', '--json')
    assert code == 0
    results = json.loads(out)['results']
    assert [r['border'] for r in results] == list(BORDERS) * 3
    names = [p for r in results for p in r['written'].values()]
    assert len({n.casefold() for n in names}) == len(names) == 27
    assert {p.name for p in tmp_path.iterdir()} == {p.rsplit('/', 1)[-1] for p in names} | {'segmentations.csv', 'segmentations_coco.json'}
    assert (tmp_path / 'y_wide_mask.png').is_file() and not (tmp_path / 'y_mask.png').exists()
    for i, file in enumerate(('x.png', 'x_tight.png', 'y.png')):
        expected = Segmenter(three).predict(work / file).borders
        for r in results[3 * i:3 * i + 3]:
            assert r['file'].endswith(file) and np.array_equal(read_mask(r['written']['mask']), expected[r['border']].mask)
            assert r['borders'] == expected['middle'].border_summary
    rows = list(csv.DictReader((tmp_path / 'segmentations.csv').open()))
    assert [(r['file'], r['border'], int(r['area_px'])) for r in rows] == [(r['file'], r['border'], r['area_px']) for r in results]
    coco = json.loads((tmp_path / 'segmentations_coco.json').read_text())
    assert [i['id'] for i in coco['images']] == [1, 2, 3] and len({a['id'] for a in coco['annotations']}) == len(coco['annotations'])
    seen = {(a['image_id'], a['border']): a['area'] for a in coco['annotations']}
    assert seen == {(1 + i // 3, r['border']): r['area_px'] for i, r in enumerate(results) if r['area_px']}
    assert '3 of 3 segmented' in command(capfd, 'segment', work, '-b', three.path, '-o', tmp_path, '--border', 'all')[1]


def test_one_border_by_name(work, three, tmp_path, capfd):
    code, out, _ = command(capfd, 'segment', work / 'y.png', '-b', three.path, '-o', tmp_path, '--border', 'wide')
    record = json.loads((tmp_path / 'y.json').read_text())
    assert code == 0 and record['border'] == 'wide' and 'wide border' in out
    assert record['measures']['area_px'] == record['borders']['wide']['area_px'] > record['borders']['tight']['area_px']
    for words, sentence in [(['--border', 'narrow'], '--border narrow: is not known; choose from tight, middle, wide and all'),
                            (['--border', 'all', '--batch'], '--border all: does not go with --batch')]:
        code, _, err = command(capfd, 'segment', work / 'y.png', '-b', three.path, '-o', tmp_path, *words)
        assert code == 2 and sentence in err


def test_a_batch_has_a_column_for_the_border(work, three, tmp_path):
    import pyarrow.parquet as pq

    from lesion_seg.batch import segment_folder
    tables = {}
    for border in BORDERS:
        options = {} if border == 'middle' else dict(border=border)
        segment_folder(work, tmp_path / border, three.path, masks='none', workers=1, **options)
        tables[border] = pq.read_table(tmp_path / border / 'results').to_pylist()
        assert [r['border'] for r in tables[border]] == [border] * 3
    for t, m, w in zip(*tables.values(), strict=True): assert t['area_px'] <= m['area_px'] <= w['area_px'] and t['area_px'] < w['area_px']
    with pytest.raises(InputError, match='differs in options'):
        segment_folder(work, tmp_path / 'wide', three.path, masks='none', workers=1, border='tight')
