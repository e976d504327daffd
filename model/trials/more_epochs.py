"""Does going on help? python model/trials/more_epochs.py FOLDER [--only NAME] [-o runs/branches]

FOLDER as for model/weights.py. Branches start from the shipped weights, go different ways (another seed and augmentation) for eight epochs, and are
compared on the selection split with the weights they started from, alone and as means of weights (`mean_weights`). A cut training is resumed;
`--only NAME` trains one branch, so that two can run side by side. Writes model/trials/results/more_epochs.json.
"""

import argparse
import json
import sys
from itertools import combinations
from pathlib import Path

import numpy as np

from lesion_seg.bundle import Bundle, code_commit, save_bundle, versions
from lesion_seg.evaluate import failure_rate, t_interval
from lesion_seg.report import evaluate_manifest
from lesion_seg.train import train_model

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # where weights.py is
import weights  # noqa: E402
from mean_weights import mean_weights  # noqa: E402

RESULT = Path(__file__).resolve().parent / "results" / "more_epochs.json"
ARCHITECTURE = {k: v for k, v in weights.RECIPE["model"].items() if k != "pretrained"}
FURTHER = weights.RECIPE | dict(model=ARCHITECTURE, epochs=8, lr=1e-3)
BRANCHES = dict(artefacts=dict(seed=101, augs=dict(preset="robust", artefacts=0.8)),
                zoom=dict(seed=102, augs=dict(preset="robust", artefacts=0.6, scale=(0.5, 2.0))))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--only", choices=BRANCHES)
    parser.add_argument("-o", "--out", type=Path, default=Path("runs/branches"))
    args = parser.parse_args()
    manifest, shipped = weights.split(args.folder), Bundle.shipped()
    bundles = dict(shipped=shipped)
    for name in [args.only] if args.only else BRANCHES:
        bundles[name] = train_model(manifest, args.out / name, loss=weights.loss(), **(FURTHER | BRANCHES[name]), start=shipped.path, progress=False)
    if args.only: return
    scores = {}
    for names in (c for n in (1, 2, 3) for c in combinations(bundles, n)):
        net = mean_weights([bundles[n] for n in names])
        made = save_bundle(args.out / "compared" / "-".join(names), net, shipped.size)
        scores[" + ".join(names)] = evaluate_manifest(made, manifest.subset("valid"), largest=True, threshold=0.5).jaccard.to_numpy()
    base = scores["shipped"]
    rows = {k: dict(jaccard=float(j.mean()), failure_rate=failure_rate(j), gain=float((j - base).mean()),
                    gain_ci=list(t_interval(j - base)) if k != "shipped" else None)
            for k, j in scores.items()}
    found = dict(command="python model/trials/more_epochs.py FOLDER", commit=code_commit(), versions=versions(), n=len(base),
                 changes={k: {a: b for a, b in (FURTHER | v).items() if a in ("seed", "augs", "epochs", "lr")} for k, v in BRANCHES.items()}, selection=rows)
    RESULT.write_text(json.dumps(found, indent=1, default=str) + "\n")
    for k, r in rows.items(): print(f"{k:28s} {r['jaccard']:.4f} {r['failure_rate']:.3f} {r['gain']:+.4f} {np.round(r['gain_ci'] or [], 4)}")


if __name__ == "__main__": main()
