"lesion_seg.dicom against pydicom, Pillow, highdicom, values by hand, broken headers and cut files."
import html
import io
import json
import logging
import struct
import subprocess
import sys
import threading
import time
import warnings
import zlib
from datetime import datetime
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from lesion_seg import data
from lesion_seg import dicom as d
from lesion_seg.core import Frame, InputError, as_options
from lesion_seg.data import image_size, read_image, read_mask
from lesion_seg.dicom_seg import photo_to_dicom, write_seg
from lesion_seg.phantom import make_phantom

pydicom = pytest.importorskip('pydicom')
hd = pytest.importorskip('highdicom', reason='no extra dicom')
pytest.importorskip('pylibjpeg', reason='no extra dicom')
from pydicom import uid  # noqa: E402
from pydicom.data import get_testdata_file  # noqa: E402

COLOUR = Path(__file__).parents[2] / 'shared/data/dicom_colour'
colour = pytest.mark.skipif(not COLOUR.exists(), reason='no DICOM sample')
WHEN = datetime(2026, 3, 4, 5, 6, 7)


@pytest.fixture(scope='module')
def phantom(): return make_phantom(3, size=(61, 83))


@pytest.fixture(scope='module')
def photo(phantom): return phantom.image


@pytest.fixture
def path(tmp_path, photo): return photo_to_dicom(photo, tmp_path / 'photo.dcm', spacing=(0.02, 0.03), patient='DOE JANE')


@pytest.fixture
def ds(path): return pydicom.dcmread(path)


def raw(ds, **changes):
    "A data set as a file in bytes."
    for k, v in changes.items(): setattr(ds, k, v)
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        ds.save_as(f := io.BytesIO(), enforce_file_format=True)
    return f.getvalue()


def compressed(ds, syntax):
    "Compress in place; by another encoder than GDCM, which can end the process."
    by = {uid.RLELossless: 'pydicom', uid.JPEGLSLossless: 'pyjpegls', uid.JPEG2000Lossless: 'pylibjpeg'}
    ds.compress(syntax, encoding_plugin=by[syntax], generate_instance_uid=False)


def named(name):
    "A test file inside pydicom's wheel."
    return get_testdata_file(name, download=False)


# Reading

@pytest.mark.parametrize('syntax', [uid.ImplicitVRLittleEndian, uid.ExplicitVRLittleEndian, uid.DeflatedExplicitVRLittleEndian, uid.RLELossless,
                                    uid.JPEG2000Lossless, uid.JPEGLSLossless], ids=lambda s: s.keyword)
@pytest.mark.parametrize('planar', [0, 1])
def test_lossless_syntaxes(ds, photo, syntax, planar):
    if planar:
        pixels = photo.transpose(2, 0, 1).tobytes()
        ds.PlanarConfiguration, ds.PixelData = 1, pixels + b'\0' * (len(pixels) % 2)
    if syntax == uid.RLELossless: ds = pydicom.dcmread(io.BytesIO(raw(ds, PlanarConfiguration=0, PixelData=photo.tobytes() + b'\0')))
    if syntax.is_encapsulated: compressed(ds, syntax)
    else: ds.file_meta.TransferSyntaxUID = syntax
    if syntax == uid.RLELossless: ds.PlanarConfiguration = planar   # pydicom's RLE encoder takes interleaved pixels only
    got, facts = d.read_dicom(raw(ds))
    assert np.array_equal(got, photo) and got.dtype == np.uint8 and got.flags.writeable
    assert facts['transfer_syntax'] == syntax.name and facts['frame'] == facts['frames'] == 1


def test_path_bytes_and_no_preamble(path, photo):
    whole = path.read_bytes()
    meta = 144 + int.from_bytes(whole[140:144], 'little')
    for src in (path, str(path), whole, bytearray(whole), whole[132:], whole[meta:], bytes(128) + whole[128:]):
        assert np.array_equal(d.read_dicom(src)[0], photo)


@pytest.mark.parametrize('subsampling, eps', [(0, 3), (1, 3), (2, 3)])
def test_jpeg_baseline_against_pillow(ds, photo, subsampling, eps):
    Image.fromarray(photo).save(f := io.BytesIO(), 'JPEG', quality=92, subsampling=subsampling)
    ds.file_meta.TransferSyntaxUID = uid.JPEGBaseline8Bit
    ds.PixelData = pydicom.encaps.encapsulate([f.getvalue()])
    got = d.read_dicom(raw(ds, PhotometricInterpretation='YBR_FULL_422'))[0].astype(int)
    decoded = np.asarray(Image.open(io.BytesIO(f.getvalue())).convert('RGB')).astype(int)
    assert np.abs(got - photo).mean() < np.abs(decoded - photo).mean() + 1
    if subsampling == 0: assert np.abs(got - decoded).max() <= eps


@pytest.mark.parametrize('name, twin', [('SC_rgb_rle.dcm', 'SC_rgb_rle_16bit.dcm'), ('SC_rgb_rle.dcm', 'SC_rgb_rle_32bit.dcm'),
                                        ('SC_rgb_rle.dcm', 'SC_rgb_jpeg_gdcm.dcm'), ('SC_rgb_small_odd.dcm', 'SC_rgb_small_odd_big_endian.dcm'),
                                        ('MR_small.dcm', 'MR_small_jp2klossless.dcm'), ('MR_small.dcm', 'MR_small_jpeg_ls_lossless.dcm'),
                                        ('MR_small.dcm', 'MR_small_bigendian.dcm'), ('MR_small.dcm', 'MR_small_implicit.dcm')])
def test_twins_of_the_wheel(name, twin): assert np.array_equal(d.read_dicom(named(name))[0], d.read_dicom(named(twin))[0])


def test_lossless_jpeg():
    pytest.importorskip('gdcm', reason='no GDCM') if find_spec('libjpeg') is None else None
    assert d.read_dicom(named('SC_rgb_jpeg_gdcm.dcm'))[1]['transfer_syntax'] == uid.JPEGLosslessSV1.name


