"""The web app in a real browser: what a reader sees, presses, drops and takes away."""

import csv
import io
import json
import os
import re
import shutil
import signal
import urllib.error
import urllib.request
import zipfile
from pathlib import Path

import numpy as np
import pytest
from app_server import ARGS, chromium, has_torch, memory, serving
from PIL import Image

from lesion_seg.app import WEB
from lesion_seg.bundle import SHIPPED, Bundle, revise
from lesion_seg.data import read_mask
from lesion_seg.dicom_seg import photo_to_dicom
from lesion_seg.phantom import make_phantom
from lesion_seg.predict import Segmenter

sync_api = pytest.importorskip("playwright.sync_api")
if chromium() is None:
    if os.environ.get("LESION_SEG_BROWSER") == "required": raise RuntimeError("no browser: apt-get install chromium")
    pytest.skip("no browser: apt-get install chromium", allow_module_level=True)

LIMIT_MB = 30
SLOW = "[anywidget] Failed to initialize model."  # it gives a page two seconds, which a machine full of other work cannot always keep


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    folder = tmp_path_factory.mktemp("server")
    (folder / "voila.py").write_text("open('executed', 'w')")  # Voilà itself would run this, and obey that
    (folder / "voila.json").write_text(json.dumps(dict(Voila=dict(ip="0.0.0.0"))))
    shutil.copytree(SHIPPED, folder / "models" / "stricter")
    revise(Bundle.load(folder / "models" / "stricter"), threshold=0.8)
    with serving(folder, "-b", "shipped", "-b", "models",
                 *(x for s in (f"max_upload_mb={LIMIT_MB}", "max_files=25", "kernels=2") for x in ("--set", f"app.{s}"))) as s:
        s.wait_warm(1)
        yield s


@pytest.fixture(scope="module")
def browser():
    with sync_api.sync_playwright() as p:
        b = p.chromium.launch(executable_path=chromium(), args=ARGS)
        yield b
        b.close()


@pytest.fixture
def page(server, browser):
    "A new reader; the page must not throw, nor ask anybody else for anything."
    context = browser.new_context(viewport=dict(width=1440, height=900), accept_downloads=True)
    with opened(context, server) as p: yield p
    context.close()


class opened:
    "A page in a context, with its mistakes collected."
    def __init__(self, context, server): self.context, self.server = context, server

    def __enter__(self):
        self.page, self.wrong = self.context.new_page(), []
        self.page.set_default_timeout(300_000)
        self.page.on("pageerror", lambda e: self.wrong.append(str(e)))
        self.page.on("request", lambda r: None if re.match(r"(http|ws)://127\.0\.0\.1|blob:|data:", r.url) else self.wrong.append(r.url))
        for last in (False, False, True):
            self.wrong.clear()
            self.page.goto(self.server.url)
            try:
                self.page.wait_for_selector("[data-ready]", state="attached", timeout=60_000)
                break
            except sync_api.TimeoutError:
                if last or set(self.wrong) - {SLOW}: raise
        return self.page

    def __exit__(self, kind, *_):
        self.page.goto("about:blank")  # the kernel ends
        self.page.close()
        if kind is None: assert not self.wrong


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    "Files to choose: a photograph in several formats, and a large one."
    folder, phantom = tmp_path_factory.mktemp("photos"), make_phantom(57, (480, 640))
    image = Image.fromarray(phantom.image)
    image.save(folder / "photo.jpg", quality=92)
    image.save(folder / "photo.png")
    Image.fromarray(phantom.mask).save(folder / "photo_mask.png")
    photo_to_dicom(phantom.image, folder / "scan.dcm", spacing=(0.02, 0.02), patient="Doe")
    return folder


def choose(page, *files):
    with page.expect_file_chooser() as chooser: page.get_by_role("button", name=re.compile("Choose files|Open another|Add files")).first.click()
    chooser.value.set_files([str(f) for f in files])


def saved(page, button) -> bytes:
    "What a click downloads."
    with page.expect_download() as download: page.get_by_role("button", name=button).click()
    return download.value.path().read_bytes()


def fact(page, name) -> str: return page.locator("dl > div", has_text=name).locator("dd").inner_text()


def border(page) -> str: return page.locator("figure path.border.line").get_attribute("d")


