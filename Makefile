# Every task of the project. `make` alone lists them.

PYTHON ?= python3
VENV := var/venv
SWIFT_VENV := var/swift-venv
RUN := $(VENV)/bin
# Compiled here once: a process that cannot write bytecode would compile at every start.
SYNC := $(RUN)/uv pip sync --quiet --require-hashes --compile-bytecode
COMPILE := $(RUN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes \
	--no-emit-index-url --no-header $(if $(UPGRADE),--upgrade)

export RUFF_CACHE_DIR := var/cache/ruff
# Without bytecode on disk, each run compiles every test and each process every module.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: help demo up down status run logs psql migrate seed waybill hooks test integration-gateway-1 integration-gateway-2 integration-clients integration-pipeline integration-others integration-sandbox end-to-end soak soak-workers soak-others check check-style check-types check-units bench install rabbitmq tessdata nginx clamav npm lock format

help: ## print this list
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/  make \1	\2/p' $(MAKEFILE_LIST) | expand -t 18

demo: install ## send a PDF through the whole system and show the result
	@$(RUN)/python -m dev.demo

up: install ## start the whole system in the background; WITHOUT="gateway beat" leaves services out
	@$(RUN)/python -m dev.stack up $(addprefix --without=,$(WITHOUT))

down: ## stop what `make up` started
	@if [ -x $(RUN)/python ]; then $(RUN)/python -m dev.stack down; else echo "nothing is running"; fi

status: ## list the processes `make up` started
	@if [ -x $(RUN)/python ]; then $(RUN)/python -m dev.stack status; else echo "nothing is running"; fi

run: install ## run one service in the foreground, restarted when its code changes: S=gateway
	@$(RUN)/python -m dev.run $(or $(S),--help)

logs: $(VENV)/.synced ## follow the logs; S="gateway relay" filters
	@$(RUN)/python -m dev.stack logs $(S)

psql: $(VENV)/.synced ## open the database of the running stack
	@$(RUN)/python -m dev.stack psql

migrate: install ## migrate the database of the running stack
	@$(RUN)/python -m dev.stack exec alembic upgrade head

seed: install ## add a history of many jobs to the running stack: ROWS=1000000; A=--remove deletes it
	@$(RUN)/python -m dev.seed $(if $(ROWS),--rows=$(ROWS)) $(A)

waybill: install ## an operator's command on the running stack: A="keys list"
	@$(RUN)/python -m dev.stack exec waybill $(A)

hooks: $(VENV)/.synced ## check format, lint, types and imports before every commit
	@$(RUN)/pre-commit install

# Only unit and contract tests run without the services.
ifdef T
test: $(if $(filter-out tests/unit% tests/contract%,$(T)),install nginx clamav npm,$(VENV)/.synced)
	$(RUN)/pytest $(T)
else
test: check install nginx clamav npm ## all of `make check`, then the tests on real services; T=PATH runs one file, directory or test
	@$(MAKE) --no-print-directory --jobs=3 --output-sync=target \
		integration-others end-to-end integration-pipeline integration-clients \
		integration-gateway-1 integration-gateway-2 integration-sandbox
endif

# Three groups at a time keep two processors busy; the longest first, each on its own services.
OF_PIPELINE := $(addprefix tests/integration/,pipeline postgres rabbitmq dev)

OF_CLIENTS := tests/integration/gateway/clients

# Halves, so that the last groups end together.
OF_GATEWAY_1 := $(wildcard tests/integration/gateway/test_[a-e]*.py)

integration-gateway-1:
	$(RUN)/pytest --state-dir var/test-gateway-1 $(OF_GATEWAY_1)

integration-gateway-2:
	$(RUN)/pytest --state-dir var/test-gateway-2 tests/integration/gateway \
		$(addprefix --ignore=,$(OF_CLIENTS) $(OF_GATEWAY_1))

integration-clients:
	$(RUN)/pytest --state-dir var/test-clients $(OF_CLIENTS)

integration-pipeline:
	$(RUN)/pytest --state-dir var/test-pipeline $(OF_PIPELINE)

integration-others:
	$(RUN)/pytest --state-dir var/test-others tests/integration \
		$(addprefix --ignore=,$(addprefix tests/integration/,gateway sandbox) $(OF_PIPELINE))

# Real files beside the project, if there are any.
FIELD_CORPUS := $(firstword $(wildcard ../*/corpus/field))

# Needs no service, and measures a process that does nothing else.
integration-sandbox:
	$(RUN)/pytest tests/integration/sandbox $(FIELD_CORPUS:%=--field-corpus %)

end-to-end:
	$(RUN)/pytest --state-dir var/test-end-to-end tests/e2e tests/fuzz

soak: install nginx clamav ## time limits, then kills, slow stores and fuzzing at full length
	$(RUN)/pytest $(TIME_LIMITS)
	@$(MAKE) --no-print-directory --jobs=2 --output-sync=target soak-workers soak-others

# Time limits are measured on an idle machine; the other tests mostly wait and run side by side.
TIME_LIMITS := $(addprefix tests/soak/test_,time_limits.py stalled_bodies.py)
OF_WORKERS := $(addprefix tests/soak/test_,consumer_timeout.py killed_workers.py)

soak-workers:
	$(RUN)/pytest --state-dir var/test-soak-1 $(OF_WORKERS)

soak-others:
	$(RUN)/pytest --state-dir var/test-soak-2 tests/soak \
		$(addprefix --ignore=,$(TIME_LIMITS) $(OF_WORKERS))

check: $(VENV)/.synced ## format, lint, types, import contracts and unit tests
	@$(MAKE) --no-print-directory --jobs --output-sync=target check-units check-types check-style

check-style:
	$(RUN)/ruff format --check
	$(RUN)/ruff check
	$(RUN)/lint-imports --cache-dir var/cache/import-linter

check-types:
	$(RUN)/mypy

check-units:
	$(RUN)/pytest --numprocesses logical --dist worksteal

bench: install ## the benchmarks
	@$(RUN)/python -m dev.bench

format: $(VENV)/.synced ## format the code and apply automatic fixes
	$(RUN)/ruff format
	$(RUN)/ruff check --fix

lock: $(VENV)/.uv ## update dev/locks from pyproject.toml; UPGRADE=1 takes newer versions
	$(COMPILE) --extra gateway --extra pipeline --extra embeddings --extra notifier --extra dev pyproject.toml \
		-o dev/locks/dev.txt
	$(COMPILE) --extra gateway --extra pipeline --extra embeddings --extra notifier pyproject.toml \
		-c dev/locks/dev.txt -o dev/locks/runtime.txt
	$(COMPILE) dev/locks/swift.in -o dev/locks/swift.txt
	echo uv | $(COMPILE) --no-annotate - -o dev/locks/bootstrap.txt

# The environment, Swift's environment and the broker are installed concurrently.
install: ## install what the other tasks need; they run it themselves
	@$(MAKE) --silent --jobs=3 \
		$(VENV)/.installed $(if $(S3_ENDPOINT_URL),,$(SWIFT_VENV)/.synced) rabbitmq tessdata

rabbitmq:
	@sh dev/stack/install/rabbitmq.sh

# After the broker, because both may update the lists of packages.
tessdata: rabbitmq
	@sh dev/stack/install/tessdata.sh

# Only tests need it. After the broker, because both may update the lists of packages.
nginx: install
	@sh dev/stack/install/nginx.sh

# Only tests need it. After nginx, because both may update the lists of packages.
clamav: nginx
	@sh dev/stack/install/clamav.sh

# Only tests need it.
npm:
	@sh dev/stack/install/npm.sh

$(VENV)/.uv: dev/locks/bootstrap.txt
	@sh dev/stack/install/venv.sh $(PYTHON) $(VENV)
	@$(RUN)/python -m pip install -qq --require-hashes -r $<
	@touch $@

$(VENV)/.synced: dev/locks/dev.txt $(VENV)/.uv
	@echo "installing $<"
	@$(SYNC) --python $(RUN)/python $< || $(RUN)/python -m pip install --require-hashes -r $<
	@touch $@

# The console scripts, built offline by the locked setuptools.
EDITABLE := --quiet --no-deps --no-build-isolation --editable .
$(VENV)/.installed: pyproject.toml $(VENV)/.synced
	@$(RUN)/uv pip install --offline --python $(RUN)/python $(EDITABLE) || $(RUN)/python -m pip install $(EDITABLE)
	@touch $@

# Swift pins other versions of libraries, so it has its own environment.
$(SWIFT_VENV)/.synced: dev/locks/swift.txt $(VENV)/.uv
	@echo "installing $<"
	@$(PYTHON) -m venv --without-pip $(SWIFT_VENV)
	@$(SYNC) --python $(SWIFT_VENV)/bin/python $< \
		|| $(RUN)/python -m pip --python $(SWIFT_VENV)/bin/python install --require-hashes -r $<
	@touch $@
