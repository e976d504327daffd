"""Why a border lies where it lies: the maps on the photograph, their files, and what happens without PyTorch."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lesion_seg.cli import main
from lesion_seg.contours import resize_probability
from lesion_seg.core import InputError, is_photograph
from lesion_seg.explain import MAPS, Explanation, add_legend, encode_map, read_map
from lesion_seg.phantom import make_phantom
from lesion_seg.predict import Segmenter


@pytest.fixture(scope="module")
def photograph(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("photos") / "mole.png"
    Image.fromarray(make_phantom(5, (210, 300)).image).save(path)
    return path


@pytest.fixture(scope="module")
def why(photograph) -> Explanation: return Segmenter().explain(photograph, n=4, seed=3)


def test_maps_are_those_of_the_samples(photograph, why):
    "The standard deviation of the very samples, and the entropy of their mean, worked out here."
    segmenter = Segmenter()
    from lesion_seg.predict import prepare_input
    samples = segmenter.backend.samples(prepare_input(photograph, segmenter.bundle.size).pixels, 4, 3)
    np.testing.assert_allclose(why.small("std"), samples.std(0), atol=1e-6)
    p = samples.mean(0).astype(float).clip(1e-12, 1 - 1e-7)
    h = -p * np.log2(p) - (1 - p) * np.log2(1 - p)
    np.testing.assert_allclose(why.small("entropy"), h, atol=1e-4)
    assert (why.small("mutual_information") <= why.small("entropy") + 1e-6).all()


def test_grad_cam_is_that_of_the_notebook(photograph, why):
    from lesion_seg.gradcam import explain
    cam = explain(None, photograph)
    assert (why.about["gradcam"]["layer"], why.small("gradcam").shape) == (cam.layer, cam.raw.shape)
    assert np.corrcoef(why.map("gradcam").ravel(), cam.heat.ravel())[0, 1] > .98


def test_files_hold_the_maps_at_the_photographs_size(tmp_path, photograph, why):
    files = why.save(tmp_path)
    assert set(files) == {*MAPS, *(f"{m}_overlay" for m in MAPS), "explain"}
    for name in MAPS:
        with Image.open(files[name]) as im: assert (im.mode, im.size) == ("I;16", (300, 210))
        expected = resize_probability(why.small(name), (210, 300))
        assert np.abs(read_map(files[name]) - expected).max() <= .5 / 65535 + 1e-6
        with Image.open(files[f"{name}_overlay"]) as im: assert im.width == 300 and im.height > 210
        assert not is_photograph(files[name]) and not is_photograph(files[f"{name}_overlay"])
    record = json.loads(files["explain"].read_text())
    assert record["values"] == "pixel of a map / 65535" and record["uncertainty"]["samples"] == 4


def test_other_programs_read_the_numbers(tmp_path):
    cv2 = pytest.importorskip("cv2")
    values = np.linspace(0, 1, 12, dtype=np.float32).reshape(3, 4)
    (tmp_path / "a_std_map.png").write_bytes(encode_map(values, "a ramp"))
    pixels = cv2.imread(str(tmp_path / "a_std_map.png"), cv2.IMREAD_UNCHANGED)
    assert pixels.dtype == np.uint16
    np.testing.assert_allclose(pixels / 65535, values, atol=1e-5)


def test_legend_runs_from_the_first_colour_to_the_last():
    from matplotlib import colormaps
    picture = add_legend(np.zeros((50, 400, 3), np.uint8), "title", .25)
    first, last = picture[50 + 8, 0], picture[50 + 8, -1]
    table = colormaps["inferno"]([0., 1.], bytes=True)[:, :3]
    np.testing.assert_array_equal([first, last], table)


def test_photograph_is_not_overwritten(tmp_path):
    path = tmp_path / "mole_std_overlay.jpg"
    Image.fromarray(make_phantom(5, (64, 64)).image).save(path)
    maps = dict(std=np.zeros((8, 8), np.float32))
    with pytest.raises(InputError, match="not overwritten"): Explanation(maps, (64, 64), "mole.jpg", path).save(tmp_path, "mole")
    assert sorted(p.name for p in tmp_path.iterdir()) == [path.name]


def run_without_torch(*args: str) -> subprocess.CompletedProcess:
    code = "import sys; sys.modules['torch'] = None; from lesion_seg.cli import main; sys.exit(main(sys.argv[1:]))"
    return subprocess.run([sys.executable, "-c", code, *args], capture_output=True, text=True)


def test_without_torch_uncertainty_works_and_grad_cam_says_what_it_needs(tmp_path, photograph):
    done = run_without_torch("explain", str(photograph), "-o", str(tmp_path), "-n", "3", "--save", "uncertainty")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "mole_std_map.png").is_file()
    refused = run_without_torch("explain", str(photograph), "-o", str(tmp_path / "b"), "-n", "3")
    assert refused.returncode == 2 and "needs torch, which is not installed" in refused.stderr
    assert not (tmp_path / "b").exists()


def test_segment_saves_the_same_files(tmp_path, photograph, capsys):
    assert main(["segment", str(photograph), "-o", str(tmp_path / "a"), "--save", "mask,uncertainty,gradcam", "--json"]) == 0
    written = json.loads(capsys.readouterr().out)["results"][0]["written"]
    assert main(["explain", str(photograph), "-o", str(tmp_path / "b")]) == 0
    capsys.readouterr()
    for name in MAPS:
        np.testing.assert_array_equal(read_map(written[name]), read_map(tmp_path / "b" / f"mole_{name}_map.png"))


def test_broken_photographs_do_not_stop_the_others(tmp_path, photograph, capsys):
    folder = tmp_path / "in"
    folder.mkdir()
    (folder / "a.png").write_bytes(photograph.read_bytes()[:400])
    (folder / "b.png").write_bytes(photograph.read_bytes())
    assert main(["explain", str(folder), "-o", str(tmp_path / "out"), "-n", "2", "--save", "uncertainty"]) == 2
    answer = capsys.readouterr()
    assert "a.png" in answer.err and "1 of 2 explained" in answer.out and (tmp_path / "out" / "b_std_map.png").is_file()


@pytest.mark.parametrize("options, sentence", [
    (["--save", "saliency"], "is not an explanation"),
    (["--target", "left"], "is not a target"),
    (["--target", "9999,3"], "lies outside"),
    (["--layer", "blocks.99"], "is not part of this")])
def test_wrong_wishes_get_a_sentence(tmp_path, photograph, capsys, options, sentence):
    assert main(["explain", str(photograph), "-o", str(tmp_path), "-n", "2", *options]) == 2
    assert sentence in capsys.readouterr().err
