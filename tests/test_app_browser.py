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
        self.page.on("dialog", lambda dialog: dialog.accept())
        self.page.goto("about:blank")  # the kernel ends
        self.page.close()
        if kind is None: assert not self.wrong


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    "Files to choose: a photograph in several formats, its mask, and what is none."
    folder, phantom = tmp_path_factory.mktemp("photos"), make_phantom(57, (480, 640))
    image = Image.fromarray(phantom.image)
    image.save(folder / "photo.jpg", quality=92)
    Image.fromarray(phantom.mask).save(folder / "photo_mask.png")
    photo_to_dicom(phantom.image, folder / "scan.dcm", spacing=(0.02, 0.02), patient="Doe")
    for seed in (46, 41, 43): Image.fromarray(make_phantom(seed, (240, 320)).image).save(folder / f"mole{seed}.jpg", quality=92)
    (folder / "letter.jpg").write_bytes(b"Dear doctor,")
    (folder / "empty.jpg").write_bytes(b"")
    return folder


def choose(page, *files):
    with page.expect_file_chooser() as chooser: page.get_by_role("button", name="Choose files").click()
    chooser.value.set_files([str(f) for f in files])


def saved(page, button) -> bytes:
    "What a click downloads."
    with page.expect_download() as download: page.get_by_role("button", name=button, exact=True).click()
    return download.value.path().read_bytes()


def tab(page, name): page.locator(".lesion-tabs").get_by_role("button", name=name, exact=True).click()


def fact(page, name) -> str:
    row = page.locator(".lesion-numbers dl > div").filter(has=page.locator("dt", has_text=re.compile(f"^{name}$")))
    return row.locator("dd").inner_text()


def settled(page, name="Largest diameter"):
    page.locator(".lesion-numbers dt", has_text=name).wait_for()
    page.locator(".lesion-job").wait_for(state="hidden")


def follows(page, name, before) -> str:
    "The number, as soon as it is another one."
    page.wait_for_function("([name, before]) => [...document.querySelectorAll('.lesion-numbers dl > div')].some("
                           "d => d.firstChild.textContent === name && d.lastChild.textContent !== before)", arg=[name, before])
    page.wait_for_timeout(600)  # and at rest
    return fact(page, name)


def numbers(text: str) -> list[float]:
    "All numbers in a text, as a person reads them; thousands have commas."
    return [float(n.replace(",", "")) for n in re.findall(r"\d[\d,]*(?:\.\d+)?", text)]


def check_numbers(page, record) -> None:
    "Every number on the page is the one in the file."
    measures = record["measures"]
    diameter, unit = (measures["major_diameter_mm"], "mm") if "major_diameter_mm" in measures else (measures["major_diameter_px"], "px")
    assert numbers(fact(page, "Largest diameter")) == [pytest.approx(diameter, rel=0.006)] and fact(page, "Largest diameter").endswith(unit)
    *area, percent = numbers(fact(page, "Area").replace("mm²", ""))
    assert percent == pytest.approx(100 * measures["area_fraction"], rel=0.006)
    assert area == ([pytest.approx(measures["area_mm2"], rel=0.006)] if "area_mm2" in measures else [])
    assert numbers(fact(page, "Area in pixels")) == [measures["area_px"]]
    assert numbers(fact(page, "Mean probability")) == [pytest.approx(measures["mean_probability"], abs=0.006)]
    assert numbers(fact(page, "Uncertainty score"))[0] == pytest.approx(record["doubt"], abs=6e-4)
    assert numbers(fact(page, "Photograph"))[:2] == [record["width"], record["height"]]
    assert numbers(fact(page, "Border")) == ([] if record["threshold"] is None else [pytest.approx(record["threshold"], abs=6e-4)])


def test_the_start_page_needs_nobody_else_and_says_what_it_is_once(page, server):
    assert page.title() == "lesion_seg" and page.locator("html").get_attribute("lang") == "en" and page.locator("h1").count() == 1
    assert page.get_by_text("not a medical device").count() == 1
    assert "app_from_env" not in page.content(), "the notebook's source is stripped"
    assert page.get_by_role("button", name="Choose files").is_visible() and page.get_by_role("button", name="A clear border").is_visible()
    assert not has_torch(server.kernel_of(page))


