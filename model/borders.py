"""Fit the tight and the wide border of the shipped model: python model/borders.py FOLDER [--bundle BUNDLE]

FOLDER is that of model/weights.py, and the levels are fitted on the same photographs as its threshold, the selection split. Nothing but the keys
`borders` and `metrics.borders` of bundle.json changes; weights, probabilities, threshold and ONNX files stay as they are.
"""

import argparse
from pathlib import Path

from weights import split

from lesion_seg.report import fit_bundle_borders


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("-b", "--bundle", default="shipped")
    args = parser.parse_args()
    bundle = fit_bundle_borders(args.bundle, split(args.folder).subset("valid"), "selection")
    print(bundle.borders, bundle.info["metrics"]["borders"])


if __name__ == "__main__": main()
