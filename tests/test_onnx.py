"Exported files against PyTorch, for every architecture, and onnxruntime without PyTorch."
import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

from lesion_seg.bundle import ONNX, ONNX_DECODER, Bundle, Calibration, revise, save_bundle
from lesion_seg.calibrate import calibrated
from lesion_seg.core import InputError
from lesion_seg.mc_dropout import mc_samples
from lesion_seg.onnx import SIZES, OnnxSampler, export_onnx, open_session, opset_of, parity, run_session
from lesion_seg.phantom import make_phantom
from lesion_seg.predict import Segmenter
from lesion_seg.unet import LesionUNet, UNet
from lesion_seg.untrusted import check_onnx

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
    with torch.inference_mode(): logits = exported.model()(torch.from_numpy(x).permute(0, 3, 1, 2) / 255 * 2 - 1)
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
    got = Segmenter(bent, runtime='onnxruntime').backend.probabilities(image[None])[0, 0]
    np.testing.assert_allclose(got, wanted, atol=2e-5)
    np.testing.assert_allclose(Segmenter(bent, runtime='torch').backend.probabilities(image[None])[0, 0], wanted, atol=2e-5)
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


def shapes(path):
    graph = onnx.load(path, load_external_data=False).graph
    return [[d.dim_param or d.dim_value for d in t.type.tensor_type.shape.dim] for t in (*graph.input, *graph.output)]


@pytest.mark.parametrize('opset', [13, 17, 18])
def test_open_axes_have_their_names(exported, opset, tmp_path):
    "Opset 13 gave batch and height one name, as if they had to be equal; opset 18 called them s40 and s62."
    if opset == 18: file, decoder = exported.file(ONNX), exported.path / ONNX_DECODER
    else: file, decoder = export_onnx(exported, tmp_path / 'm.onnx', opset=opset), None
    assert shapes(file) == [['batch', 'height', 'width', 3], ['batch', 1, 'height', 'width']]
    if decoder and decoder.exists():
        keep, *features, probability = shapes(decoder)
        assert keep[0] == 'samples' and all(isinstance(d, int) for f in features for d in f)
        assert probability == ['samples', 1, 96, 96]


def test_an_export_says_what_it_does(exported, tmp_path):
    said = []
    export_onnx(exported, tmp_path / 'm.onnx', opset=13, say=said.append)
    assert len(said) == 2 and 'tracing' in said[0] and 'comparing' in said[1]


# Files from strangers

def graph_of(nodes, weights=(), dims=(1, 1, None, None)):
    x = helper.make_tensor_value_info('x', TensorProto.FLOAT, list(dims))
    y = helper.make_tensor_value_info('y', TensorProto.FLOAT, None)
    graph = helper.make_graph(nodes, 'g', [x], [y], [numpy_helper.from_array(w, k) for k, w in dict(weights).items()])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid('', 18)], ir_version=9)


def loop():
    info = helper.make_tensor_value_info
    body = helper.make_graph([helper.make_node('Identity', ['go'], ['on']), helper.make_node('Identity', ['v'], ['w'])], 'body',
                             [info('i', TensorProto.INT64, []), info('go', TensorProto.BOOL, []), info('v', TensorProto.FLOAT, None)],
                             [info('on', TensorProto.BOOL, []), info('w', TensorProto.FLOAT, None)])
    return graph_of([helper.make_node('Loop', ['n', 'c', 'x'], ['y'], body=body)], dict(n=np.array(2 ** 62), c=np.array(True)))


def external():
    graph = graph_of([helper.make_node('Add', ['x', 'w'], ['y'])], dict(w=np.zeros(8, np.float32)))
    weight = graph.graph.initializer[0]
    weight.ClearField('raw_data')
    weight.data_location = TensorProto.EXTERNAL
    weight.external_data.add(key='location', value='../secret.bin')
    return graph


def external_constant():
    "The same inside an operator's setting, and without saying where it stands."
    value = external().graph.initializer[0]
    return graph_of([helper.make_node('Constant', [], ['w'], value=value), helper.make_node('Add', ['x', 'w'], ['y'])])


def lying_tensor():
    graph = graph_of([helper.make_node('Add', ['x', 'w'], ['y'])], dict(w=np.zeros(8, np.float32)))
    del graph.graph.initializer[0].dims[:]
    graph.graph.initializer[0].dims.extend([1 << 20, 1 << 20])
    return graph


