"""The command line as a process: exit codes, streams, and what is left on the disk."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from lesion_seg.bundle import save_bundle
from lesion_seg.onnx import export_onnx
from lesion_seg.phantom import make_phantom
from lesion_seg.unet import UNet


def run(*args, cwd, **env):
    "A finished `lesion_seg` process."
    return subprocess.run([sys.executable, "-W", "ignore", "-m", "lesion_seg", *map(str, args)], cwd=cwd, capture_output=True, text=True,
                          env={**os.environ, **env}, timeout=300)


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    "A folder with a random bundle and two photographs of different size."
    folder = tmp_path_factory.mktemp("cli")
    torch.manual_seed(0)
    export_onnx(save_bundle(folder / "bundle", UNet(channels=(4, 8), bottleneck=16), size=32), opset=17)  # its exporter is the quick one
    for i, size in enumerate([(48, 64), (75, 51)]): Image.fromarray(make_phantom(i, size).image).save(folder / f"photo{i}.png")
    return folder


def test_segment_writes_masks_at_the_photographs_resolution(work, tmp_path):
    done = run("segment", work / "photo0.png", work / "photo1.png", "-b", work / "bundle", "-o", tmp_path / "out", "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    results = json.loads(done.stdout)["results"]
    for result, (w, h) in zip(results, [(64, 48), (51, 75)], strict=True):
        mask = Image.open(result["written"]["mask"])
        assert mask.size == (w, h) and set(np.unique(np.asarray(mask))) <= {0, 255}
        assert result["area_px"] == np.count_nonzero(np.asarray(mask))


def test_broken_files_are_named_and_the_others_are_done(work, tmp_path):
    (tmp_path / "empty.jpg").touch()
    (tmp_path / "cut.png").write_bytes((work / "photo0.png").read_bytes()[:400])
    files = [tmp_path / "empty.jpg", work / "photo0.png", tmp_path / "cut.png", tmp_path / "absent.jpg"]
    done = run("segment", *files, "-b", work / "bundle", "-o", "out", cwd=tmp_path)
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert all(name in done.stderr for name in ("empty.jpg", "cut.png", "absent.jpg")) and len(done.stderr.strip().splitlines()) == 3
    assert [p.name for p in (tmp_path / "out").glob("*_mask.png")] == ["photo0_mask.png"]


def test_same_stem_twice_does_not_collide(work, tmp_path):
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "x.png").write_bytes((work / "photo0.png").read_bytes())
    done = run("segment", "a", "b", "-b", work / "bundle", "-o", "out", "--save", "mask", cwd=tmp_path)
    assert done.returncode == 0 and len(list((tmp_path / "out").iterdir())) == 2


@pytest.mark.parametrize("args,words", [
    (["segment", "x.jpg", "-b", "none"], "none"), (["trian"], "trian"), (["evaluate", "b", "--tta", "--bad"], "--bad"),
    (["--config", "absent.yaml", "info"], "absent.yaml"), (["info", "--set", "data.image_size=7"], "data.image_size"),
    (["info", "absent.dcm"], "absent.dcm: does not exist"),
    pytest.param(["train", "absent.csv"], "absent.csv", marks=pytest.mark.slow),
])
def test_mistakes_give_exit_code_2_and_a_sentence(args, words, tmp_path):
    done = run(*args, cwd=tmp_path)
    assert done.returncode == 2 and words in done.stderr and "Traceback" not in done.stderr and not done.stdout
    assert not list(tmp_path.iterdir()), "nothing is left behind, no log either"


def test_review_with_a_bundle_that_has_no_rule_says_so(work, tmp_path):
    done = run("segment", work / "photo0.png", "-b", work / "bundle", "--review", "--json", cwd=tmp_path)
    assert done.returncode == 2 and "no doubt to review was fitted for this bundle" in done.stderr and "lesion_seg calibrate" in done.stderr


def test_output_that_cannot_be_written_is_a_sentence(work, tmp_path):
    (tmp_path / "taken").write_text("a file, not a folder")
    done = run("segment", work / "photo0.png", "-b", work / "bundle", "-o", "taken", cwd=tmp_path)
    assert done.returncode == 2 and "taken" in done.stderr and "Traceback" not in done.stderr


def test_environment_variable_names_the_configuration(tmp_path):
    (tmp_path / "c.yaml").write_text("training: {epochs: 3}\nlogging: {log_file: logs/app.jsonl}\n")
    done = run("info", "--set", "project.seed=1", "--json", cwd=tmp_path, CONFIG_PATH="c.yaml")
    assert done.returncode == 0 and json.loads(done.stdout)["training"]["epochs"] == 3


@pytest.mark.slow
def test_ctrl_c_stops_with_130_and_the_training_can_go_on(tmp_path):
    assert run("phantom", "data", "-n", 24, "--size", 64, cwd=tmp_path).returncode == 0
    assert run("split", "data", "-o", "split.csv", cwd=tmp_path).returncode == 0
    args = ["train", "split.csv", "-o", "run", *(x for s in (
        "model.architecture=unet", "model.encoder_channels=[8,16]", "model.bottleneck_channels=32", "data.image_size=64", "data.batch_size=4",
        "data.num_workers=0", "training.epochs=60", "training.schedule=one_cycle", "training.tensorboard=false") for x in ("--set", s))]
    def listen(): signal.signal(signal.SIGINT, signal.SIG_DFL)  # a job in the background inherits deafness to Ctrl-C
    process = subprocess.Popen([sys.executable, "-W", "ignore", "-m", "lesion_seg", *args], cwd=tmp_path, stderr=subprocess.PIPE, text=True,
                               preexec_fn=listen)
    checkpoint = tmp_path / "run" / "checkpoint.safetensors"
    for _ in range(15_000):
        if checkpoint.exists(): break
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=300)
    assert process.returncode == 130 and "Traceback" not in err and "stopped" in err
    assert not (tmp_path / "run" / "bundle").exists() and not list(Path(tmp_path / "run").glob("*.tmp"))


def test_download_from_a_server_that_stumbles(tmp_path):
    "A fifth of the answers fail; the images under the licence asked for arrive whole, and the manifest lists them."
    from isic_server import IsicServer, encoded
    photos = {f"ISIC_{i:07d}": encoded(make_phantom(i, 48).image, "JPEG") for i in range(5)}
    with IsicServer(images=photos, share=0.2, seed=3) as server:
        done = run("download", "--limit", "4", "--licence", "cc0", "--mirror", server.api, "-o", tmp_path / "isic", "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "isic" / "manifest.csv").exists() and (tmp_path / "isic" / "licences.csv").exists()
    got = {f.stem: f.read_bytes() for f in (tmp_path / "isic" / "images").iterdir()}
    assert got == {k: photos[k] for k in ("ISIC_0000000", "ISIC_0000003")}  # the server's licences go round in threes


def test_download_of_what_is_not_there(tmp_path):
    for args in (["isic2015"], [], ["isic2017", "--query", "x"]):
        done = run("download", *args, cwd=tmp_path)
        assert done.returncode == 2 and "Traceback" not in done.stderr and done.stderr.strip()


@pytest.mark.slow
def test_dicom_in_and_dicom_out(work, tmp_path):
    "The segmentation refers to its photograph; the header's pixel spacing gives millimetres; a photograph that is no DICOM has none."
    pydicom, highdicom = pytest.importorskip("pydicom"), pytest.importorskip("highdicom")
    from lesion_seg.dicom_seg import photo_to_dicom
    photo_to_dicom(make_phantom(3, (48, 64)).image, tmp_path / "in.dcm", spacing=(0.1, 0.2))
    done = run("segment", "in.dcm", "-b", work / "bundle", "-o", "out", "--seg", "seg.dcm", "--threshold", "0.4", "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)["results"][0]
    assert result["spacing_mm"] == [0.1, 0.2] and result["area_mm2"] == pytest.approx(result["area_px"] * 0.02)
    seg, mask = highdicom.seg.segread(tmp_path / "seg.dcm"), np.asarray(Image.open(tmp_path / result["written"]["mask"])) > 0
    assert np.array_equal(seg.pixel_array.reshape(mask.shape) > 0, mask)
    source = pydicom.dcmread(tmp_path / "in.dcm", stop_before_pixels=True)
    assert seg.ReferencedSeriesSequence[0].ReferencedInstanceSequence[0].ReferencedSOPInstanceUID == source.SOPInstanceUID
    assert run("segment", work / "photo0.png", "--seg", "x.dcm", cwd=tmp_path).returncode == 2 and not (tmp_path / "x.dcm").exists()


def test_info_of_a_dicom_file_keeps_the_patient_to_itself(tmp_path):
    from lesion_seg.dicom_seg import photo_to_dicom
    photo_to_dicom(make_phantom(3, (48, 64)).image, tmp_path / "in.dcm", patient="Doe")
    assert "Doe" not in (shown := run("info", "in.dcm", cwd=tmp_path).stdout) and "64" in shown
    assert "Doe" in run("info", "in.dcm", "--identifying", cwd=tmp_path).stdout
