"""As it was, or tuned? The rule by hand, and the command on tiny networks."""

import json

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from lesion_seg.bundle import Bundle
from lesion_seg.cli import main, tuning_arguments
from lesion_seg.config import Config, load_config
from lesion_seg.manifest import Manifest
from lesion_seg.phantom import write_phantoms
from lesion_seg.train import train_model
from lesion_seg.tune import judge, tune_model

FAST = dict(bs=4, precision="fp32", num_workers=0, progress=False, say=lambda _: None)


def scores(jaccard, groups=None) -> pd.DataFrame:
    names = [f"p{i}" for i in range(len(jaccard))]
    return pd.DataFrame(dict(id=names, group=groups or names, jaccard=np.asarray(jaccard, float)))


def test_only_a_whole_interval_above_zero_keeps_the_tuned_one():
    old = np.linspace(.5, .9, 20)
    assert judge(scores(old), scores(old + .02)).keep == "tuned"
    assert judge(scores(old), scores(old)).keep == "old"
    assert judge(scores(old), scores(old - .02)).keep == "old"
    half = np.where(np.arange(20) % 2, .1, -.08)  # better on average, by one hundredth, and not surely
    v = judge(scores(old), scores(old + half))
    assert (v.keep, v.difference) == ("old", pytest.approx(.01)) and v.ci[0] < 0 < v.ci[1]


def test_groups_count_not_photographs():
    "Twenty photographs of two patients say little: one patient is better, the other a little worse."
    old, gain = np.full(20, .7), np.array([.1] * 10 + [-.01] * 10)
    assert judge(scores(old), scores(old + gain)).keep == "tuned"
    assert judge(scores(old, ["a"] * 10 + ["b"] * 10), scores(old + gain, ["a"] * 10 + ["b"] * 10)).keep == "old"


def test_one_group_has_no_interval_and_changes_nothing():
    v = judge(scores([.5, .6], ["a", "a"]), scores([.9, .9], ["a", "a"]))
    assert v.keep == "old" and "single group" in str(v)


def test_the_sentence_has_the_numbers():
    text = str(judge(scores([.5, .6]), scores([.6, .7])))
    assert "as it was 0.5500, tuned 0.6500 (mean Jaccard of 2 validation photographs, both calibrated on them); difference +0.1000" in text and text.endswith("keep the tuned one")


@pytest.fixture(scope="module")
def first(tmp_path_factory) -> tuple[Bundle, Manifest]:
    folder = tmp_path_factory.mktemp("first")
    table = write_phantoms(folder / "data", n=24, size=64, seed=1, images_per_patient=1)
    for i, p in enumerate(table): p.split = "valid" if i % 2 else "train"
    tiny = dict(name="unet", channels=[8, 16], bottleneck=32, dropout=.1)
    return train_model(table, folder / "run", tiny, 64, epochs=8, augs="none", lr=5e-3, schedule="one_cycle", licence="CC0-1.0", **FAST), table


def test_what_comes_from_the_bundle(first, tmp_path):
    kept, verdict = tune_model(first[1], tmp_path / "run", first[0], epochs=1, lr=.1, **FAST)  # far too high
    info = Bundle.open(tmp_path / "run").info
    assert (info["size"], info["training"]["augs"], info["training"]["licence"]) == (64, "none", "CC0-1.0")
    assert info["architecture"] == first[0].architecture and info["training"]["start"] == first[0].info["weights_sha256"]
    assert (verdict.keep, kept.path) == ("old", first[0].path)


def test_another_camera_is_learned_and_exported(first, tmp_path, capsys):
    "By the command; a second call changes nothing."
    table = write_phantoms(tmp_path / "data", n=32, size=64, seed=9, images_per_patient=1)
    for i, p in enumerate(table):
        p.split = "valid" if i % 2 else "train"
        Image.fromarray(255 - np.asarray(Image.open(p.image))).save(p.image)
    table.save(tmp_path / "table.csv")
    command = ["train", str(tmp_path / "table.csv"), "--start", str(first[0].path), "-o", str(tmp_path / "run"), "--json"]
    for setting in ("training.epochs=10", "training.learning_rate=5e-3", "data.batch_size=4", "data.num_workers=0", "training.precision=fp32"):
        command += ["--set", setting]
    assert main(command) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["keep"] == "tuned" and result["ci"][0] > 0 and result["bundle"] == str(tmp_path / "run" / "bundle")
    assert result["difference"] == pytest.approx(result["tuned"] - result["old"])
    info = Bundle.open(tmp_path / "run").info
    assert "onnx" in info and info["metrics"]["calibration"]["source"] == "valid"
    assert {"results.csv", "curves.png", "train_batches.jpg", "valid_predictions.jpg"} <= {p.name for p in (tmp_path / "run").iterdir()}
    assert main(command) == 0
    assert json.loads(capsys.readouterr().out) == result and Bundle.open(tmp_path / "run").info == info


def test_what_was_set_counts_more_than_what_a_tuning_needs():
    plain = tuning_arguments(Config())
    assert (plain["epochs"], plain["lr"], plain["size"], plain["augs"], plain["licence"]) == (10, 3e-4, None, None, None)
    own = tuning_arguments(load_config(None, ["training.epochs=3", "training.learning_rate=0.01", "data.image_size=128", "augmentation.preset=none"]))
    assert (own["epochs"], own["lr"], own["size"], own["augs"]) == (3, .01, 128, "none")
