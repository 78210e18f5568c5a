# Everything a developer does, with nothing but python3 (3.11 or newer), git and make.
#
#   make demo            watch a repository travel through a local network (REPO=path for one of yours)
#   make test            formatting, lint, types, and every test that needs no root and no service
#   make test-interop    stock git against a network of nodes, every way to fetch and push; needs ssh-keygen
#   make test-postgres   the tests that need a PostgreSQL server; as root on Debian it installs one
#   make test-wan        twenty nodes, 50 ms from each other, in network namespaces; needs root and Linux
#   make test-containers the tests of docker-compose.yml; they need root, and install a Docker Engine on Debian
#   make venv            only build .venv, with exactly the locked packages
#   make model           random lossy schedules of maintainers and replicas (N=20000 SEED=1)
#   make sim             a thousand nodes in virtual time (NODES=1000 SEED=1 SCENARIO=news; SCENARIO=list: what there is)
#   make partitions  a network of 50 nodes in two to five parts, 500 pushes in each, healed (N=100 seeds from SEED=1 on; two at a time)
#   make rows            hostile peers with the whole numbers of docs/threats.md, where make test has fewer (SEED=…): half an hour
#   make crash           kill nodes with SIGKILL and look at what is left (N=100 kills; SEED=… for the same again, KILL=… one of them)
#   make bench           the figures of docs/benchmarks.md
#   make lock            compute both lock files anew from pyproject.toml
#   make clean           remove what the other targets made
#
# Another interpreter: make PYTHON=python3.12 test

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/pip --disable-pip-version-check -q
UV := $(VENV)/lock/bin/uv
COMPILE := pip compile -q --universal --python-version 3.11 --generate-hashes --no-header

.PHONY: help venv test test-interop test-postgres postgres-programs test-wan test-containers demo model sim partitions rows crash bench lock clean check-python

help:
	@sed -n 's/^#   //p' Makefile

# The packages: made anew when the lock changes, so that none stays that the lock no longer names.
$(VENV)/.locked: requirements-dev.lock | check-python
	@echo "==> making $(VENV) with the packages of requirements-dev.lock ($$($(PYTHON) --version))"
	@$(PYTHON) -m venv --clear $(VENV)
	@$(PIP) install --require-hashes -r requirements-dev.lock
	@touch $@

# Guts itself, editable: sources take effect at once, only changed metadata needs this step again.
$(VENV)/.installed: $(VENV)/.locked pyproject.toml
	@echo "==> installing guts into $(VENV) (editable)"
	@$(PIP) install --no-deps --no-build-isolation -e .
	@touch $@

check-python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
		echo "Guts needs Python 3.11 or newer; $(PYTHON) is $$($(PYTHON) --version 2>&1)." >&2; \
		echo "Name another one:  make PYTHON=python3.12 $(MAKECMDGOALS)" >&2; \
		exit 1; }

venv: $(VENV)/.installed

test: venv
	@echo "==> ruff: format and lint"
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@echo "==> mypy --strict"
	@$(BIN)/mypy
	@echo "==> pytest"
	@$(BIN)/pytest -q

test-interop: venv
	@command -v ssh-keygen >/dev/null || $(MAKE) --no-print-directory openssh-client
	@echo "==> pytest, with stock git ($$(git --version))"
	@$(BIN)/pytest -q -m interop

# The server that the benchmarks start is their own: Debian's package is told to start none (RUNLEVEL=1).
openssh-%:
	@test "$$(id -u)" = 0 && command -v apt-get >/dev/null || { \
		echo "Install OpenSSH's $* (Debian, Ubuntu: the package $@). Run by root on Debian or Ubuntu, this does it itself." >&2; \
		exit 1; }
	@echo "==> installing $@"
	@apt-get update -qq
	@RUNLEVEL=1 DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends $@ >/dev/null

# The tests start servers in folders of their own: Debian's package is told to make and start none.
test-postgres: venv
	@$(BIN)/python -m tests.support.postgres || $(MAKE) --no-print-directory postgres-programs
	@$(BIN)/python -m tests.support.postgres
	@echo "==> pytest, with a PostgreSQL server"
	@$(BIN)/pytest -q -m postgres