def test_a_decoder_that_may_end_the_process_runs_in_another(monkeypatch):
    "GDCM aborts on some damaged files: it is never called in this process."
    from pydicom.pixels.decoders.base import Decoder
    monkeypatch.setattr(Decoder, 'available_plugins', property(lambda self: ('gdcm',)))
    here, commands = [], []
    monkeypatch.setattr(Decoder, 'as_array', lambda *args, **kw: here.append(kw))
    def dies(command, **kw):
        commands.append((command, kw['input']))
        raise subprocess.CalledProcessError(-6, command)
    monkeypatch.setattr(d.subprocess, 'run', dies)
    with pytest.raises(InputError, match='no decoder here can read .JPEG Lossless'): d.read_dicom(named('SC_rgb_jpeg_gdcm.dcm'))
    assert here == [] and len(commands) == 1 and commands[0][0][0] == sys.executable and b'Lestrade' not in commands[0][1]
    sent = pydicom.dcmread(io.BytesIO(commands[0][1]))
    assert 'PatientName' not in sent and 'PatientID' not in sent and (sent.Rows, sent.Columns) == (100, 100)


def test_twelve_bit_jpeg_is_read_or_named():
    "Its only decoder is GPL and does not come with the extra."
    try: got, facts = d.read_dicom(named('JPGExtended.dcm'))
    except InputError as e: assert 'no decoder here can read (JPEG Extended' in str(e)
    else: assert got.shape == (1024, 256, 3) and facts['bits_stored'] == 12 and got.max() == 16   # 264 of 4095


def test_no_decoder_of_the_extras_is_gpl():
    text = (Path(__file__).parents[1] / 'settings.ini').read_text()
    assert 'pylibjpeg-libjpeg' not in text and 'python-gdcm' in text and 'pillow-heif' not in text   # which bundles x265


def test_palette_against_pillow():
    ds = pydicom.dcmread(named('examples_palette.dcm'))
    bits = ds.RedPaletteColorLookupTableDescriptor[2]
    tables = [np.frombuffer(ds[f'{c}PaletteColorLookupTableData'].value, '<u2' if bits > 8 else 'u1') >> (bits - 8) for c in ('Red', 'Green', 'Blue')]
    im = Image.fromarray(ds.pixel_array)
    im.putpalette(np.stack(tables, -1)[:256].astype(np.uint8).ravel().tolist())
    assert np.array_equal(d.read_dicom(named('examples_palette.dcm'))[0], np.asarray(im.convert('RGB')))


def test_frames_of_compressed_video_loops():
    name = named('examples_ybr_color.dcm')
    with pytest.raises(InputError, match='holds 30 frames'): d.read_dicom(name)
    first, last = (d.read_dicom(name, k)[0] for k in (1, 30))
    assert first.shape == last.shape == (240, 320, 3) and not np.array_equal(first, last)
    with pytest.raises(InputError, match='no frame 31'): d.read_dicom(name, 31)


@colour
@pytest.mark.slow
def test_all_colour_samples_read():
    files = sorted(COLOUR.glob('*/*'))
    assert len(files) == 49
    for f in files:
        img, facts = d.read_dicom(f, 1)
        assert img.shape == (facts['rows'], facts['columns'], 3) and img.std() > 0, f.name


@colour
def test_colour_samples_against_their_twins():
    def at(name): return d.read_dicom(next(COLOUR.glob(f'*/{name}')))[0]
    for name, twin in [('US1_J2KR.dcm', 'US1_UNCR.dcm'), ('US1_RLE', 'US1_UNCR.dcm'), ('US1_J2KI.dcm', 'US1_UNCI.dcm'), ('VL6_J2KR', 'VL6_RLE'),
                       ('color-pl.dcm', 'color-px.dcm'), ('SC_rgb_expb.dcm', 'SC_rgb.dcm'), ('JLSL_RGB_ILV0.dcm', 'JLSL_RGB_ILV2.dcm')]:
        assert np.array_equal(at(name), at(twin)), name


def test_table_of_files_is_complete():
    results = json.loads((Path(__file__).parents[1] / 'model/results/dicom_files.json').read_text())['files']
    assert sum(r['collection'] == 'dicom_colour' for r in results) == 49
    assert all(r['difference'] <= r['tolerance'] for r in results if r['outcome'] == 'read')
    assert all(r['sentence'] for r in results if r['outcome'] != 'read')


# Files that contradict themselves

COLOURS = ('RGB', 'YBR_FULL', 'YBR_FULL_422', 'YBR_RCT', 'YBR_ICT')


def as_ybr(photo): return np.asarray(Image.fromarray(photo).convert('YCbCr'))


