"""The pictures of the two widgets in the notebooks, from phantoms, as a browser shows them: python .ci/widget_pictures.py

Writes nbs/images/picture.jpg and nbs/images/dropzone.jpg."""

import io
import sys
import tempfile
from pathlib import Path

from PIL import Image
from playwright.sync_api import sync_playwright

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests"))
from app_server import ARGS, chromium
from widget_desk import Desk, desk_server

PICTURE = """
from lesion_seg.contours import find_polygons
phantom = make_phantom(57, (800, 1200))
truth = phantom.mask > 0
rows, columns = np.mgrid[:800, :1200]
p = Picture(phantom.image, truth & (columns < 700), millimetres=.015, radius=24)
p.layers = [line('model', 'Model', find_polygons(truth.astype(np.float32), .5, truth.shape), '#00e6ff', dash=(7, 5))]
ring = np.abs(np.hypot(rows - 400, columns - 590) - 270)[::4, ::4]
heat = np.zeros((200, 300, 4), np.uint8)
heat[..., 0], heat[..., 3] = 255, np.clip(230 - 3 * ring, 0, 255)"""
DROP = """() => {
    const data = new DataTransfer(), field = document.querySelector('.dz-field');
    for (const name of ['mole_1.jpg', 'mole_2.jpg', 'mole_3.jpg', 'empty.jpg'])
        data.items.add(new File([name === 'empty.jpg' ? '' : name.repeat(1000)], name));
    for (const kind of ['dragover', 'drop']) field.dispatchEvent(new DragEvent(kind, {dataTransfer: data, bubbles: true, cancelable: true})); }"""


class Camera:
    "A page of the desk, and pictures of one element on it."
    def __init__(self, browser, url, width):
        self.page = browser.new_page(viewport=dict(width=width, height=700))
        self.page.set_default_timeout(120_000)
        self.page.goto(url)
        self.page.get_by_label("code").wait_for()
        self.desk = Desk(self.page)

    def shoot(self, selector: str) -> Image.Image:
        self.page.wait_for_timeout(700)  # fonts and maps have arrived
        return Image.open(io.BytesIO(self.page.locator(selector).screenshot())).convert("RGB")


def picture(camera: Camera) -> Image.Image:
    "Brush, border points, side by side, real pixels."
    page, desk = camera.page, camera.desk
    desk.show(PICTURE)
    page.wait_for_function("!document.querySelector('.lp-note').textContent")
    stage = page.locator(".lp-stage")
    stage.focus()
    box = stage.bounding_box()
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    page.keyboard.press("b")
    page.mouse.move(x + 65, y - 10)
    page.mouse.down()
    page.mouse.move(x + 95, y + 30, steps=6)
    shots = [camera.shoot(".lesion-picture")]
    page.mouse.up()
    page.keyboard.press("d")
    shots.append(camera.shoot(".lesion-picture"))
    page.keyboard.press("v")
    desk.do("p.overlay = encode_png(heat); p.overlay_label = 'Uncertainty'; p.pane_labels = ['Photograph', 'Uncertainty']; p.mode = 'swipe'")
    shots.append(camera.shoot(".lesion-picture"))
    desk.do("p.mode = 'single'; p.overlay = b''; p.view = dict(scale=14, x=700, y=420)")
    shots.append(camera.shoot(".lesion-picture"))
    w, h = shots[0].size
    sheet = Image.new("RGB", (2 * w + 12, 2 * h + 12), "white")
    for i, shot in enumerate(shots): sheet.paste(shot, (i % 2 * (w + 12), i // 2 * (h + 12)))
    return sheet


def dropzone(camera: Camera) -> Image.Image:
    "Three files on their way, and one left out."
    camera.desk.show("p = DropZone(suffixes=['.jpg'])")
    camera.page.get_by_role("button", name="Choose files").wait_for()
    camera.desk.do("import time; p.on_file(lambda name, data: time.sleep(3))")
    camera.page.evaluate(DROP)
    camera.page.get_by_text("2 of 3").wait_for()
    camera.page.locator(".dz-left summary").click()
    return camera.shoot(".lesion-dropzone")


with tempfile.TemporaryDirectory() as folder, desk_server(Path(folder)) as url, sync_playwright() as p:
    browser = p.chromium.launch(executable_path=chromium(), args=ARGS)
    for shot, width in ((picture, 640), (dropzone, 800)):
        path = ROOT / "nbs" / "images" / f"{shot.__name__}.jpg"
        shot(Camera(browser, url, width)).save(path, quality=82, optimize=True)
        print(path.relative_to(ROOT), path.stat().st_size // 1000, "kB")
    browser.close()
