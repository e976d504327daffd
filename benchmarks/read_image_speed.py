"""How much faster a 12-megapixel JPEG becomes 256x256 when it is decoded in draft mode: JSON to stdout.

python benchmarks/read_image_speed.py [repeats]
"""
import io
import json
import platform
import statistics
import sys
import time

import numpy as np
import PIL
from PIL import Image

from lesion_seg.data import read_image, resize_image


def photograph(height: int = 3000, width: int = 4000) -> bytes:
    "A skin-coloured picture with a dark spot and fine grain, as a JPEG of quality 92."
    rng = np.random.default_rng(0)
    y, x = np.mgrid[-1:1:height * 1j, -1.3:1.3:width * 1j]
    spot = 1 / (1 + np.exp(30 * (np.hypot(x, y) - 0.5)))[..., None]
    img = np.array([214, 160, 136]) * (1 - spot) + np.array([96, 60, 44]) * spot + rng.normal(0, 6, (height, width, 1))
    buffer = io.BytesIO()
    Image.fromarray(img.clip(0, 255).astype(np.uint8)).save(buffer, 'JPEG', quality=92)
    return buffer.getvalue()


def milliseconds(f, *args) -> float:
    start = time.perf_counter()
    f(*args)
    return 1000 * (time.perf_counter() - start)


def main(repeats: int = 11) -> None:
    jpeg = photograph()
    ways = {'draft': lambda: resize_image(read_image(jpeg, at_least=256), 256), 'full': lambda: resize_image(read_image(jpeg), 256)}
    for f in ways.values(): f()
    times = [{k: milliseconds(f) for k, f in ways.items()} for _ in range(repeats)]  # one after the other, so that both meet the same load
    difference = np.abs(ways['draft']().astype(int) - ways['full']())
    print(json.dumps({'command': 'python benchmarks/read_image_speed.py',
        'what': '4000x3000 JPEG to 256x256', 'repeats': repeats, 'jpeg_megabytes': round(len(jpeg) / 1e6, 2),
        'draft_ms': round(statistics.median(t['draft'] for t in times), 1), 'full_ms': round(statistics.median(t['full'] for t in times),
            1),
        'median_ratio': round(statistics.median(t['full'] / t['draft'] for t in times), 2),
        'mean_abs_difference': round(float(difference.mean()), 3), 'pillow': PIL.__version__, 'python': platform.python_version()},
            indent=1))


if __name__ == '__main__': main(*map(int, sys.argv[1:2]))