def halved(photo):
    "YBR_FULL_422 by hand: two brightnesses, then one pair of colours."
    y, cb, cr = np.moveaxis(as_ybr(photo).astype(int), -1, 0)
    pairs = [y[:, ::2], y[:, 1::2], (cb[:, ::2] + cb[:, 1::2]) // 2, (cr[:, ::2] + cr[:, 1::2]) // 2]
    return np.stack(pairs, -1).astype(np.uint8).tobytes()


def stream(ds, pixels, syntax):
    "One frame as pydicom's encoder compresses it, whatever the pixels mean."
    ds = pydicom.dcmread(io.BytesIO(raw(ds)))
    ds.PixelData = pixels.tobytes()
    compressed(ds, syntax)
    return pydicom.encaps.get_frame(ds.PixelData, 0, number_of_frames=1)


def pil(a, fmt, **kw):
    Image.fromarray(a).save(f := io.BytesIO(), fmt, **kw)
    return f.getvalue()


def written(ds, photo):
    "(transfer syntax, stored bytes, what the pixels are) for every encoder there is here."
    ybr = as_ybr(photo)
    for kind, a in (('RGB', photo), ('YBR', ybr)):
        for syntax in (uid.ImplicitVRLittleEndian, uid.ExplicitVRLittleEndian, uid.DeflatedExplicitVRLittleEndian): yield syntax, a.tobytes(), kind
        for syntax in (uid.RLELossless, uid.JPEGLSLossless): yield syntax, stream(ds, a, syntax), kind
        yield uid.JPEG2000Lossless, pil(a, 'JPEG2000', no_jp2=True, mct=0), kind
    yield uid.ExplicitVRLittleEndian, halved(photo), 'YBR 422'
    yield uid.JPEG2000Lossless, pil(photo, 'JPEG2000', no_jp2=True, mct=1), 'said by the stream'
    yield uid.JPEG2000, pil(photo, 'JPEG2000', no_jp2=True, mct=1, irreversible=True), 'said by the stream'
    for kw in (dict(subsampling=0), dict(subsampling=1), dict(subsampling=2), dict(progressive=True), dict(keep_rgb=True)):
        yield uid.JPEGBaseline8Bit, pil(photo, 'JPEG', quality=95, **kw), 'said by the stream'
    jfif = pil(photo, 'JPEG', quality=95, subsampling=0)
    yield uid.JPEGBaseline8Bit, jfif[:2] + jfif[20:], 'YBR'   # a JPEG that does not say
    silent = pil(photo, 'JPEG', quality=95, keep_rgb=True)
    yield uid.JPEGBaseline8Bit, silent.replace(b'R\x11\0G\x11\0B\x11\0', b'\0\x11\0\1\x11\0\2\x11\0').replace(
        b'\3R\0G\0B\0', b'\3\0\0\1\0\2\0'), 'RGB'


def test_every_pair_of_transfer_syntax_and_photometric_interpretation(tmp_path):
    "What comes out is what went in; a header that cannot be is corrected, and the correction named, or refused."
    photo = make_phantom(4, size=(64, 80)).image
    ds = pydicom.dcmread(photo_to_dicom(photo, tmp_path / 'p.dcm'))
    seen = corrected = 0
    for syntax, pixels, kind in list(written(ds, photo)):
        for colours in COLOURS:
            if kind in ('RGB', 'YBR') and (kind == 'RGB') != (colours == 'RGB') and colours in ('RGB', 'YBR_FULL'):
                continue   # a possible header that is simply false: nothing in the file says so
            silent_jpeg = syntax == uid.JPEGBaseline8Bit and kind == 'RGB'
            if silent_jpeg and colours != 'RGB': continue
            ds.file_meta.TransferSyntaxUID = syntax
            content = pydicom.encaps.encapsulate([pixels]) if syntax.is_encapsulated else pixels
            blob = raw(ds, PhotometricInterpretation=colours, PixelData=content)
            where = (syntax.name, kind, colours)
            try: got, facts = d.read_dicom(blob)
            except InputError as e:
                assert ('cut off' in str(e) and kind == 'YBR 422') or ('colour space' in str(e) and colours in ('YBR_RCT', 'YBR_ICT')), where
                continue
            off = np.abs(got.astype(int) - photo)
            assert off.mean() < 2.5 and off.max() <= 24, where
            seen += 1
            corrected += 'corrections' in facts
            full = kind in ('RGB', 'YBR') and colours == 'YBR_FULL_422' and syntax != uid.JPEGBaseline8Bit
            if full: assert facts['corrections'][0].startswith('says YBR_FULL_422 but holds three numbers a pixel: read as ' + kind), where
            if (colours, kind) in (('RGB', 'RGB'), ('YBR_FULL', 'YBR')): assert 'corrections' not in facts, where
    assert seen >= 60 and corrected >= 25


def test_colours_of_skin_for_both_readings():
    "A phantom says whether it is RGB or YBR, every one of them."
    for i in range(60):
        photo = make_phantom(i, size=(48, 64)).image
        assert not d.looks_like_ybr(photo) and d.looks_like_ybr(as_ybr(photo)), i


def test_the_correction_is_in_the_summary(ds, photo):
    blob = raw(ds, PhotometricInterpretation='YBR_FULL_422')
    picture = d.DicomPhotograph(blob)
    assert 'corrections' not in picture.summary() and np.array_equal(picture.rgb(), photo)
    assert picture.summary()['corrections'] == ['says YBR_FULL_422 but holds three numbers a pixel: read as RGB']


def test_a_tiff_preamble(path, photo):
    "Files that are DICOM and TIFF at once."
    whole = path.read_bytes()
    for head in (b'II*\0\x08\0\0\0', b'MM\0*\0\0\0\x08'):
        assert np.array_equal(read_image(head + bytes(120) + whole[128:]), photo)


@colour
def test_wg04_files_with_a_tiff_preamble():
    files = [f for f in COLOUR.glob('wg04/*') if f.read_bytes()[:4] in (b'II*\0', b'MM\0*')]
    assert len(files) == 5 and all(read_image(f).std() > 0 for f in files)


# Segmentations as masks, and as photographs

def test_a_segmentation_is_not_a_photograph(tmp_path, path, phantom):
    seg = write_seg(tmp_path / 's.dcm', phantom.mask, path)
    assert d.is_dicom_photograph(path) and not d.is_dicom_photograph(seg) and not d.is_dicom_photograph(tmp_path / 'gone')
    assert not d.is_dicom_photograph(named('test-SR.dcm')) and not d.is_dicom_photograph(b'GIF89a')
    for f in (read_image, d.read_dicom):
        with pytest.raises(InputError, match='s.dcm: is a DICOM Segmentation, not a photograph; use it as a mask'): f(seg)
    with pytest.raises(InputError, match='give the photograph that the mask belongs to'): write_seg(tmp_path / 't.dcm', phantom.mask, seg)
    assert image_size(seg) == phantom.mask.shape


def test_two_segments_as_a_mask(tmp_path, path, phantom):
    seg = pydicom.dcmread(write_seg(tmp_path / 's.dcm', phantom.mask, path))
    seg.SegmentSequence = [seg.SegmentSequence[0], seg.SegmentSequence[0]]
    with pytest.raises(InputError, match='holds 2 segments; export the one of the lesion as a file of its own'): read_mask(raw(seg))
    del seg.SegmentSequence[1]
    seg.NumberOfFrames = 2
    with pytest.raises(InputError, match='holds 2 frames; export the one of the lesion as a file of its own'): read_mask(raw(seg))


@pytest.mark.parametrize('highest', [1, 100, 255])
def test_fractions_of_another_highest_value(tmp_path, path, phantom, highest):
    seg = pydicom.dcmread(write_seg(tmp_path / 's.dcm', phantom.mask.astype(np.float32), path))
    fractions = np.where(phantom.mask, round(.8 * highest), int(.3 * highest)).astype(np.uint8)
    seg.MaximumFractionalValue, seg.PixelData = highest, fractions.tobytes() + b'\0' * (fractions.size % 2)
    assert np.array_equal(read_mask(raw(seg)), phantom.mask)


# Data sets, frames, elements

def test_a_data_set_is_a_source(ds, photo, phantom, tmp_path):
    before = raw(ds)
    for src in (ds, pydicom.dcmread(io.BytesIO(before))):
        assert np.array_equal(d.read_dicom(src)[0], photo) and np.array_equal(read_image(src), photo) and image_size(src) == (61, 83)
        assert d.dicom_summary(src) == d.dicom_summary(before) and d.DicomPhotograph(src).spacing == (0.02, 0.03)
        assert np.array_equal(read_mask(write_seg(tmp_path / 's.dcm', phantom.mask, src)), phantom.mask)
    assert raw(ds) == before   # nothing in it was changed


def test_a_segmentation_of_several_frames_is_not_asked_for_one(tmp_path, path, phantom):
    seg = pydicom.dcmread(write_seg(tmp_path / 's.dcm', phantom.mask, path))
    seg.NumberOfFrames, seg.PixelData = 2, seg.PixelData * 2
    for f in (image_size, read_image):
        with pytest.raises(InputError, match='is a DICOM Segmentation.*not a photograph') as e: f(raw(seg))
        assert 'choose one' not in str(e.value)
    (tmp_path / 'two.dcm').write_bytes(raw(seg))
    assert d.count_frames(tmp_path / 'two.dcm') == 1


def test_a_frame_is_a_source(ds, photo, tmp_path):
    film = tmp_path / 'film.dcm'
    film.write_bytes(raw(ds, NumberOfFrames=2, PixelData=photo.tobytes() + photo[::-1].tobytes()))
    first, second = Frame(film, 1), Frame(str(film), 2)
    assert np.array_equal(read_image(first), photo) and np.array_equal(read_image(second), photo[::-1])
    assert image_size(second) == (61, 83) and d.count_frames(film) == 2
    with pytest.raises(InputError, match=r'film.dcm#3: has no frame 3; choose one from 1 to 2'): read_image(Frame(film, 3))
    Image.fromarray(photo).save(tmp_path / 'photo.png')
    for f in (read_image, image_size):
        with pytest.raises(InputError, match='photo.png: is not a DICOM file, so it has no frames'): f(Frame(tmp_path / 'photo.png', 1))


@pytest.mark.parametrize('syntax', [uid.ExplicitVRLittleEndian, uid.RLELossless], ids=lambda s: s.keyword)
def test_a_number_of_frames_that_the_bytes_cannot_hold(ds, photo, tmp_path, syntax):
    if syntax.is_encapsulated: compressed(ds, syntax)
    for claimed in (3, 2**31 - 1):
        (tmp_path / 'x.dcm').write_bytes(raw(ds, NumberOfFrames=claimed))
        assert d.count_frames(tmp_path / 'x.dcm') == (3 if claimed == 3 and syntax.is_encapsulated else 1)
    (tmp_path / 'x.dcm').write_bytes((tmp_path / 'x.dcm').read_bytes()[:200])
    assert d.count_frames(tmp_path / 'x.dcm') == d.count_frames(tmp_path / 'nowhere') == 1


def test_frames_are_known_before_they_are_read(ds, photo):
    loop = raw(ds, NumberOfFrames=3, PixelData=photo.tobytes() * 3 + b'\0')
    assert d.DicomPhotograph(loop, pixels=False).frames == 3
    with pytest.raises(InputError) as e: d.read_dicom(loop)
    assert str(e.value) == 'the given image: holds 3 frames; choose one with `frame=1`'
    assert as_options(str(e.value)).endswith('choose one with `--frame 1`, or take all with `--frame all`')


def test_a_million_empty_elements(path):
    whole = path.read_bytes()
    empty = b''.join(struct.pack('<HH2sH', 0x0009, i % 65536, b'LO', 0) for i in range(131_000))
    item = struct.pack('<HH2sHI', 0x0009, 0x1010, b'SQ', 0, 0xffffffff) + struct.pack('<HHI', 0xfffe, 0xe000, 0) * 130_000
    end = 144 + int.from_bytes(whole[140:144], 'little')
    for extra in (empty, item + struct.pack('<HHI', 0xfffe, 0xe0dd, 0)):
        blob = whole[:end] + extra + whole[end:]
        start = time.process_time()
        for f in (d.read_dicom, d.dicom_summary, read_image, image_size):
            with pytest.raises(InputError, match='holds more than 20,000 elements'): f(blob)
        assert time.process_time() - start < 4
    few = empty[:8 * 500]
    assert d.dicom_summary(whole[:end] + few + whole[end:])['rows'] == 61


# Hostile strings

@pytest.mark.parametrize('text', ['<img src=x onerror=alert(1)>', '[a](javascript:alert(1))', 'a | b | c', '`x` $y$ **z**', '"><script>', '\x1b[2J\u202egnp'])
def test_rich_displays_escape_every_field(text):
    summary = d.Summary({text: text, 'list': [text]})
    shown = summary._repr_markdown_()
    assert not any(sign in shown for sign in '<>[]()`$*"') and not any(ord(c) < 32 and c != '\n' for c in shown)
    assert all(line.count('|') == 3 for line in shown.split('\n'))
    plain = html.unescape(shown)
    assert text.isprintable() is (text in plain)
    assert '\x1b' not in str(summary) and '\u202e' not in str(summary)


def test_a_script_in_a_header_stays_text(ds):
    ds.ManufacturerModelName = '<img src=x onerror="alert(1)">'
    shown = d.dicom_summary(raw(ds))._repr_markdown_()
    assert '<' not in shown and '<img src=x onerror="alert(1)">' in html.unescape(shown)


# Grey

def grey(ds, values, bits, signed=False, **changes):
    a = np.asarray(values)
    del ds.PlanarConfiguration
    base = dict(Rows=a.shape[0], Columns=a.shape[1], SamplesPerPixel=1, PhotometricInterpretation='MONOCHROME2', BitsAllocated=16, BitsStored=bits,
                HighBit=bits - 1, PixelRepresentation=int(signed), PixelData=a.astype('<i2' if signed else '<u2').tobytes())
    return d.read_dicom(raw(ds, **(base | changes)))[0][..., 0]


@pytest.mark.parametrize('bits', range(9, 17))
def test_bits_stored(ds, bits):
    v = np.array([[0, 2**(bits - 1), 2**bits - 1, 2**(bits - 8)]])
    assert grey(ds, v, bits).tolist() == [[0, 128, 255, 1]]


def test_a_falling_scale_without_a_window(ds): assert grey(ds, [[0, 4095]], 12, RescaleSlope=-1, RescaleIntercept=0).tolist() == [[255, 0]]


@pytest.mark.parametrize('bits', [10, 12, 16])
def test_cut_pixels_of_more_than_eight_bits(ds, bits):
    "Each number takes two bytes, however few of its bits count."
    values = np.arange(64).reshape(8, 8)
    with pytest.raises(InputError, match='cut off .126 of 128 bytes'): grey(ds, values, bits, PixelData=values.astype('<u2').tobytes()[:126])


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(centre=st.floats(-2000, 6000), width=st.floats(1.5, 8000), slope=st.sampled_from([1, 0.25, -2, 3]), intercept=st.integers(-2000, 2000),
       signed=st.booleans(), inverted=st.booleans())
def test_window_by_the_standard(path, centre, width, slope, intercept, signed, inverted):
    "PS3.3 C.11.2.1.2.1, pixel by pixel, in plain Python."
    values = np.arange(-2048 if signed else 0, 2048 if signed else 4096, 273).reshape(1, -1)
    c, w = round(centre, 3), round(width, 3)
    got = grey(pydicom.dcmread(path), values, 12, signed, WindowCenter=c, WindowWidth=w, RescaleSlope=slope, RescaleIntercept=intercept,
               PhotometricInterpretation='MONOCHROME1' if inverted else 'MONOCHROME2')[0]
    for v, g in zip(values[0].tolist(), got.tolist(), strict=True):
        x = slope * v + intercept
        if x <= c - 0.5 - (w - 1) / 2: y = 0
        elif x > c - 0.5 + (w - 1) / 2: y = 255
        else: y = ((x - (c - 0.5)) / (w - 1) + 0.5) * 255
        assert abs((255 - g if inverted else g) - y) <= 0.51


def test_real_windows_against_pydicom():
    from pydicom.pixels import apply_modality_lut, apply_voi_lut
    for name in ('MR_small.dcm', '693_J2KI.dcm', 'examples_overlay.dcm'):
        ds = pydicom.dcmread(named(name))
        if 'WindowWidth' not in ds: continue
        low = -(2 ** (ds.BitsStored - 1)) if ds.PixelRepresentation else 0
        ends = np.array([low, low + 2**ds.BitsStored - 1]) * float(ds.get('RescaleSlope', 1)) + float(ds.get('RescaleIntercept', 0))
        theirs = (apply_voi_lut(apply_modality_lut(ds.pixel_array, ds), ds) - ends[0]) / (ends[1] - ends[0]) * 255
        assert np.abs(d.read_dicom(named(name))[0][..., 1] - theirs).max() <= 0.51


# Hostile files

@pytest.mark.parametrize('changes, says', [
    (dict(Rows=0), 'no Rows between'), (dict(Columns=65535, Rows=65535), 'more than the limit'), (dict(NumberOfFrames=-3), 'no NumberOfFrames'),
    (dict(BitsAllocated=4096), 'no BitsAllocated'), (dict(BitsStored=12), 'no BitsStored'), (dict(SamplesPerPixel=2), 'export it as RGB'),
    (dict(PhotometricInterpretation='DOE JANE'), 'export it as RGB'), (dict(Rows=62), 'cut off'), (dict(NumberOfFrames=2), 'choose one'),
    (dict(PixelRepresentation=1), 'negative colours'), (dict(PhotometricInterpretation='YBR_ICT'), 'colour space')])
def test_absurd_headers(ds, changes, says):
    with pytest.raises(InputError, match=says) as e: d.read_dicom(raw(ds, **changes))
    assert 'DOE' not in str(e.value) and e.value.__cause__ is None


def test_limit_is_data_max_pixels(path, photo, monkeypatch):
    monkeypatch.setattr(data, 'MAX_PIXELS', photo[..., 0].size - 1)
    for f in (d.read_dicom, image_size):
        with pytest.raises(InputError, match='more than the limit of 5,062'): f(path)


@pytest.mark.parametrize('syntax', [uid.JPEG2000Lossless, uid.JPEGLSLossless, uid.RLELossless], ids=lambda s: s.keyword)
def test_absurd_frame_counts_of_compressed_files(ds, syntax):
    compressed(ds, syntax)
    blob = raw(ds, NumberOfFrames=2**31 - 1)
    with pytest.raises(InputError, match='frame 9|damaged'): d.read_dicom(blob, 9)


def test_inner_size_must_agree(ds, photo):
    for fmt, syntax in (('JPEG', uid.JPEGBaseline8Bit), ('JPEG2000', uid.JPEG2000)):
        Image.new('RGB', (600, 500)).save(f := io.BytesIO(), fmt, **({'no_jp2': True} if fmt == 'JPEG2000' else {}))
        ds.file_meta.TransferSyntaxUID = syntax
        ds.PixelData = pydicom.encaps.encapsulate([f.getvalue()])
        with pytest.raises(InputError, match='another size in the picture itself'): d.read_dicom(raw(ds))


def test_deflated_bomb_stays_small(ds):
    ds.file_meta.TransferSyntaxUID = uid.DeflatedExplicitVRLittleEndian
    whole = raw(ds)
    end = 144 + int.from_bytes(whole[140:144], 'little')
    pack = zlib.compressobj(9, wbits=-15)
    bomb = pack.compress(zlib.decompress(whole[end:], -15) + bytes(30_000_000)) + pack.flush()
    assert len(bomb) < 60_000
    assert len(d.inflate_dicom(whole[:end], bomb, 'x').getvalue()) < 3_000_000
    with pytest.raises(InputError, match='deflated pixels'):
        d.read_dicom(deflated(ds, NumberOfFrames=10**6))


def deflated(ds, **changes):
    "A file under the deflated transfer syntax."
    ds.file_meta.TransferSyntaxUID = uid.DeflatedExplicitVRLittleEndian
    return raw(ds, **changes)


def test_deflated_garbage(ds):
    ds.file_meta.TransferSyntaxUID = uid.DeflatedExplicitVRLittleEndian
    whole = raw(ds)
    end = 144 + int.from_bytes(whole[140:144], 'little')
    with pytest.raises(InputError): d.read_dicom(whole[:end] + b'\xff' * 99)


@pytest.mark.parametrize('syntax', [uid.ExplicitVRLittleEndian, uid.JPEG2000Lossless, uid.JPEGLSLossless, uid.RLELossless], ids=lambda s: s.keyword)
def test_flipped_bytes_give_a_picture_or_a_sentence(ds, photo, syntax, capfd):
    if syntax.is_encapsulated: compressed(ds, syntax)
    whole, rng = raw(ds), np.random.default_rng(0)
    for _ in range(60):
        broken = bytearray(whole)
        for at in rng.integers(128, min(len(whole), 1700), 3): broken[at] = rng.integers(256)
        try: img, facts = d.read_dicom(bytes(broken))
        except InputError as e: assert 'JANE' not in str(e)
        else: assert img.dtype == np.uint8 and img.shape == (facts['rows'], facts['columns'], 3) and json.dumps(facts)
        try: json.dumps(d.dicom_summary(bytes(broken), identifying=True))
        except InputError: pass


@pytest.mark.parametrize('syntax', [uid.ExplicitVRLittleEndian, uid.JPEG2000Lossless, uid.JPEGLSLossless, uid.RLELossless], ids=lambda s: s.keyword)
def test_cut_files(ds, syntax):
    if syntax.is_encapsulated: compressed(ds, syntax)
    whole = raw(ds)
    for n in np.linspace(1, len(whole) - 9, 25).astype(int):
        with pytest.raises(InputError) as e: d.read_dicom(whole[:n])
        assert 'JANE' not in str(e.value)


@pytest.mark.parametrize('name, says', [('MR_truncated.dcm', 'cut off .8,130 of 8,192'), ('rtdose.dcm', 'not a photograph'), ('rtplan.dcm', 'RT Plan Storage'),
                                        ('JPEG2000-embedded-sequence-delimiter.dcm', 'another size'), ('JPEG-lossy.dcm', 'no decoder here'),
                                        ('waveform_ecg.dcm', '12-lead ECG'), ('test-SR.dcm', 'holds no picture')])
def test_sentences_for_what_is_no_photograph(name, says):
    for f in (d.read_dicom, read_image):
        with pytest.raises(InputError, match=says): f(named(name))


def test_other_files_are_no_dicom(tmp_path):
    for b in (b'', b'GIF89a', b'\x89PNG\r\n\x1a\n' + bytes(200), b'id,image\n' * 30, bytes(400)):
        assert not d.is_dicom(b)
        with pytest.raises(InputError): d.read_dicom(b)
    with pytest.raises(InputError, match='does not exist'): d.read_dicom(tmp_path / 'gone.dcm')
    with pytest.raises(InputError, match='is a folder'): d.read_dicom(tmp_path)


def test_nothing_personal_is_said(ds, caplog, recwarn, capfd):
    pydicom.config.settings.reading_validation_mode = pydicom.config.WARN
    ds.add_new('PatientBirthDate', 'LO', 'DOE JANE')
    blob = bytearray(raw(ds))
    at = blob.find(struct.pack('<HH', 0x20, 0xD))   # the study's UID becomes a name
    blob[at + 8:at + 16] = b'DOE^JANE'
    with caplog.at_level(logging.DEBUG):
        d.read_dicom(bytes(blob))
        d.dicom_summary(bytes(blob))
        with pytest.raises(InputError): write_seg('x.dcm', np.zeros((61, 83), bool), bytes(blob))
        with pytest.raises(InputError): d.read_dicom(bytes(blob[:-200]))
    said = caplog.text + ''.join(str(w.message) for w in recwarn) + ''.join(capfd.readouterr())
    assert 'DOE' not in said and 'JANE' not in said
    assert not Path('x.dcm').exists()


def test_threads(path, photo):
    wrong, level = [], logging.getLogger('pydicom').level
    def work():
        for _ in range(5):
            if not np.array_equal(read_image(path), photo): wrong.append(1)
    threads = [threading.Thread(target=work) for _ in range(4)]
    for t in threads: t.start()
    for t in threads: t.join()
    assert not wrong and logging.getLogger('pydicom').level == level


# Light import, missing packages

def run(code): return subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, timeout=300)


