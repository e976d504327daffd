"""Candidates for the shipped model: python model/trials/candidates.py FOLDER [-o runs/candidates]

FOLDER as for model/weights.py. All are compared with the shipped model on the selection split, as it is and under artefacts of moderate grade.
`phantoms_first` is the same recipe, begun with four epochs on 1,600 phantoms and with artefacts on more of the photographs; `larger` goes on from the
shipped weights for eight epochs at 256 x 256, and `larger_artefacts` does so with artefacts on more of them. A cut training is resumed.
Writes model/trials/results/candidates.json.
"""

import argparse
import json
import sys
from pathlib import Path

import numpy as np

from lesion_seg.bundle import Bundle, code_commit, versions
from lesion_seg.data import read_image, read_mask
from lesion_seg.evaluate import failure_rate, t_interval
from lesion_seg.manifest import Manifest
from lesion_seg.phantom import add_artefacts
from lesion_seg.predict import Segmentation, Segmenter
from lesion_seg.train import train_model

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # where weights.py is
import weights  # noqa: E402
from more_epochs import FURTHER  # noqa: E402
from trials import on_phantoms  # noqa: E402

RESULT = Path(__file__).resolve().parent / "results" / "candidates.json"
PHANTOMS, EPOCHS, AUGS = 1600, 4, dict(preset="robust", artefacts=0.7)
LARGER = dict(seed=103, size=256)
ON = dict(larger=LARGER, larger_artefacts=LARGER | dict(augs=dict(preset="robust", artefacts=0.8)))
ARTEFACTS, GRADE = ("hair", "blur", "jpeg", "dark_corners", "colour_cast"), 0.5


def phantoms_first(manifest: Manifest, out: Path) -> Bundle:
    "The shipped recipe from a network that has seen phantoms, instead of from ImageNet's features alone."
    plan = {k: v for k, v in weights.RECIPE.items() if k not in ("seed", "licence")} | dict(loss=weights.loss(), epochs=EPOCHS)
    start = on_phantoms(PHANTOMS, plan, weights.RECIPE["seed"], out / "first").path
    recipe = weights.RECIPE | dict(model=FURTHER["model"], augs=AUGS)
    return train_model(manifest, out / "run", loss=weights.loss(), **recipe, start=start, progress=False, report=weights.row)


def jaccards(bundle: Bundle, images: list[np.ndarray], truths: list[np.ndarray]) -> np.ndarray:
    "Jaccard index of each photograph: threshold 0.5, the largest region."
    masks = [Segmentation(s.small, t.shape, 0.5, largest=True).mask for s, t in zip(Segmenter(bundle).predict_many(images), truths, strict=True)]
    return np.array([(m & t).sum() / (m | t).sum() for m, t in zip(masks, truths, strict=True)])


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("-o", "--out", type=Path, default=Path("runs/candidates"))
    args = parser.parse_args()
    manifest, shipped = weights.split(args.folder), Bundle.shipped()
    bundles = dict(shipped=shipped, phantoms_first=phantoms_first(manifest, args.out / "phantoms_first"))
    for name, change in ON.items():
        bundles[name] = train_model(manifest, args.out / name, loss=weights.loss(), **FURTHER | change, start=shipped.path, progress=False, report=weights.row)
    pairs = manifest.subset("valid")
    images, truths = [read_image(p.image) for p in pairs], [read_mask(p.mask) for p in pairs]
    worse = {name: [add_artefacts(i, t, n, **{name: GRADE}) for n, (i, t) in enumerate(zip(images, truths, strict=True))] for name in ARTEFACTS}
    rows, base = {}, None
    for name, bundle in bundles.items():
        j = jaccards(bundle, images, truths)
        base = j if base is None else base
        rows[name] = dict(jaccard=float(j.mean()), failure_rate=failure_rate(j), gain=float((j - base).mean()),
                          gain_ci=None if j is base else list(t_interval(j - base)),
                          **{f"under_{kind}": float(jaccards(bundle, changed, truths).mean()) for kind, changed in worse.items()})
    changes = dict(phantoms_first=dict(phantoms=PHANTOMS, phantom_epochs=EPOCHS, augs=AUGS), **ON)
    found = dict(command="python model/trials/candidates.py FOLDER", commit=code_commit(), versions=versions(), n=len(pairs), grade=GRADE, changes=changes,
                 selection=rows)
    RESULT.write_text(json.dumps(found, indent=1) + "\n")
    print(json.dumps(rows, indent=1))


if __name__ == "__main__": main()
