"Exported files against PyTorch, for every architecture, and onnxruntime without PyTorch."
import json
import subprocess
import sys

import numpy as np
import onnx
import pytest
import torch
from PIL import Image

from lesion_seg.bundle import ONNX, ONNX_DECODER, Bundle, Calibration, revise, save_bundle
from lesion_seg.calibrate import calibrated
from lesion_seg.core import InputError
from lesion_seg.mc_dropout import mc_samples
from lesion_seg.onnx import SIZES, OnnxSampler, export_onnx, open_session, opset_of, parity
from lesion_seg.phantom import make_phantom
from lesion_seg.predict import Segmenter
from lesion_seg.unet import LesionUNet, UNet

MODELS = dict(unet=lambda: UNet((8, 8, 16), 16, dropout=.2), lean=lambda: LesionUNet('tf_efficientnet_lite0', decoder=[32, 16, 16, 8]),
              resnet=lambda: LesionUNet('resnet18', decoder=[64, 32, 16, 16], dropout=0.), cross=lambda: LesionUNet('mobilenetv3_small_050', last_cross=True))
QUICK = 'unet'  # PyTorch's exporter needs up to 20 s for the others


@pytest.fixture(scope='module', params=[m if m == QUICK else pytest.param(m, marks=pytest.mark.slow) for m in MODELS])
def exported(request, tmp_path_factory):
    torch.manual_seed(0)
    net = MODELS[request.param]()
    with torch.no_grad():  # batch norms of a net that never trained would hide mistakes in folding them
        for m in net.modules():
            if isinstance(m, torch.nn.BatchNorm2d): m.running_mean.normal_(0, .1), m.running_var.uniform_(.5, 1.5), m.bias.normal_(0, .1)
    bundle = save_bundle(tmp_path_factory.mktemp('b') / request.param, net, size=96, threshold=.4, temperature=1.3, half=True)
    export_onnx(bundle)
    return Bundle.load(bundle.path)


def test_parity_at_every_size(exported):
    assert len(SIZES) == 5 and parity(exported.file(ONNX), exported, [*SIZES, (3, 32, 32), (2, 33, 47), (3, 256, 200)]) < 1e-5
    assert opset_of(exported.file(ONNX)) == exported.info['onnx']['opset'] == 18


def test_an_oracle_by_hand(exported):
    "Not through the wrapper that was exported: the network itself, prepared by hand."
    x = np.random.default_rng(1).integers(0, 256, (2, 70, 90, 3), np.uint8)
    with torch.inference_mode(): logits = exported.model()(torch.from_numpy(x).permute(0, 3, 1, 2) / 255 * 2 - 1)[:, 0]
    got = open_session(exported.file(ONNX)).run(None, {'image': x})
    assert len(got) == 1
    np.testing.assert_allclose(got[0], torch.sigmoid(logits / 1.3).numpy(), atol=1e-5)


def test_opset_13_takes_floats(exported, tmp_path):
    old = export_onnx(exported, tmp_path / 'old.onnx', opset=13, floats=True)
    assert opset_of(old) == 13 and parity(old, exported) < 1e-5
    x = np.full((1, 64, 64, 3), .5, np.float32)
    new = open_session(exported.file(ONNX)).run(None, {'image': np.full((1, 64, 64, 3), 128, np.uint8)})[0]
    np.testing.assert_allclose(open_session(old).run(None, {'image': x})[0], new, atol=.02)


def test_samples_are_those_of_pytorch(exported):
    if not exported.architecture['dropout']:
        assert not (exported.path / ONNX_DECODER).exists()
        with pytest.raises(InputError, match='without dropout'): OnnxSampler(exported)
        return
    image = make_phantom(4, 96).image
    x = torch.from_numpy(image).permute(2, 0, 1) / 127.5 - 1
    np.testing.assert_allclose(OnnxSampler(exported)(image, 9, seed=3), mc_samples(exported.model(), x, 9, seed=3, calibration=Calibration(1.3)), atol=2e-5)