def test_a_photograph_its_borders_and_a_drawing(page, photos, server):
    "What a reader does with one photograph; every number is compared with the file at each step, every mask pixel for pixel."
    choose(page, photos / "photo.jpg")
    settled(page)
    segmenter = Segmenter(threads=1)
    before = segmenter.predict(photos / "photo.jpg")
    tab(page, "Take away")
    check_numbers(page, json.loads(saved(page, "Measures (JSON)")))
    assert np.array_equal(read_mask(saved(page, "Mask (PNG)")), before.mask)
    area = fact(page, "Area in pixels")
    page.get_by_role("button", name="Tight", exact=True).click()
    assert numbers(follows(page, "Area in pixels", area))[0] < before.mask.sum()
    record = json.loads(saved(page, "Measures (JSON)"))
    check_numbers(page, record)
    tight = record["threshold"]
    slider = page.get_by_role("slider", name="Threshold")
    slider.focus()
    area = fact(page, "Area in pixels")
    for _ in range(20): page.keyboard.press("ArrowLeft")
    follows(page, "Area in pixels", area)
    record = json.loads(saved(page, "Measures (JSON)"))
    assert record["border"] == "level" and record["threshold"] == pytest.approx(tight - 0.1, abs=0.003)
    check_numbers(page, record)
    assert np.array_equal(read_mask(saved(page, "Mask (PNG)")), segmenter.predict(photos / "photo.jpg", threshold=record["threshold"]).mask)

    page.get_by_role("button", name="Brush", exact=True).click()
    page.get_by_role("slider", name="Brush size").wait_for()
    box, area = page.locator(".lp-stage").bounding_box(), fact(page, "Area in pixels")
    page.mouse.move(box["x"] + box["width"] * 0.3, box["y"] + 40)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] * 0.6, box["y"] + 60, steps=5)
    page.mouse.up()
    drawn = numbers(follows(page, "Area in pixels", area))[0]
    mask, record = read_mask(saved(page, "Mask (PNG)")), json.loads(saved(page, "Measures (JSON)"))
    assert mask.shape == (480, 640) and mask.sum() == drawn > numbers(area)[0] and record["border"] == "corrected"
    check_numbers(page, record)
    page.get_by_role("button", name="Undo").click()
    assert follows(page, "Area in pixels", f"{int(drawn):,}") == area
    assert Image.open(io.BytesIO(saved(page, "Overlay (JPEG)"))).size == (640, 480)
    report = saved(page, "Report (one page)").decode()
    assert area in report and "photo.jpg" in report and "<script" not in report
    assert not has_torch(server.kernel_of(page)) and memory(server.kernel_of(page)) <= 450


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


