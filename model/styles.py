"""Whose border? The masks' styles and a model's scores by style: python model/styles.py DATA [--manifest M] [--bundle B] [-o FILE]

DATA as for model/model_card.py: isic2017/ with photographs of 256 x 256 and masks_original_resolution/. M is the manifest that model/weights.py wrote
(its 'valid' is the selection split, its 'test' the official validation set); without it the split is made again. Every mask of the manifest gets a
style from its own border. The bundle (the shipped one, if none is named) is scored on selection and validation: Jaccard index, failures, area ratio
and signed distance by style; and with the best of three borders for each photograph, which looks at the truth and is an upper bound: two triples of
fixed levels, and the bundle's own borders. A truth of more than 1,024 pixels is thinned to every k-th for that; lengths are in its own pixels.
Writes model/results/styles.json, or FILE.
"""

import argparse
import json
import sys
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pandas as pd

from lesion_seg.bundle import SHIPPED, Bundle, code_commit, versions
from lesion_seg.core import atomic_path
from lesion_seg.data import read_mask
from lesion_seg.evaluate import describe_part, subgroups
from lesion_seg.manifest import Manifest
from lesion_seg.metrics import BIAS, jaccard, score_pair
from lesion_seg.predict import Segmentation, Segmenter
from lesion_seg.styles import Styles, contour_of, describe_styles, style_of

sys.path.insert(0, str(Path(__file__).resolve().parent))
import weights  # noqa: E402

RESULT = Path(__file__).resolve().parent / 'results' / 'styles.json'
LEVELS = {'levels 0.15, 0.495, 0.75': (.75, .495, .15), 'levels 0.25, 0.55, 0.85': (.85, .55, .25)}  # tight, middle, wide
PARTS = dict(training='train', selection='valid', validation='test')
SIZES = (1024, 512, 256)  # longer sides to which masks are reduced


def at_original(manifest: Manifest, folder: Path) -> Manifest:
    "The same rows with their masks as published."
    return manifest.replaced([replace(p, mask=folder / f'{p.id}_segmentation.png') for p in manifest])


def reduced_styles(manifest: Manifest, styles: Styles) -> dict:
    "How many masks keep their style by the cuts when they are reduced, and the median density of each style then."
    known = {m.id: m.style for m in styles.masks}
    seen: dict[int, list[tuple[str, str, float]]] = {s: [] for s in SIZES}
    for pair in manifest:
        mask = read_mask(pair.mask)
        for side in SIZES:
            k = side / max(mask.shape)
            if k >= 1: continue
            size = tuple(max(1, round(n * k)) for n in mask.shape[::-1])
            small = contour_of(cv2.resize(np.uint8(255 * mask), size, interpolation=cv2.INTER_AREA) >= 128)
            if small: seen[side].append((known[pair.id], style_of(small._replace(side=9999)), small.density))
    return {str(side): dict(n=len(rows), same=float(np.mean([a == b for a, b, _ in rows])),
                            density={s: float(np.median([d for a, _, d in rows if a == s])) for s in styles.names})
            for side, rows in seen.items()}