def test_import_is_light():
    p = run('import sys, lesion_seg.dicom\nprint([m for m in ("pydicom", "highdicom", "torch", "pandas", "fastai", "pylibjpeg") if m in sys.modules])')
    assert p.stdout.strip() == '[]', p.stderr


@pytest.mark.parametrize('missing', ['pydicom', 'highdicom'])
def test_missing_packages(path, missing):
    call = dict(pydicom='d.read_dicom(sys.argv[1])', highdicom='write_seg("y.dcm", np.zeros((61, 83), bool), sys.argv[1])')[missing]
    code = f'''import sys, numpy as np
sys.modules[{missing!r}] = None
from lesion_seg import dicom as d
from lesion_seg.dicom_seg import write_seg
sys.argv = ['', {str(path)!r}]
try: {call}
except d.InputError as e: print(e)'''
    assert "pip install 'lesion_seg[dicom]'" in run(code).stdout


def test_missing_decoder(ds, monkeypatch):
    from pydicom.pixels.decoders.base import Decoder
    compressed(ds, uid.JPEGLSLossless)
    blob = raw(ds)
    monkeypatch.setattr(Decoder, 'is_available', property(lambda self: False))
    with pytest.raises(InputError, match=r"needs a decoder for JPEG-LS Lossless.*pip install 'lesion_seg\[dicom\]'"): d.read_dicom(blob)


