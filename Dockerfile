# The web app for a server. Two stages: the first has a compiler's worth of tools, the second only Python and what runs.
FROM python:3.11-slim@sha256:9c900dea9e8fb7e16277c179b555cc72d29a352dbc33cff48ad5a0412fd5bfc7 AS build
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
RUN python -m venv /opt/lesion_seg
# PyTorch for the CPU: a tenth of the size of the one for graphics cards. Only Grad-CAM loads it.
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
RUN /opt/lesion_seg/bin/pip install --index-url "$TORCH_INDEX" "torch>=2.8" "torchvision>=0.23"
WORKDIR /src
COPY settings.ini setup.py MANIFEST.in README.md LICENSE CHANGELOG.md ./
COPY lesion_seg lesion_seg
RUN /opt/lesion_seg/bin/pip install ".[app]"

FROM python:3.11-slim@sha256:9c900dea9e8fb7e16277c179b555cc72d29a352dbc33cff48ad5a0412fd5bfc7
COPY --from=build /opt/lesion_seg /opt/lesion_seg
RUN useradd --uid 10001 --no-create-home --shell /usr/sbin/nologin reader
# Whatever a library wants to write goes to /tmp, so that the rest can be read-only.
ENV PATH=/opt/lesion_seg/bin:$PATH HOME=/tmp PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
USER 10001
WORKDIR /tmp
EXPOSE 8866
# A static file, not the page: each visit of the page would take a warm kernel.
HEALTHCHECK --interval=30s --timeout=10s --start-period=60s --retries=3 \
    CMD ["python", "-c", "import urllib.request as u; u.urlopen('http://127.0.0.1:8866/voila/static/voila.js', timeout=8)"]
CMD ["lesion_seg", "app", "--no-browser", "--host", "0.0.0.0"]
