"""Make the pictures of the README and the site: python .ci/pictures.py (writes nbs/images)

Everything is drawn here, from phantoms: the contact sheet, what the model says about four of them, the logo, the favicon and the social card.
The logo is what the package does: a lesion on skin seen through a round lens, with its border found.
"""

from pathlib import Path

import matplotlib
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from lesion_seg.data import contact_sheet, draw_contour
from lesion_seg.phantom import make_phantom
from lesion_seg.predict import Segmenter
from lesion_seg.contours import find_polygons

IMAGES = Path(__file__).resolve().parent.parent / "nbs" / "images"
SEEDS = (3, 8, 11, 21, 26, 30, 34, 41, 47, 52, 58, 60)
SKIN, LESION, BORDER = "#f2cdb4", "#7b4a30", "#1c7c8c"


def phantoms() -> Image.Image:
    "Twelve phantoms, and below each the border of its exact mask."
    made = [make_phantom(seed, size=320) for seed in SEEDS]
    pictures = [p.image for p in made] * 2
    masks = [None] * len(made) + [p.mask for p in made]
    order = [i + half for row in range(0, len(made), 6) for half in (0, len(made)) for i in range(row, row + 6)]
    return contact_sheet([pictures[i] for i in order], [masks[i] for i in order], cols=6, tile=160).convert("RGB")


def answers(seeds: tuple[int, ...] = (52, 9, 8, 7), side: int = 224) -> Image.Image:
    "Phantoms, the border that the package's model finds, and where it is in doubt (entropy of its samples)."
    segmenter, gap = Segmenter(), 6
    sheet = Image.new("RGB", (len(seeds) * (side + gap) - gap, 3 * (side + gap) - gap), "white")
    for x, seed in enumerate(seeds):
        image = make_phantom(seed, size=side).image
        doubt = matplotlib.colormaps["magma"](segmenter.uncertainty(image).entropy)[..., :3]
        doubt = np.asarray(Image.fromarray((255 * doubt).astype(np.uint8)).resize((side, side)))
        for y, tile in enumerate([image, draw_contour(image, segmenter.predict(image).mask, width=2.5), doubt]):
            sheet.paste(Image.fromarray(tile), (x * (side + gap), y * (side + gap)))
    return sheet


def outline(seed: int = 5, points: int = 72) -> np.ndarray:
    "A phantom's border as points (n, 2) around (0, 0), the farthest at distance 1."
    ring = max((r[0] for r in find_polygons(make_phantom(seed, 256, {}).pigment, 0.5, (256, 256))), key=len)[:-1]
    ring = ring - (ring.max(0) + ring.min(0)) / 2
    smooth = np.fft.ifft(np.where(abs(np.fft.fftfreq(len(ring), 1 / len(ring))) <= 9, np.fft.fft(ring[:, 0] + 1j * ring[:, 1]), 0))
    smooth = smooth[np.linspace(0, len(ring), points, endpoint=False).astype(int)]
    return np.stack([smooth.real, smooth.imag], 1) / abs(smooth).max()


def logo_svg(ring: np.ndarray) -> str:
    "The logo, 64 x 64."
    def path(scale): return "M" + "L".join(f"{32 + scale * x:.1f} {32 + scale * y:.1f}" for x, y in ring) + "Z"
    return f"""<svg xmlns="http://www.w3.org/2000/svg" width="64" height="64" viewBox="0 0 64 64" role="img" aria-label="lesion_seg">
<circle cx="32" cy="32" r="31" fill="{SKIN}"/>
<path d="{path(19)}" fill="{LESION}"/>
<path d="{path(25)}" fill="none" stroke="{BORDER}" stroke-width="4" stroke-linejoin="round"/>
</svg>
"""


def logo(ring: np.ndarray, side: int) -> Image.Image:
    "The logo in pixels, with a transparent ground."
    big, s = Image.new("RGBA", (8 * side, 8 * side)), 8 * side / 64
    draw = ImageDraw.Draw(big)
    def at(scale): return [tuple(s * (32 + scale * p)) for p in ring]
    draw.ellipse([s, s, 63 * s, 63 * s], fill=SKIN)
    draw.polygon(at(19), fill=LESION)
    closed = at(25) + at(25)[:2]
    draw.line(closed, fill=BORDER, width=round(4 * s), joint="curve")
    return big.resize((side, side), Image.Resampling.LANCZOS)


def social(ring: np.ndarray) -> Image.Image:
    "The card that a link to the site shows, 1200 x 630."
    card, draw_at = Image.new("RGB", (1200, 630), "white"), ImageFont.load_default
    for i, seed in enumerate(SEEDS[:6]):
        p = make_phantom(seed, size=210)
        card.paste(Image.fromarray(draw_contour(p.image, p.mask, width=2.5)), (780 + i % 2 * 210, i // 2 * 210))
    card.paste(mark := logo(ring, 150), (64, 70), mark)
    draw = ImageDraw.Draw(card)
    draw.text((64, 250), "lesion_seg", "#222222", draw_at(84))
    draw.text((64, 370), "Segments skin lesions in dermoscopic\nphotographs, says how sure it is,\nand shows why.", "#444444", draw_at(36), spacing=14)
    return card


def main():
    IMAGES.mkdir(exist_ok=True)
    ring = outline()
    phantoms().save(IMAGES / "phantoms.jpg", quality=82, optimize=True)
    answers().save(IMAGES / "answers.jpg", quality=85, optimize=True)
    social(ring).save(IMAGES / "social.jpg", quality=88, optimize=True)
    (IMAGES / "logo.svg").write_text(logo_svg(ring), encoding="utf-8")
    logo(ring, 64).save(IMAGES / "favicon.png", optimize=True)
    for path in sorted(IMAGES.iterdir()): print(path.name, path.stat().st_size, "bytes")


if __name__ == "__main__": main()
