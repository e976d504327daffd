"""A notebook of our own, served by Voilà, in which the tests of the widgets put what they need: they write Python into a field and read its answer."""

import ast
import json
import socket
import subprocess
import sys
import time
import urllib.request
from contextlib import contextmanager
from pathlib import Path

SOURCE = '''
import json, traceback
import ipywidgets as widgets
from IPython.display import display
import numpy as np
from lesion_seg.picture import *
from lesion_seg.dropzone import *
from lesion_seg.core import InputError, encode_jpeg, encode_png
from lesion_seg.phantom import make_phantom

log, scope = [], globals()
field = widgets.Textarea(description='code', continuous_update=False)
answer = widgets.HTML(layout=dict(height='32px', overflow='hidden'))  # nothing below it may move
answer.add_class('answer')
board, notes = widgets.VBox(), widgets.Text(description='notes')

def obey(change):
    number, _, code = change.new.partition(' ')
    try:
        body, _, last = code.rpartition(';;')
        exec(body, scope)
        value = repr(eval(last, scope))
    except Exception: value = 'error ' + traceback.format_exc()
    answer.value = f'<pre data-number="{number}"></pre>' + value.replace('&', '&amp;').replace('<', '&lt;')

field.observe(obey, 'value')
display(field, answer, notes, board)
'''


class Desk:
    "A page of that notebook."
    def __init__(self, page): self.page, self.number = page, 0

    def ask(self, code: str):
        "Run statements, then `;;`, then an expression in the kernel; its value."
        self.number += 1
        field = self.page.get_by_label("code")
        field.fill(f"{self.number} {code}")
        field.evaluate("e => { e.dispatchEvent(new Event('change', {bubbles: true})); e.blur(); }")
        self.page.wait_for_selector(f'.answer pre[data-number="{self.number}"]', state="attached")
        text = self.page.locator(".answer .widget-html-content").evaluate("e => e.textContent")
        assert not text.startswith("error"), text
        return ast.literal_eval(text)

    def do(self, code: str) -> None: self.ask(f"{code};;0")

    def show(self, code: str) -> None:
        "Make what stands on the board."
        self.do(f"{code.rstrip()}; board.children = [p] if not isinstance(p, list) else p")


@contextmanager
def desk_server(folder: Path):
    "Voilà with the notebook; its address."
    cells = [dict(cell_type="code", execution_count=None, id="desk", metadata={}, outputs=[], source=SOURCE)]
    kernel = dict(display_name="python3", language="python", name="python3")
    (folder / "desk.ipynb").write_text(json.dumps(dict(cells=cells, metadata=dict(kernelspec=kernel), nbformat=4, nbformat_minor=5)))
    with socket.create_server(("127.0.0.1", 0)) as s: port = s.getsockname()[1]
    url = f"http://127.0.0.1:{port}/"
    with open(folder / "desk.log", "w") as f:
        process = subprocess.Popen([sys.executable, "-m", "voila", "desk.ipynb", "--no-browser", f"--port={port}", "--show_tracebacks=True"],
                                   cwd=folder, stdout=f, stderr=f)
    try:
        for _ in range(600):
            try:
                urllib.request.urlopen(url + "voila/static/voila.js", timeout=5).close()
                break
            except OSError:
                assert process.poll() is None, (folder / "desk.log").read_text()
                time.sleep(0.1)
        yield url
    finally:
        process.terminate()
        process.wait(30)
