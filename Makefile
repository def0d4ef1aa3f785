# airunner. `make` alone lists what can be made; each target needs only Python 3.11 or newer, git and make.

PYTHON := $(shell for p in python3.11 python3.12 python3.13 python3.14 python3; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done)
VENV := .venv
SEEDS ?= 1000
SECONDS ?= 120
N ?= 20
REQUESTS ?= 1000000
STREAMS ?= 1000000
BIN := $(VENV)/bin
SITE = said=$$(NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --config-file scripts/mkdocs.yml 2>&1) || { echo "$$said"; exit 1; }
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check

.DEFAULT_GOAL := help
.PHONY: help demo test check format sim mutants chaos chaos-ha failovers cache-kills fuzz web-fuzz screens web-screens web-large bench bench-cli bench-cache bench-store bench-peers kube-apiserver aws-emulators aws-up aws-down aws-live aws-laws aws-kills certs up up-ha down docs clean

help: ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 20

demo: $(VENV)/.test ## install, start a local cluster, run a job through it, stop it
	@$(BIN)/python scripts/demo.py

test: $(VENV)/.test ## run every test, and hold the coverage
	@$(BIN)/python scripts/gate.py

check: $(VENV)/.check ## ruff, mypy, pyright, cfn-lint, the links of docs/ and the house's own rules
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/cfn-lint deploy/aws/airunner.yaml
	@$(SITE)
	@# The two that take longest run side by side.
	@$(BIN)/pyright & types=$$!; $(BIN)/mypy && $(BIN)/python -m pytest -q tests/test_tidy.py; code=$$?; \
		wait $$types && exit $$code

format: $(VENV)/.check ## format the code
	$(BIN)/ruff check --fix --exit-zero .
	$(BIN)/ruff format .

sim: $(VENV)/.test ## break a simulated world by SEEDS=1000 seeds and judge what it did
	@$(BIN)/python -m tests.simulation --seeds 0:$(SEEDS)

mutants: $(VENV)/.test ## show that the simulation finds each of its lies, and by which seed
	@$(BIN)/python -m tests.simulation --mutants --search

chaos: $(VENV)/.test ## kill and stop real processes for SECONDS=120, and judge what is left
	@$(BIN)/python -m tests.acceptance.chaos --seconds $(SECONDS)

chaos-ha: $(VENV)/.test ## kill, stop and part three brokers on PostgreSQL for SECONDS=120, and judge what is left
	@$(BIN)/python -m tests.acceptance.chaos_ha --seconds $(SECONDS)

failovers: $(VENV)/.test ## fail PostgreSQL over to a standby N=20 times under load, and judge what is left; ASYNCHRONOUS=1
	@$(BIN)/python -m tests.acceptance.failovers --failovers $(N) $(if $(ASYNCHRONOUS),--asynchronous)

cache-kills: $(VENV)/.test ## kill jobs that write a cache, and their agent, N=20 times, and judge what the next jobs get
	@$(BIN)/python -m tests.acceptance.cachekills --kills $(N)

fuzz: $(VENV)/.test ## send a broker REQUESTS=1000000 and STREAMS=1000000 that are nonsense; SEED=N repeats
	@$(BIN)/python -m tests.fuzz --requests $(REQUESTS) --streams $(STREAMS) $(if $(SEED),--seed $(SEED))

web-fuzz: $(VENV)/.test ## ask the HTTP API what its description allows and forbids, for SECONDS=120; SEED=N repeats
	@$(BIN)/python -m tests.fuzz.httpapi --seconds $(SECONDS) $(if $(SEED),--seed $(SEED))

bench: $(VENV)/.test ## measure everything beside its reference; ONLY=queue,cli measures these, BASE=<rev> compares
	@$(BIN)/python -m bench $(if $(ONLY),--only $(ONLY)) $(if $(BASE),--base $(BASE)) $(if $(JSON),--json)

bench-cli: $(VENV)/.test ## measure how long commands take to start, beside an empty Python program
	@$(BIN)/python -m bench --only cli

bench-cache: $(VENV)/.test ## measure the second run of small projects as jobs with caches, beside their commands alone
	@$(BIN)/python -m bench --only cache

bench-store: $(VENV)/.test ## measure the store on PostgreSQL beside SQLite's, over a slow line and with several brokers
	@$(BIN)/python -m bench --only store

