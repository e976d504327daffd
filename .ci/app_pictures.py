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
        over = self.page.get_by_role("button", name="Start over")
        if over.is_visible():
            over.click()
            self.page.get_by_role("button", name="Forget them").click()
        self.page.get_by_role("button", name=title).click()
        self.page.locator(".lesion-numbers dt", has_text="Largest diameter").wait_for()
        self.page.locator(".lesion-job").wait_for(state="hidden")

    def tab(self, name: str) -> None: self.page.locator(".lesion-tabs").get_by_role("button", name=name, exact=True).click()

    def layer(self, kind: str, words: str) -> None:
        self.tab("Maps")
        self.page.get_by_label("Map", exact=True).select_option(kind)
        self.page.locator(".lesion-maps", has_text=words).wait_for()


def tour(camera: Camera) -> None:
    page = camera.page
    camera.shoot("app_start")
    camera.example("A DICOM file")
    for name in ("Tight", "Wide"): page.get_by_label(name, exact=True).check()
    camera.shoot("app_single", kept=True)
    camera.example("A faint lesion")
    for kind, words in (("Standard deviation", "20 variants"), ("Confident part", "Dashed"), ("Grad-CAM: lesion", "spoke most")):
        camera.layer(kind, words)
        camera.shoot(f"app_{kind.split()[0].strip(':').lower()}")
    page.get_by_label("Colours").select_option("Dark")
    camera.shoot("app_dark")
    page.get_by_label("Colours").select_option("Light")
    camera.example("Six at once")
    page.get_by_role("button", name="Accept").click()
    page.get_by_text("1 of 6 reviewed").wait_for()
    camera.shoot("app_batch", kept=True)
    with page.expect_file_chooser() as chooser: page.get_by_role("button", name="Choose files").click()
    chooser.value.set_files([dict(name="letter.jpg", mimeType="image/jpeg", buffer=b"Dear doctor,")])
    page.locator(".lesion-lost summary").click()
    camera.shoot("app_error")


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
