"8-bit integers: what is rounded, what is left alone, and that masks stay."
import json
import shutil
import subprocess
import sys

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper
from PIL import Image
from torch.nn.utils.fusion import fuse_conv_bn_eval

from lesion_seg.bundle import ONNX, ONNX_INT8, Bundle, save_bundle
from lesion_seg.cli import main
from lesion_seg.core import InputError
from lesion_seg.loss import DiceBCELoss
from lesion_seg.onnx import export_onnx, open_session
from lesion_seg.phantom import make_phantom, write_phantoms
from lesion_seg.predict import Segmenter
from lesion_seg.quantize import quantize_onnx
from lesion_seg.unet import UNet

SIDE, PHANTOMS = 64, [make_phantom(i, 64) for i in range(32)]


@pytest.fixture(scope='module')
def net():
    "A small U-Net that learned phantoms for some seconds."
    torch.manual_seed(0)
    net, loss = UNet((8, 16), 32, dropout=0.), DiceBCELoss()
    x = torch.stack([torch.from_numpy(p.image) for p in PHANTOMS]).permute(0, 3, 1, 2) / 127.5 - 1
    y = torch.stack([torch.from_numpy(p.mask) for p in PHANTOMS])[:, None].float()
    optimiser = torch.optim.Adam(net.parameters(), 1e-2)
    for _ in range(15):
        for part in torch.randperm(len(x)).split(8):
            optimiser.zero_grad()
            loss(net(x[part]), y[part]).backward()
            optimiser.step()
    return net.eval()


@pytest.fixture(scope='module')
def quantized(net, tmp_path_factory):
    bundle = save_bundle(tmp_path_factory.mktemp('q') / 'bundle', net, size=SIDE)
    export_onnx(bundle)
    quantize_onnx(bundle.path, (p.image for p in PHANTOMS), n=16, source='phantoms 0 to 15')
    return Bundle.load(bundle.path)


def test_weights_are_rounded_channel_by_channel(quantized, net):
    "Each stored weight is the nearest step to the weight with its batch norm folded in by PyTorch; a channel's largest one is step 127."
    graph = onnx.load(quantized.file(ONNX_INT8))
    stored, made = {t.name: numpy_helper.to_array(t) for t in graph.graph.initializer}, {o: n for n in graph.graph.node for o in n.output}
    convs = [n for n in graph.graph.node if n.op_type == 'Conv']
    blocks = [*net.down, net.bottleneck, *(up.convs for up in net.up)]  # as they are run; the head comes last
    folded = [fuse_conv_bn_eval(b[i], b[i + 1]).weight.detach().numpy() for b in blocks for i in (0, 3)]
    seen = 0
    for conv, w in zip(convs[:-1], folded, strict=True):
        if conv.input[1] not in made: continue
        q, scale = (stored[i] for i in made[conv.input[1]].input[:2])
        seen += 1
        assert q.dtype == np.int8 and scale.shape == (len(w),)
        np.testing.assert_allclose(scale, np.abs(w).max((1, 2, 3)) / 127, rtol=1e-3)
        assert np.abs(q * scale[:, None, None, None] - w).max() <= scale.max() * .51
    assert seen >= 2 and quantized.path.joinpath(ONNX_INT8).stat().st_size < .6 * quantized.path.joinpath(ONNX).stat().st_size


def test_masks_stay_on_images_that_were_not_looked_at(quantized):
    images = [make_phantom(200 + i, SIDE).image for i in range(10)]
    a, b = (np.stack([s.mask for s in Segmenter(quantized, precision=p).predict_many(images)]) for p in ('float32', 'int8'))
    assert 0.01 < a.mean() < .9
    assert np.mean((a & b).sum((1, 2)) / (a | b).sum((1, 2)).clip(1)) > .95


@pytest.mark.slow
def test_a_layer_that_cannot_bear_it_is_found_and_left_alone(net, tmp_path):
    "One channel 500 times as loud, and the next convolution 500 times as deaf to it: the same function, but the other channels drown in the steps."
    loud = UNet((8, 16), 32, dropout=0.).eval()
    loud.load_state_dict(net.state_dict())
    norm, conv = loud.down[0][1], loud.down[0][3]
    with torch.no_grad():
        quiet = torch.relu(norm(loud.down[0][0](torch.stack([torch.from_numpy(p.image) for p in PHANTOMS[:4]]).permute(0, 3, 1, 2) / 127.5 - 1)))
        k = int(quiet.mean((0, 2, 3)).argmax())
        norm.weight[k] *= 500
        norm.bias[k] *= 500
        conv.weight[:, k] /= 500
    bundle = save_bundle(tmp_path / 'loud', loud, size=SIDE)
    export_onnx(bundle)
    quantize_onnx(bundle.path, (p.image for p in PHANTOMS[:12]), at_least=.9)
    found = Bundle.load(bundle.path).info['onnx']['int8']
    assert found['floats'][0] == 'down.0.3' and found['tried']['0'] < found['agreement'] - .01, found


