"""Try the built wheel where nothing else is installed: python .ci/wheel.py dist/*.whl [torch==... torchvision==...]

Makes an empty environment, installs the wheel alone with the newest versions that its requirements allow (further arguments go to pip, to choose a
build of torch), and there imports every module, segments a phantom, trains two steps, and asks for what the extras would bring, which has to be
refused with a sentence that names the extra. Then it installs the extras and asks again.
"""

import os
import subprocess
import sys
import tempfile
import venv
from pathlib import Path

REPORTED = ("lesion_seg", "fastai", "fastcore", "torch", "onnxruntime", "numpy", "pandas", "albumentations", "timm", "pydicom")


def modules() -> list[str]:
    import pkgutil

    import lesion_seg
    return sorted(m.name for m in pkgutil.iter_modules(lesion_seg.__path__) if not m.name.startswith("_"))


def lesion_seg(*args: str) -> subprocess.CompletedProcess:
    return subprocess.run([Path(sys.executable).parent / "lesion_seg", *args], capture_output=True, text=True, timeout=300)


def names_extra(extra: str, *args: str) -> None:
    "Without the extra the command is refused with one sentence that says what to install."
    done = lesion_seg(*args)
    assert done.returncode == 2 and f"lesion_seg[{extra}]" in done.stderr and "Traceback" not in done.stderr, done
    print(f"  without {extra}: {done.stderr.strip()}")


def import_all(optional: set[str]) -> None:
    import importlib
    for name in modules():
        try: importlib.import_module(f"lesion_seg.{name}")
        except ModuleNotFoundError as e:
            if name not in optional: raise
            print(f"  {name} needs {e.name}")
    print(f"  {len(modules())} modules imported, or found to need an extra")


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
    print(f"  a phantom segmented, Jaccard index {overlap:.2f}")


def train() -> None:
    from lesion_seg.phantom import write_phantoms
    from lesion_seg.predict import Segmenter
    from lesion_seg.train import train
    manifest = write_phantoms("phantoms", n=12, size=64, seed=1, images_per_patient=1).split(fractions=(0.7, 0.3, 0), seed=0)
    bundle = train(manifest, "run", dict(name="unet", channels=(4, 8), bottleneck=16), size=32, bs=4, epochs=1, num_workers=0, progress=False)
    assert Segmenter(bundle).predict(manifest[0].image).mask.shape == (64, 64)
    print("  two steps trained, and the bundle predicts")


def dicom() -> None:
    from lesion_seg.data import read_mask
    lesion_seg("segment", "photo.dcm", "--seg", "seg.dcm", "-o", "out").check_returncode()
    assert read_mask("seg.dcm").shape == (300, 400)
    print("  DICOM to DICOM SEG and back")


def inside(extras: bool) -> None:
    "What is asked in the environment."
    import importlib.metadata

    from lesion_seg.dicom import photo_to_dicom
    print("  " + ", ".join(f"{name} {importlib.metadata.version(name)}" for name in REPORTED))
    import_all(set() if extras else {"app"})
    if not extras:
        segment()
        train()
        photo_to_dicom("photo.png", "photo.dcm")
        names_extra("dicom", "segment", "photo.dcm", "--seg", "seg.dcm", "-o", "out")
        if "app" in modules(): names_extra("app", "app", "--no-browser")
    else: dicom()


def main(wheel: str, *more: str) -> None:
    wheel_path = Path(wheel).resolve()
    print(f"{wheel_path.name}: {wheel_path.stat().st_size / 2**20:.1f} MiB", flush=True)
    with tempfile.TemporaryDirectory() as tmp:
        venv.create(Path(tmp) / "env", with_pip=True)
        python = Path(tmp) / "env" / "bin" / "python"
        env = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV")}
        def pip(*what): subprocess.run([python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *more, *what], check=True, env=env)
        def ask(how): subprocess.run([python, "-W", "ignore", Path(__file__).resolve(), how], check=True, cwd=tmp, env=env)
        print("the wheel alone", flush=True)
        pip(str(wheel_path))
        ask("--alone")
        print("with the extras app and dicom", flush=True)
        pip(f"{wheel_path}[app,dicom]")
        ask("--extras")


if __name__ == "__main__":
    if sys.argv[1] in ("--alone", "--extras"): inside(sys.argv[1] == "--extras")
    else: main(*sys.argv[1:])
