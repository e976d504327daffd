"""Try the built wheel where nothing else is installed: python .ci/wheel.py dist/*.whl [--json FILE] [torch==... torchvision==...]

Makes an empty environment, installs the wheel alone with the newest versions that its requirements allow (further arguments go to pip, to choose a
build of torch), and there imports every module, segments a phantom, trains two steps, and asks for what the extras would bring, which has to be
refused with a sentence that names the extra. Then it installs the extras `app` and `dicom`, turns DICOM into DICOM SEG and serves the web app, whose
page is asked for by a plain request, and by a browser where Playwright and Chromium are at hand. `--json` keeps what was seen.
"""

import json
import os
import platform
import subprocess
import sys
import tempfile
import urllib.request
import venv
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))
from app_server import ARGS, chromium, serving

REPORTED = ("lesion_seg", "fastai", "fastcore", "torch", "torchvision", "onnxruntime", "onnxscript", "numpy", "pandas", "pillow", "albumentations", "timm",
            "pydicom")
NEEDS_EXTRA = {**dict.fromkeys(("app", "dropzone", "picture", "serve"), "app"), "distributed": "distributed"}  # modules that the wheel alone cannot import, and the extra that they need


# In the environment


def modules() -> list[str]:
    import pkgutil

    import lesion_seg
    return sorted(m.name for m in pkgutil.iter_modules(lesion_seg.__path__) if not m.name.startswith("_"))


def lesion_seg(*args: str) -> subprocess.CompletedProcess:
    return subprocess.run([Path(sys.executable).parent / "lesion_seg", *args], capture_output=True, text=True, timeout=300)


def names_extra(extra: str, told: str) -> None:
    "Without the extra one sentence says what to install."
    assert f"lesion_seg[{extra}]" in told and "Traceback" not in told, told
    print(f"without {extra}: {told.strip()}")


def refused(extra: str, *args: str) -> None:
    "So does the command line, which ends with 2."
    done = lesion_seg(*args)
    assert done.returncode == 2, done
    names_extra(extra, done.stderr)


def refusal(call, *args, **kwargs) -> str:
    "So does a function."
    from lesion_seg.core import InputError
    try: call(*args, **kwargs)
    except InputError as e: return str(e)
    raise AssertionError(f"{call} was not refused")


def import_all(without: dict[str, str]) -> None:
    import importlib

    from lesion_seg.core import InputError
    imported = 0
    for name in modules():
        try:
            importlib.import_module(f"lesion_seg.{name}")
            imported += 1
        except (ModuleNotFoundError, InputError):
            if name not in without: raise
    print(f"{imported} of {len(modules())} modules imported, the others need an extra ({', '.join(without)})")
    assert imported == len(modules()) - len(without)


def segment() -> None:
    import numpy as np
    from PIL import Image

    from lesion_seg.phantom import make_phantom
    phantom = make_phantom(26, (300, 400))
    Image.fromarray(phantom.image).save("photo.png")
    lesion_seg("segment", "photo.png", "-o", "out").check_returncode()
    mask = np.asarray(Image.open("out/photo_mask.png")) > 0
    overlap = (mask & phantom.mask).sum() / (mask | phantom.mask).sum()
    assert mask.shape == (300, 400) and overlap > 0.8, (mask.shape, overlap)
    print(f"a phantom segmented, Jaccard index {overlap:.2f}")


def train() -> None:
    from lesion_seg.phantom import write_phantoms
    from lesion_seg.predict import Segmenter
    from lesion_seg.train import train_model
    manifest = write_phantoms("phantoms", n=12, size=64, seed=1, images_per_patient=1).split(fractions=(0.7, 0.3, 0), seed=0)
    bundle = train_model(manifest, "run", dict(name="unet", channels=(4, 8), bottleneck=16), size=32, bs=4, epochs=1, num_workers=0, progress=False)
    assert Segmenter(bundle).predict(manifest[0].image).mask.shape == (64, 64)
    print("two steps trained, and the bundle predicts")


def dicom() -> None:
    from lesion_seg.data import read_mask
    lesion_seg("segment", "photo.dcm", "--seg", "seg.dcm", "-o", "out").check_returncode()
    assert read_mask("seg.dcm").shape == (300, 400)
    print("DICOM to DICOM SEG and back")


