"""Images per second to training-ready arrays, from files and from records: python benchmarks/records_speed.py NATIVE SMALL [--images 200] [--rounds 7]

NATIVE is a manifest or folder of photographs as published, SMALL one of the same kind at 256 x 256. All ways end alike: image uint8 (3, 256, 256) and
mask uint8 (256, 256). The ways take turns, warm and in one thread, so that all meet the same load. Writes benchmarks/results/records_speed.json.
"""

import argparse
import json
import platform
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable
from importlib.metadata import version
from itertools import islice
from pathlib import Path

import google_crc32c
import numpy as np
import PIL

from lesion_seg.data import read_image, read_mask, resize_image, resize_mask
from lesion_seg.manifest import Manifest
from lesion_seg.records import RecordReader, write_records

ROOT, SIZE = Path(__file__).resolve().parent.parent, 256


def from_files(pairs: list) -> Callable:
    "Number i to image and mask, as the loaders read files."
    return lambda i: (resize_image(read_image(pairs[i].image, at_least=SIZE), SIZE), resize_mask(read_mask(pairs[i].mask), SIZE))


def images_per_second(raw: Callable, n: int) -> float:
    start = time.perf_counter()
    for i in range(n):
        image, mask = raw(i)
        image.transpose(2, 0, 1).copy(), mask.astype(np.uint8)
    return n / (time.perf_counter() - start)


def of_folder(records: RecordReader) -> Callable: return lambda i: records.raw(i, SIZE)


def megabytes(paths) -> float: return round(sum(p.stat().st_size for p in paths) / 1e6, 1)


def files_of(pairs: list) -> list: return [f for p in pairs for f in (p.image, p.mask)]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("native")
    parser.add_argument("small")
    parser.add_argument("--images", type=int, default=200, help="of each kind, at most")
    parser.add_argument("--rounds", type=int, default=7)
    args = parser.parse_args()
    native, small = (list(islice((p for p in Manifest.load(x) if p.mask), args.images)) for x in (args.native, args.small))
    with tempfile.TemporaryDirectory() as tmp:
        start = time.perf_counter()
        records = write_records(small, Path(tmp, "pixels"), SIZE)
        seconds, whole = time.perf_counter() - start, write_records(native, Path(tmp, "files"), None)
        ways = {"native JPEG and PNG files": (from_files(native), len(native)), "256 x 256 JPEG and PNG files": (from_files(small), len(small)),
                "records of native files": (of_folder(whole), len(native)), "records of 256 x 256 pixels": (of_folder(records), len(small))}
        disk = dict(zip(ways, (megabytes(files_of(native)), megabytes(files_of(small)), megabytes(whole.path.iterdir()), megabytes(records.path.iterdir())),
                        strict=True))
        for a, b in zip(map(of_folder(records), range(5)), map(from_files(small), range(5)), strict=True):
            for x, y in zip(a, b, strict=True): np.testing.assert_array_equal(x, y)
        for raw, n in ways.values(): images_per_second(raw, n)
        rounds = [{k: images_per_second(raw, n) for k, (raw, n) in ways.items()} for _ in range(args.rounds)]
    best = list(ways)[-1]
    table = {k: dict(images_per_second=round(statistics.median(r[k] for r in rounds), 1), images=n, megabytes=disk[k],
                     records_are_faster_by=round(statistics.median(r[best] / r[k] for r in rounds), 1)) for k, (_, n) in ways.items()}
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True).stdout.strip()
    result = dict(what="images per second to uint8 arrays at 256 x 256, one thread, warm", command="python benchmarks/records_speed.py NATIVE SMALL "
                  f"--images {args.images} --rounds {args.rounds}", ways=table, written_images_per_second=round(len(small) / seconds, 1), commit=commit,
                  versions=dict(python=platform.python_version(), numpy=np.__version__, pillow=PIL.__version__, google_crc32c=version("google-crc32c"),
                                crc32c=google_crc32c.implementation), machine=platform.machine())
    (ROOT / "benchmarks/results/records_speed.json").write_text(json.dumps(result, indent=1) + "\n")
    print("| from | images/s | images | MB | records are faster by |\n|---|---|---|---|---|")
    for k, v in table.items(): print(f"| {k} | {v['images_per_second']} | {v['images']} | {v['megabytes']} | {v['records_are_faster_by']} |")


if __name__ == "__main__": main()
