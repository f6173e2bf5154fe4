# `make demo` and `make test` work on a bare clone: a shell, make and Python 3.11 or newer are all they need.
PYTHON ?= python3
VENV ?= .venv
JOBS ?= 2
BIN := $(VENV)/bin
# The CPU build of PyTorch, but where there is a GPU.
TORCH := $(if $(shell command -v nvidia-smi),,--constraint constraints.txt)
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet

.PHONY: demo shm-demo test check docs model clean

## demo: set up, then build the demo dataset of drawn pictures into ./demo, and train a slim network on it in ./demo-run
demo: $(VENV)/composing
	$(BIN)/matting-compose build demo --out demo
	$(BIN)/matting-compose inspect demo --report demo-report.html
	$(MAKE) $(VENV)/training
	$(BIN)/matting-train demo --out demo-run --config demo $$(test -e demo-run/last.pt && echo --resume)
	@echo 'Look at demo-run/index.html (mattes and curves) and demo-report.html (the dataset) in a browser'

## shm-demo: drawn portraits, T-Net, M-Net, and both end to end, small: a matte without a trimap. Stop it and go on at will
shm-demo: $(VENV)/training
	$(PIP) install --editable '.[lite0]'
	$(BIN)/matting-compose build portrait-demo --out portraits
	$(BIN)/matting-train portraits --out shm-tnet-run --config shm-tnet-small $$(test -e shm-tnet-run/last.pt && echo --resume)
	$(BIN)/matting-train portraits --out shm-mnet-run --config shm-mnet-small $$(test -e shm-mnet-run/last.pt && echo --resume)
	$(BIN)/matting-train portraits --out shm-run --config shm-small --init tnet=shm-tnet-run --init mnet=shm-mnet-run \
	  $$(test -e shm-run/last.pt && echo --resume)
	@echo 'Look at shm-run/index.html in a browser; and: $(BIN)/matting-predict shm-run photo.jpg -o alpha.png'

## test: set up, then check style and types and run every test, JOBS at a time
test: check
	$(BIN)/python -m pytest --numprocesses $(JOBS) --dist worksteal

## model: make the networks that come with the package again, in ./model: some four hours, resumed by the same command
model: $(VENV)/composing
	$(MAKE) $(VENV)/training
	$(BIN)/matting-compose fetch open431
	$(BIN)/matting-compose build open431 --out model/open431 --variants 10 --set shards.background=unknown
	$(BIN)/matting-compose build demo --out model/drawn --variants 4 --set foregrounds.count=480 \
	  --set 'trimap.erode=[1,16]' --set 'trimap.dilate=[1,20]' --set shards.background=unknown
	$(BIN)/matting-train model/open431 model/drawn=0.6 --out model/run --config default \
	  $$(test -e model/run/last.pt && echo --resume)
	$(BIN)/matting-train model/open431 model/drawn=0.6 --out model/wide --config default-wide --init model/run/last.pt \
	  $$(test -e model/wide/last.pt && echo --resume)
	$(BIN)/matting-export model/wide/last.pt -o model/default.safetensors --half
	$(PIP) install --editable '.[classical]'
	$(BIN)/python bench/refined.py mattes model/open431 model/drawn=0.6 --out model/mattes --jobs $(JOBS)
	$(BIN)/python bench/refined.py train model/mattes --network model/default.safetensors -o model/refined.safetensors

## docs: build the documentation's site in ./site; a warning is an error
docs: $(VENV)/developing
	$(BIN)/mkdocs build

check: $(VENV)/developing
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	MYPYPATH=src $(BIN)/mypy -p matting_compose.composer -p matting_compose.trainer -p matting_compose.manifests -m matting_compose.cli

# The link by which an editable install finds the package: a source distribution comes without it.
src/matting_compose:
	mkdir -p src && ln -s .. $@

$(VENV)/composing: pyproject.toml | src/matting_compose
	$(PYTHON) -c 'import sys; sys.exit("Python 3.11 or newer is needed, this is " + sys.version.split()[0] if sys.version_info < (3, 11) else 0)'
	$(PYTHON) -m venv $(VENV)
	$(PIP) install --editable '.'
	touch $@

$(VENV)/training: pyproject.toml constraints.txt $(VENV)/composing
	$(PIP) install $(TORCH) --editable '.[train]' || \
	  { echo 'No CPU build of PyTorch where pip looks (see constraints.txt): taking the usual one, which is large'; \
	    $(PIP) install --editable '.[train]'; }
	touch $@

$(VENV)/developing: pyproject.toml constraints.txt $(VENV)/composing
	$(PIP) install $(TORCH) --editable '.[train,classical,export,docs,dev]'
	touch $@

clean:
	rm -rf $(VENV) demo demo-run demo-report.html portraits shm-tnet-run shm-mnet-run shm-run model open431-pictures site
