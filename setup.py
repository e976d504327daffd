"""Packaging: every fact comes from settings.ini, which nbdev reads as well."""
import re
from configparser import ConfigParser
from pathlib import Path

from setuptools import find_packages, setup

here = Path(__file__).parent
parser = ConfigParser(delimiters=["="], interpolation=None)
parser.read(here / "settings.ini", encoding="utf-8")
cfg = parser["DEFAULT"]
suffix = "_requirements"
extras = {key.removesuffix(suffix): cfg[key].split() for key in cfg if key.endswith(suffix)}
extras["app"] += extras["dicom"] + extras["heic"]
extras["dev"] += extras["app"] + extras["pretrained"] + extras["distributed"]
pythons = [f"Programming Language :: Python :: 3.{minor}" for minor in (10, 11, 12)]
# PyPI shows the README without the files beside it.
readme = (here / "README.md").read_text(encoding="utf-8")
readme = re.sub(r"(!\[[^]]*\]\()nbs/", rf"\1{cfg['git_url']}/raw/{cfg['branch']}/nbs/", readme)
readme = re.sub(r"(\]\()nbs/", rf"\1{cfg['git_url']}/blob/{cfg['branch']}/nbs/", readme)

setup(
    name=cfg["lib_name"],
    version=cfg["version"],
    description=cfg["description"],
    long_description=readme,
    long_description_content_type="text/markdown",
    license="MIT",
    author=cfg["author"],
    author_email=cfg["author_email"],
    url=cfg["git_url"],
    keywords=cfg["keywords"].split(),
    classifiers=[
        "Development Status :: 3 - Alpha",
        "Intended Audience :: Science/Research",
        "Topic :: Scientific/Engineering :: Medical Science Apps.",
        "Natural Language :: English",
        *pythons,
    ],
    packages=find_packages(include=["lesion_seg", "lesion_seg.*"]),
    package_data={"lesion_seg": ["py.typed", "*.json", "shipped/*", "webapp/*", "webapp/voila/templates/lesion_seg/*"]},
    python_requires=f">={cfg['min_python']},<3.13",
    install_requires=cfg["requirements"].split(),
    extras_require=extras,
    entry_points={
        "console_scripts": cfg["console_scripts"].split(),
        "nbdev": [f"{cfg['lib_name']}={cfg['lib_name']}._modidx:d"],
    },
    zip_safe=False,
)
