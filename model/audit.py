"""Audit ISIC 2017 and copies of it made on purpose, and time the search on 10,000 photographs: python model/audit.py FOLDER [COUNT]

FOLDER holds images/, splits.csv (image_id, official_isic2017_split) and near_duplicates.csv (image_a, image_b). All times are CPU seconds of the
whole process, user and system, so that a busy machine does not matter. Writes model/results/audit.json; no picture leaves the folder.
"""

import csv
import json
import platform
import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from lesion_seg import audit
from lesion_seg.keypoints import KeyPoints
from lesion_seg.layouts import LesionPair
from lesion_seg.manifest import Manifest

RESULT = Path(__file__).resolve().parent / 'results' / 'audit.json'
SECONDS: dict[str, float] = defaultdict(float)
ORIGINALS, STRANGERS = 40, 500


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


def keypoint_seconds(keypoints: list[KeyPoints], n: int) -> float:
    "CPU seconds to find candidates among the key points of `n` photographs: the real ones, and again with noise until there are enough."
    rng = np.random.default_rng(0)
    more = []
    for i in range(n):
        k = keypoints[i % len(keypoints)]
        noise = rng.integers(-25, 26, k.descriptors.shape) if i >= len(keypoints) else 0
        more.append(k._replace(descriptors=np.clip(k.descriptors + noise, 0, 255).astype(np.uint8)))
    start = time.process_time()
    audit.keypoint_candidates(more)
    return time.process_time() - start


def turned(image: np.ndarray, angle: float) -> np.ndarray:
    h, w = image.shape[:2]
    return cv2.warpAffine(image, cv2.getRotationMatrix2D((w / 2, h / 2), angle, 1), (w, h), borderMode=cv2.BORDER_REFLECT_101)


def cropped(image: np.ndarray, rng: np.random.Generator, part: float) -> np.ndarray:
    h, w = image.shape[:2]
    y, x = (int(rng.integers(0, s - round(part * s) + 1)) for s in (h, w))
    return cv2.resize(image[y:y + round(part * h), x:x + round(part * w)], (w, h), interpolation=cv2.INTER_CUBIC)


def shifted(image: np.ndarray, part: float) -> np.ndarray:
    h, w = image.shape[:2]
    return cv2.warpAffine(image, np.float32([[1, 0, part * w], [0, 1, part * h]]), (w, h))


def copies_found(files: list[Path]) -> dict:
    "How many copies, turned, cropped and shifted and saved as JPEG of quality 80, are found among strangers; and pairs that are none."
    rng = np.random.default_rng(0)
    chosen = [files[i] for i in rng.choice(len(files), STRANGERS, replace=False)]
    changes = {'turned by 10 degrees': lambda a: turned(a, 10), 'turned by 30 degrees': lambda a: turned(a, 30),
               'cropped to 60 %': lambda a: cropped(a, rng, .6), 'shifted by 10 %': lambda a: shifted(a, .1),
               'mirrored and turned by 75 degrees': lambda a: turned(np.ascontiguousarray(a[:, ::-1]), 75)}
    found = {}
    for name, change in changes.items():
        with tempfile.TemporaryDirectory() as tmp:
            pairs = [LesionPair(f) for f in chosen]
            for f in chosen[:ORIGINALS]:
                Image.fromarray(change(np.asarray(Image.open(f).convert('RGB')))).save(Path(tmp) / f'copy_{f.stem}.jpg', quality=80)
                pairs.append(LesionPair(Path(tmp) / f'copy_{f.stem}.jpg'))
            links = {frozenset(d[:2]) for d in audit.find_duplicates(Manifest(pairs))[0]}
        found[name] = sum(frozenset((f.stem, f'copy_{f.stem}')) in links for f in chosen[:ORIGINALS])
    return dict(of=ORIGINALS, among=STRANGERS, found=found)


def main(folder: str, count: int = 10_000) -> None:
    data = Path(folder)
    manifest = Manifest.load(data / 'images').join(data / 'splits.csv')
    looks: list = []
    look_at = audit.look_at
    audit.look_at = lambda *a, **k: looks.append(look_at(*a, **k)) or looks[-1]
    for name in ('look_at', 'candidates', 'confirm', 'keypoint_candidates', 'placed_duplicates'): timed(name)
    start = time.process_time()
    result = audit.audit_manifest(manifest, 'official_isic2017_split', threads=1)
    total, n = time.process_time() - start, result.images
    known = {frozenset((r['image_a'], r['image_b'])) for r in csv.DictReader(open(data / 'near_duplicates.csv'))}
    found = {frozenset(x) for x in result.links()}
    seconds = dict(SECONDS)
    seconds['placed_duplicates'] -= seconds['keypoint_candidates']
    search, keys = search_seconds(count), keypoint_seconds(looks[0].keypoints, count)
    linear = (total - seconds['candidates'] - seconds['keypoint_candidates']) * count / n
    copies = copies_found([p.image for p in manifest])
    names = dict(look_at='decode and key points', candidates='search', confirm='align', keypoint_candidates='key point search',
                 placed_duplicates='lay key points on each other')
    RESULT.write_text(json.dumps({
        'command': 'python model/audit.py isic2017', 'images': n, 'known': len(known), 'known_found': len(known & found),
        'leaks': [x._asdict() for x in result.leaks],
        'pairs': [{**x._asdict(), 'known': frozenset((x.image_a, x.image_b)) in known} for x in result.pairs],
        'copies': copies,
        'cpu_seconds': {'total': round(total, 1)} | {names[k]: round(v, 1) for k, v in seconds.items()},
        'estimate': {'images': count, 'search': round(search, 1), 'key point search': round(keys, 1), 'everything_else_scaled': round(linear, 1),
                     'total': round(search + keys + linear, 1)},
        'numpy': np.__version__, 'opencv': cv2.__version__, 'python': platform.python_version()}, indent=1) + '\n')
    print(RESULT.read_text())


if __name__ == '__main__': main(sys.argv[1], *map(int, sys.argv[2:3]))