# The seam

def test_seam(path, photo, phantom):
    assert np.array_equal(read_image(path), photo) and np.array_equal(read_image(path.read_bytes()), photo)
    with path.open('rb') as f: assert np.array_equal(read_image(f), photo)
    assert image_size(path) == (61, 83)
    red = photo_to_dicom(np.full((4, 4, 3), (200, 10, 10), np.uint8), path.with_name('red.dcm'))
    with pytest.raises(InputError, match='in colour, so it is not a mask'): read_mask(red)


# Facts

def test_summary_is_json_and_names_nobody(path):
    facts = d.dicom_summary(path)
    assert json.loads(json.dumps(facts)) == facts and 'DOE' not in json.dumps(facts) + str(facts) + facts._repr_markdown_()
    assert facts['pixel_spacing'] == [0.02, 0.03] and (facts['rows'], facts['columns']) == (61, 83) and facts['modality'] == 'DMS'
    who = d.dicom_summary(path, identifying=True)
    assert who['patient_name'] == who['patient_id'] == 'DOE JANE' and who['study_date'] == '20260101'
    reference = {'patient_id', 'patient_name', 'study_date', 'modality', 'rows', 'columns', 'bits_allocated', 'bits_stored', 'photometric_interpretation',
                 'pixel_spacing', 'image_type', 'study_description', 'series_description', 'manufacturer'}
    assert reference | {'laterality', 'body_part', 'device'} <= set(who) and set(who) - set(facts) == set(d.IDENTIFYING_FIELDS)


