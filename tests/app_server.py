"""A running web app and a browser for the tests, benchmarks/app_speed.py and .ci/wheel.py."""

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from contextlib import contextmanager
from pathlib import Path

ARGS = ("--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
        "--disable-component-update --disable-sync").split()


def chromium() -> str | None:
    "The browser on this machine."
    return next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


class Server:
    "What a test needs to know about the server's process."
    def __init__(self, process, port, log):
        self.process, self.url, self.log = process, f"http://127.0.0.1:{port}/", Path(log)

    def kernels(self) -> dict[str, int]:
        "Process of each kernel, by the kernel's id."
        found = {}
        for entry in Path("/proc").glob("[0-9]*"):
            try: line, parent = (entry / "cmdline").read_text(), (entry / "stat").read_text().rsplit(")", 1)[1].split()[1]
            except OSError: continue
            if int(parent) == self.process.pid and (m := re.search(r"kernel-([0-9a-f-]{36})\.json", line)): found[m[1]] = int(entry.name)
        return found

    def kernel_of(self, page) -> int:
        "Process of a page's kernel."
        return self.kernels()[page.evaluate("JSON.parse(document.getElementById('jupyter-config-data').textContent).kernelId")]

    def wait_warm(self, n: int, seconds: float = 300) -> None:
        "Until the pool has been filled n times."
        end = time.monotonic() + seconds
        while self.log.read_text().count("is filled with") < n:
            assert time.monotonic() < end and self.process.poll() is None, self.log.read_text()
            time.sleep(0.1)


@contextmanager
def serving(folder: Path, *options: str, command: tuple = (sys.executable, "-W", "ignore", "-m", "lesion_seg"), env: dict[str, str] = os.environ):
    "`lesion_seg app` on a free port; its log is in `folder`."
    with socket.create_server(("127.0.0.1", 0)) as s: port = s.getsockname()[1]
    log = Path(folder) / "server.log"
    with open(log, "w") as f:
        process = subprocess.Popen([*command, "app", "--no-browser", "--port", str(port), *options],
                                   cwd=folder, stdout=f, stderr=f, env={**env, "OMP_NUM_THREADS": "1"}, start_new_session=True)
    server = Server(process, port, log)
    try:
        for _ in range(3000):
            try:
                urllib.request.urlopen(server.url + "voila/static/voila.js", timeout=5).close()
                break
            except OSError:
                assert process.poll() is None, log.read_text()
                time.sleep(0.1)
        else: raise TimeoutError(log.read_text())
        yield server
    finally:
        process.terminate()
        try: process.wait(20)
        except subprocess.TimeoutExpired: pass
        try: os.killpg(process.pid, signal.SIGKILL)  # kernels that outlived it
        except ProcessLookupError: pass


def memory(pid: int) -> float:
    "Resident memory of a process, MB."
    return int(re.search(r"VmRSS:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())[1]) / 1e3


def peak(pid: int) -> float:
    "The most that it ever was, MB."
    return int(re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())[1]) / 1e3


def has_torch(pid: int) -> bool:
    "Has a process loaded PyTorch?"
    return "libtorch" in Path(f"/proc/{pid}/maps").read_text()
