"""Speed of lesion_seg.metrics and lesion_seg.evaluate, as JSON on stdout: `python benchmarks/metrics_speed.py [--repeats 5]`

Synthetic lesions only. `score_pair` with and without distances at 256 x 256 and at the size of a 12-megapixel photograph;
overlap metrics of a batch against a loop over its images; the border distances by k-d tree against scipy's distance transform;
bootstrap intervals of tables up to 10000 images.
"""
import argparse
import json
import platform
import time

import numpy as np
import pandas as pd
import scipy
from scipy import ndimage

from lesion_seg import evaluate as ev
from lesion_seg import metrics as M


def lesion(shape, seed, shift=0.):
    "An irregular lesion that fills about a fifth of the image; `shift` moves it by a share of the image"
    rng, (h, w) = np.random.default_rng(seed), shape
    y, x = np.ogrid[:h, :w]
    y, x = y - h * (.5 + shift), x - w * (.5 + shift)
    angle, radius = np.arctan2(y, x), np.full((1, 1), .25 * min(h, w) * 1.05)
    for k in range(2, 14): radius = radius * (1 + .15 / k * np.cos(k * angle + rng.uniform(0, 2 * np.pi)))
    return x * x + y * y < radius * radius


def best(f, repeats):
    "Smallest wall time of f() in milliseconds, after one warm-up call"
    times = []
    for _ in range(repeats + 1):
        start = time.perf_counter()
        f()
        times.append(time.perf_counter() - start)
    return round(1e3 * min(times[1:]), 3)


def by_distance_transform(pred, truth):
    "The same distances by scipy's exact distance transform, on the box around both masks"
    box = ndimage.find_objects((pred | truth).astype(np.uint8))[0]
    a, b = (M.surface(m[box]) for m in (pred, truth))
    return ndimage.distance_transform_edt(~b)[a], ndimage.distance_transform_edt(~a)[b]


def pair_times(shape, repeats):
    pred, truth = lesion(shape, 1, .01), lesion(shape, 2)
    for got, want in zip(M.surface_distances(pred, truth), by_distance_transform(pred, truth), strict=True):
        np.testing.assert_allclose(got, want, atol=1e-9)
    return dict(shape=list(shape), lesion_share=round(float(truth.mean()), 3), jaccard=round(M.jaccard(pred, truth), 3),
                overlap_ms=best(lambda: M.score_pair(pred, truth), repeats),
                with_distances_ms=best(lambda: M.score_pair(pred, truth, distances=True), repeats),
                surface_distances_ms=best(lambda: M.surface_distances(pred, truth), repeats),
                by_distance_transform_ms=best(lambda: by_distance_transform(pred, truth), repeats),
                boundary_iou_ms=best(lambda: M.boundary_iou(pred, truth), repeats))


def batch_times(n, side, repeats):
    preds = np.stack([lesion((side, side), i, .02) for i in range(n)])
    truths = np.stack([lesion((side, side), i + n) for i in range(n)])
    batch = best(lambda: M.overlap(preds, truths), repeats)
    loop = best(lambda: [M.score_pair(p, t) for p, t in zip(preds, truths, strict=True)], repeats)
    return dict(n=n, side=side, batch_ms=batch, loop_ms=loop, images_per_s=round(1e3 * n / batch), speedup=round(loop / batch, 2))


def bootstrap_times(n, groups, repeats):
    rng = np.random.default_rng(0)
    table = pd.DataFrame(dict(id=np.arange(n).astype(str), group=rng.integers(groups, size=n).astype(str),
                              **{m: rng.beta(8, 2, n) for m in M.METRICS}, unit='px'))
    return dict(images=n, groups=groups, resamples=2000,
                one_interval_ms=best(lambda: ev.bootstrap_interval(table.dice, table.group), repeats),
                summarise_ms=best(lambda: ev.summarise(table), repeats))


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--repeats', type=int, default=5, help='timed calls; the fastest counts')
    k = parser.parse_args().repeats
    print(json.dumps(dict(
        python=platform.python_version(), numpy=np.__version__, scipy=scipy.__version__, repeats=k,
        pair=[pair_times(s, k) for s in ((256, 256), (2848, 4288))],
        batch=[batch_times(n, s, k) for n, s in ((64, 64), (64, 256), (512, 128))],
        bootstrap=[bootstrap_times(n, g, k) for n, g in ((150, 150), (1000, 600), (10000, 5000))]), indent=2))


if __name__ == '__main__': main()
