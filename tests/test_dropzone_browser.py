"""The drop zone in a real browser: choosing, dropping, folders, large files, cancelling, and no file that vanishes."""

import os
from pathlib import Path

import pytest
from app_server import ARGS, chromium
from widget_desk import Desk, desk_server

sync_api = pytest.importorskip("playwright.sync_api")
if chromium() is None:
    if os.environ.get("LESION_SEG_BROWSER") == "required": raise RuntimeError("no browser: apt-get install chromium")
    pytest.skip("no browser: apt-get install chromium", allow_module_level=True)

AXE = Path(__file__).parent.parent / "node_modules" / "axe-core" / "axe.min.js"
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def desk(tmp_path_factory):
    with desk_server(tmp_path_factory.mktemp("desk")) as url, sync_api.sync_playwright() as p:
        browser = p.chromium.launch(executable_path=chromium(), args=ARGS)
        page = browser.new_page(viewport=dict(width=800, height=900))
        page.set_default_timeout(20_000)
        wrong = []
        page.on("pageerror", lambda e: wrong.append(str(e)))
        page.goto(url)
        page.get_by_label("code").wait_for(timeout=120_000)
        yield Desk(page)
        page.goto("about:blank")
        browser.close()
        assert not [e for e in wrong if "Failed to initialize" not in e]


@pytest.fixture
def zone(desk):
    "A new drop zone; what Python took and heard is in `files` and `events`."
    desk.show("""
import hashlib, time
files, events, pause = [], [], 0
p = DropZone(max_file_bytes=40 * 2 ** 20, max_files=4, suffixes=['.jpg', '.png'])
def take(name, data):
    time.sleep(pause)
    if name.startswith('mask'): raise InputError(name, 'is a mask', 'add its photograph')
    files.append((name, hashlib.sha256(data).hexdigest()))
p.on_file(take)
p.on_event(lambda event, payload: events.append((event, payload)))""")
    desk.page.get_by_role("button", name="Choose files").wait_for()
    return desk


def write(folder: Path, **sizes: int) -> list[Path]:
    "Files of random bytes."
    paths = []
    for name, size in sizes.items():
        paths.append(folder / name.replace("__", "/").replace("_", "."))
        paths[-1].parent.mkdir(exist_ok=True)
        paths[-1].write_bytes(os.urandom(size))
    return paths


def digests(paths, folder: Path) -> list:
    import hashlib
    return [(p.relative_to(folder).as_posix(), hashlib.sha256(p.read_bytes()).hexdigest()) for p in paths]


def choose(page, paths, button="Choose files"):
    with page.expect_file_chooser() as chooser: page.get_by_role("button", name=button).click()
    chooser.value.set_files([str(p) for p in paths] if isinstance(paths, list) else str(paths))


def finished(page): page.wait_for_selector(".dz-state", state="hidden")


def test_files_arrive_whole_also_large_ones(zone, tmp_path):
    paths = write(tmp_path, a_jpg=10, b_jpg=23 * 2**20 + 7, c_png=4 * 2**20)
    choose(zone.page, paths)
    zone.page.locator(".dz-state").wait_for()
    finished(zone.page)
    assert zone.ask("files") == digests(paths, tmp_path)
    assert zone.ask("events") == [("begun", dict(files=3)), ("finished", {})]
    assert zone.page.get_by_role("status").inner_text() == "3 files sent"


def test_limits_are_told_before_and_every_file_left_out_is_named(zone, tmp_path):
    assert "Up to 40 MB a file, 4 files at a time" in zone.page.locator(".dz-limits").inner_text()
    paths = write(tmp_path, a_jpg=10, empty_jpg=0, large_jpg=41 * 2**20, mask_png=9)
    choose(zone.page, paths)
    zone.page.get_by_text("3 files left out").first.click()
    assert zone.page.get_by_role("status").inner_text() == "1 file sent, 3 files left out"
    lines = zone.page.locator(".dz-left li").all_inner_texts()
    assert lines == ["empty.jpg is empty (0 bytes)", "large.jpg has 41 MB; the limit is 40 MB a file", "mask.png: is a mask; add its photograph"]
    assert zone.ask("files") == digests(paths[:1], tmp_path)
    assert [payload["name"] for event, payload in zone.ask("events") if event == "left_out"] == ["empty.jpg", "large.jpg", "mask.png"]


