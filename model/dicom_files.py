"""Read every picture among the public test files of pydicom and NEMA: python model/dicom_files.py (writes results/dicom_files.json).

The files are those in ../shared/data/dicom_colour and those inside pydicom's wheel. Each is compared with its uncompressed twin where there is one,
else with a second decoder, else with the stored numbers, worked out in a second way. Patient data never enters the table."""

import json
import logging
import platform
import sys
import warnings
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pydicom
from pydicom.pixels import apply_color_lut, apply_modality_lut, apply_voi_lut, get_decoder

from lesion_seg.core import InputError
from lesion_seg.dicom import is_dicom, read_dicom

ROOT = Path(__file__).resolve().parent.parent
COLOUR = ROOT.parent / "shared/data/dicom_colour"
WHEEL = Path(pydicom.__file__).parent / "data/test_files"
PLUGINS = ("pillow", "pyjpegls", "pydicom", "gdcm")  # second decoders; pydicom asks pylibjpeg first

# file: (its uncompressed twin, tolerance). Lossless ones agree exactly; the lossy ones as closely as their compression.
TWINS = {
    "US1_J2KR.dcm": ("US1_UNCR.dcm", 0), "US1_J2KR": ("US1_UNCR.dcm", 0), "US1_RLE": ("US1_UNCR.dcm", 0), "examples_jpeg2k.dcm": ("US1_UNCR.dcm", 0),
    "US1_J2KI.dcm": ("US1_UNCI.dcm", 0), "color-pl.dcm": ("color-px.dcm", 0), "color-px.dcm": ("color-pl.dcm", 0),
    "VL1_J2KR": ("VL1_RLE", 0), "VL2_J2KR": ("VL2_RLE", 0), "VL3_J2KR": ("VL3_RLE", 0), "VL6_J2KR": ("VL6_RLE", 0),
    "VL1_RLE": ("VL1_J2KR", 0), "VL2_RLE": ("VL2_J2KR", 0), "VL3_RLE": ("VL3_J2KR", 0), "VL6_RLE": ("VL6_J2KR", 0),
    "JLSL_RGB_ILV0.dcm": ("JLSL_RGB_ILV2.dcm", 0), "JLSL_RGB_ILV1.dcm": ("JLSL_RGB_ILV2.dcm", 0), "JLSL_RGB_ILV2.dcm": ("JLSL_RGB_ILV1.dcm", 0),
    "JLSN_RGB_ILV0.dcm": ("JLSL_RGB_ILV2.dcm", 4), "HTJ2KLossless_08_RGB.dcm": ("HTJ2K_08_RGB.dcm", 4), "HTJ2K_08_RGB.dcm": ("HTJ2KLossless_08_RGB.dcm", 4),
    "SC_rgb_16bit.dcm": ("SC_rgb.dcm", 0), "SC_rgb_32bit.dcm": ("SC_rgb.dcm", 0), "SC_rgb_expb.dcm": ("SC_rgb.dcm", 0),
    "SC_rgb_rle.dcm": ("SC_rgb.dcm", 0), "SC_rgb_jpeg_gdcm.dcm": ("SC_rgb.dcm", 0),
    "SC_rgb_expb_16bit.dcm": ("SC_rgb.dcm", 0), "SC_rgb_expb_32bit.dcm": ("SC_rgb.dcm", 0), "SC_rgb_rle_16bit.dcm": ("SC_rgb.dcm", 0),
    "SC_rgb_rle_32bit.dcm": ("SC_rgb.dcm", 0),
    "SC_rgb_dcmtk_+eb+cr.dcm": ("SC_rgb_dcmtk_ebcr_dcmd.dcm", 2), "SC_rgb_dcmtk_+eb+cy+n1.dcm": ("SC_rgb_dcmtk_ebcyn1_dcmd.dcm", 3),
    "SC_rgb_dcmtk_+eb+cy+n2.dcm": ("SC_rgb_dcmtk_ebcyn2_dcmd.dcm", 3), "SC_rgb_dcmtk_+eb+cy+np.dcm": ("SC_rgb_dcmtk_ebcynp_dcmd.dcm", 3),
    "SC_rgb_dcmtk_+eb+cy+s2.dcm": ("SC_rgb_dcmtk_ebcys2_dcmd.dcm", 3), "SC_rgb_dcmtk_+eb+cy+s4.dcm": ("SC_rgb_dcmtk_ebcys4_dcmd.dcm", 3),
    "SC_rgb_jpeg.dcm": ("SC_rgb_jpeg_dcmd.dcm", 2),
    "MR_small_RLE.dcm": ("MR_small.dcm", 0), "MR_small_bigendian.dcm": ("MR_small.dcm", 0), "MR_small_expb.dcm": ("MR_small.dcm", 0),
    "MR_small_implicit.dcm": ("MR_small.dcm", 0), "MR_small_jp2klossless.dcm": ("MR_small.dcm", 0), "MR_small_jpeg_ls_lossless.dcm": ("MR_small.dcm", 0),
    "MR_small_padded.dcm": ("MR_small.dcm", 0), "SC_rgb_small_odd_big_endian.dcm": ("SC_rgb_small_odd.dcm", 0),
    "liver_expb_1frame.dcm": ("liver_1frame.dcm", 0),
}


def files():
    "(collection, path) of every file that calls itself DICOM."
    for path in sorted(COLOUR.glob("*/*")): yield "dicom_colour", path
    for path in sorted(p for p in WHEEL.rglob("*") if p.is_file()):
        with path.open("rb") as f:
            if is_dicom(f.read(4096)): yield "pydicom", path


