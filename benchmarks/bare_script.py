"""What a person would write who has the ONNX file, Pillow and onnxruntime: python benchmarks/bare_script.py MODEL.onnx SIDE PHOTO MASK.png

The measure of `predict_speed.py`. `draft` lets the JPEG decoder skip detail that the network never sees; few people know it.
"""

import sys

import numpy as np
import onnxruntime
from PIL import Image


def segment(session, side: int, photo: str, mask: str, draft: bool = False) -> None:
    image = Image.open(photo)
    size = image.size
    if draft: image.draft("RGB", (side, side))
    small = np.asarray(image.convert("RGB").resize((side, side), Image.Resampling.BILINEAR))
    maps = session.run(None, {"image": small[None]})[0].reshape(-1, side, side)
    probability = maps[len(maps) // 2]  # the only one, or the middle of three
    full = np.asarray(Image.fromarray(probability).resize(size, Image.Resampling.BILINEAR))
    Image.fromarray(full >= 0.5).save(mask)


if __name__ == "__main__": segment(onnxruntime.InferenceSession(sys.argv[1], providers=["CPUExecutionProvider"]), int(sys.argv[2]), sys.argv[3], sys.argv[4])