def settled(page, name="Largest diameter"): page.locator("dl > div", has_text=name).wait_for()


def test_the_start_page_needs_nobody_else_and_says_what_it_is_once(page, server):
    assert page.title() == "lesion_seg" and page.locator("html").get_attribute("lang") == "en"
    assert page.get_by_text("not a medical device").count() == 1
    assert "app_from_env" not in page.content(), "the notebook's source is stripped"
    assert page.get_by_role("button", name="Choose files").is_visible()
    assert not has_torch(server.kernel_of(page))


@pytest.mark.parametrize("name", ["photo.jpg", pytest.param("photo.png", marks=pytest.mark.slow)])
def test_a_photograph_and_its_threshold(page, photos, name):
    choose(page, photos / name)
    settled(page)
    first, segmenter = border(page), Segmenter(threads=1)
    assert first.startswith("M") and not page.get_by_role("alert").count()
    before = segmenter.predict(photos / name)
    assert fact(page, "Area").startswith(f"{before.measure()['area_fraction'] * 100:.0f} %")
    slider = page.get_by_label("Threshold")
    slider.focus()
    for _ in range(round((0.78 - before.threshold) / 0.005)): page.keyboard.press("ArrowRight")
    page.wait_for_function("document.querySelector('.lesion').dataset.threshold === '0.78'")
    assert border(page) != first
    slider.evaluate("e => e.dispatchEvent(new Event('change'))")
    mask = read_mask(saved(page, "Mask (PNG)"))
    assert np.array_equal(mask, segmenter.predict(photos / name, threshold=0.78).mask) and mask.sum() < before.mask.sum()
    measures = json.loads(saved(page, "Measures (JSON)"))
    assert measures["threshold"] == 0.78 and measures["measures"]["area_px"] == mask.sum() and measures["name"] == name
    assert Image.open(io.BytesIO(saved(page, "Overlay (JPEG)"))).size == (640, 480)


def test_settings_that_lie_in_the_folder_are_not_ours(server):
    assert not (server.log.parent / "executed").exists()
    listening = [line.split()[1] for line in Path("/proc/net/tcp").read_text().splitlines()[1:] if line.split()[3] == "0A"]
    port = f"{int(server.url.rstrip('/').rpartition(':')[2]):04X}"
    assert [a for a in listening if a.endswith(f":{port}")] == [f"0100007F:{port}"]


FOREIGN = [{"Host": "evil.example"}, {"Origin": "http://evil.example"}, {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "no-cors", "Sec-Fetch-Dest": "image"},
           {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "iframe"}]


@pytest.mark.parametrize("headers", FOREIGN, ids=str)
def test_foreign_pages_start_no_kernel(server, headers):
    before = server.kernels()
    with pytest.raises(urllib.error.HTTPError) as e: urllib.request.urlopen(urllib.request.Request(server.url, headers=headers), timeout=60)
    assert e.value.code == 403 and server.kernels() == before


def numbers(text: str) -> list[float]:
    "All numbers in a text, as a person reads them; thousands have commas."
    return [float(n.replace(",", "")) for n in re.findall(r"\d[\d,]*(?:\.\d+)?", text)]


def test_numbers_read_as_what_they_are(page):
    "499.956 was once shown as 5, and 999.6 as 1.00e+3."
    source = re.search(r"function three\(x\) \{.*?\n\}\n", (WEB / "app.js").read_text(encoding="utf-8"), re.S)[0]
    values = [499.956, 510, 999.6, 99.96, 100, 9.999, 1000, 0, *np.geomspace(0.05, 5e6, 3000)]
    texts = page.evaluate(f"values => {{ {source}; return values.map(three); }}", [float(v) for v in values])
    wrong = [(v, t) for v, t in zip(values, texts, strict=True) if len(numbers(t)) != 1 or abs(numbers(t)[0] - v) > 0.005 * v + 5e-4]
    assert wrong == [] and texts[:5] == ["500", "510", "1,000", "100", "100"]


