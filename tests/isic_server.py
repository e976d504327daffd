"A real HTTP server on the loopback host that answers as the ISIC does, and fails as often as it is told to."
import base64
import hashlib
import io
import json
import random
import re
import threading
import time
import zipfile
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

import numpy as np
from PIL import Image

from lesion_seg.phantom import make_phantom

FAULTS = ('429', '500', '503', 'drop', 'cut', 'corrupt', 'html', 'stall')
LICENCES = ('CC-0', 'CC-BY', 'CC-BY-NC')


def encoded(a, fmt, **kw):
    f = io.BytesIO()
    Image.fromarray(a).save(f, fmt, **kw)
    return f.getvalue()


def phantom_files(n, size=48):
    "The photographs (JPEG) and masks (PNG) of `n` phantoms, by id."
    made = {f'ISIC_{i:07d}': make_phantom(i, size) for i in range(n)}
    return ({k: encoded(p.image, 'JPEG', quality=92) for k, p in made.items()},
            {k: encoded(p.mask.astype(np.uint8) * 255, 'PNG') for k, p in made.items()})


def zipped(files, **kw):
    "A ZIP of {name: bytes}, or of (ZipInfo, bytes) pairs."
    f = io.BytesIO()
    with zipfile.ZipFile(f, 'w', zipfile.ZIP_DEFLATED, **kw) as z:
        for name, data in files.items() if isinstance(files, dict) else files: z.writestr(name, data)
    return f.getvalue()


def challenge_files(year, photographs, masks):
    "The ZIP files of a challenge with one training set, named and filled as the real ones; and their rows for the catalogue."
    images, truth, suffix = {
        2016: ('ISBI2016_ISIC_Part1_Training_Data', 'ISBI2016_ISIC_Part1_Training_GroundTruth', '_Segmentation'),
        2017: ('ISIC-2017_Training_Data', 'ISIC-2017_Training_Part1_GroundTruth', '_segmentation'),
        2018: ('ISIC2018_Task1-2_Training_Input', 'ISIC2018_Task1_Training_GroundTruth', '_segmentation')}[year]
    pictures = {f'{images}/{k}.jpg': v for k, v in photographs.items()}
    if year == 2017: pictures |= {f'{images}/{k}_superpixels.png': masks[k] for k in photographs}
    if year == 2018: pictures |= {f'{images}/ATTRIBUTION.txt': b'Everybody', f'__MACOSX/{images}/._a.jpg': b'a Mac was here'}
    files = {f'{year}/{images}.zip': zipped(pictures),
             f'{year}/{truth}.zip': zipped({f'{truth}/{k}{suffix}.png': v for k, v in masks.items()})}
    rows = [dict(path=p, part='training', files=len(photographs), size=None, sha256=None, md5=None) for p in files]
    return files, rows


class IsicServer:
    "Serves files (`{path: bytes}`) and pages of the archive's images (`{id: bytes}`); `with IsicServer(...) as s: s.url`."
    def __init__(self, files=None, images=None, share=0.0, seed=0, kinds=FAULTS[:-1], etag=None, ranges=True, stall=1.0):
        self.images, self.share, self.seed, self.kinds = dict(images or {}), share, seed, kinds
        self.etag, self.ranges, self.stall = etag, ranges, stall # etag: None for the MD5 as on S3, '' for none
        self.files = dict(files or {}) | {f'images/{k}.jpg': v for k, v in self.images.items()}
        self.plan = {} # {path: [fault, ...]}: faults of the first requests for a path, '' for none, instead of drawn ones
        self.page = None # a function that may change a page of the archive before it is sent
        self.redirect = {} # {path: location}
        self.retry_after = '0'
        self.log, self.asked, self.faults, self.lock = [], Counter(), Counter(), threading.Lock()

    def __enter__(self):
        self.http = _Server(('127.0.0.1', 0), type('H', (_Handler,), {'isic': self}))
        threading.Thread(target=self.http.serve_forever, args=(0.01,), daemon=True).start()
        self.url = f'http://127.0.0.1:{self.http.server_port}'
        self.api = f'{self.url}/api/v2'
        return self

    def __exit__(self, *_):
        self.http.shutdown()
        self.http.server_close()

    def fault(self, path):
        "The failure of this request, '' for none: the same for the n-th request of a path, however the threads run."
        with self.lock:
            n = self.asked[path]
            self.asked[path] += 1
        r = random.Random(f'{self.seed}:{path}:{n}')
        drawn = r.choice(self.kinds) if r.random() < self.share else ''
        fault = (self.plan[path] + [''] * (n + 1))[n] if path in self.plan else drawn
        with self.lock: self.faults.update([fault] * bool(fault))
        return fault

    def record(self, i):
        "Image number `i` as the archive describes it."
        name = list(self.images)[i]
        return dict(isic_id=name, public=True, copyright_license=LICENCES[i % 3], attribution=f'Hospital {i % 2}',
            files={k: dict(url=f'{self.url}/images/{name}.jpg?Signature=secret{i}', size=len(self.images[name])) for k in ('full', 'thumbnail_256')},
            metadata=dict(acquisition=dict(image_type='dermoscopic', pixels_x=48, pixels_y=48),
                          clinical=dict(sex='female', patient_id=f'IP_{i // 2}', lesion_id=f'IL_{i}')))

    def search(self, query):
        "A page: up to `limit` images from the cursor on."
        q = {k: v[0] for k, v in parse_qs(query).items()}
        if 'bad' in q.get('query', ''): return 400, {'message': 'Could not parse the query'}
        at, limit = int(base64.b64decode(q.get('cursor', 'MA=='))), min(int(q.get('limit', 100)), 100)
        end = min(at + limit, len(self.images))
        cursor = base64.b64encode(str(end).encode()).decode()
        more = f'{self.api}/images/search/?cursor={cursor}&limit={limit}' if end < len(self.images) else None
        page = dict(results=[self.record(i) for i in range(at, end)], count=len(self.images) if not at else None, next=more, previous=None)
        return 200, self.page(page) if self.page else page


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    def handle_error(self, request, client_address): pass # a client that hangs up is part of the tests


