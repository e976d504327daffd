"""Audit ISIC 2017 and time the search on 10,000 descriptors: python benchmarks/audit.py FOLDER [COUNT]

FOLDER holds images/, splits.csv (image_id, official_isic2017_split) and near_duplicates.csv (image_a, image_b). All times are CPU seconds of the
whole process, user and system, so that a busy machine does not matter. Writes benchmarks/results/audit.json; no picture leaves the folder.
"""

import csv
import json
import platform
import sys
import time
from collections import defaultdict
from pathlib import Path

import numpy as np

from lesion_seg import audit
from lesion_seg.manifest import Manifest

RESULT = Path(__file__).resolve().parent / 'results' / 'audit.json'
SECONDS: dict[str, float] = defaultdict(float)


def timed(name: str) -> None:
    "Let a function of `lesion_seg.audit` add its CPU seconds to `SECONDS`."
    f = getattr(audit, name)

    def g(*args, **kw):
        start = time.process_time()
        out = f(*args, **kw)
        SECONDS[name] += time.process_time() - start
        return out
    setattr(audit, name, g)


def search_seconds(n: int, queries: int = 512) -> float:
    "CPU seconds to compare `n` whole photographs, in 8 orientations, with 49 windows of each, from `queries` of them, on random descriptors."
    v = np.random.default_rng(0).standard_normal((49, n, 55), dtype=np.float32)
    start = time.process_time()
    near = audit.resemblance(v[:8, :queries], v)
    np.argpartition(-near, 11, axis=1)
    return (time.process_time() - start) * n / queries


def main(folder: str, count: int = 10_000) -> None:
    data = Path(folder)
    manifest = Manifest.load(data / 'images').join(data / 'splits.csv')
    for name in ('thumbnails', 'candidates', 'confirm'): timed(name)
    start = time.process_time()
    result = audit.audit_manifest(manifest, 'official_isic2017_split', threads=1)
    total, n = time.process_time() - start, result.images
    known = {frozenset((r['image_a'], r['image_b'])) for r in csv.DictReader(open(data / 'near_duplicates.csv'))}
    found = {frozenset(x) for x in result.links()}
    search, linear = search_seconds(count), (total - SECONDS['candidates']) * count / n
    RESULT.write_text(json.dumps({
        'command': 'python benchmarks/audit.py isic2017', 'images': n, 'known': len(known), 'known_found': len(known & found),
        'leaks': [x._asdict() for x in result.leaks],
        'pairs': [{**x._asdict(), 'known': frozenset((x.image_a, x.image_b)) in known} for x in result.pairs],
        'cpu_seconds': {'total': round(total, 1), 'decode': round(SECONDS['thumbnails'], 1), 'search': round(SECONDS['candidates'], 1),
                        'align': round(SECONDS['confirm'], 1)},
        'estimate': {'images': count, 'search': round(search, 1), 'everything_else_scaled': round(linear, 1), 'total': round(search + linear, 1)},
        'numpy': np.__version__, 'python': platform.python_version()}, indent=1) + '\n')
    print(RESULT.read_text())


if __name__ == '__main__': main(sys.argv[1], *map(int, sys.argv[2:3]))