def test_what_does_not_agree_is_not_written(quantized, tmp_path):
    before = quantized.path.joinpath('bundle.json').read_text()
    with pytest.raises(InputError, match='not written'):
        quantize_onnx(quantized, [np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)], tmp_path / 'x.onnx', at_least=1.01)
    assert not list(tmp_path.iterdir()) and quantized.path.joinpath('bundle.json').read_text() == before


def test_dynamic(quantized, tmp_path):
    file = quantize_onnx(quantized, [p.image for p in PHANTOMS[:4]], tmp_path / 'd.onnx', method='dynamic', at_least=.9)
    assert {n.op_type for n in onnx.load(file).graph.node} >= {'ConvInteger', 'DynamicQuantizeLinear'}
    assert open_session(file).run(None, {'image': np.zeros((2, 50, 70, 3), np.uint8)})[0].shape == (2, 1, 50, 70)


@pytest.mark.slow
def test_the_metadata_know_the_file(quantized, net, tmp_path):
    card, about = quantized.info['onnx'], open_session(quantized.file(ONNX_INT8)).get_modelmeta().custom_metadata_map
    assert json.loads(about['int8']) == card['int8'] and card['int8']['source'] == 'phantoms 0 to 15' and card['int8']['images'] == 16
    assert about['weights_sha256'] == quantized.info['weights_sha256']
    copy = Bundle.load(shutil.copytree(quantized.path, tmp_path / 'copy'))
    (copy.path / ONNX_INT8).write_bytes((copy.path / ONNX_INT8).read_bytes() + b'0')
    with pytest.raises(InputError, match='cut or swapped'): Segmenter(copy, precision='int8')
    export_onnx(copy, opset=17)  # its exporter is the quick one
    assert not (copy.path / ONNX_INT8).exists() and 'int8' not in Bundle.load(copy.path).info['onnx']
    with pytest.raises(InputError, match='--quantize static'): Segmenter(copy.path, precision='int8')
    with pytest.raises(InputError, match='torch float32'): Segmenter(copy.path, runtime='torch', precision='int8')
    shutil.copy(quantized.path / ONNX_INT8, copy.path)
    save_bundle(copy.path, net, size=SIDE)  # a bundle with all its files may be replaced


def test_prediction_in_int8_imports_no_pytorch(quantized, tmp_path):
    photo = tmp_path / 'photo.jpg'
    Image.fromarray(make_phantom(1, (300, 400)).image).save(photo)
    code = ("import sys; from lesion_seg.predict import Segmenter; s = Segmenter(sys.argv[1], precision='int8'); s.predict(sys.argv[2]).save(sys.argv[3]);"
            "print([m for m in ('torch', 'fastai', 'matplotlib', 'albumentations', 'pandas', 'timm') if m in sys.modules], s.metadata['precision'])")
    done = subprocess.run([sys.executable, '-c', code, quantized.path, photo, tmp_path / 'out'], capture_output=True, text=True)
    assert done.stdout.strip() == '[] int8', done.stderr


def test_the_command_line(quantized, tmp_path, capsys):
    write_phantoms(tmp_path / 'data', n=6, size=48)
    copy = shutil.copytree(quantized.path, tmp_path / 'copy')
    (copy / ONNX_INT8).unlink()
    assert main(['export', str(copy), '--quantize', 'static', '--calibration', str(tmp_path / 'data'), '-n', '4', '--json']) == 0
    assert json.loads(capsys.readouterr().out)['opset'] == 18
    assert Bundle.load(copy).info['onnx']['int8'] | dict(images=4, source='training photographs') == Bundle.load(copy).info['onnx']['int8']
    photo = tmp_path / 'photo.png'
    Image.fromarray(make_phantom(1, 80).image).save(photo)
    assert main(['segment', str(photo), '-b', str(copy), '--precision', 'int8', '-o', str(tmp_path / 'out')]) == 0
    assert json.loads((tmp_path / 'out' / 'photo.json').read_text())['model']['precision'] == 'int8'
    capsys.readouterr()
    for wrong, says in ((['export', str(copy), '--quantize', 'magic'], 'static, dynamic'),
                        (['export', str(copy), '--quantize', 'static', '--floats'], '--floats'),
                        (['segment', str(photo), '-b', str(copy), '--precision', 'int4', '-o', str(tmp_path / 'o')], 'int4')):
        assert main(wrong) == 2 and says in capsys.readouterr().err