@pytest.mark.parametrize("name", ["photo.jpg", pytest.param("scan.dcm", marks=pytest.mark.slow)])
def test_every_number_on_the_page_is_the_one_in_the_file(page, photos, name):
    choose(page, photos / name)
    settled(page)
    record = json.loads(saved(page, "Measures (JSON)"))
    measures = record["measures"]
    diameter, unit = (measures["major_diameter_mm"], "mm") if "major_diameter_mm" in measures else (measures["major_diameter_px"], "px")
    assert numbers(fact(page, "Largest diameter")) == [pytest.approx(diameter, rel=0.01)] and fact(page, "Largest diameter").endswith(unit)
    *area, percent = numbers(fact(page, "Area").replace("mm²", ""))
    assert percent == pytest.approx(100 * measures["area_fraction"], abs=0.5)
    assert area == ([pytest.approx(measures["area_mm2"], rel=0.01)] if "area_mm2" in measures else [])
    assert numbers(fact(page, "Mean probability")) == [pytest.approx(measures["mean_probability"], abs=0.006)]
    assert numbers(fact(page, "Uncertainty score"))[0] == pytest.approx(record["doubt"], abs=6e-4)


def test_a_lesion_that_leaves_the_frame_is_said_to_be_larger(page, tmp_path):
    phantom = make_phantom(57, (480, 640))
    rows, columns = np.nonzero(phantom.mask)
    Image.fromarray(phantom.image[:, : int(columns.mean())]).save(tmp_path / "cut.png")
    choose(page, tmp_path / "cut.png")
    settled(page)
    assert fact(page, "Largest diameter").startswith("at least ") and fact(page, "Area").startswith("at least ")


@pytest.mark.slow
def test_dicom_in_and_out_and_the_patient_stays_hidden(page, photos, server):
    pydicom = pytest.importorskip("pydicom")
    choose(page, photos / "scan.dcm")
    settled(page)
    assert "mm²" in fact(page, "Area") and fact(page, "Largest diameter").endswith(" mm")
    seg = pydicom.dcmread(io.BytesIO(saved(page, "DICOM SEG")))
    assert seg.Modality == "SEG" and np.array_equal(seg.pixel_array > 0, Segmenter(threads=1).predict(photos / "scan.dcm").mask)
    page.get_by_text("DICOM header").click()
    assert "Doe" not in page.content()
    page.get_by_label("Show patient, dates and serial number").check()
    page.locator("dd", has_text="Doe").first.wait_for()
    assert "Doe" not in server.log.read_text()


@pytest.mark.slow
def test_a_file_of_20_megabytes(page, tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (2600, 2600, 3), np.uint8)
    Image.fromarray(noise).save(tmp_path / "large.png", compress_level=0)
    assert (tmp_path / "large.png").stat().st_size > 20e6
    choose(page, tmp_path / "large.png")
    page.get_by_text("2600 × 2600 px").wait_for()
    assert read_mask(saved(page, "Mask (PNG)")).shape == (2600, 2600)


@pytest.mark.slow
def test_too_large_a_file_is_refused_before_it_is_read(page, photos, tmp_path):
    with open(tmp_path / "huge.tif", "wb") as f: f.truncate(int(LIMIT_MB * 1e6) + 1)
    sent = []
    page.on("websocket", lambda ws: ws.on("framesent", lambda data: sent.append(len(data))))
    choose(page, tmp_path / "huge.tif")
    alert = page.get_by_role("alert")
    assert "huge.tif has 30 MB, more than the limit of 30 MB, and was not read" in alert.inner_text()
    assert sum(sent) < 1e6
    page.get_by_label("Dismiss this message").click()
    assert not alert.count()
    choose(page, photos / "photo.jpg")
    settled(page)


@pytest.mark.slow
def test_uncertainty_and_gradcam(page, photos, server):
    choose(page, photos / "photo.jpg")
    settled(page)
    heat, legend = page.locator("figure image.heat").nth(1), page.locator(".legend")
    pictures = []
    for layer, words in [("Standard deviation", "agree with each other"), ("Entropy", "coin toss"), ("Grad-CAM", "spoke most for the lesion")]:
        if layer == "Grad-CAM": assert not has_torch(server.kernel_of(page))
        page.get_by_label(layer, exact=True).check()
        if layer == "Grad-CAM": assert "loads PyTorch" in legend.inner_text()
        page.wait_for_function("w => document.querySelector('.legend').textContent.includes(w)", arg=words)
        pictures.append(heat.get_attribute("href"))
    assert len(set(pictures)) == 3 and has_torch(server.kernel_of(page))
    page.get_by_label("What Grad-CAM explains").select_option("border")
    page.wait_for_function("document.querySelector('.legend').textContent.includes('most for the border')")
    page.get_by_label("Confident part").check()
    page.wait_for_function("document.querySelector('figure path.sure.line').getAttribute('d')")
    page.get_by_label("Border only").check()
    assert heat.get_attribute("href") is None and not page.locator("figure path.sure.line").get_attribute("d")


