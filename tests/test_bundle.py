"""lesion_seg.bundle: metadata that strangers wrote, folders that are named in four ways, and networks of other people."""
import json
import math
import shutil
import subprocess
import sys
import time
from pathlib import Path

import onnx
import pytest
import torch
from torch import nn

from lesion_seg.bundle import METADATA, MODEL_CARD, ONNX, REQUIRED, SHIPPED, WEIGHTS, Bundle, Calibration, check_metadata, revise, save_bundle
from lesion_seg.core import InputError, refuses, sha256
from lesion_seg.unet import UNet, build_model

CURVE = dict(power=1.4, scale=1.2, doubt=0.4, usual=0.8, span=3)


def metadata(**changes):
    return dict(schema=1, architecture={"name": "unet"}, size=256, mean=[0.5] * 3, std=[0.5] * 3, threshold=0.5, temperature=1.0,
                weights_sha256="0" * 64, training={}, metrics={}, versions={}) | changes


def tiny(folder, seed=0, **options):
    torch.manual_seed(seed)
    return save_bundle(folder, UNet(channels=(2, 4), bottleneck=8, dropout=0.2), **(dict(size=32) | options))


def own_network():
    torch.manual_seed(1)
    return nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 1, 1))


# ---------------------------------------------------------------------------------------------------------------- metadata
@pytest.mark.parametrize("key, good, bad", [
    ("size", 32, 31), ("size", 1024, 1025), ("threshold", 0.01, 0), ("threshold", 0.99, 1), ("temperature", 1e-3, 0),
    ("temperature", 9e9, math.inf), ("temperature", 1, math.nan), ("mean", [0, 0, 1], [0, 0, 1.1]), ("mean", [0.5] * 3, [0.5] * 2),
    ("std", [1e-3, 1, 1], [0, 1, 1]), ("std", [1, 1, 1], [1, 1, True]), ("schema", 1, 2), ("calibration", {}, {"power": 1}),
    ("calibration", CURVE, CURVE | {"span": 0.5}), ("calibration", CURVE | {"doubt": 0}, CURVE | {"scale": 0}),
    ("calibration", CURVE, CURVE | {"power": True}), ("calibration", CURVE, CURVE | {"usual": math.inf}),
    ("onnx", {"sha256": {}}, {"sha256": []}), ("onnx", {"sha256": {}}, {}), ("review", dict(score="a", threshold=1), dict(score=3)),
    ("largest", True, 1), ("size", 64, "64"), ("size", 64, True), ("architecture", {"name": "x"}, {})])
def test_limits_from_both_sides(key, good, bad):
    assert check_metadata(metadata(**{key: good}), "x")[key] == good
    assert key in refuses(check_metadata, metadata(**{key: bad}), "x")


@pytest.mark.parametrize("key", REQUIRED)
def test_a_missing_key_is_named(key):
    assert f"{key} is missing" in refuses(check_metadata, {k: v for k, v in metadata().items() if k != key}, "x")


def test_all_problems_at_once_each_by_itself():
    with pytest.raises(InputError) as e: check_metadata(metadata(threshold=2, size=5), "bundle.json")
    assert e.value.problems == ["size must be between 32 and 1024", "threshold must lie strictly between 0 and 1"]
    assert str(e.value).startswith("bundle.json: size must") and str(e.value).endswith("; save the bundle again with this release, or mend the file")


@pytest.mark.parametrize("architecture", [
    dict(channels=[8] * 17), dict(channels=[8193]), dict(channels=[[8]]), dict(channels=[-1]), dict(bottleneck=8193), dict(bottleneck=-1),
    dict(encoder="x" * 201), dict(dropout=math.nan), dict(dropout=math.inf), dict(decoder={"a": 1}), dict(pretrained="/etc/passwd"), dict(pretrained=True),
    {str(i): 1 for i in range(17)}])
def test_an_architecture_that_would_be_expensive_or_reads_files(architecture):
    assert "architecture must" in refuses(check_metadata, metadata(architecture={"name": "unet"} | architecture), "x")


@pytest.mark.parametrize("text", ["[" * 100_000, "{", "[]", " " * 1_000_001, '"text"', "\xff"])
def test_hostile_json(tmp_path, text):
    tiny(tmp_path / "b")
    (tmp_path / "b" / METADATA).write_bytes(text.encode("latin-1"))
    assert METADATA in refuses(Bundle.load, tmp_path / "b")