def branch():
    side = helper.make_graph([helper.make_node('Identity', ['x'], ['y'])], 'side', [], [helper.make_tensor_value_info('y', TensorProto.FLOAT, None)])
    return graph_of([helper.make_node('If', ['c'], ['y'], then_branch=side, else_branch=side)], dict(c=np.array(True)))


def foreign(): return graph_of([helper.make_node('Secret', ['x'], ['y'], domain='com.stranger')])


def function():
    graph = graph_of([helper.make_node('Relu', ['x'], ['y'])])
    graph.functions.append(helper.make_function('own', 'F', ['a'], ['b'], [helper.make_node('Relu', ['a'], ['b'])], [helper.make_opsetid('', 18)]))
    return graph


def sparse():
    graph = graph_of([helper.make_node('Relu', ['x'], ['y'])])
    values, indices = numpy_helper.from_array(np.ones(1, np.float32), 's'), numpy_helper.from_array(np.zeros(1, np.int64), 'i')
    graph.graph.sparse_initializer.append(helper.make_sparse_tensor(values, indices, [1 << 40]))
    return graph


def one(operator, *weights, dims=(1, 1, None, None), **options):
    names = [f'w{i}' for i in range(len(weights))]
    return lambda: graph_of([helper.make_node(operator, ['x', *names], ['y'], **options)], dict(zip(names, weights, strict=True)), dims)


def of_shape(value=None):
    options = {} if value is None else dict(value=numpy_helper.from_array(value))
    return lambda: graph_of([helper.make_node('ConstantOfShape', ['s'], ['y'], **options)], dict(s=np.array([1, 1, 1 << 15, 1 << 15])))


BIG = 1 << 15
HOSTILE = dict(
    loop=(loop, 'graphs inside a node'), branch=(branch, 'graphs inside a node'), foreign=(foreign, 'operators from elsewhere'),
    function=(function, 'functions'), external=(external, 'another file'), external_constant=(external_constant, 'another file'),
    sparse=(sparse, 'sparse'), lying_tensor=(lying_tensor, 'stores 1099511627776 numbers'),
    tile=(one('Tile', np.array([1, 1, 999, 999])), 'makes a tensor of'),
    expand=(one('Expand', np.array([1, 1, BIG, BIG]), dims=(1, 1, 1, 1)), 'makes a tensor of'),
    resize=(one('Resize', np.zeros(0, np.float32), np.zeros(0, np.float32), np.array([1, 1, BIG, BIG])), 'makes a tensor of'),
    padding=(one('Pad', np.array([0, 0, 0, 0, 0, 0, BIG, BIG])), 'makes a tensor of'),
    shape=(of_shape(), 'makes a tensor of'),
    random=(lambda: graph_of([helper.make_node('RandomNormal', [], ['y'], shape=[4, 4])]), 'RandomNormal'))


@pytest.mark.parametrize('kind', HOSTILE)
def test_a_hostile_graph_is_refused_before_the_runtime_sees_it(kind, tmp_path, monkeypatch):
    make, words = HOSTILE[kind]
    path = tmp_path / 'model.onnx'
    path.write_bytes(make().SerializeToString())
    monkeypatch.setattr(onnxruntime, 'InferenceSession', None)
    with pytest.raises(InputError, match=f'model.onnx: .*{words}'): open_session(path)


def test_a_secret_outside_the_bundle_is_not_read(tmp_path):
    (tmp_path / 'secret.bin').write_bytes(np.full(8, 7, np.float32).tobytes())
    (tmp_path / 'bundle').mkdir()
    (tmp_path / 'bundle' / 'model.onnx').write_bytes(external().SerializeToString())
    with pytest.raises(InputError, match='another file'): open_session(tmp_path / 'bundle' / 'model.onnx')


def test_a_hostile_file_in_a_bundle_is_refused_by_all_who_open_it(exported, tmp_path):
    import hashlib
    import shutil

    from lesion_seg.quantize import quantize_onnx
    copy = Bundle.load(shutil.copytree(exported.path, tmp_path / 'copy'))
    (copy.path / ONNX).write_bytes(loop().SerializeToString())
    digests = copy.info['onnx']['sha256'] | {ONNX: hashlib.sha256((copy.path / ONNX).read_bytes()).hexdigest()}
    copy = revise(copy, onnx=copy.info['onnx'] | dict(sha256=digests))   # whoever makes the file makes its digest, too
    for use in (lambda: Segmenter(copy), lambda: quantize_onnx(copy, n=1), lambda: parity(copy.path / ONNX, copy)):
        with pytest.raises(InputError, match='graphs inside a node'): use()


