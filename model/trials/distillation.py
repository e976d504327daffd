"""Does a student of two teachers beat its first teacher? python model/trials/distillation.py FOLDER [-o runs/distilled]

FOLDER as for model/weights.py. Two networks of the shipped recipe, which differ in their seed, teach a third one of the same size (half of its
target is theirs); the halfway point between the first teacher's weights and the student's is tried as well. All are calibrated and compared
on the selection split. A cut training is resumed. Writes model/trials/results/distillation.json.
"""

import argparse
import json
import sys
from pathlib import Path

import torch

from lesion_seg.bundle import Bundle, code_commit, save_bundle, versions
from lesion_seg.manifest import Manifest
from lesion_seg.report import calibrate_bundle
from lesion_seg.train import train_model

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # where weights.py is
import weights  # noqa: E402

RESULT = Path(__file__).resolve().parent / "results" / "distillation.json"
TEACHERS = {42: False, 43: True}  # seed, and whether its temperature was fitted before it taught
STUDENT = dict(epochs=24, teacher_weight=0.5)


def taught(manifest: Manifest, out: Path) -> dict[str, Bundle]:
    "The teachers, their student, and the mean of the first teacher's weights and the student's."
    def fit(folder: Path, **changes):
        return train_model(manifest, folder, loss=weights.loss(), **(weights.RECIPE | changes), progress=False, report=weights.row)
    found = {}
    for seed, warm in TEACHERS.items():
        found[f"teacher, seed {seed}"] = bundle = fit(out / f"teacher{seed}", seed=seed)
        if warm: calibrate_bundle(bundle, manifest.subset("valid"), "selection", share=None)
    found["student"] = fit(out / "run", teachers=[b.path for b in found.values()], **STUDENT)
    net, student = found["teacher, seed 42"].model(), found["student"].model().state_dict()
    net.load_state_dict({k: torch.lerp(v, student[k], 0.5) if v.is_floating_point() else v for k, v in net.state_dict().items()})
    return found | {"mean of the weights": save_bundle(out / "mean", net, weights.RECIPE["size"])}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("-o", "--out", type=Path, default=Path("runs/distilled"))
    args = parser.parse_args()
    manifest, rows = weights.split(args.folder), {}
    for name, bundle in taught(manifest, args.out).items():
        copy = save_bundle(args.out / "compared" / bundle.path.parent.name / bundle.path.name, bundle.model(), bundle.size)
        rows[name] = calibrate_bundle(copy, manifest.subset("valid"), "selection", share=None).info["metrics"]["calibration"]
    found = dict(command="python model/trials/distillation.py FOLDER", commit=code_commit(), versions=versions(), selection=rows)
    RESULT.write_text(json.dumps(found, indent=1) + "\n")
    print(json.dumps(rows, indent=1))


if __name__ == "__main__": main()