def test_summary_of_what_is_absent(ds):
    for k in ('PixelSpacing', 'Manufacturer', 'ImageType', 'PatientName'): delattr(ds, k)
    facts = d.dicom_summary(raw(ds, ImageLaterality='L', BodyPartExamined='ARM'), identifying=True)
    assert [facts[k] for k in ('pixel_spacing', 'manufacturer', 'image_type', 'patient_name', 'laterality', 'body_part')] == [None] * 4 + ['L', 'ARM']


@pytest.mark.parametrize('spacing', [['0', '1'], ['-1', '1'], ['nan', '1'], ['0.1'], '0.1'])
def test_absurd_spacing_is_none(ds, spacing):
    ds['PixelSpacing']._value = spacing
    assert d.dicom_summary(raw(ds))['pixel_spacing'] is None


def test_summaries_of_the_wheel():
    for name in ('CT_small.dcm', 'examples_ybr_color.dcm', 'rtplan.dcm', 'test-SR.dcm', 'image_dfl.dcm', 'liver_1frame.dcm'):
        assert json.dumps(d.dicom_summary(named(name), identifying=True), allow_nan=False)


# Segmentations

def tables():
    utils = pytest.importorskip('highdicom._standard_utils', reason='an older highdicom')
    return utils.get_iod_module_map(), utils.get_module_attribute_map(), utils.get_sop_class_iod_map()


