"""Make the picture of the README and the landing page: python benchmarks/pictures.py (writes nbs/images/phantoms.jpg)."""

from pathlib import Path

from lesion_seg.data import contact_sheet
from lesion_seg.phantom import make_phantom

SEEDS = (3, 8, 11, 21, 26, 30, 34, 41, 47, 52, 58, 60)


def main():
    phantoms = [make_phantom(seed, size=320) for seed in SEEDS]
    pictures = [p.image for p in phantoms] + [p.image for p in phantoms]
    masks = [None] * len(phantoms) + [p.mask for p in phantoms]
    order = [i + half for row in range(0, len(phantoms), 6) for half in (0, len(phantoms)) for i in range(row, row + 6)]
    sheet = contact_sheet([pictures[i] for i in order], [masks[i] for i in order], cols=6, tile=160)
    path = Path(__file__).resolve().parent.parent / "nbs" / "images" / "phantoms.jpg"
    path.parent.mkdir(exist_ok=True)
    sheet.convert("RGB").save(path, quality=82, optimize=True)
    print(path.name, path.stat().st_size, "bytes")


if __name__ == "__main__": main()