bench-peers: $(VENV)/.test ## measure beanstalkd and PgQueuer with the same work, where they are installed
	@$(MAKE) --no-print-directory $(VENV)/peers/.made || true  # without it PgQueuer is left out
	@$(BIN)/python -m bench.peers $(if $(JSON),--json)

kube-apiserver: $(VENV)/.made ## build a kube-apiserver for the tests of airunner scale, once; needs Go and six minutes
	@$(BIN)/python scripts/kubeapiserver.py

aws-emulators: $(VENV)/.made ## install dynoxide, MiniStack, moto and ElasticMQ for the tests of AWS, once; needs cargo and four minutes; ONLY=pypi
	@$(BIN)/python scripts/awsemulators.py install $(ONLY)

aws-up: $(VENV)/.test ## leave dynoxide and MiniStack running, with a table, queues and a bus for airunner orchestrator
	@$(BIN)/python scripts/awsemulators.py up

aws-down: $(VENV)/.test ## stop both
	@$(BIN)/python scripts/awsemulators.py down

aws-live: $(VENV)/.test ## run the laws in a real account of AWS, with its region and credentials; LIVE=prefix of the tables
	@AIRUNNER_AWS_LAWS=1 AIRUNNER_AWS_LIVE=$(or $(LIVE),airunner-live) $(BIN)/python -m pytest -q -k live tests/aws tests/conformance/test_dynamodb.py

aws-laws: $(VENV)/.test ## run every law of a store on dynoxide and on MiniStack, with one broker and with three; some ten minutes
	@AIRUNNER_AWS_LAWS=all $(BIN)/python -m pytest -q tests/conformance/test_dynamodb.py tests/broker/store/test_largest.py

aws-kills: $(VENV)/.test ## kill dynoxide and brokers N=20 times under load, and judge what is left
	@PYTHONPATH=scripts $(BIN)/python -m tests.aws.kills --kills $(N)

certs: $(VENV)/.test ## make the keys of $AIRUNNER_HOME (default ~/.airunner)
	@$(BIN)/airunner certs init

up: $(VENV)/.test ## leave a local cluster running
	@$(BIN)/airunner up
	@command -v airunner >/dev/null || echo 'to find the command: export PATH="$(abspath $(BIN)):$$PATH"'

up-ha: $(VENV)/.test ## leave two brokers on PostgreSQL running, with two agents
	@$(BIN)/python scripts/hacluster.py up

down: $(VENV)/.test ## stop either of them
	@$(BIN)/python scripts/hacluster.py down
	@$(BIN)/airunner down

docs: $(VENV)/.check ## write what docs/ and JobFields show of the tables in the code, and build/site; its links are checked
	@PYTHONPATH=. $(BIN)/python scripts/docs.py
	@$(BIN)/python scripts/recording.py
	@$(SITE)

screens: $(VENV)/.test ## write the golden files of screens again, in tests/acceptance/screens; then read them
	AIRUNNER_WRITE_SCREENS=1 $(BIN)/python -m pytest -q tests/acceptance/test_screens.py

web-screens: $(VENV)/.test ## write the pictures of pages in docs/screens again; then look at them
	AIRUNNER_WRITE_SCREENS=1 $(BIN)/python -m pytest -q tests/browser/test_pages.py

web-large: $(VENV)/.test ## measure pages with a log of 100 MB, a search of 1 GB and a flood of output, in Chromium
	@$(BIN)/python -m tests.browser.large

clean: ## remove what was made here
	rm -rf $(VENV) build *.egg-info .coverage* .mypy_cache .pytest_cache .ruff_cache .hypothesis

$(VENV)/.made:
	@test -n "$(PYTHON)" || { echo "airunner needs Python 3.11 or newer on the PATH" >&2; exit 1; }
	@$(PYTHON) -m venv $(VENV)
	@touch $@

$(VENV)/.test: $(VENV)/.made pyproject.toml
	@echo "installing into $(VENV)"
	@$(PIP) --editable '.[test]'
	@touch $@

$(VENV)/.check: $(VENV)/.test
	@echo "installing the checkers into $(VENV)"
	@$(PIP) --editable '.[check,docs]'
	@touch $@

$(VENV)/peers/.made: $(VENV)/.made
	@$(PYTHON) -m venv $(VENV)/peers
	@$(VENV)/peers/bin/python -m pip install --quiet --disable-pip-version-check 'pgqueuer[asyncpg]' msgspec
	@touch $@