def missing(ds):
    iods, modules, classes = tables()
    need = [a for m in iods[classes[ds.SOPClassUID]] if m['usage'] == 'M' for a in modules[m['key']] if a['type'] in ('1', '2') and not a['path']]
    return {a['keyword'] for a in need if a['keyword'] not in ds or (a['type'] == '1' and ds[a['keyword']].is_empty)}


@pytest.mark.parametrize('kind', ['dermoscopic', 'photographic'])
def test_objects_hold_what_the_standard_requires(tmp_path, photo, phantom, kind):
    p = photo_to_dicom(photo, tmp_path / 'p.dcm', kind)
    s = write_seg(tmp_path / 's.dcm', phantom.mask, p)
    assert missing(pydicom.dcmread(p)) == set() and missing(pydicom.dcmread(s)) == set()
    pydicom.config.settings.reading_validation_mode = pydicom.config.RAISE
    try:
        for f in (p, s): pydicom.dcmread(f).walk(lambda _, e: e.value)   # every value follows its representation
    finally: pydicom.config.settings.reading_validation_mode = pydicom.config.WARN


@pytest.mark.parametrize('kind', ['dermoscopic', 'photographic'])
@pytest.mark.parametrize('spacing', [None, (0.01, 0.02)])
def test_binary_round_trip(tmp_path, photo, phantom, kind, spacing):
    p = photo_to_dicom(photo, tmp_path / 'p.dcm', kind, spacing)
    s = write_seg(tmp_path / 's.dcm', phantom.mask, p, model=dict(architecture='lesion_unet', weights_sha256='ab' * 32))
    source, seg = pydicom.dcmread(p), hd.seg.segread(s)
    assert np.array_equal(seg.get_pixels_by_source_instance([source.SOPInstanceUID])[0, ..., 0], phantom.mask)
    assert np.array_equal(read_mask(s), phantom.mask)
    ref = seg.ReferencedSeriesSequence[0]
    assert ref.SeriesInstanceUID == source.SeriesInstanceUID and ref.ReferencedInstanceSequence[0].ReferencedSOPClassUID == source.SOPClassUID
    assert (seg.PatientName, seg.StudyInstanceUID, seg.StudyDate) == (source.PatientName, source.StudyInstanceUID, source.StudyDate)
    assert seg.SegmentSequence[0].SegmentedPropertyTypeCodeSequence[0].CodeMeaning == 'Lesion'
    assert 'ab' * 32 in seg.SegmentSequence[0].SegmentationAlgorithmIdentificationSequence[0].AlgorithmParameters