@pytest.mark.slow
def test_both_pictures_zoom_and_pan_as_one(page, photos):
    choose(page, photos / "photo.jpg")
    settled(page)
    panes = page.locator("figure svg")
    def boxes():
        both = [[float(v) for v in panes.nth(i).get_attribute("viewBox").split()] for i in (0, 1)]
        assert both[0] == both[1]
        return both[0]
    assert boxes() == [0, 0, 640, 480]
    panes.nth(1).hover()
    page.mouse.wheel(0, -400)
    x, y, w, h = boxes()
    assert w < 640 and w / h == pytest.approx(640 / 480)
    at = panes.nth(0).bounding_box()
    page.mouse.move(at["x"] + 200, at["y"] + 200)
    page.mouse.down()
    page.mouse.move(at["x"] + 150, at["y"] + 200, steps=3)
    page.mouse.up()
    assert boxes()[0] > x and boxes()[2] == pytest.approx(w)
    page.get_by_role("button", name="Fit to view").click()
    assert boxes() == [0, 0, 640, 480]


@pytest.mark.slow
def test_a_batch_with_broken_files_and_its_archive(page, photos, tmp_path):
    files = []
    for i in range(17):
        files.append(tmp_path / f"p{i:02}.jpg")
        Image.fromarray(make_phantom(40 + i, (120, 160)).image).save(files[-1], quality=92)
    Image.fromarray(make_phantom(40, (120, 160)).mask).save(tmp_path / "p00_mask.png")
    broken = [tmp_path / n for n in ("empty.jpg", "letter.jpg", "cut.jpg")]
    for path, content in zip(broken, (b"", b"Dear doctor,", files[0].read_bytes()[:900]), strict=True): path.write_bytes(content)
    choose(page, *files[:8], *broken, *files[8:], tmp_path / "p00_mask.png")
    page.wait_for_function("document.querySelectorAll('.card').length == 17 && !document.querySelector('.busy')")
    for name in broken: assert page.locator(".broken li", has_text=name.name).count() == 1
    assert "is a text file" in page.locator(".broken li", has_text="letter.jpg").inner_text()
    segmenter = Segmenter(threads=1)
    found = {f.name: segmenter.predict(f, review=True) for f in files}
    flagged = [r.needs_review or not r.mask.any() for r in found.values()]
    assert page.locator(".card .chip.look").count() == sum(flagged)
    shown = page.locator(".card .name").all_inner_texts()
    assert shown == sorted(found, key=lambda n: (not (found[n].needs_review or not found[n].mask.any()), -found[n].disagreement))
    assert "Dice" in page.locator(".card", has_text="p00.jpg").inner_text()

    rows = list(csv.DictReader(io.StringIO(saved(page, "Summary (CSV)").decode())))
    assert len(rows) == 20 and {r["file"] for r in rows if r["problem"]} == {b.name for b in broken}
    archive = zipfile.ZipFile(io.BytesIO(saved(page, "Everything (ZIP)")))
    assert archive.testzip() is None
    for f in files:
        assert np.array_equal(read_mask(archive.read(f"{f.stem}_mask.png")), found[f.name].mask), f.name
        assert json.loads(archive.read(f"{f.stem}.json"))["measures"]["area_px"] == found[f.name].mask.sum()
        assert Image.open(io.BytesIO(archive.read(f"{f.stem}_overlay.jpg"))).size == (160, 120)
    assert list(csv.DictReader(io.StringIO(archive.read("summary.csv").decode()))) == rows
    assert len(archive.namelist()) == 3 * 17 + 1

    page.locator(".card", has_text="p00.jpg").click()
    settled(page)
    assert page.locator("figure path.truth.line").get_attribute("d")
    page.get_by_role("button", name="All photographs").click()
    page.locator(".card").nth(16).wait_for()