# ------------------------------------------------------------------------------------------------------------------- opening
def test_the_four_ways_to_name_a_bundle(tmp_path):
    b = tiny(tmp_path / "run" / "bundle")
    assert Bundle.open(b) is b
    assert Bundle.open(tmp_path / "run").path == Bundle.open(str(tmp_path / "run" / "bundle")).path == tmp_path / "run" / "bundle"
    assert Bundle.open().path == Bundle.open("shipped").path == SHIPPED
    assert "no bundle.json in this folder" in refuses(Bundle.open, tmp_path)


def test_a_bundle_with_a_folder_called_bundle_is_itself(tmp_path):
    outer = tiny(tmp_path / "b")
    tiny(tmp_path / "b" / "bundle", seed=1)
    assert Bundle.open(tmp_path / "b").info["weights_sha256"] == outer.info["weights_sha256"]


def test_opening_imports_no_torch(tmp_path):
    tiny(tmp_path / "b")
    code = f"import sys; from lesion_seg.bundle import Bundle; Bundle.open({str(tmp_path / 'b')!r}); print('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "False"


HOSTILE = "<script>alert(1)</script><img src=x onerror=alert(2)>\x1b[31m\n|*_[x](javascript:alert(3))"


@pytest.mark.parametrize("place", ["name", "argument", "data", "licence", "sha256", "onnx", "path"])
def test_a_table_to_look_at_runs_nothing(place, tmp_path):
    info = metadata(training={"data": HOSTILE if place == "data" else "", "licence": HOSTILE if place == "licence" else ""},
                    architecture={"name": HOSTILE if place == "name" else "unet"} | ({HOSTILE: HOSTILE} if place == "argument" else {}),
                    weights_sha256=HOSTILE if place == "sha256" else "0" * 64, onnx={"sha256": {HOSTILE: 1} if place == "onnx" else {}})
    b = Bundle(Path(HOSTILE) if place == "path" else tmp_path, info)
    shown = b._repr_html_()
    assert "<script" not in shown and "<img" not in shown and "\x1b" not in shown and "\x1b" not in repr(b)
    assert ("alert(1)" in shown) == (place != "sha256") and "256 x 256 pixels" in shown


# -------------------------------------------------------------------------------------------------------------- writing
def test_there_and_back(tmp_path):
    b = tiny(tmp_path / "b", threshold=0.4, temperature=2.0, mean=(0.1, 0.2, 0.3), std=(0.4, 0.5, 0.6), training={"data": "none"})
    back = Bundle.load(tmp_path / "b")
    assert back == b and (back.threshold, back.temperature, back.mean, back.std) == (0.4, 2.0, [0.1, 0.2, 0.3], [0.4, 0.5, 0.6])
    assert not back.model().training and back.calibration == Calibration(2.0) and back.largest is False
    assert sorted(p.name for p in b.path.iterdir()) == [METADATA, WEIGHTS] and list(tmp_path.iterdir()) == [b.path]
    assert (b.path / METADATA).stat().st_mode == (b.path / WEIGHTS).stat().st_mode


def test_saving_again_replaces_the_whole_and_spares_what_is_not_ours(tmp_path):
    tiny(tmp_path / "b")
    (tmp_path / "b" / ONNX).write_bytes(b"old")
    (tmp_path / "b" / MODEL_CARD).write_text("old")
    new = tiny(tmp_path / "b", seed=1)
    assert sorted(p.name for p in new.path.iterdir()) == [METADATA, WEIGHTS]
    (new.path / "notes.txt").write_text("mine")
    with pytest.raises(InputError, match="holds other files; choose a new folder"): tiny(new.path)
    assert (new.path / "notes.txt").read_text() == "mine" and Bundle.load(new.path) == new


def test_a_failed_save_leaves_the_old_one(tmp_path):
    b = tiny(tmp_path / "b")
    with pytest.raises(InputError, match="threshold must lie"): tiny(tmp_path / "b", threshold=2.0)
    assert Bundle.load(tmp_path / "b") == b and list(tmp_path.iterdir()) == [b.path]


