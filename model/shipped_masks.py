"""Store the shipped model's masks of a few phantoms for tests/test_shipped.py: python model/shipped_masks.py"""

import base64
import io
import json
from pathlib import Path

import numpy as np
from PIL import Image

from lesion_seg.phantom import make_phantom
from lesion_seg.predict import Segmenter

STORE = Path(__file__).resolve().parent.parent / "tests" / "shipped_masks.json"
SIZE = (192, 256)


def encoded(array: np.ndarray, kind: str, **options) -> bytes:
    "The bytes of an image file."
    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, kind, **options)
    return buffer.getvalue()


def main():
    segmenter, cases = Segmenter(), []
    for seed in range(700, 706):
        photo = encoded(make_phantom(seed, SIZE).image, "JPEG", quality=85)
        mask = encoded(segmenter.predict(photo).mask, "PNG", optimize=True)
        cases.append(dict(seed=seed, photo_jpeg=base64.b64encode(photo).decode(), mask_png=base64.b64encode(mask).decode()))
    weights = segmenter.bundle.info["weights_sha256"]
    STORE.write_text(json.dumps(dict(weights=weights, cases=cases), indent=1) + "\n")


if __name__ == "__main__": main()