@pytest.mark.slow
def test_a_batch_can_be_stopped(page, tmp_path):
    for i in range(12): Image.fromarray(make_phantom(i, (400, 400)).image).save(tmp_path / f"{i}.png")
    choose(page, *tmp_path.glob("*.png"))
    page.locator(".card").first.wait_for()
    page.get_by_role("button", name="Cancel").click()
    page.wait_for_function("!document.querySelector('.busy')")
    assert 1 <= page.locator(".card").count() < 12 and page.get_by_role("button", name="Everything (ZIP)").is_visible()


@pytest.mark.slow
def test_by_keyboard_alone(page):
    "From the start to a saved mask without touching the mouse."
    def tab_to(match):
        for _ in range(60):
            page.keyboard.press("Tab")
            if page.evaluate(f"({match})(document.activeElement)"): return
        raise AssertionError(f"no way by Tab to {match}")
    tab_to("e => e.textContent.includes('A DICOM file')")
    page.keyboard.press("Enter")
    settled(page)
    tab_to("e => e.tagName === 'svg'")
    page.keyboard.press("+")
    page.keyboard.press("ArrowRight")
    box = [float(v) for v in page.locator("figure svg").first.get_attribute("viewBox").split()]
    assert box[2] < 960 and box[0] > (960 - box[2]) / 2
    tab_to("e => e.id === 'threshold'")
    first = border(page)
    for _ in range(5): page.keyboard.press("ArrowLeft")
    page.wait_for_function("d => document.querySelector('figure path.border.line').getAttribute('d') !== d", arg=first)
    tab_to("e => e.value === 'border' && e.type === 'radio'")
    page.keyboard.press("ArrowDown")
    page.wait_for_function("document.querySelector('.legend').textContent.includes('agree')")
    tab_to("e => e.textContent === 'Mask (PNG)'")
    with page.expect_download() as download: page.keyboard.press("Enter")
    assert download.value.suggested_filename == "phantom_75_mask.png"


CONTRAST = """() => {
  const linear = v => v <= 10.02 ? v / 3294.6 : ((v / 255 + .055) / 1.055) ** 2.4;
  const lum = c => .2126 * linear(c[0]) + .7152 * linear(c[1]) + .0722 * linear(c[2]);
  const rgb = s => s.match(/[\\d.]+/g).map(Number);
  const ground = e => {
    for (; e; e = e.parentElement) { const c = rgb(getComputedStyle(e).backgroundColor); if (c.length < 4 || c[3] === 1) return c.slice(0, 3); }
    return [255, 255, 255];
  };
  const low = [];
  for (const e of document.querySelectorAll('.lesion *')) {
    const own = [...e.childNodes].some(n => n.nodeType === 3 && n.textContent.trim());
    if (!own || !e.checkVisibility() || e.closest('.ruler, .unseen, option, svg')) continue;
    const [a, b] = [lum(rgb(getComputedStyle(e).color)), lum(ground(e))].sort((x, y) => y - x), ratio = (a + .05) / (b + .05);
    if (ratio < 4.5) low.push([e.tagName, e.className, e.textContent.slice(0, 30), ratio.toFixed(2)]);
  }
  return low;
}"""

NAMELESS = """() => [...document.querySelectorAll('.lesion button, .lesion input, .lesion select, .lesion img, .lesion svg[role=img]')]
  .filter(e => !(e.ariaLabel || e.getAttribute('aria-label') || e.textContent.trim() || e.labels?.length || e.alt !== undefined && e.tagName === 'IMG'))
  .map(e => e.outerHTML.slice(0, 100))"""


@pytest.mark.slow
@pytest.mark.parametrize("theme", ["light", "dark"])
def test_legible_and_named_in_both_themes(page, theme):
    page.get_by_label("Colours").select_option(theme)
    for name in (None, "A faint lesion", "Six at once"):
        if name:
            page.get_by_role("button", name="lesion_seg").click()
            page.get_by_role("button", name=name).click()
            page.wait_for_function("!document.querySelector('.busy') && document.querySelector('.chip') && !document.querySelector('.waiting')")
        assert page.evaluate(CONTRAST) == []
        assert page.evaluate(NAMELESS) == []