def test_weights_that_share_memory_are_stored(tmp_path):
    net = own_network()
    net.add_module("twin", nn.Identity())
    net.twin.weight = net[0].weight
    back = save_bundle(tmp_path / "b", net, size=32).model()
    assert torch.equal(back.network.twin.weight, net[0].weight)


def test_revising(tmp_path):
    b = tiny(tmp_path / "b")
    new = revise(b, threshold=0.3, metrics={"valid": 1}, largest=True)
    assert Bundle.load(b.path) == new and new.largest and new.info["metrics"] == {"valid": 1}
    assert revise(new, metrics={"test": 2}).info["metrics"] == {"valid": 1, "test": 2}
    for changes, says in [(dict(threshold=0), "threshold"), (dict(treshold=0.5), "no key 'treshold'"), (dict(review=0.5), "review is a float"),
                          (dict(onnx={"sha256": None}), "onnx must name")]:
        before = (b.path / METADATA).read_bytes()
        assert says in refuses(revise, new, **changes)
        assert (b.path / METADATA).read_bytes() == before


def test_exported_files_are_the_ones_named_and_go_with_their_calibration(tmp_path):
    b = tiny(tmp_path / "b")
    shutil.copy(SHIPPED / ONNX, b.path)
    b = revise(b, onnx=dict(sha256={ONNX: sha256(b.path / ONNX)}))
    assert b.file(ONNX) == b.path / ONNX
    assert "lesion_seg export" in refuses(b.file, "decoder.onnx") and "--quantize static" in refuses(b.file, "model.int8.onnx")
    assert revise(b, temperature=b.temperature, threshold=0.2).info["onnx"] == b.info["onnx"]
    (b.path / ONNX).write_bytes(b"grape")
    assert "cut or swapped" in refuses(b.file, ONNX)
    assert "onnx" not in revise(b, calibration=CURVE).info and not (b.path / ONNX).exists()


def test_an_exported_file_with_the_right_digest_may_still_mean_harm(tmp_path):
    b = tiny(tmp_path / "b")
    secret = onnx.TensorProto(name="s", data_type=1, dims=[1], data_location=onnx.TensorProto.EXTERNAL)
    secret.external_data.add(key="location", value="../secret")
    value = onnx.helper.make_tensor_value_info
    graph = onnx.helper.make_graph([onnx.helper.make_node("Add", ["image", "s"], ["y"])], "g", [value("image", 1, ["n"])], [value("y", 1, None)], [secret])
    (b.path / ONNX).write_bytes(onnx.helper.make_model(graph).SerializeToString())
    b = revise(b, onnx=dict(sha256={ONNX: sha256(b.path / ONNX)}))
    assert "model.onnx: has numbers that lie in another file" in refuses(b.file, ONNX)


def test_weights_that_another_architecture_asks_for_are_found_before_memory_is_spent(tmp_path):
    b = tiny(tmp_path / "b")
    wide = b.info | dict(architecture=dict(name="unet", channels=[8192] * 16, bottleneck=8192))  # 120 GB
    (b.path / METADATA).write_text(json.dumps(wide))
    start = time.monotonic()
    assert "does not fit the architecture in bundle.json (bottleneck.0.bias is (8,), not (8192,)" in refuses(Bundle.load(b.path).model)
    assert time.monotonic() - start < 20


@pytest.mark.parametrize("architecture", [UNet((4, 8), 16).architecture, dict(name="lesion_unet", encoder="resnet18"),
                                          dict(name="lesion_unet", encoder="mobilenetv3_large_100", decoder=[8, 8, 8, 8]),
                                          dict(name="lesion_unet", encoder="tf_efficientnet_lite0", last_cross=True)])
def test_expected_shapes_are_those_of_the_network(architecture, tmp_path):
    shapes = {k: tuple(v.shape) for k, v in build_model(architecture).state_dict().items()}
    assert Bundle(tmp_path, metadata(architecture=architecture)).expected_shapes() == shapes