def thinned(mask: np.ndarray, most: int = 1024) -> tuple[np.ndarray, int]:
    "Every k-th pixel of a large mask, from the middle of each block, and k."
    k = -(-max(mask.shape) // most)
    return np.ascontiguousarray(mask[k // 2::k, k // 2::k]), k


def cut(small: np.ndarray, shape: tuple[int, int], threshold: float, bundle: Bundle) -> np.ndarray:
    "The mask of a map at the resolution of the truth."
    return Segmentation(small, shape, threshold, largest=bundle.largest).mask


def own_borders(result: Segmentation, shape: tuple[int, int], bundle: Bundle) -> dict[str, np.ndarray]:
    "Tight, middle and wide as the bundle draws them, at the resolution of the truth; nothing where none have been fitted."
    if 'borders' not in bundle.info: return {}
    return {name: border.mask for name, border in replace(result, size=shape).borders.items()}


def score(bundle: Bundle, manifest: Manifest) -> pd.DataFrame:
    "One row a photograph: style, metrics of the default border, and the Jaccard index of every other border."
    rows = []
    predictions = Segmenter(bundle).predict_many([p.image for p in manifest])
    for pair, result in zip(manifest, predictions, strict=True):
        drawn = read_mask(pair.mask)
        truth, step = thinned(drawn)
        mask = replace(result, size=truth.shape).mask
        row = dict(id=pair.id, group=pair.group, style=style_of(contour_of(drawn)), **score_pair(mask, truth, (step, step), distances=BIAS))
        for name, levels in LEVELS.items():
            for i, t in enumerate(levels): row[f'{name}: {i}'] = jaccard(cut(result.small, truth.shape, t, bundle), truth)
        for name, own in own_borders(result, truth.shape, bundle).items(): row[f'own borders: {name}'] = jaccard(own, truth)
        rows.append(row)
        if len(rows) % 25 == 0: print(len(rows), pair.id, round(row['jaccard'], 3), flush=True)
    return pd.DataFrame(rows)


def best_of_three(table: pd.DataFrame) -> dict:
    "For each triple of borders: the best for each photograph, how often each is the best, and each by itself."
    found = {}
    for name in (*LEVELS, 'own borders'):
        columns = [c for c in table if c.startswith(f'{name}: ')]
        if not columns: continue
        values = table[columns].to_numpy(float)
        best = table.assign(jaccard=values.max(1))[['id', 'group', 'style', 'jaccard']]
        chosen = np.bincount(values.argmax(1), minlength=3)
        found[name] = dict(all=describe_part(best), by_style=subgroups(best, ['style'])['style'],
                           alone=dict(zip(('tight', 'middle', 'wide'), values.mean(0).tolist(), strict=True)),
                           best_is=dict(zip(('tight', 'middle', 'wide'), chosen.tolist(), strict=True)))
    return found


def how_drawn(manifest: Manifest, parts: dict[str, Manifest]) -> dict:
    "The styles of all masks."
    styles = describe_styles(manifest, threads=1)
    known = {m.id: m.style for m in styles.masks}
    counts = {name: {s: sum(known[p.id] == s for p in part) for s in styles.names} for name, part in parts.items()}
    images = {m.id: dict(style=m.style, density=round(m.contour.density, 4)) for m in styles.masks if m.contour}
    return dict(styles=styles.summary(), counts=counts, images=images, reduced=reduced_styles(parts['selection'], styles))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('data', type=Path)
    parser.add_argument('--manifest', type=Path)
    parser.add_argument('--bundle', type=Path, default=SHIPPED)
    parser.add_argument('-o', '--out', type=Path, default=RESULT)
    parser.add_argument('--keep-styles', action='store_true', help='take the styles of the masks from the last run: they do not depend on the bundle')
    args = parser.parse_args()
    folder, bundle = args.data / 'isic2017', Bundle.open(args.bundle)
    split = Manifest.load(args.manifest) if args.manifest else weights.split(folder)
    manifest = at_original(split, folder / 'masks_original_resolution')
    parts = {name: manifest.subset(s) for name, s in PARTS.items()}
    result = dict(command='python model/styles.py DATA --manifest runs/weights/manifest.csv', commit=code_commit(), versions=versions(),
                  weights_sha256=bundle.info['weights_sha256'], threshold=bundle.threshold, split_digest=split.digest, scores={})
    jaccards: dict[str, float] = {}
    for name in ('validation', 'selection'):
        table = score(bundle, parts[name])
        result['scores'][name] = dict(all=describe_part(table), by_style=subgroups(table, ['style'])['style'], best_of_three=best_of_three(table))
        if name == 'validation': jaccards = dict(zip(table.id, table.jaccard, strict=True))
        print(json.dumps(result['scores'][name], indent=1), flush=True)
    drawn = json.loads(RESULT.read_text()) if args.keep_styles else how_drawn(manifest, parts)
    if drawn.get('split_digest', split.digest) != split.digest: parser.error(f'{RESULT} is about another split; leave out --keep-styles')
    result |= {k: drawn[k] for k in ('styles', 'counts', 'reduced')}
    result['images'] = {i: {k: v for k, v in r.items() if k != 'jaccard'} for i, r in drawn['images'].items()}
    for i, j in jaccards.items(): result['images'][i]['jaccard'] = j
    with atomic_path(args.out) as tmp: tmp.write_text(json.dumps(result, indent=1) + '\n')
    print(json.dumps({k: result[k] for k in ('styles', 'counts', 'reduced')}, indent=1))


if __name__ == '__main__': main()
