#!/usr/bin/env python3
"""The same entries, guided by coverage: atheris keeps the inputs that reach new branches and damages those further.

pip install atheris
python tests/fuzz/guided.py records -max_total_time=60      # any option of libFuzzer; a fault is kept as crash-... in the folder `guided`
"""

import os
import shutil
import sys
from pathlib import Path

import atheris

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent.parent)]
with atheris.instrument_imports(include=["lesion_seg", "yaml", "pydicom", "entries"]):
    import entries

    import lesion_seg.config  # noqa: F401 (instrumented now, since imports inside functions come too late)
    import lesion_seg.dicom  # noqa: F401
    import lesion_seg.download  # noqa: F401
    import lesion_seg.isic  # noqa: F401
    import lesion_seg.manifest  # noqa: F401
    import lesion_seg.records  # noqa: F401
    import lesion_seg.tfrecord  # noqa: F401

FILES = {"records": "x.tfrecord", "config": "config.yaml", "manifest": "manifest.csv", "zip": "archive.zip", "dicom": "photo.dcm"}


def main() -> None:
    if len(sys.argv) < 2 or sys.argv[1] not in FILES:
        raise SystemExit(f"{__doc__}\nentries: {', '.join(FILES)}")
    entry, target, folder = entries.ENTRIES[sys.argv[1]], FILES[sys.argv[1]], Path("guided").resolve()
    shutil.rmtree(folder, ignore_errors=True)
    (folder / "corpus").mkdir(parents=True)
    os.chdir(folder)
    seeds, framed = [case for case in entry.seeds() if target in case], target.endswith(".tfrecord")
    for k, case in enumerate(seeds):
        length = int.from_bytes(case[target][:8], "little")
        (folder / "corpus" / str(k)).write_bytes(case[target][12 : 12 + length] if framed else case[target])
    around = {k: v for k, v in seeds[0].items() if k != target}

    def one(data: bytes) -> None:
        shutil.rmtree("case", ignore_errors=True)
        Path("case").mkdir()
        # behind a checksum nothing is reached by chance, so the payload of a record is damaged, and framed afterwards
        for name, content in {**around, target: entries.mutate_frame(data) if framed else data}.items():
            Path("case", name).write_bytes(content)
        try:
            entry.run(Path("case").resolve())
        except entries.InputError:
            pass

    atheris.Setup([sys.argv[0], "corpus", "-timeout=10", "-rss_limit_mb=1024", *sys.argv[2:]], one)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