@pytest.mark.slow
@pytest.mark.parametrize('exported', ['lean'], indirect=True)
def test_the_curve_is_in_both_files(exported, tmp_path):
    import shutil
    curve = dict(power=1.4, scale=1.2, doubt=.4, usual=.8, span=3.)
    bent = revise(Bundle.load(shutil.copytree(exported.path, tmp_path / 'copy')), calibration=curve)
    assert 'onnx' not in bent.info  # the old files hold the old calibration
    export_onnx(bent)
    bent = Bundle.load(bent.path)
    image = make_phantom(4, 96).image
    x = (torch.from_numpy(image).permute(2, 0, 1) / 127.5 - 1)[None]
    with torch.inference_mode(): plain = torch.sigmoid(bent.model()(x)[0, 0] / 1.3).numpy()
    wanted = calibrated(torch.sigmoid(bent.model()(x)[0, 0]).detach().numpy(), Calibration(1.3, **curve))  # NumPy, from the probability
    got = Segmenter(bent, runtime='onnxruntime').backend.probabilities(image[None])[0]
    np.testing.assert_allclose(got, wanted, atol=2e-5)
    np.testing.assert_allclose(Segmenter(bent, runtime='torch').backend.probabilities(image[None])[0], wanted, atol=2e-5)
    assert abs(got - plain).max() > .01
    np.testing.assert_allclose(OnnxSampler(bent)(image, 5, seed=3), mc_samples(bent.model(), x, 5, seed=3, calibration=bent.calibration), atol=2e-5)


def test_the_file_explains_itself(exported):
    about = {p.key: p.value for p in onnx.load(exported.file(ONNX)).metadata_props}
    assert json.loads(about['size']) == 96 and json.loads(about['threshold']) == .4 and json.loads(about['temperature']) == 1.3
    assert about['weights_sha256'] == exported.info['weights_sha256'] and 'uint8 RGB' in about['image'] and 'not a medical device' in about['notice']


def test_nothing_is_kept_that_would_differ(exported, tmp_path, monkeypatch):
    monkeypatch.setattr('lesion_seg.onnx.TOLERANCE', 0.)
    with pytest.raises(InputError, match='not written'): export_onnx(exported, tmp_path / 'x.onnx', opset=13)
    assert not list(tmp_path.iterdir())


def test_a_new_temperature_needs_a_new_export(exported, tmp_path):
    import shutil
    copy = Bundle.load(shutil.copytree(exported.path, tmp_path / 'copy'))
    assert Segmenter(copy).runtime == 'onnxruntime'
    warmer = revise(copy, temperature=2.)
    assert Segmenter(warmer).runtime == 'torch'
    with pytest.raises(InputError, match='lesion_seg export'): Segmenter(warmer, runtime='onnxruntime')


def test_prediction_imports_no_pytorch(exported, tmp_path):
    photo = tmp_path / 'photo.jpg'
    Image.fromarray(make_phantom(1, (300, 400)).image).save(photo)
    code = ("import sys, json; from lesion_seg.predict import Segmenter; s = Segmenter(sys.argv[1]); found = s.predict(sys.argv[2]); found.save(sys.argv[3]);"
            "list(s.predict_many([sys.argv[2]] * 3)); s.bundle.architecture['dropout'] and s.uncertainty(sys.argv[2], 3);"
            "print([m for m in ('torch', 'fastai', 'matplotlib', 'albumentations', 'pandas', 'timm') if m in sys.modules])")
    done = subprocess.run([sys.executable, '-c', code, exported.path, photo, tmp_path / 'out'], capture_output=True, text=True)
    assert done.stdout.strip() == '[]', done.stderr
    assert len(list((tmp_path / 'out').iterdir())) == 6


def test_threads_share_a_session(exported):
    from concurrent.futures import ThreadPoolExecutor
    segmenter, images = Segmenter(exported), [make_phantom(i, 96).image for i in range(6)]
    alone = [segmenter(i).small for i in images]
    with ThreadPoolExecutor(4) as pool: together = [s.small for s in pool.map(segmenter, images)]
    np.testing.assert_array_equal(alone, together)


def test_the_command_line_exports(exported, tmp_path, capsys):
    from lesion_seg.cli import main
    assert main(['export', str(exported.path), '-o', str(tmp_path / 'm.onnx'), '--opset', '17', '--json']) == 0
    assert json.loads(capsys.readouterr().out)['opset'] == opset_of(tmp_path / 'm.onnx') == 17
    assert main(['export', str(exported.path), '--opset', '9']) == 2 and 'choose 13 to 18' in capsys.readouterr().err