@pytest.mark.slow
def test_a_queue_is_reviewed_by_keyboard(page, photos, tmp_path):
    "Most uncertain first; what is left out is listed; a threshold belongs to one; the table and the archive hold what was seen."
    files = [photos / n for n in ("photo.jpg", "photo_mask.png", "mole46.jpg", "mole41.jpg", "letter.jpg", "mole43.jpg", "empty.jpg")]
    choose(page, *files)
    page.get_by_text("4 photographs", exact=True).wait_for()
    settled(page)
    assert page.locator(".lesion-lost summary").inner_text() == "2 files left out"
    page.locator(".lesion-lost summary").click()
    for name in ("letter.jpg", "empty.jpg"): assert page.locator(".lesion-lost li", has_text=name).count() == 1
    segmenter = Segmenter(threads=1)
    found = {f.name: segmenter.predict(f, review=True) for f in files if f.name in ("photo.jpg", "mole46.jpg", "mole41.jpg", "mole43.jpg")}
    order = sorted(found, key=lambda n: -found[n].disagreement)
    options = page.locator(".lesion-queue .widget-select option").all_inner_texts()
    assert [re.search(r"\w+\.jpg", o)[0] for o in options] == order
    page.locator(".lesion-queue .widget-select select").select_option(index=0)
    page.locator("h2", has_text=order[0]).wait_for()
    page.locator(".lp-stage").focus()
    page.keyboard.press("3")
    page.get_by_text("wide, threshold").wait_for()
    page.keyboard.press("a")
    page.locator("h2", has_text=order[1]).wait_for()
    page.keyboard.press("s")
    page.locator("h2", has_text=order[2]).wait_for()
    page.keyboard.press("p")
    page.locator("h2", has_text=order[1]).wait_for()
    page.get_by_text("2 of 4 reviewed").wait_for()
    options = page.locator(".lesion-queue .widget-select option").all_inner_texts()
    assert "accepted" in options[0] and "wide" in options[0] and "skipped" in options[1] and not any("wide" in o for o in options[1:])
    page.get_by_label("Show", exact=True).select_option("accepted")
    page.wait_for_function("document.querySelectorAll('.lesion-queue .widget-select option').length === 1")
    page.get_by_label("Show", exact=True).select_option("all")
    page.get_by_label("Note").fill("hair")
    page.keyboard.press("Tab")

    tab(page, "Take away")
    rows = {r["file"]: r for r in csv.DictReader(io.StringIO(saved(page, "Table (CSV)").decode()))}
    assert {name for name, r in rows.items() if r["problem"]} == {"letter.jpg", "empty.jpg"} and len(rows) == 6
    assert [rows[n]["state"] for n in order] == ["accepted", "skipped", "not reviewed", "not reviewed"] and rows[order[1]]["note"] == "hair"
    archive = zipfile.ZipFile(io.BytesIO(saved(page, "All results (ZIP)")))
    assert archive.testzip() is None and len(archive.namelist()) == 3 * 4 + 1
    for name in order[1:]: assert np.array_equal(read_mask(archive.read(f"{rows[name]['results']}_mask.png")), found[name].mask), name
    assert json.loads(archive.read(f"{rows[order[0]]['results']}.json"))["border"] == "wide"
    assert rows["photo.jpg"]["dice"] and not rows["mole46.jpg"]["dice"]

    (tmp_path / "session.zip").write_bytes(saved(page, "Save the session"))
    page.get_by_role("button", name="Start over").click()
    page.get_by_role("button", name="Forget them").click()
    page.get_by_role("button", name="A clear border").wait_for()
    choose(page, tmp_path / "session.zip")
    page.get_by_text("2 of 4 reviewed").wait_for()


@pytest.mark.slow
def test_dicom_in_and_out_and_the_patient_stays_hidden(page, photos, server):
    pydicom = pytest.importorskip("pydicom")
    choose(page, photos / "scan.dcm")
    settled(page)
    assert "mm²" in fact(page, "Area") and fact(page, "Largest diameter").endswith(" mm")
    tab(page, "Take away")
    check_numbers(page, json.loads(saved(page, "Measures (JSON)")))
    seg = pydicom.dcmread(io.BytesIO(saved(page, "DICOM SEG")))
    assert seg.Modality == "SEG" and np.array_equal(seg.pixel_array > 0, Segmenter(threads=1).predict(photos / "scan.dcm").mask)
    tab(page, "About")
    page.get_by_text("DICOM header").wait_for()
    assert "Doe" not in page.content()
    page.get_by_label("Show patient, dates and serial number").check()
    page.locator("dd", has_text="Doe").first.wait_for()
    assert "Doe" not in server.log.read_text()


@pytest.mark.slow
def test_maps_comparisons_and_another_model(page, photos, server):
    choose(page, photos / "photo.jpg", photos / "photo_mask.png")
    settled(page, "Dice")
    tab(page, "Compare")
    page.get_by_label("With", exact=True).select_option("The true mask")
    page.locator(".lesion-compare dd").first.wait_for()
    assert page.locator(".lesion-compare dd").first.inner_text() == fact(page, "Dice")
    page.get_by_role("button", name="Wide", exact=True).click()
    follows(page, "Dice", fact(page, "Dice"))
    assert page.locator(".lesion-compare dd").first.inner_text() == fact(page, "Dice"), "the comparison follows the border"
    page.get_by_label("With", exact=True).select_option("Model stricter")
    page.locator(".lp-legend, .lp-bar").get_by_text("Model stricter").wait_for()
    tab(page, "Maps")
    for kind, words in [("Standard deviation", "20 variants"), ("Entropy", "coin toss"), ("Confident part", "Dashed"), ("Grad-CAM: lesion", "spoke most for the lesion")]:
        assert not has_torch(server.kernel_of(page))
        page.get_by_label("Map", exact=True).select_option(kind)
        page.locator(".lesion-maps", has_text=words).wait_for()
    assert has_torch(server.kernel_of(page))
    page.get_by_role("button", name="Tight", exact=True).click()
    page.wait_for_function("!document.querySelector('.lesion-maps').textContent.includes('spoke most')")  # it was for another border
    tab(page, "About")
    page.get_by_label("Model", exact=True).select_option("stricter")
    page.locator(".lesion-numbers dd", has_text="threshold 0.800").wait_for()


