"""The model that comes with the package: whole, small, licensed, and still giving the masks that it gave when it was made."""

import base64
import io
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lesion_seg.bundle import MODEL_CARD, Bundle
from lesion_seg.phantom import make_phantom
from lesion_seg.predict import Segmenter
from lesion_seg.unet import model_cost

STORED = json.loads(Path(__file__).with_name("shipped_masks.json").read_text())
FOLDER = Bundle.shipped().path


@pytest.fixture(scope="module")
def segmenter():
    return Segmenter()


def test_it_is_small_enough_for_a_wheel_and_cheap_enough_for_a_laptop(segmenter):
    assert sum(p.stat().st_size for p in FOLDER.iterdir()) <= 40e6
    assert model_cost(segmenter.bundle.model())["gmac"] <= 6


def test_its_card_says_where_it_comes_from():
    info = Bundle.shipped().info
    assert info["training"]["licence"] == "CC0-1.0" and "ISIC 2017" in info["training"]["data"]
    for key in ("split_digest", "seed", "epochs", "n_train", "n_valid", "augs", "loss", "command"): assert info["training"][key], key
    assert {"torch", "python", "lesion_seg"} <= info["versions"].keys() and info["commit"]
    assert info["metrics"]["calibration"]["source"] == "selection" and info["metrics"]["isic2017_validation"]["256"]["n"] == 150


def test_its_model_card_travels_with_it():
    text = (FOLDER / MODEL_CARD).read_text()
    for part in ("not a medical device", "Sub-groups", "Worst cases", "Limits", "CC0-1.0"): assert part in text


@pytest.mark.parametrize("case", STORED["cases"], ids=lambda c: f"phantom {c['seed']}")
def test_it_gives_the_stored_masks(segmenter, case):
    "Other processors round otherwise, so the masks may differ in a few border pixels: Jaccard at least 0.985 with the stored one."
    assert segmenter.bundle.info["weights_sha256"] == STORED["weights"], "other weights: run model/shipped_masks.py"
    mask = segmenter.predict(base64.b64decode(case["photo_jpeg"])).mask
    kept = np.asarray(Image.open(io.BytesIO(base64.b64decode(case["mask_png"])))) > 0
    assert (mask & kept).sum() / (mask | kept).sum() >= 0.985


def test_it_finds_phantoms_it_has_never_seen(segmenter):
    "Not a score (phantoms are no photographs), a check that the whole path works: the mean Jaccard over eight clean phantoms."
    phantoms = [make_phantom(900 + i, 192, artefacts={}) for i in range(8)]
    masks = [s.mask for s in segmenter.predict_many(p.image for p in phantoms)]
    scores = [(m & p.mask).sum() / (m | p.mask).sum() for m, p in zip(masks, phantoms, strict=True)]
    assert np.mean(scores) > 0.6
