"""The pictures of the web app in the notebooks, from phantoms, as a browser shows them.

    python .ci/app_pictures.py [--folder nbs/images]

Writes app_single.jpg and app_batch.jpg for the pages; `--all` adds the other views (start, uncertainty, Grad-CAM, error, dark) as PNG."""
import argparse
import sys
import tempfile
import time
from pathlib import Path

from PIL import Image
from playwright.sync_api import sync_playwright

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))
from app_server import ARGS, chromium, serving


class Camera:
    "A page, and pictures of it."
    def __init__(self, page, folder, everything): self.page, self.folder, self.everything = page, folder, everything

    def shoot(self, name: str, kept: bool = False) -> None:
        if not (kept or self.everything): return
        time.sleep(0.4)  # fonts and maps have arrived
        png = self.folder / f"{name}.png"
        self.page.screenshot(path=png)
        if not kept: return
        im = Image.open(png).convert("RGB")
        im.resize((1120, round(1120 * im.height / im.width)), Image.Resampling.LANCZOS).save(png.with_suffix(".jpg"), quality=82, optimize=True)
        png.unlink()

    def example(self, title: str) -> None:
        self.page.get_by_role("button", name="lesion_seg").click()
        if self.page.get_by_role("button", name="Start over").count(): self.page.get_by_role("button", name="Start over").click()
        self.page.get_by_role("button", name=title).click()
        self.page.wait_for_function("!document.querySelector('.busy') && !document.querySelector('.waiting') && document.querySelector('.chip')")

    def layer(self, label: str, words: str) -> None:
        self.page.get_by_label(label, exact=True).check()
        self.page.wait_for_function("w => document.querySelector('.legend').textContent.includes(w)", arg=words)


def tour(camera: Camera) -> None:
    page = camera.page
    camera.shoot("app_start")
    camera.example("A DICOM file")
    camera.shoot("app_single", kept=True)
    camera.example("A faint lesion")
    camera.layer("Standard deviation", "agree")
    camera.shoot("app_uncertainty")
    camera.layer("Confident part", "Dashed")
    camera.shoot("app_confident")
    camera.layer("Grad-CAM", "spoke most")
    camera.shoot("app_gradcam")
    page.get_by_label("Colours").select_option("dark")
    camera.shoot("app_dark")
    page.get_by_label("Colours").select_option("light")
    camera.example("Six at once")
    camera.shoot("app_batch", kept=True)
    with page.expect_file_chooser() as chooser: page.get_by_role("button", name="Add files").click()
    chooser.value.set_files([dict(name="letter.jpg", mimeType="image/jpeg", buffer=b"Dear doctor,")])
    page.get_by_role("alert").wait_for()
    camera.shoot("app_error")
    page.get_by_label("Colours").select_option("dark")
    camera.shoot("app_batch_dark")


def main() -> None:
    a = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    a.add_argument("--folder", type=Path, default=Path("nbs/images"))
    a.add_argument("--all", action="store_true")
    a.add_argument("--width", type=int, default=1440)
    args = a.parse_args()
    args.folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as tmp, serving(tmp) as server, sync_playwright() as p:
        server.wait_warm(1)
        page = p.chromium.launch(executable_path=chromium(), args=ARGS).new_page(viewport=dict(width=args.width, height=round(args.width * 0.625)))
        page.set_default_timeout(120_000)
        page.goto(server.url)
        page.wait_for_selector("[data-ready]", state="attached")
        tour(Camera(page, args.folder, args.all))


if __name__ == "__main__": main()