@pytest.mark.slow
@pytest.mark.parametrize("width", [320, 390, 768, 1024, 1920])
def test_nothing_sticks_out_of_the_screen(page, photos, width):
    page.set_viewport_size(dict(width=width, height=800))
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    choose(page, photos / "photo.jpg")
    settled(page)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    box = page.locator(".lp-stage").bounding_box()
    assert box["width"] >= min(0.85 * width, 400) and box["height"] > 200 and box["x"] + box["width"] <= width


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
    if (!own || !e.checkVisibility() || e.closest('.lp-frame, .lp-unseen, .dz-unseen, option, svg, style, :disabled, [disabled]')) continue;
    const [a, b] = [lum(rgb(getComputedStyle(e).color)), lum(ground(e))].sort((x, y) => y - x), ratio = (a + .05) / (b + .05);
    if (ratio < 4.5) low.push([e.tagName, e.className, e.textContent.slice(0, 30), ratio.toFixed(2)]);
  }
  return low;
}"""

NAMELESS = """() => [...document.querySelectorAll('.lesion button, .lesion input, .lesion select, .lesion img, .lesion [role=slider]')].filter(e => e.checkVisibility())
  .filter(e => !(e.getAttribute('aria-label') || e.textContent.trim() || e.labels?.length || e.title || e.hasAttribute('alt')))
  .map(e => e.outerHTML.slice(0, 100))"""


@pytest.mark.slow
def test_legible_and_named_in_both_themes(page):
    for name in (None, "A faint lesion"):
        if name:
            page.get_by_role("button", name=name).click()
            settled(page)
        for theme in ("Light", "Dark"):
            page.get_by_label("Colours").select_option(theme)
            page.wait_for_timeout(500)
            assert page.evaluate(CONTRAST) == [], theme
            assert page.evaluate(NAMELESS) == []


@pytest.mark.slow
def test_by_keyboard_alone(page):
    "From the start to a saved mask without touching the mouse."
    def tab_to(match):
        for _ in range(90):
            page.keyboard.press("Tab")
            if page.evaluate(f"({match})(document.activeElement)"): return
        raise AssertionError(f"no way by Tab to {match}")
    tab_to("e => e.textContent === 'A DICOM file'")
    page.keyboard.press("Enter")
    settled(page)
    tab_to("e => e.classList.contains('lp-stage')")
    page.keyboard.press("+")
    tab_to("e => e.getAttribute('role') === 'slider' && e.getAttribute('aria-label') === 'Threshold'")
    area = fact(page, "Area in pixels")
    for _ in range(5): page.keyboard.press("ArrowLeft")
    follows(page, "Area in pixels", area)
    tab_to("e => e.textContent === 'Take away'")
    page.keyboard.press("Enter")
    tab_to("e => e.textContent === 'Mask (PNG)'")
    with page.expect_download() as download: page.keyboard.press("Enter")
    assert download.value.suggested_filename == "phantom_75_mask.png"


@pytest.mark.slow
def test_work_is_not_lost_without_a_question(page, photos, server):
    "A reload asks while something is unsaved; leaving a photograph while its slider moves is no error."
    page.set_default_timeout(60_000)
    choose(page, photos / "mole46.jpg", photos / "mole41.jpg")
    page.get_by_text("2 photographs", exact=True).wait_for()
    settled(page)
    page.get_by_role("slider", name="Threshold").focus()
    for _ in range(8): page.keyboard.press("ArrowLeft")
    page.locator(".lesion-queue .widget-select select").select_option(index=1)
    page.wait_for_timeout(1500)
    assert not page.get_by_role("alert").count()
    asked, answers = [], [False, True]
    def answer(dialog):
        asked.append(dialog.type)
        dialog.accept() if answers.pop(0) else dialog.dismiss()
    page.on("dialog", answer)
    page.get_by_role("button", name="Accept").click()
    page.get_by_text("1 of 2 reviewed").wait_for()
    page.evaluate("setTimeout(() => location.reload(), 50)")
    page.wait_for_timeout(3000)
    page.get_by_role("button", name="Previous", exact=True).click()  # whoever stays can go on
    page.get_by_role("button", name="Skip").click()
    page.locator(".lesion-queue .widget-select option", has_text="skipped").wait_for(state="attached")
    old = server.kernel_of(page)
    page.evaluate("setTimeout(() => location.reload(), 50)")
    page.wait_for_timeout(2000)
    assert asked == ["beforeunload"] * 2
    page.remove_listener("dialog", answer)
    page.wait_for_selector("[data-ready]", state="attached")
    assert server.kernel_of(page) != old
    for _ in range(200):
        if old not in server.kernels().values(): return
        page.wait_for_timeout(50)
    raise AssertionError("the kernel lives on")


@pytest.mark.slow
def test_a_killed_kernel_is_said_once(page, photos, server):
    choose(page, *(photos / n for n in ("photo.jpg", "mole46.jpg", "mole41.jpg", "mole43.jpg")))
    page.locator(".lesion-numbers dt").first.wait_for()
    os.kill(server.kernel_of(page), signal.SIGKILL)
    page.locator(".lesion-ended").wait_for()
    assert page.locator(".lesion-ended").count() == 1 and not page.locator(".lesion-lost").count()
    page.get_by_role("button", name="Reload the page").click()
    page.wait_for_selector("[data-ready]", state="attached")
    page.get_by_role("button", name="Choose files").wait_for()


@pytest.mark.slow
def test_a_page_that_is_left_frees_its_kernel(page, server):
    process = server.kernel_of(page)
    page.goto("about:blank")
    for _ in range(1200):
        if not os.path.exists(f"/proc/{process}"): return
        page.wait_for_timeout(50)
    raise AssertionError("the kernel lives on")


@pytest.mark.slow
def test_the_server_serves_no_files_and_runs_no_code(page, server):
    inside = "voila/files/voila/templates/lesion_seg/conf.json"
    for path in ("voila/files/app.ipynb", "voila/files/picture.js", "voila/files/../app.py", "voila/tree", "app.ipynb", "api/contents", inside):
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
def test_a_folder_is_reviewed_and_nothing_is_lost(browser, photos, tmp_path):
    "Masks and decisions are on the disk as soon as they are made, and the next visit goes on."
    source = tmp_path / "moles"
    source.mkdir()
    for name in ("mole46.jpg", "mole41.jpg"): shutil.copy(photos / name, source)
    context = browser.new_context(viewport=dict(width=1440, height=900))
    with serving(tmp_path, str(source)) as server:
        with opened(context, server) as page:
            page.get_by_text("2 photographs", exact=True).wait_for()
            settled(page)
            first = page.locator(".lesion-review h2").inner_text()
            page.get_by_role("button", name="Accept").click()
            page.get_by_text("1 of 2 reviewed").wait_for()
            os.kill(server.kernel_of(page), signal.SIGKILL)
            page.locator(".lesion-ended").wait_for()
        rows = list(csv.DictReader(open(tmp_path / "moles_reviewed" / "corrected.csv", encoding="utf-8")))
        assert [Path(r["image"]).name for r in rows] == [first]
        mask = read_mask(tmp_path / "moles_reviewed" / rows[0]["mask"])
        assert np.array_equal(mask, Segmenter(threads=1).predict(source / first).mask)
        with opened(context, server) as page: page.get_by_text("1 of 2 reviewed").wait_for()
    context.close()


@pytest.mark.slow
def test_ten_readers_at_once(server, browser, photos):
    "Each gets the right answer, and none needs more than 450 MB."
    context = browser.new_context(viewport=dict(width=1280, height=800))
    readers = [opened(context, server) for _ in range(10)]
    pages = [r.__enter__() for r in readers]
    for p in pages: choose(p, photos / "photo.jpg")
    for p in pages: settled(p)
    assert len({fact(p, "Area in pixels") for p in pages}) == 1
    used = [memory(server.kernel_of(p)) for p in pages]
    assert max(used) <= 450 and not any(has_torch(server.kernel_of(p)) for p in pages), used
    for r in readers: r.__exit__(None)
    context.close()