@pytest.mark.parametrize('opset', [13, 18])
def test_our_own_files_pass(exported, opset, tmp_path):
    "Whatever PyTorch's exporters make of a network."
    file = exported.file(ONNX) if opset == 18 else export_onnx(exported, tmp_path / 'm.onnx', opset=opset)
    check_onnx(file, exported.size)
    if (exported.path / ONNX_DECODER).exists(): check_onnx(exported.path / ONNX_DECODER, exported.size)


def test_a_file_is_looked_into_once(exported, tmp_path, monkeypatch):
    looks = []
    monkeypatch.setattr('lesion_seg.onnx.check_onnx', looks.append)
    graph = one('Add', np.zeros(3, np.float32))()
    graph.producer_name = str(tmp_path)   # a file that nobody has seen
    (tmp_path / 'm.onnx').write_bytes(graph.SerializeToString())
    for _ in range(3): open_session(tmp_path / 'm.onnx')
    open_session(Bundle.shipped().file(ONNX))   # what comes with the package needs no look
    assert looks == [tmp_path / 'm.onnx']


def test_a_run_has_a_limit_of_time():
    endless = onnxruntime.InferenceSession(loop().SerializeToString())   # behind the back of the check
    start = time.perf_counter()
    with pytest.raises(InputError, match='loop.onnx: gave no answer in 0.5 seconds'):
        run_session(endless, None, {'x': np.zeros((1, 1, 2, 2), np.float32)}, 'loop.onnx', seconds=.5)
    assert time.perf_counter() - start < 10


INTERRUPTED = """
import sys, threading, time
import numpy as np, onnxruntime
from lesion_seg.onnx import run_session
endless = onnxruntime.InferenceSession(sys.argv[1])
print('ready', flush=True)
try: run_session(endless, None, {'x': np.zeros((1, 1, 2, 2), np.float32)}, 'loop.onnx')
except KeyboardInterrupt:
    for _ in range(100):   # the helper thread ends, too
        if threading.active_count() == 1: break
        time.sleep(.1)
    print('stopped', threading.active_count())
"""


@pytest.mark.skipif(os.name == 'nt', reason='signals of POSIX')
def test_ctrl_c_ends_a_run(tmp_path):
    (tmp_path / 'loop.onnx').write_bytes(loop().SerializeToString())
    process = subprocess.Popen([sys.executable, '-c', INTERRUPTED, tmp_path / 'loop.onnx'], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout.readline() == 'ready\n'
        time.sleep(.5)
        process.send_signal(signal.SIGINT)
        assert process.communicate(timeout=60)[0] == 'stopped 1\n'
    finally: process.kill()


def test_a_network_may_not_fill_the_memory(tmp_path, monkeypatch):
    "The size of its result comes from the photograph, so that no look at the file can know it; the limit is for the whole process, so another one is asked."
    code = f"""
import numpy as np, onnx
from onnx import helper, numpy_helper
import lesion_seg.onnx as ours
ours.NETWORK_BYTES = 1 << 28
def value(name, kind, dims): return helper.make_tensor_value_info(name, kind, dims)
nodes = [helper.make_node("ReduceMax", ["image"], ["m"], keepdims=0), helper.make_node("Cast", ["m"], ["n"], to=7),
         helper.make_node("Mul", ["n", "million"], ["size"]), helper.make_node("Reshape", ["size", "one"], ["shape"]),
         helper.make_node("Expand", ["zero", "shape"], ["y"])]
held = [numpy_helper.from_array(np.array(v), k) for k, v in dict(million=10**6, one=[1], zero=np.zeros(1, np.float32)).items()]
graph = helper.make_graph(nodes, "g", [value("image", 1, [1, 8, 8, 3])], [value("y", 1, None)], held)
onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9), {str(tmp_path / "net.onnx")!r})
session = ours.open_session({str(tmp_path / "net.onnx")!r}, 1)
def run(n): return ours.run_session(session, None, dict(image=np.full((1, 8, 8, 3), n, np.float32)), "net.onnx")[0].size
print(run(5))
try: run(2000)
except ours.InputError as e: print(e)
print(run(5))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.stdout.splitlines() == ["5000000", "net.onnx: needs more than 0.25 GB of memory; predict fewer photographs at a time, or use another bundle",
                                        "5000000"], done.stdout + done.stderr
