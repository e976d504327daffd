"""Train the model that the package ships: python benchmarks/weights.py FOLDER [-o runs/weights]   (`make weights`)

FOLDER holds images/, masks/, splits.csv (image_id, official_isic2017_split) and near_duplicates.csv (image_a, image_b), as for
benchmarks/isic2017.py. The official training photographs, duplicates left out, are divided into training and selection; what is chosen (the members of
the mean, threshold, temperature, the doubt to review, whether to keep the largest region only) is chosen on selection alone.
One long training, then branches that start from its weights and go different ways, then the mean of those weights (`mean_weights`).
A cut training is resumed by the same command; a finished one is not repeated. `--branch NAME` trains one branch only, so that several can run side by side.
Writes lesion_seg/shipped (float16 weights; ONNX files, one of them in whole numbers with ranges of training photographs); then
benchmarks/model_card.py scores it.
"""

import argparse
import json
from pathlib import Path

from lesion_seg.audit import audit
from lesion_seg.bundle import SHIPPED, Bundle, save_bundle
from lesion_seg.loaders import lesion_dls
from lesion_seg.loss import BCELoss, SumLoss, TverskyLoss
from lesion_seg.manifest import Manifest, make_split
from lesion_seg.onnx import export_onnx
from lesion_seg.quantize import quantize_onnx, training_images
from lesion_seg.report import calibrate
from lesion_seg.train import mean_weights, train

ARCHITECTURE = dict(name="lesion_unet", encoder="tf_efficientnet_lite2", decoder=[128, 64, 48, 24], dropout=0.1)
RECIPE = dict(model=ARCHITECTURE | dict(pretrained=True), size=224, bs=16, epochs=30, augs="robust", lr=2e-3, schedule="one_cycle", encoder_lr=0.3,
              average=0.995, seed=42, licence="CC0-1.0")
FURTHER = RECIPE | dict(model=ARCHITECTURE, epochs=8, lr=1e-3)
BRANCHES = dict(  # what each does differently
    artefacts=dict(seed=101, augs=dict(preset="robust", artefacts=0.8)),
    zoom=dict(seed=102, augs=dict(preset="robust", artefacts=0.6, scale=(0.5, 2.0))),
    plain=dict(seed=103),
    taught=dict(seed=104, teacher_weight=0.5),  # by the first training
)
MEMBERS = tuple(BRANCHES)  # of the mean

# Half soft Jaccard (a Tversky index that prices both errors at 1), half cross-entropy.
def loss() -> SumLoss: return SumLoss([TverskyLoss(1, 1), BCELoss()], [0.5, 0.5])


def split(folder: Path) -> Manifest:
    "The official training photographs as 'train' and 'valid', the official validation set as 'test'."
    listed = Manifest.load(folder).join(folder / "splits.csv")
    found = audit(listed, "official_isic2017_split")
    return make_split(found.merge(listed), fractions=(0.9, 0.1, 0), official="official_isic2017_split", as_split={"val": "test"},
                      duplicates=folder / "near_duplicates.csv")[0]


def fit(manifest: Manifest, folder: Path, plan: dict) -> Bundle:
    "One training, a line an epoch."
    def row(r): print(folder.name, {k: round(v, 4) for k, v in r.items()}, flush=True)
    return train(manifest, folder, loss=loss(), **plan, progress=False, report=row)


def branch(manifest: Manifest, first: Bundle, name: str, out: Path) -> Bundle:
    "A training that starts from the first one's weights."
    changes = BRANCHES[name] | (dict(teachers=[first.path]) if "teacher_weight" in BRANCHES[name] else {})
    return fit(manifest, out / name, FURTHER | changes | dict(start=first.path))


def mean(manifest: Manifest, bundles: list[Bundle], folder: Path) -> Bundle:
    "The mean of the weights, batch norm measured on one epoch of training images."
    dls = lesion_dls(manifest, RECIPE["size"], RECIPE["bs"], RECIPE["augs"], RECIPE["seed"])
    return save_bundle(folder, mean_weights(bundles, dls.train), RECIPE["size"], half=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("-o", "--out", type=Path, default=Path("runs/weights"))
    parser.add_argument("--first", type=Path, help="a bundle to use as the first training, instead of training it")
    parser.add_argument("--branch", choices=BRANCHES)
    args = parser.parse_args()
    manifest = split(args.folder)
    args.out.mkdir(parents=True, exist_ok=True)
    manifest.save(args.out / "manifest.csv")
    first = Bundle.load(args.first) if args.first else fit(manifest, args.out / "run", RECIPE)
    if args.branch: return branch(manifest, first, args.branch, args.out)
    members = [branch(manifest, first, name, args.out) for name in MEMBERS]
    made = mean(manifest, members, args.out / "mean")
    facts = dict(data="ISIC 2017 Part 1, official training set without near-duplicates of its validation set", command="make weights DATA=FOLDER",
                 members={n: b.info["training"] | dict(valid=b.info["metrics"]["valid"]) for n, b in zip(MEMBERS, members, strict=True)})
    print(json.dumps(facts, indent=1))
    shipped = save_bundle(SHIPPED, made.model(), made.size, training=first.info["training"] | facts, half=True)
    calibrated = calibrate(shipped, manifest.subset("valid"), "selection")
    export_onnx(calibrated)
    quantize_onnx(SHIPPED, training_images(manifest), source="training photographs", say=print)
    print(calibrated.info["metrics"], calibrated.info["review"])


if __name__ == "__main__": main()