def find(name):
    "A file by its name."
    return next(p for _, p in files() if p.name == name)


def to_eight(a, bits):
    "Unsigned values as floats from 0 to 255, the high byte counting."
    return np.floor(a.astype(np.float64) / 2.0 ** (bits - 8)) if bits >= 8 else np.floor(a.astype(np.float64) * 255 / (2**bits - 1))


def from_ybr(a):
    "RGB from YBR_FULL, as ISO/IEC 10918-5 has it."
    y, cb, cr = np.moveaxis(a.astype(np.float64) - [0, 128, 128], -1, 0)
    return np.clip(np.stack([y + 1.402 * cr, y - 0.344136 * cb - 0.714136 * cr, y + 1.772 * cb], -1).round(), 0, 255)


def grey(ds, a):
    "A grey frame on the screen by pydicom's functions: the VOI step of the whole range, stretched to 0 to 255."
    low = -(2 ** (ds.BitsStored - 1)) if ds.PixelRepresentation else 0
    windowed = "WindowWidth" in ds and ds.WindowWidth not in (None, "")
    if windowed:
        out = apply_voi_lut(apply_modality_lut(a, ds), ds).astype(np.float64)
        ends = np.array([low, low + 2**ds.BitsStored - 1], np.float64) * float(ds.get("RescaleSlope") or 1) + float(ds.get("RescaleIntercept") or 0)
        out = np.round((out - ends[0]) / (ends[1] - ends[0]) * 255)
    else: out = to_eight(a.astype(np.int64) - low, ds.BitsStored)
    return np.repeat((255 - out if ds.PhotometricInterpretation == "MONOCHROME1" else out)[..., None], 3, 2)


def expected(ds, index):
    "The picture by a second decoder where there is one, and by pydicom's arithmetic: (float (H, W, 3), by what, tolerance)."
    decoder = get_decoder(ds.file_meta.TransferSyntaxUID)
    used = decoder.as_array(ds, index=index, raw=True)
    names = [p for p in PLUGINS if not decoder.is_native and p in decoder.available_plugins]
    by, (a, found) = ("the stored numbers", used) if decoder.is_native else ("the only decoder", used)
    for name in names:
        try: by, (a, found) = name, decoder.as_array(ds, index=index, raw=True, decoding_plugin=name)
        except Exception: continue
        break
    tolerance = 3 if "JPEG" in decoder.UID.name and "2000" not in decoder.UID.name and "LS" not in decoder.UID.name and not decoder.is_native else 0
    kind = found["photometric_interpretation"]
    if ds.SamplesPerPixel == 1 and kind == "PALETTE COLOR": return to_eight(apply_color_lut(a, ds), ds.RedPaletteColorLookupTableDescriptor[2]), by, 0
    if ds.SamplesPerPixel == 1: return grey(ds, a), by, 1 if "WindowWidth" in ds else tolerance
    return (from_ybr(a) if kind.startswith("YBR_FULL") else to_eight(a, ds.BitsStored)), by, max(tolerance, int(kind.startswith("YBR_FULL")))


def compared(path, ds, index, rgb):
    "What the picture was compared with, the largest difference, and the difference allowed."
    if path.name in TWINS:
        twin, tolerance = TWINS[path.name]
        return f"twin {twin}", int(np.abs(rgb.astype(int) - read_dicom(find(twin))[0]).max()), tolerance
    other, by, tolerance = expected(ds, index)
    return by, int(np.abs(rgb.astype(int) - other).max()), tolerance


def row(collection, path):
    "One line of the table; None for a file that holds no picture at all."
    ds = pydicom.dcmread(path, force=True)
    if "PixelData" not in ds: return None
    meta = getattr(ds, "file_meta", {})
    facts = dict(collection=collection, file=path.relative_to(COLOUR if collection == "dicom_colour" else WHEEL).as_posix(),
                 syntax=pydicom.uid.UID(meta.get("TransferSyntaxUID") or "").name or "not named",
                 photometric=str(ds.get("PhotometricInterpretation")), bits=int(ds.get("BitsStored") or 0))
    try:
        frames = int(str(ds.get("NumberOfFrames") or 1)) if str(ds.get("NumberOfFrames") or 1).isdigit() else 1
        results = [compared(path, ds, i, read_dicom(path, i + 1)[0]) for i in range(frames)]
    except InputError as e: return facts | dict(outcome="refused", sentence=str(e).replace(str(path), path.name))
    by, difference, tolerance = max(results, key=lambda r: r[1])
    return facts | dict(outcome="read", frames=frames, compared_with=by, difference=difference, tolerance=tolerance)


def main():
    warnings.simplefilter("ignore")
    logging.getLogger("pydicom").setLevel(logging.CRITICAL + 1)
    rows = [r for r in (row(c, p) for c, p in files()) if r]
    tools = ("pydicom", "python-gdcm", "pylibjpeg", "pylibjpeg-openjpeg", "pylibjpeg-rle", "pyjpegls", "pillow", "numpy")
    result = dict(command="python model/dicom_files.py", python=platform.python_version(), versions={t: version(t) for t in tools}, files=rows)
    out = ROOT / "model/results/dicom_files.json"
    out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    read = [r for r in rows if r["outcome"] == "read"]
    off = [r for r in read if r["difference"] > r["tolerance"]]
    print(f"{len(rows)} files: {len(read)} read, {len(rows) - len(read)} refused, {len(off)} off; the table is {out}")
    for r in off: print("  ", r)
    return bool(off)


if __name__ == "__main__": sys.exit(main())