# ------------------------------------------------------------------------------------------------------- networks of other people
def test_a_network_of_ones_own(tmp_path):
    net = own_network()
    b = save_bundle(tmp_path / "b", net, size=64)
    net.eval()
    x = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        assert torch.equal(b.model()(x), net(x))
        assert torch.equal(Bundle.open(b.path, network=own_network()).model()(x), net(x))
        assert torch.equal(Bundle.open(b.path).model(own_network())(x), net(x))
        assert torch.equal(revise(b, threshold=0.3).model()(x), net(x))
    assert b.architecture == dict(name="own", network="torch.nn.modules.container.Sequential")
    assert "give the module itself" in refuses(Bundle.open(b.path).model)
    assert "does not fit the architecture" in refuses(Bundle.open(b.path, network=nn.Conv2d(3, 1, 1)).model)
    assert torch.equal(net[0].weight, own_network()[0].weight), "the module that was handed over is not changed"


def test_handing_a_module_over_does_not_change_it(tmp_path):
    b = save_bundle(tmp_path / "b", own_network(), size=32)
    other = own_network()
    with torch.no_grad(): other[0].weight.zero_()
    b.model(other)
    assert not other[0].weight.any()


@pytest.mark.parametrize("net, says", [(nn.Conv2d(3, 2, 1), r"gives \(1, 2, 32, 32\)"), (nn.Conv2d(1, 1, 1), "cannot take an image"),
                                       (nn.Sequential(nn.Conv2d(3, 1, 1), nn.Flatten()), r"gives \(1, 1024\)")])
def test_what_makes_no_logits_is_refused_and_nothing_is_written(net, says, tmp_path):
    with pytest.raises(InputError, match=says): save_bundle(tmp_path / "b", net, size=32)
    assert not (tmp_path / "b").exists()


def test_no_name_in_a_file_is_imported(tmp_path):
    "An architecture can only name what `MODELS` holds."
    b = tiny(tmp_path / "b")
    for name in ("os:system", "lesion_seg.unet:UNet", "subprocess.run", "own"):
        info = b.info | dict(architecture={"name": name, "command": "touch sprung"})
        (b.path / METADATA).write_text(json.dumps(info))
        assert "model.safetensors" in refuses(Bundle.load(b.path).model) or "cannot build" in refuses(Bundle.load(b.path).model)
    assert not Path("sprung").exists()


def monai_network():
    networks = pytest.importorskip("monai.networks.nets")
    torch.manual_seed(0)
    return networks.UNet(2, 3, 1, (4, 8, 16), (2, 2))


@pytest.mark.slow
@pytest.mark.parametrize("make", [own_network, monai_network])
def test_a_network_of_ones_own_is_trained_exported_evaluated_and_calibrated(make, tmp_path):
    from lesion_seg.loaders import lesion_dls
    from lesion_seg.onnx import export_onnx
    from lesion_seg.phantom import make_phantom, write_phantoms
    from lesion_seg.predict import Segmenter
    from lesion_seg.report import calibrate_bundle, evaluate_manifest
    from lesion_seg.train import fit, lesion_learner
    manifest = write_phantoms(tmp_path / "data", n=12, size=64, images_per_patient=1).split((0.5, 0.3, 0.2), seed=0)
    learn = lesion_learner(lesion_dls(manifest, 32, 2, "none", num_workers=0, device="cpu"), make(), precision="fp32")
    with learn.no_bar(), learn.no_logging(): trained = fit(learn, 1, tmp_path / "run")
    assert trained.architecture["name"] == "own" and trained.size == 32
    b = Bundle.open(tmp_path / "run", network=make())
    export_onnx(b, opset=17)
    photo = make_phantom(3, (61, 83)).image
    without = Segmenter(Bundle.open(tmp_path / "run"))  # nobody needs the module any more
    here = Segmenter(Bundle.open(tmp_path / "run", network=make()), runtime="torch")
    assert abs(without.predict(photo).probability - here.predict(photo).probability).max() < 1e-4
    assert len(evaluate_manifest(tmp_path / "run", manifest.subset("valid"))) == len(manifest.subset("valid"))
    calibrated = calibrate_bundle(Bundle.open(tmp_path / "run", network=make()), manifest.subset("valid"))
    assert calibrated.info["metrics"]["calibration"]["source"] == "valid" and set(calibrated.info["onnx"]["sha256"]) == {ONNX}
    again, here = Segmenter(Bundle.open(tmp_path / "run")), Segmenter(calibrated, runtime="torch")
    assert again.runtime == "onnxruntime" and abs(again.predict(photo).probability - here.predict(photo).probability).max() < 1e-4
