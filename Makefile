# Two commands do all the set-up: `make demo` and `make test`. Each needs only Python 3.10 to 3.12, git and make.
PYTHON ?= python3
BIN := .venv/bin
READY := .venv/.ready
# One thread for each test process; the processes themselves, WORKERS of them, fill the cores.
ONE := OMP_NUM_THREADS=1 MKL_NUM_THREADS=1
WORKERS ?= 2
PYTEST := $(ONE) $(BIN)/python -m pytest --numprocesses $(WORKERS) --dist worksteal

.DEFAULT_GOAL := help
.PHONY: help install demo app docker docker-compose test test-fast fuzz lowest mutants lint js types docs outputs export wheel pictures weights model-card bench clean

help: ## show this list
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 12

$(READY): settings.ini setup.py
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --disable-pip-version-check -e '.[dev]'
	touch $(READY)

install: $(READY) ## make .venv with everything for development

demo: $(READY) ## the whole pipeline on phantoms; prints the path of its report last
	$(BIN)/lesion_seg demo -o demo

app: $(READY) ## serve the web app and open it in a browser
	$(BIN)/lesion_seg app

docker: ## build the image of the web app and serve it on port 8866
	docker build -t lesion_seg .
	docker run --rm --read-only --tmpfs /tmp -p 127.0.0.1:8866:8866 lesion_seg

docker-compose: ## the same with limits, as on a server; BUNDLES=folder offers your own models
	docker compose up --build

test: $(READY) ## run the notebooks and the tests
	$(ONE) $(BIN)/nbdev_test --n_workers $(WORKERS)
	$(PYTEST)

test-fast: $(READY) ## only the quick tests
	$(PYTEST) -m "not slow"

lowest: $(READY) ## the hostile tests with the lowest versions of what opens files from outside
	$(ONE) $(BIN)/python .ci/lowest.py

mutants: $(READY) ## put mistakes into the code and ask whether the tests notice (half an hour)
	$(ONE) $(BIN)/python tests/mutants.py

lint: $(READY) ## style of the package and the tests
	$(BIN)/ruff check .

MINUTES ?= 10
fuzz: $(READY) ## damaged files at every way in, for MINUTES=10
	$(ONE) $(BIN)/python tests/fuzz/campaign.py --minutes $(MINUTES) --workers 2

js: ## lint, type check and test the JavaScript of the widgets (Node 20.19 or newer; nothing of it is shipped but lesion_seg/webapp)
	npm ci --no-audit --no-fund
	npm run check

types: $(READY) ## type check of the package
	$(BIN)/mypy lesion_seg

NB ?=
outputs: $(READY) ## run notebooks in a Jupyter kernel and store their outputs: all of them, or NB=nbs/10_unet.ipynb
	$(ONE) $(BIN)/python .ci/kernel.py --write $(NB)

export: $(READY) ## write the package, the lists of notebooks and the README from the notebooks
	$(BIN)/nbdev_export
	$(BIN)/python .ci/lists.py
	$(BIN)/python .ci/readme.py

docs: $(READY) ## build the site without Quarto (Python 3.11 or newer), and look at every link and picture of it
	$(BIN)/python -m pip install --disable-pip-version-check --quiet -e '.[docs]'
	$(BIN)/python .ci/site.py

wheel: $(READY) ## build sdist and wheel, and try the wheel in an empty environment; PIP='torch==...' chooses a build of torch
	rm -rf dist && $(BIN)/python -m build --outdir dist .
	$(BIN)/python -m twine check --strict dist/*
	$(BIN)/python .ci/wheel.py dist/*.whl --json benchmarks/results/wheel.json $(PIP)

pictures: $(READY) ## draw the README's pictures, the logo and the social card
	$(BIN)/python .ci/pictures.py

DATA ?= data
weights: $(READY) ## train the model that the package ships, from DATA=folder with isic2017/ (hours)
	$(BIN)/python model/weights.py $(DATA)/isic2017

model-card: $(READY) ## score it and write its model card, from DATA=folder with isic2017/ and isic2017_native/
	$(BIN)/python model/model_card.py $(DATA)

bench: $(READY) ## measure speed, memory and the price of whole numbers, from DATA=folder with isic2017/ (8 minutes, on a quiet machine)
	$(BIN)/python -m pip install --disable-pip-version-check --quiet -e '.[bench]'
	$(BIN)/python benchmarks/onnx_speed.py
	$(BIN)/python benchmarks/predict_speed.py
	$(BIN)/python model/quantized.py $(DATA)

clean: ## remove what can be made again
	rm -rf _proc _docs build dist demo node_modules .pytest_cache .mypy_cache .ruff_cache *.egg-info
