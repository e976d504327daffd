"""Audit ISIC 2017, copies of it made on purpose, and COUNT photographs for the time: python model/audit.py FOLDER [COUNT]

FOLDER holds images/, splits.csv (image_id, official_isic2017_split) and near_duplicates.csv (image_a, image_b). The many photographs of the last part are
cut from those of FOLDER: six parts of each that do not overlap, each as large as the whole one, some mirrored, in colours that are a little different.
`python model/audit.py FOLDER COUNT scale` does the last part alone, and leaves the other figures as they are. All times are CPU seconds of the whole
process, user and system, so that a busy machine does not matter. Writes model/results/audit.json; no picture leaves the folder but into a temporary one.
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
from lesion_seg.layouts import LesionPair
from lesion_seg.manifest import Manifest

RESULT = Path(__file__).resolve().parent / 'results' / 'audit.json'
SECONDS: dict[str, float] = defaultdict(float)
ORIGINALS, STRANGERS = 40, 500
NAMES = dict(look_at='decode and key points', candidates='search', confirm='align', keypoint_candidates='key point search',
             placed_duplicates='lay key points on each other')


def timed(name: str) -> None:
    "Let a function of `lesion_seg.audit` add its CPU seconds to `SECONDS`."
    f = getattr(audit, name)

    def g(*args, **kw):
        start = time.process_time()
        out = f(*args, **kw)
        SECONDS[name] += time.process_time() - start
        return out
    setattr(audit, name, g)


def parts(image: np.ndarray, rng: np.random.Generator) -> list[np.ndarray]:
    "Six parts of a photograph, two rows of three, as large as itself: pictures that share no pixel."
    h, w = image.shape[:2]
    cut = [image[y * h // 2:(y + 1) * h // 2, x * w // 3:(x + 1) * w // 3] for y in range(2) for x in range(3)]
    made = []
    for part in cut:
        large = cv2.resize(part, (w, h), interpolation=cv2.INTER_CUBIC)
        if rng.random() < .5: large = large[:, ::-1]
        made.append(np.clip(large * rng.uniform(.9, 1.1, 3) + rng.uniform(-8, 8, 3), 0, 255).astype(np.uint8))
    return made


def write_many(files: list[Path], n: int, folder: Path) -> Manifest:
    "`n` photographs in a folder."
    rng, pairs = np.random.default_rng(0), []
    for f in files:
        for k, part in enumerate(parts(np.asarray(Image.open(f).convert('RGB')), rng)):
            if len(pairs) == n: return Manifest(pairs)
            pairs.append(LesionPair(folder / f'{f.stem}_{k}.jpg'))
            Image.fromarray(part).save(pairs[-1].image, quality=90)
    raise SystemExit(f'{len(files)} photographs have {len(pairs)} parts, fewer than {n}')


def audit_many(files: list[Path], n: int) -> dict:
    "CPU seconds of an audit of `n` photographs, by step, on one thread."
    SECONDS.clear()
    with tempfile.TemporaryDirectory() as tmp:
        manifest = write_many(files, n, Path(tmp))
        start = time.process_time()
        result = audit.audit_manifest(manifest, threads=1)
        total = time.process_time() - start
    return dict(images=result.images, pairs=len(result.pairs), cpu_seconds=by_step(total))


def by_step(total: float) -> dict[str, float]:
    seconds = dict(SECONDS)
    seconds['placed_duplicates'] -= seconds['keypoint_candidates']
    return {'total': round(total, 1)} | {NAMES[k]: round(v, 1) for k, v in seconds.items()}


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


def audit_isic(manifest: Manifest, known: set[frozenset[str]]) -> dict:
    "What an audit finds, which of it was known, and what it costs."
    start = time.process_time()
    result = audit.audit_manifest(manifest, 'official_isic2017_split', threads=1)
    total = time.process_time() - start
    found = {frozenset(x) for x in result.links()}
    return dict(images=result.images, known=len(known), known_found=len(known & found), leaks=[x._asdict() for x in result.leaks],
                pairs=[{**x._asdict(), 'known': frozenset((x.image_a, x.image_b)) in known} for x in result.pairs], cpu_seconds=by_step(total))


def main(folder: str, count: int = 10_000, which: str = 'all') -> None:
    data = Path(folder)
    manifest = Manifest.load(data / 'images').join(data / 'splits.csv')
    files = [p.image for p in manifest]
    for name in NAMES: timed(name)
    facts = json.loads(RESULT.read_text()) if which == 'scale' else {}
    if which == 'all':
        known = {frozenset((r['image_a'], r['image_b'])) for r in csv.DictReader(open(data / 'near_duplicates.csv'))}
        facts |= dict(command='python model/audit.py isic2017') | audit_isic(manifest, known) | dict(copies=copies_found(files))
    facts |= dict(many=audit_many(files, count), numpy=np.__version__, opencv=cv2.__version__, python=platform.python_version())
    facts.pop('estimate', None)
    RESULT.write_text(json.dumps(facts, indent=1) + '\n')
    print(json.dumps({k: v for k, v in facts.items() if k != 'pairs'}, indent=1))


if __name__ == '__main__': main(sys.argv[1], *map(int, sys.argv[2:3]), *sys.argv[3:4])