def alone() -> None:
    "The wheel without extras."
    import importlib

    from lesion_seg.benchmark import openvino_float
    from lesion_seg.bundle import SHIPPED, Bundle
    from lesion_seg.dicom_seg import photo_to_dicom
    from lesion_seg.unet import lesion_unet
    import_all(NEEDS_EXTRA)
    segment()
    train()
    photo_to_dicom("photo.png", "photo.dcm")
    refused("app", "app", "--no-browser")
    refused("dicom", "segment", "photo.dcm", "--seg", "seg.dcm", "-o", "out")
    refused("ray", "segment", "phantoms", "-o", "batch", "--batch", "--ray")
    names_extra("pretrained", refusal(lesion_unet, pretrained=True))
    names_extra("distributed", refusal(importlib.import_module, "lesion_seg.distributed"))
    names_extra("openvino", refusal(openvino_float, Bundle.load(SHIPPED), 1))


def extras() -> None:
    "The wheel with the extras app and dicom."
    import_all({"distributed": "distributed"})
    dicom()


# Outside


def browse(url: str, photo: Path) -> str:
    "A reader opens the page and gives it a photograph."
    try: from playwright.sync_api import sync_playwright
    except ImportError: return "no Playwright, so no browser opened the page"
    if not chromium(): return "no Chromium, so no browser opened the page"
    with sync_playwright() as p:
        browser = p.chromium.launch(executable_path=chromium(), args=ARGS)
        page, wrong = browser.new_page(), []
        page.set_default_timeout(120_000)
        page.on("pageerror", lambda e: wrong.append(str(e)))
        page.goto(url)
        page.wait_for_selector("[data-ready]", state="attached")
        with page.expect_file_chooser() as chooser: page.get_by_role("button", name="Choose files").click()
        chooser.value.set_files([str(photo)])
        diameter = page.locator(".lesion-numbers dl > div", has_text="Largest diameter")
        diameter.wait_for()
        told = " ".join(diameter.inner_text().split())
        browser.close()
    assert not wrong, wrong
    return f"a browser opened the page and gave it a photograph: {told}"


def app(bin: Path, cwd: Path, env: dict[str, str]) -> list[str]:
    "The page answers, and works."
    with serving(cwd, command=(bin / "lesion_seg",), env=env) as server:
        html = urllib.request.urlopen(server.url, timeout=300).read().decode()
        assert "vnd.voila.cell-output" in html and "Traceback" not in html, html[:2000]
        return [f"the web app's page answers with {len(html)} bytes", browse(server.url, cwd / "photo.png")]


def main(wheel: str, *more: str) -> None:
    more, keep = list(more), None
    if "--json" in more:
        at = more.index("--json")
        keep, more[at:at + 2] = Path(more[at + 1]), []
    path, facts = Path(wheel).resolve(), dict(command="make wheel", wheel=Path(wheel).name, bytes=Path(wheel).stat().st_size, python=platform.python_version())
    print(f"{path.name}: {facts['bytes'] / 2**20:.1f} MiB", flush=True)
    with tempfile.TemporaryDirectory() as tmp:
        venv.create(Path(tmp) / "env", with_pip=True)
        bin, env = Path(tmp) / "env" / "bin", {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV")}

        def pip(what: str) -> None:
            subprocess.run([bin / "python", "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *more, what], check=True, env=env)

        def ask(how: str) -> list[str]:
            command = [bin / "python", "-W", "ignore", Path(__file__).resolve(), how]
            return subprocess.run(command, check=True, cwd=tmp, env=env, stdout=subprocess.PIPE, text=True).stdout.splitlines()

        def say(title: str, lines: list[str]) -> list[str]:
            print(title, *lines, sep="\n  ", flush=True)
            return lines

        pip(str(path))
        facts["versions"] = dict(line.split() for line in say("installed", ask("--versions")))
        facts["alone"] = say("the wheel alone", ask("--alone"))
        pip(f"{path}[app,dicom]")
        facts["extras"] = say("with the extras app and dicom", [*ask("--extras"), *app(bin, Path(tmp), env)])
    if keep: keep.write_text(json.dumps(facts, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def versions() -> None:
    import importlib.metadata
    for name in REPORTED: print(name, importlib.metadata.version(name))


if __name__ == "__main__":
    inside = {"--versions": versions, "--alone": alone, "--extras": extras}.get(sys.argv[1])
    if inside: inside()
    else: main(*sys.argv[1:])
