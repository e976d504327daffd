"""Warm time from a 6-megapixel JPEG to a saved mask, and the share of each step; JSON to stdout.

    python benchmarks/predict_speed.py [--bundle FOLDER] [--megapixels 6] [--repeats 15] [--threads 1]

Without a bundle a LesionUNet with random weights stands in, of the size of the real one; its map is replaced by a soft disc
over a fifth of the picture, so that resizing, cleaning and saving have a lesion to work on. Each number is the median of its own runs."""
import argparse
import json
import statistics
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import Image

from lesion_seg.bundle import Bundle, save_bundle
from lesion_seg.data import read_image
from lesion_seg.predict import KINDS, Segmentation, Segmenter, _prepare


def photograph(path: Path, megapixels: float) -> tuple[int, int]:
    "A 3:2 JPEG of quality 92 with a dark disc, coarse and fine texture; returns (H, W)."
    h = round((megapixels * 1e6 / 1.5) ** .5)
    w, rng = round(1.5 * h), np.random.default_rng(0)
    y, x = np.mgrid[:h, :w].astype(np.float32)
    spot = 1 / (1 + np.exp((np.hypot(y - h / 2, x - w / 2) - .31 * h) / 20))
    coarse = np.asarray(Image.fromarray(rng.normal(0, 12, (h // 8, w // 8)).astype(np.float32)).resize((w, h), Image.Resampling.BICUBIC))
    img = np.array([225, 180, 155]) - spot[..., None] * np.array([110, 110, 100]) + (coarse + rng.normal(0, 3, (h, w)))[..., None]
    Image.fromarray(img.clip(0, 255).astype(np.uint8)).save(path, quality=92)
    return h, w


def disc(side: int) -> np.ndarray:
    y, x = np.mgrid[:side, :side] + .5
    return (1 / (1 + np.exp(np.hypot((y - side / 2), 1.5 * (x - side / 2)) - .31 * side))).astype(np.float32)


def ms(work, repeats: int) -> float:
    "Median milliseconds of a call, after one to warm up."
    times = []
    for _ in range(repeats + 1):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return round(statistics.median(times[1:]) * 1e3, 2)


def main() -> None:
    a = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    a.add_argument('--bundle', type=Path)
    a.add_argument('--megapixels', type=float, default=6)
    a.add_argument('--repeats', type=int, default=15)
    a.add_argument('--threads', type=int, default=1)
    args = a.parse_args()
    with tempfile.TemporaryDirectory() as tmp:
        json.dump(measure(args, Path(tmp)), sys.stdout, indent=1)
    print()


def measure(args: argparse.Namespace, tmp: Path) -> dict:
    if args.bundle: bundle = Bundle.load(args.bundle)
    else:
        from lesion_seg.unet import lesion_unet
        bundle = save_bundle(tmp / 'bundle', lesion_unet())
    segmenter, path = Segmenter(bundle, args.threads), tmp / 'photo.jpg'
    size = photograph(path, args.megapixels)
    item, small = _prepare(path, bundle.size), None if args.bundle else disc(bundle.size)

    def result() -> Segmentation:
        found = segmenter(path)
        return found if small is None else replace(found, small=small)

    base = result()
    def again(**options) -> Segmentation: return replace(base, **options)

    n = args.repeats
    steps = dict(decode=ms(lambda: read_image(path, bundle.size), n), header_and_input_resize=0.,
                 network=ms(lambda: segmenter.backend.probabilities(item.pixels[None]), n),
                 mask_at_full_size=ms(lambda: again().mask, n), save_png=ms(lambda: base.save(tmp, kinds='mask'), n))
    steps['header_and_input_resize'] = round(ms(lambda: _prepare(path, bundle.size), n) - steps['decode'], 2)
    total = ms(lambda: result().save(tmp, kinds='mask'), n)
    extras = dict(probability_map=ms(lambda: again().probability, n), largest_and_fill_holes=ms(lambda: again(largest=True, fill_holes=True).mask, n),
                  measure=ms(base.measure, n), polygons=ms(lambda: again().polygons, n), preview=ms(base.preview, n),
                  **{f'save_{k}': ms(lambda k=k: again().save(tmp, kinds=k), max(3, n // 4)) for k in KINDS if k != 'mask'})
    return dict(what='file to saved mask, warm, median of milliseconds', bundle=str(args.bundle or 'random LesionUNet, disc for its map'),
                size=list(size), jpeg_bytes=path.stat().st_size, threads=args.threads, repeats=n, lesion_fraction=round(base.measure()['area_fraction'], 3),
                total_ms=total, steps_ms=steps, share={k: round(v / sum(steps.values()), 3) for k, v in steps.items()}, extras_ms=extras)


if __name__ == '__main__': main()