@pytest.mark.parametrize('fill', [False, True])
def test_empty_and_full_masks(tmp_path, path, fill):
    mask = np.full((61, 83), fill)
    assert np.array_equal(read_mask(write_seg(tmp_path / 's.dcm', mask, path)), mask)


def test_fractional_round_trip(tmp_path, path, ds):
    p = np.random.default_rng(0).random((61, 83), np.float32)
    p[0] = 0
    p[1] = 1
    seg = hd.seg.segread(write_seg(tmp_path / 's.dcm', p, path))
    got = seg.get_pixels_by_source_instance([ds.SOPInstanceUID])[0, ..., 0]
    assert seg.SegmentationType == 'FRACTIONAL' and seg.SegmentationFractionalType == 'PROBABILITY'
    assert np.abs(got - p).max() <= 0.5 / 255 + 1e-6 and (got[0] == 0).all() and (got[1] == 1).all()


@pytest.mark.parametrize('sop', ['VLPhotographicImageStorage', 'MultiFrameTrueColorSecondaryCaptureImageStorage', 'UltrasoundMultiFrameImageStorage'])
def test_frame_of_several(tmp_path, ds, photo, phantom, sop):
    pixels = photo.tobytes() * 3
    two = raw(ds, NumberOfFrames=3, PixelData=pixels + b'\0' * (len(pixels) % 2), SOPClassUID=getattr(uid, sop))
    seg = hd.seg.segread(write_seg(tmp_path / 's.dcm', phantom.mask, two, frame=2))
    origin = seg.PerFrameFunctionalGroupsSequence[0].DerivationImageSequence[0].SourceImageSequence[0]
    assert (origin.ReferencedFrameNumber, origin.ReferencedSOPClassUID) == (2, getattr(uid, sop))
    assert np.array_equal(seg.get_pixels_by_source_frame(ds.SOPInstanceUID, [2])[0, ..., 0], phantom.mask)


def test_deterministic_and_atomic(tmp_path, path, phantom):
    a, b = (write_seg(tmp_path / f'{k}.dcm', phantom.mask, path, when=WHEN) for k in 'ab')
    assert a.read_bytes() == b.read_bytes()
    other = write_seg(tmp_path / 'c.dcm', ~phantom.mask, path, when=WHEN)
    assert pydicom.dcmread(other).SOPInstanceUID != pydicom.dcmread(a).SOPInstanceUID
    with pytest.raises(InputError, match=r'the mask: is \(83, 61\)'): write_seg(a, phantom.mask.T, path)
    assert a.read_bytes() == b.read_bytes() and not list(tmp_path.glob('.*'))


def test_sources_with_little_in_them(tmp_path, ds, phantom):
    for k in ('StudyID', 'AccessionNumber', 'PatientName', 'PatientBirthDate', 'StudyTime', 'Modality', 'Manufacturer', 'SpecificCharacterSet'): delattr(ds, k)
    ds['PixelSpacing']._value = ['0', '0']
    s = write_seg(tmp_path / 's.dcm', phantom.mask, raw(ds, FrameOfReferenceUID='1.2.3'))
    assert np.array_equal(read_mask(s), phantom.mask)
    for k in ('SOPInstanceUID', 'StudyInstanceUID', 'SeriesInstanceUID'):
        less = pydicom.dcmread(io.BytesIO(raw(ds)))
        delattr(less, k)
        with pytest.raises(InputError, match=f'has no {k}'): write_seg(tmp_path / 't.dcm', phantom.mask, stripped(less))


def stripped(ds):
    "Written without pydicom's own checks."
    pydicom.dcmwrite(f := io.BytesIO(), ds, enforce_file_format=False)
    return f.getvalue()


@pytest.mark.parametrize('mask, says', [(np.ones((61, 83), np.uint8), 'uint8'), (np.full((61, 83), 1.01), 'from 1.01'), (np.full((61, 83), np.nan), 'nan'),
                                        (np.ones((61, 83, 1), bool), r'\(61, 83, 1\)'), (np.ones((0, 0), bool), r'\(0, 0\)')])
def test_masks_that_are_refused(tmp_path, path, mask, says):
    with pytest.raises(InputError, match=says): write_seg(tmp_path / 's.dcm', mask, path)
    assert not (tmp_path / 's.dcm').exists()


@colour
def test_seg_of_clinical_files(tmp_path):
    for name in ('VL1_RLE', 'US1_J2KI', 'SC_rgb_2frame.dcm', 'color-pl.dcm'):
        src = next(COLOUR.glob(f'*/{name}'))
        size = d.read_dicom(src, 1)[0].shape[:2]
        mask = np.zeros(size, bool)
        mask[5:20, 7:30] = True
        try: s = write_seg(tmp_path / 's.dcm', mask, src, frame=1)
        except InputError as e: assert 'nothing can refer to it' in str(e), e
        else: assert np.array_equal(read_mask(s), mask)


# photo_to_dicom

def test_photo_round_trip(tmp_path, photo):
    jpeg = tmp_path / 'p.jpg'
    Image.fromarray(photo).save(jpeg, quality=80)
    assert np.array_equal(read_image(photo_to_dicom(jpeg, tmp_path / 'p.dcm')), read_image(jpeg))


@pytest.mark.parametrize('kw, says', [(dict(kind='x'), 'choose from'), (dict(spacing=(1,)), 'two positive'), (dict(spacing=(np.inf, 1)), 'two positive'),
                                      (dict(patient='a\\b'), '1 to 64'), (dict(patient='x' * 65), '1 to 64')])
def test_photo_that_dicom_cannot_say(tmp_path, photo, kw, says):
    with pytest.raises(InputError, match=says): photo_to_dicom(photo, tmp_path / 'p.dcm', **kw)
    assert not list(tmp_path.iterdir())