class _Handler(BaseHTTPRequestHandler):
    protocol_version = 'HTTP/1.1'
    disable_nagle_algorithm = True
    isic: IsicServer
    def log_message(self, *_): pass

    def answer(self, code, body=b'', **headers):
        self.isic.log.append((self.command, self.path, self.headers.get('Range'), code))
        self.send_response(code)
        for k, v in ({'Content-Length': str(len(body))} | headers).items(): self.send_header(k.replace('_', '-'), v)
        self.end_headers()
        return body

    def send(self, body, fault):
        "The body, or what the failure leaves of it."
        if self.command == 'HEAD': return
        if fault == 'corrupt' and body:
            at = random.Random(f'{self.path}:{self.isic.asked[urlsplit(self.path).path.lstrip("/")]}').randrange(len(body)) # another byte each time
            body = body[:at] + bytes([body[at] ^ 255]) + body[at + 1:]
        if fault in ('cut', 'stall'):
            self.wfile.write(body[:len(body) // 2])
            self.wfile.flush()
            if fault == 'stall': time.sleep(self.isic.stall)
            self.close_connection = True
        else: self.wfile.write(body)

    def do_GET(self):
        try: self.reply()
        except (BrokenPipeError, ConnectionResetError): self.close_connection = True

    do_HEAD = do_GET

    def reply(self):
        s, u = self.isic, urlsplit(self.path)
        path = u.path.lstrip('/')
        fault = s.fault(path)
        if fault == 'drop':
            s.log.append((self.command, self.path, self.headers.get('Range'), 0))
            self.close_connection = True
        elif fault == 'html': self.send(self.answer(200, b'<html>Please log in</html>', Content_Type='text/html'), '')
        elif fault in ('429', '503'): self.send(self.answer(int(fault), b'slow down', Retry_After=s.retry_after), '')
        elif fault.isdigit(): self.send(self.answer(int(fault), b'trouble'), '')
        elif path in s.redirect: self.answer(302, Location=s.redirect[path])
        elif path == 'api/v2/images/search/':
            code, page = s.search(u.query)
            self.send(self.answer(code, page if isinstance(page, bytes) else json.dumps(page).encode()), 'cut' if fault == 'cut' else '')
        elif path in s.files: self.file(s.files[path], fault)
        else: self.send(self.answer(404, b'not here'), '')

    def file(self, data, fault):
        "A file, or from its n-th byte on where that is asked for and it is still the same."
        tag = f'"{hashlib.md5(data).hexdigest()}"' if self.isic.etag is None else self.isic.etag
        extra = {'ETag': tag} if tag else {}
        m = re.fullmatch(r'bytes=(\d+)-', self.headers.get('Range') or '')
        if not m or not self.isic.ranges or self.headers.get('If-Range', tag) != tag: return self.send(self.answer(200, data, **extra), fault)
        at = int(m[1])
        if at >= len(data): return self.answer(416, Content_Range=f'bytes */{len(data)}')
        self.send(self.answer(206, data[at:], Content_Range=f'bytes {at}-{len(data) - 1}/{len(data)}', **extra), fault)