def test_a_folder(zone, tmp_path):
    paths = write(tmp_path, set__a_jpg=10, set__b_jpg=20, set__notes_txt=5)
    (tmp_path / "set" / ".hidden").write_bytes(b"x")
    choose(zone.page, tmp_path / "set", "Choose a folder")
    finished(zone.page)
    zone.page.wait_for_selector(".dz-left", state="visible")
    assert sorted(zone.ask("files")) == digests(paths[:2], tmp_path)
    assert ("left_out", dict(name="set/notes.txt", why="is not a photograph")) in zone.ask("events")


DROP = """([selector, names]) => {
    const data = new DataTransfer();
    for (const name of names) data.items.add(new File([name.repeat(1000)], name));
    const target = document.querySelector(selector);
    const fire = type => { const e = new DragEvent(type, {dataTransfer: data, bubbles: true, cancelable: true}); target.dispatchEvent(e); return e.defaultPrevented; };
    return [fire('dragover'), fire('drop')]; }"""


def test_drops_queue_and_nothing_outside_is_caught(zone):
    zone.do("pause = .3")
    assert zone.page.evaluate(DROP, [".dz-field", ["a.jpg", "b.jpg"]]) == [True, True]
    assert zone.page.evaluate(DROP, [".dz-field", ["c.jpg"]]) == [True, True]  # while the first is on its way
    assert zone.page.evaluate(DROP, ["body", ["d.jpg"]]) == [False, False]
    finished(zone.page)
    assert [name for name, _ in zone.ask("files")] == ["a.jpg", "b.jpg", "c.jpg"]


def test_cancel_names_what_is_left(zone):
    zone.do("pause = .5")
    zone.page.evaluate(DROP, [".dz-field", ["a.jpg", "b.jpg", "c.jpg", "d.jpg"]])
    zone.page.get_by_text("2 of 4").wait_for()
    zone.page.get_by_role("button", name="Cancel").click()
    finished(zone.page)
    taken = [name for name, _ in zone.ask("files")]
    left = [payload["name"] for event, payload in zone.ask("events") if event == "left_out"]
    assert "a.jpg" in taken and {"c.jpg", "d.jpg"} <= set(left) and set(taken) | set(left) == {"a.jpg", "b.jpg", "c.jpg", "d.jpg"}


def test_while_the_page_is_busy_files_wait(zone):
    zone.do("p.disabled = True")
    zone.page.wait_for_timeout(200)
    zone.page.evaluate(DROP, [".dz-field", ["a.jpg"]])
    zone.page.wait_for_timeout(300)
    assert zone.ask("files") == [] and zone.page.locator(".dz-state").is_visible()
    zone.do("p.disabled = False")
    finished(zone.page)
    assert len(zone.ask("files")) == 1


def test_keyboard_and_names(zone):
    zone.page.get_by_label("notes").focus()
    zone.page.keyboard.press("Tab")
    assert zone.page.evaluate("document.activeElement.textContent") == "Choose files"
    zone.page.keyboard.press("Tab")
    assert zone.page.evaluate("document.activeElement.textContent") == "Choose a folder"
    zone.page.keyboard.press("Tab")
    assert not zone.page.evaluate("document.querySelector('.lesion-dropzone').contains(document.activeElement)"), "no hidden stop"


@pytest.mark.skipif(not AXE.is_file() and os.environ.get("LESION_SEG_BROWSER") != "required", reason="`npm ci` brings axe-core")
def test_axe_finds_nothing(zone):
    zone.page.evaluate(DROP, [".dz-field", ["empty.txt", "mask.jpg"]])
    finished(zone.page)
    zone.page.add_script_tag(path=str(AXE))
    found = zone.page.evaluate("axe.run('.lesion-dropzone').then(r => r.violations.map(v => v.id + ': ' + v.nodes.map(n => n.html).join(' ')))")
    assert found == []


@pytest.mark.parametrize("width", [320, 2560])
def test_every_width(zone, width):
    zone.page.set_viewport_size(dict(width=width, height=900))
    zone.page.wait_for_timeout(200)
    assert zone.page.evaluate("document.documentElement.scrollWidth") <= width
    zone.page.set_viewport_size(dict(width=800, height=900))
