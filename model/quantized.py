"""What 8-bit integers cost, photograph by photograph: python model/quantized.py DATA [--bundle FOLDER]

DATA holds isic2017/ as for model/model_card.py. Predicts the 150 photographs of the official validation set with the bundle's file in floats and
its file in 8-bit integers, and scores both at 256x256. Neither file has seen these photographs: the ranges come from training ones.
Writes model/results/quantized.json, with the loss of each photograph.
"""

import argparse
import json
from pathlib import Path

import numpy as np
import pandas as pd

from lesion_seg.bundle import SHIPPED, code_commit, versions
from lesion_seg.data import read_image, read_mask
from lesion_seg.evaluate import bootstrap_interval, evaluate_predictions
from lesion_seg.manifest import Manifest
from lesion_seg.predict import Segmenter

RESULT = Path(__file__).resolve().parent / "results" / "quantized.json"
LIMIT = 0.005  # mean Jaccard that 8-bit integers may cost


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--bundle", type=Path, default=SHIPPED)
    args = parser.parse_args()
    folder = args.data / "isic2017"
    wanted = pd.read_csv(folder / "splits.csv").query("official_isic2017_split == 'val'").image_id.tolist()
    pairs = {p.id: p for p in Manifest.load(folder)}
    images, truths = [read_image(pairs[i].image) for i in wanted], [read_mask(pairs[i].mask) for i in wanted]
    masks, tables = {}, {}
    for precision in ("float32", "int8"):
        segmenter = Segmenter(args.bundle, precision=precision)
        masks[precision] = [s.mask for s in segmenter.predict_many(images)]
        tables[precision] = evaluate_predictions((i, None, m, t) for i, m, t in zip(wanted, masks[precision], truths, strict=True))
    j = {k: t.jaccard.to_numpy() for k, t in tables.items()}
    loss = j["float32"] - j["int8"]
    between = evaluate_predictions((i, None, m, t) for i, m, t in zip(wanted, masks["int8"], masks["float32"], strict=True)).jaccard.to_numpy()
    found = dict(
        command="python model/quantized.py DATA", commit=code_commit(), versions=versions(), weights_sha256=segmenter.bundle.info["weights_sha256"],
        int8=segmenter.bundle.info["onnx"]["int8"], n=len(loss), jaccard={k: float(v.mean()) for k, v in j.items()}, loss=float(loss.mean()),
        loss_ci=list(bootstrap_interval(loss)), limit=LIMIT, agreement=float(between.mean()), agreement_min=float(between.min()),
        loss_quantiles={str(q): float(np.quantile(loss, q)) for q in (0, 0.05, 0.25, 0.5, 0.75, 0.95, 1)},
        worse_by_a_point=int((loss > 0.01).sum()), better_by_a_point=int((loss < -0.01).sum()),
        images={i: dict(float32=round(float(a), 4), int8=round(float(b), 4)) for i, a, b in zip(wanted, j["float32"], j["int8"], strict=True)})
    RESULT.write_text(json.dumps(found, indent=1) + "\n")
    print(json.dumps({k: v for k, v in found.items() if k not in ("images", "versions")}, indent=1))


if __name__ == "__main__": main()