postgres-programs:
	@test "$$(id -u)" = 0 && command -v apt-get >/dev/null || { \
		echo "Install PostgreSQL's server, version 14 or newer (Debian, Ubuntu: the package postgresql); then again:" >&2; \
		echo "make test-postgres. Run by root on Debian or Ubuntu, it installs the server itself." >&2; \
		exit 1; }
	@echo "==> installing postgresql"
	@apt-get update -qq
	@DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends postgresql-common >/dev/null
	@sed -i 's/^#\? *create_main_cluster *=.*/create_main_cluster = false/' /etc/postgresql-common/createcluster.conf
	@DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends postgresql >/dev/null

# The machine's own network is not touched.
test-wan: venv
	@test "$$(id -u)" = 0 || { echo "make test-wan makes network namespaces, and so needs root." >&2; exit 1; }
	@command -v ip >/dev/null || { \
		command -v apt-get >/dev/null || { echo "Install iproute2; then again: make test-wan." >&2; exit 1; }; \
		echo "==> installing iproute2"; apt-get update -qq; \
		DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends iproute2 >/dev/null; }
	@echo "==> pytest, on a network of namespaces"
	@$(BIN)/pytest -q -s -m wan

# The engine is the tests' own, in a folder of its own, and ends with them.
test-containers: venv
	@tests/containers/prepare.sh build/containers
	@echo "==> pytest, with a Docker Engine"
	@$(BIN)/pytest -q -m containers

demo: venv
	@$(BIN)/guts demo $(if $(REPO),'$(REPO)')

model: venv
	@$(BIN)/python -m tests.simulation.trust_model $(or $(N),20000) $(or $(SEED),1)

sim: venv
	@$(BIN)/python -m tests.simulation $(if $(filter list,$(SCENARIO)),--list,$(or $(SCENARIO),news) $(if $(NODES),--nodes $(NODES)) --seed $(or $(SEED),1) $(OPTIONS))

# Each run prints itself as a whole, with the command that replays it where something is missed.
partitions: venv
	@seq $(or $(SEED),1) $$(($(or $(SEED),1) + $(or $(N),100) - 1)) | xargs -P 2 -I SEED sh -c \
		'said=$$($(BIN)/python -m tests.simulation partition --nodes 50 --seed SEED 2>&1); status=$$?; printf "%s\n" "$$said"; exit $$status'

rows: venv
	@GUTS_SEQUENCES=50000 GUTS_GREEDY=100000 GUTS_REPLAYS=1000000 GUTS_FUZZ_PREFIXES=1000000 $(BIN)/pytest -q -s \
		-k 'b1_ or b2_ or b6_ or a4_' $(if $(SEED),--hypothesis-seed=$(SEED)) tests/unit/service tests/simulation tests/adversarial

crash: venv
	@$(BIN)/python -m tests.crash --count $(or $(N),100) $(if $(SEED),--seed $(SEED)) $(if $(KILL),--kill $(KILL))

bench: venv
	@test -x /usr/sbin/sshd || $(MAKE) --no-print-directory openssh-server
	@$(BIN)/python -m tests.benchmarks

lock: venv
	@echo "==> resolving pyproject.toml into requirements.lock and requirements-dev.lock"
	@$(PYTHON) -m venv --clear $(VENV)/lock
	@$(VENV)/lock/bin/pip --disable-pip-version-check -q install uv
	@UV_PYTHON_DOWNLOADS=never $(UV) $(COMPILE) --extra postgres pyproject.toml -o requirements.lock
	@UV_PYTHON_DOWNLOADS=never $(UV) $(COMPILE) --group dev pyproject.toml -o requirements-dev.lock
	@! grep -n '://' requirements.lock requirements-dev.lock

clean:
	@echo "==> removing $(VENV), caches and built packages"
	@rm -rf $(VENV) build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .coverage
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +
