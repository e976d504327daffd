"""Does a full training that begins with phantoms help? python benchmarks/phantoms_first.py FOLDER [-o runs/phantoms_first]

FOLDER as for benchmarks/weights.py. The shipped recipe, begun with four epochs on 1,600 phantoms and with artefacts on more of the photographs, is
compared with the shipped model on the selection split, as it is and under moderate hair. A cut training is resumed.
Writes benchmarks/results/phantoms_first.json.
"""

import argparse
import json
from pathlib import Path

import numpy as np
import weights
from trials import on_phantoms

from lesion_seg.bundle import Bundle, code_commit, versions
from lesion_seg.data import read_image, read_mask
from lesion_seg.evaluate import failure_rate, t_interval
from lesion_seg.manifest import Manifest
from lesion_seg.phantom import add_artefacts
from lesion_seg.predict import Segmentation, Segmenter
from lesion_seg.train import train

RESULT = Path(__file__).resolve().parent / "results" / "phantoms_first.json"
PHANTOMS, EPOCHS, AUGS = 1600, 4, dict(preset="robust", artefacts=0.7)


def trained(manifest: Manifest, out: Path) -> Bundle:
    "The shipped recipe from a network that has seen phantoms, instead of from ImageNet's features alone."
    def row(r): print({k: round(v, 4) for k, v in r.items()}, flush=True)
    plan = {k: v for k, v in weights.RECIPE.items() if k not in ("seed", "licence")} | dict(loss=weights.loss(), epochs=2 * EPOCHS)
    start = on_phantoms(PHANTOMS, plan, weights.RECIPE["seed"], out / "first").path
    model = {k: v for k, v in weights.RECIPE["model"].items() if k != "pretrained"}
    return train(manifest, out / "run", loss=weights.loss(), **weights.RECIPE | dict(model=model, augs=AUGS), start=start, progress=False, report=row)


def jaccards(bundle: Bundle, images: list[np.ndarray], truths: list[np.ndarray]) -> np.ndarray:
    "Jaccard index of each photograph: threshold 0.5, the largest region."
    masks = [Segmentation(s.small, t.shape, 0.5, largest=True).mask for s, t in zip(Segmenter(bundle).predict_many(images), truths, strict=True)]
    return np.array([(m & t).sum() / (m | t).sum() for m, t in zip(masks, truths, strict=True)])


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("-o", "--out", type=Path, default=Path("runs/phantoms_first"))
    args = parser.parse_args()
    (args.out / "first").mkdir(parents=True, exist_ok=True)
    manifest = weights.split(args.folder)
    pairs = manifest.subset("valid")
    images, truths = [read_image(p.image) for p in pairs], [read_mask(p.mask) for p in pairs]
    hairy = [add_artefacts(image, truth, n, hair=0.5) for n, (image, truth) in enumerate(zip(images, truths, strict=True))]
    rows, base = {}, None
    for name, bundle in dict(shipped=Bundle.shipped(), phantoms_first=trained(manifest, args.out)).items():
        j, under_hair = jaccards(bundle, images, truths), jaccards(bundle, hairy, truths)
        base = j if base is None else base
        rows[name] = dict(jaccard=float(j.mean()), failure_rate=failure_rate(j), lost_under_hair=float((j - under_hair).mean()),
                          gain=float((j - base).mean()), gain_ci=None if j is base else list(t_interval(j - base)))
    found = dict(command="python benchmarks/phantoms_first.py FOLDER", commit=code_commit(), versions=versions(), n=len(pairs), phantoms=PHANTOMS,
                 phantom_epochs=EPOCHS, epochs=weights.RECIPE["epochs"], augs=AUGS, seed=weights.RECIPE["seed"], selection=rows)
    RESULT.write_text(json.dumps(found, indent=1) + "\n")
    print(json.dumps(rows, indent=1))


if __name__ == "__main__": main()