@pytest.mark.slow
@pytest.mark.parametrize("width", [1024, 1920])
def test_nothing_sticks_out_of_the_screen(page, photos, width):
    page.set_viewport_size(dict(width=width, height=800))
    choose(page, photos / "photo.jpg")
    settled(page)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    for i in (0, 1):
        box = page.locator("figure svg").nth(i).bounding_box()
        assert box["width"] > 280 and box["x"] + box["width"] < width and box["y"] + box["height"] < 800


@pytest.mark.slow
def test_a_killed_kernel_gives_a_readable_message(page, photos, server):
    choose(page, photos / "photo.jpg")
    settled(page)
    os.kill(server.kernel_of(page), signal.SIGKILL)
    page.get_by_role("alert").filter(has_text="session has ended").first.wait_for()
    assert page.get_by_role("button", name="Reload the page").is_visible()
    page.get_by_role("button", name="Reload the page").click()
    page.wait_for_selector("[data-ready]", state="attached")
    page.get_by_role("button", name="Choose files").wait_for()


@pytest.mark.slow
def test_a_session_that_the_server_ended_gives_a_readable_message(page, server):
    "As after a long pause: the kernel is shut down, and the page stays open."
    kernel = page.evaluate("JSON.parse(document.getElementById('jupyter-config-data').textContent).kernelId")
    assert page.request.delete(f"{server.url}api/kernels/{kernel}").status == 204
    page.get_by_role("button", name="A clear border").click()
    page.get_by_role("alert").filter(has_text="session has ended").first.wait_for()
    page.get_by_role("button", name="Reload the page").wait_for()


@pytest.mark.slow
def test_a_page_that_is_left_frees_its_kernel(page, server):
    process = server.kernel_of(page)
    page.goto("about:blank")
    for _ in range(1200):
        if not os.path.exists(f"/proc/{process}"): return
        page.wait_for_timeout(50)
    raise AssertionError("the kernel lives on")


@pytest.mark.slow
def test_another_model_can_be_chosen(page, photos):
    choose(page, photos / "photo.jpg")
    settled(page)
    first = border(page)
    page.get_by_label("Model").select_option("stricter")
    page.wait_for_function("d => ![d, '', undefined].includes(document.querySelector('figure path.border.line')?.getAttribute('d'))", arg=first)
    assert page.get_by_label("Threshold").input_value() == "0.8"


@pytest.mark.slow
def test_the_server_serves_no_files_and_runs_no_code(page, server):
    inside = "voila/files/voila/templates/lesion_seg/conf.json"
    for path in ("voila/files/app.ipynb", "voila/files/app.js", "voila/files/../app.py", "voila/tree", "app.ipynb", "api/contents", inside):
        reply = page.request.get(server.url + path)
        assert reply.status in (403, 404), path
    kernel = page.evaluate("JSON.parse(document.getElementById('jupyter-config-data').textContent).kernelId")
    answer = page.evaluate("""id => new Promise(done => {
      const ws = new WebSocket(`ws://${location.host}/api/kernels/${id}/channels`), seen = [];
      const header = { msg_id: 'x1', msg_type: 'execute_request', session: 's1', username: '', version: '5.3', date: new Date().toISOString() };
      ws.onmessage = e => seen.push(typeof e.data === 'string' ? e.data : '');
      ws.onopen = () => ws.send(JSON.stringify({ header, parent_header: {}, metadata: {}, channel: 'shell', buffers: [],
        content: { code: "print('ran' + 'it')", silent: false, store_history: false, user_expressions: {}, allow_stdin: false } }));
      setTimeout(() => { ws.close(); done(seen.join('\\n')); }, 3000);
    })""", kernel)
    assert "ranit" not in answer


@pytest.mark.slow
def test_ten_readers_at_once(server, browser, photos):
    "Each gets the right answer, and none needs more than 450 MB."
    context = browser.new_context(viewport=dict(width=1280, height=800))
    readers = [opened(context, server) for _ in range(10)]
    pages = [r.__enter__() for r in readers]
    for p in pages: choose(p, photos / "photo.jpg")
    for p in pages: settled(p)
    assert len({border(p) for p in pages}) == 1
    used = [memory(server.kernel_of(p)) for p in pages]
    assert max(used) <= 450 and not any(has_torch(server.kernel_of(p)) for p in pages), used
    for r in readers: r.__exit__(None)
    context.close()
