"""Train the model that the package ships: python model/weights.py FOLDER [-o runs/weights]   (`make weights`)

FOLDER holds images/, masks/, splits.csv (image_id, official_isic2017_split) and near_duplicates.csv (image_a, image_b), as for
model/isic2017.py. The official training photographs, duplicates left out, are divided into training and selection; threshold, temperature,
the uncertainty to review and whether to keep the largest region only are fitted on selection alone. A cut training is resumed by the same command; a
finished one is not repeated.
Writes lesion_seg/shipped (float16 weights and ONNX files); model/model_card.py then scores it.
"""

import argparse
from pathlib import Path

from lesion_seg.audit import audit_manifest
from lesion_seg.bundle import SHIPPED, save_bundle
from lesion_seg.loss import BCELoss, SumLoss, TverskyLoss
from lesion_seg.manifest import Manifest, make_split
from lesion_seg.onnx import export_onnx
from lesion_seg.quantize import quantize_onnx, training_images
from lesion_seg.report import calibrate_bundle
from lesion_seg.train import train_model

RECIPE = dict(model=dict(name="lesion_unet", encoder="tf_efficientnet_lite2", pretrained=True, decoder=[128, 64, 48, 24], dropout=0.1),
              size=224, bs=16, epochs=30, augs="robust", lr=2e-3, schedule="one_cycle", encoder_lr=0.3, average=0.995, seed=42, licence="CC0-1.0")

# Half soft Jaccard (a Tversky index that prices both errors at 1), half cross-entropy.
def loss() -> SumLoss: return SumLoss([TverskyLoss(1, 1), BCELoss()], [0.5, 0.5])


def row(r): print({k: round(v, 4) for k, v in r.items()}, flush=True)


def split(folder: Path) -> Manifest:
    "The official training photographs as 'train' and 'valid', the official validation set as 'test'."
    listed = Manifest.load(folder).join(folder / "splits.csv")
    found = audit_manifest(listed, "official_isic2017_split")
    return make_split(found.merge(listed), fractions=(0.9, 0.1, 0), official="official_isic2017_split", as_split={"val": "test"},
                      duplicates=folder / "near_duplicates.csv")[0]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("-o", "--out", type=Path, default=Path("runs/weights"))
    args = parser.parse_args()
    manifest = split(args.folder)
    args.out.mkdir(parents=True, exist_ok=True)
    manifest.save(args.out / "manifest.csv")
    bundle = train_model(manifest, args.out / "run", loss=loss(), **RECIPE, progress=False, report=row)
    facts = dict(data="ISIC 2017 Part 1, official training set without near-duplicates of its validation set", command="make weights DATA=FOLDER")
    shipped = save_bundle(SHIPPED, bundle.model(), bundle.size, training=bundle.info["training"] | facts, metrics=bundle.info["metrics"], half=True)
    calibrated = calibrate_bundle(shipped, manifest.subset("valid"), "selection")
    export_onnx(calibrated)
    quantize_onnx(SHIPPED, training_images(manifest), source="training photographs", say=print)
    print(calibrated.info["metrics"], calibrated.info["review"])


if __name__ == "__main__": main()
