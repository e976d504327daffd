"""Train and score on ISIC 2017, by the command line alone: python model/isic2017.py FOLDER [-o runs/isic2017]

FOLDER holds images/, masks/, splits.csv (image_id, official_isic2017_split) and near_duplicates.csv (image_a, image_b). The official training
photographs are divided into training and selection; the official validation set is scored once, at the end. A finished training is not repeated.
Writes model/results/isic2017_validation.json.
"""

import argparse
import json
import shlex
import subprocess
import sys
from pathlib import Path

from lesion_seg.bundle import Bundle

RESULT = Path(__file__).resolve().parent / "results" / "isic2017_validation.json"
SETTINGS = ["model.pretrained=true", "data.image_size=192", "training.epochs=10", "training.schedule=one_cycle", "data.licence=CC0-1.0"]


def commands(data: str, out: str) -> list[list[str]]:
    "The three commands."
    split = ["split", data, "-o", f"{out}/manifest.csv", "--fractions", "0.9,0.1,0", "--table", f"{data}/splits.csv", "--official", "official_isic2017_split",
             "--as", "val=test", "--duplicates", f"{data}/near_duplicates.csv"]
    train = ["train", f"{out}/manifest.csv", "-o", f"{out}/run", *(x for s in SETTINGS for x in ("--set", s))]
    return [split, train, ["evaluate", f"{out}/run/bundle", f"{out}/manifest.csv", "--split", "test", "-o", f"{out}/evaluation", "--distances", "--json"]]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder")
    parser.add_argument("-o", "--out", default="runs/isic2017")
    args = parser.parse_args()
    for command in commands(args.folder, args.out):
        print("$ lesion_seg", shlex.join(command), flush=True)
        done = subprocess.run([sys.executable, "-W", "ignore", "-m", "lesion_seg.cli", *command], stdout=subprocess.PIPE, text=True)
        if done.returncode: raise SystemExit(done.returncode)
    summary, info = json.loads(done.stdout), Bundle.load(f"{args.out}/run/bundle").info
    shown = [shlex.join(["lesion_seg", *c]) for c in commands("isic2017", "runs/isic2017")]
    training = {k: info["training"][k] for k in ("n_train", "n_valid", "epochs", "best_epoch", "seed", "split_digest", "seconds", "licence")}
    summary = {k: v for k, v in summary.items() if k != "report"}
    RESULT.write_text(json.dumps(dict(summary, commands=shown, training=training, selection=info["metrics"]["valid"], size=info["size"],
                                      commit=info["commit"], versions=info["versions"]), indent=1) + "\n")
    print(RESULT.name, "mean Jaccard", summary["metrics"]["jaccard"]["mean"])


if __name__ == "__main__": main()
