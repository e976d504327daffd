#!/usr/bin/env python3
"""The hostile tests with the lowest versions that settings.ini allows of the libraries which open files from outside:

    python .ci/lowest.py [FOLDER]     # the versions are installed into FOLDER, a temporary one if none is given, in front of all others

Everything else stays as it is installed. The job `minimum` of the workflow ci.yml has the lowest version of everything, and takes half an hour.
"""

import configparser
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LIBRARIES = ("onnxruntime", "filelock", "pillow", "pydicom", "safetensors", "pyyaml")
TESTS = [f"tests/test_{name}.py" for name in ("untrusted", "tiff", "displays", "onnx", "time_limit", "bundle")]



def lowest() -> list[str]:
    "Each library with its lowest version, such as 'pillow==11.2.1'."
    settings = configparser.ConfigParser(delimiters="=")
    settings.read(ROOT / "settings.ini")
    found = dict(re.findall(r"(\S+?)>=([\d.]+)", settings["DEFAULT"]["requirements"]))
    return [f"{name}=={found[name]}" for name in LIBRARIES]


def main(folder: str) -> int:
    versions = lowest()
    print("with", ", ".join(versions), flush=True)
    subprocess.run([sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--upgrade", "--target", folder, *versions], check=True)
    paths = os.pathsep.join((folder, str(ROOT), os.environ.get("PYTHONPATH", "")))
    return subprocess.run([sys.executable, "-m", "pytest", "-q", "-n", "0", *TESTS, "-m", "not slow"],
                          cwd=ROOT, env={**os.environ, "PYTHONPATH": paths}).returncode


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        sys.exit(main(sys.argv[1] if len(sys.argv) > 1 else folder))
