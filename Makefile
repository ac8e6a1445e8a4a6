# `make help` lists what there is to do.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
SUDO := $(if $(filter 0,$(shell id -u)),,sudo)
# A folder with a pyproject.toml is a package; there is no other list.
PROJECTS := $(wildcard libs/*/pyproject.toml services/*/pyproject.toml tools/*/pyproject.toml harness/pyproject.toml)
PACKAGES := $(PROJECTS:/pyproject.toml=)
PIP := $(BIN)/pip --disable-pip-version-check
# Install Debian's packages: $(call install,packages), or $(call needs,programs,packages).
install = echo "installing from Debian: $(1)"; \
  $(SUDO) apt-get update -qq && $(SUDO) env DEBIAN_FRONTEND=noninteractive \
  apt-get install -y -qq --no-install-recommends $(1) >/dev/null
needs = PATH="$$PATH:/usr/sbin"; for one in $(1); do \
  command -v $$one >/dev/null || { { $(call install,$(2)); } || exit 1; break; }; done
# Install what a lock names, a line for each package: $(call locked,lock).
locked = all=$$(grep -c == $(1)); n=0; \
  { $(PIP) install --require-hashes -r $(1) || echo failed; } | while read -r word what rest; do \
    case $$word in \
      Ignoring) all=$$((all - 1)) ;; \
      Requirement) n=$$((n + 1)) ;; \
      Collecting|Processing) n=$$((n + 1)); echo "  $$n of $$all  $$(basename $$what)" ;; \
      Installing) echo "  all here, unpacking" ;; \
      failed) exit 1 ;; \
    esac; \
  done
SOURCES := libs services tools harness tests bench deploy
# What is in an image is locked for itself, in the versions that the tests use.
IMAGES := build reader simulator mongo-recorder sql-writer sql-relay dashboard verify backup

.PHONY: help
help:  ## Explain the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: demo
demo: $(VENV)/.demo system system-sql  ## See readings travel from a stick (simulated, or RAVEN_DEVICE=…) into every store (DURATION=20 to end by itself)
	@$(BIN)/python -m raven_harness.demo

# Some tests change a server for a moment, so one of yours takes one test at a time.
# Hundreds of processes are started: each compiles all that it imports where bytecode is not kept.
WORKERS = $(if $(MYSQL_ADMIN_URL),0,$(shell echo $$((3 * $$(nproc)))))
.PHONY: test
test: $(VENV)/.dev system system-sql system-browser system-trace  ## Run every test, against a real broker, MariaDB and a MongoDB-speaking server
	PYTHONDONTWRITEBYTECODE= $(BIN)/pytest -n $(WORKERS) --dist worksteal

.PHONY: compose-test
compose-test: $(VENV)/.dev  ## Run docker-compose.yml for real, with what stands in for images that cannot be pulled
	@tests/compose/run

.PHONY: brokers
brokers: $(VENV)/.dev system system-sql  ## Run the delivery tests on Mosquitto 2.0 and 2.1, RabbitMQ and ejabberd, as root
	@tests/brokers/fetch.sh
	@harness/src/raven_harness/crash/fetch.sh
	$(BIN)/pytest tests/brokers

.PHONY: cluster-test
cluster-test: $(VENV)/.dev system system-sql  ## Run writers and relays on three nodes of Galera, and of RabbitMQ, that are killed, cut off and restarted, as root
	@tests/cluster/fetch.sh
	$(BIN)/pytest tests/cluster

.PHONY: power-test
power-test: $(VENV)/.dev system system-sql system-trace  ## Cut the power of a whole home CUTS (300) times, and look for what was promised
	@harness/src/raven_harness/crash/fetch.sh
	CUTS=$(or $(CUTS),300) $(BIN)/pytest -o faulthandler_timeout=0 tests/power -s

.PHONY: homeassistant-test
homeassistant-test: $(VENV)/.dev system system-browser  ## Run a real Home Assistant (in a Debian sid of its own) against the reader, as root
	@tests/homeassistant/fetch.sh
	$(BIN)/pytest tests/homeassistant -o faulthandler_timeout=600

.PHONY: machine-test
machine-test: dist  ## Plug simulated sticks into a virtual machine with Debian's kernel, udev, ModemManager and Docker, as root
	@$(call needs,qemu-system-x86_64 mmdebstrap systemd-nspawn ssh,qemu-system-x86 mmdebstrap systemd-container openssh-client)
	@tests/machine/image.sh
	$(BIN)/pytest -o faulthandler_timeout=0 -s tests/machine

.PHONY: bare-test
bare-test:  ## Type the README's lines on a bare Debian of the release DEBIAN (trixie), as root
	@tests/bare/run

.PHONY: dist
dist: $(VENV)/.dev  ## Build dist/ for pip and pipx, the same bytes from the same commit
	@rm -rf dist && SOURCE_DATE_EPOCH=$$(git log -1 --format=%ct) $(BIN)/python -m hatchling build -d dist
	@$(MAKE) --no-print-directory constraints >dist/constraints.txt

.PHONY: constraints
constraints:  ## Print the versions that the tests use of what the distribution needs
	@sed -n 's/^\([a-z0-9._-]*==[^ ]*\)\( ; .*\)\? \\$$/\1\2/p' $(IMAGES:%=requirements/%.txt) | sort -u

.PHONY: dist-test
dist-test: $(VENV)/.dev  ## Build it twice, compare, and call each command in empty environments
	$(BIN)/pytest tests/distribution

.PHONY: install-test
install-test: dist system  ## Set it up on an empty Debian of the release DEBIAN (trixie) that boots systemd, break it, remove it, as root
	@tests/installed/fetch.sh $(or $(DEBIAN),trixie)
	DEBIAN=$(or $(DEBIAN),trixie) $(BIN)/pytest tests/installed

.PHONY: emulated-test
emulated-test: dist  ## Install it, and run a reader, on an empty Debian of the release DEBIAN (trixie) for arm64, which QEMU plays, as root
	@tests/installed/emulated $(or $(DEBIAN),trixie) arm64

.PHONY: alerts-test
alerts-test:  ## Check deploy/prometheus: each alert comes when it should, and not before
	@# Unpacked, not installed: Debian's package starts a server.
	@[ -x .brokers/prometheus/usr/bin/amtool ] || { mkdir -p .brokers && cd .brokers && \
	  echo "fetching Debian's promtool and amtool" && \
	  { apt-get download -qq promtool 2>/dev/null || apt-get download -qq prometheus; } && \
	  apt-get download -qq prometheus-alertmanager && \
	  for one in prom*.deb; do dpkg -x $$one prometheus; done; }
	@cd deploy/prometheus && promtool=../../.brokers/prometheus/usr/bin/promtool && \
	  $$promtool check config prometheus.yml && $$promtool test rules rules.test.yml
	@.brokers/prometheus/usr/bin/amtool check-config deploy/alertmanager/*.yml

.PHONY: crash
crash: $(VENV)/.dev system system-sql  ## Break everything for MINUTES (60) by the script of SEED (a new one), count what is lost
	@harness/src/raven_harness/crash/fetch.sh
	@$(BIN)/python -m raven_harness.crash$(if $(PEER),.peers $(PEER)) --minutes $(or $(MINUTES),60) \
	  $(if $(SEED),--seed $(SEED)) $(if $(WRITE),--write $(WRITE))

.PHONY: fleet
fleet: $(VENV)/.dev system system-sql  ## Play HOMES (1000) for MINUTES (10) with outages, say what each part takes, count what is lost
	@$(BIN)/python -m raven_harness.fleet --homes $(or $(HOMES),1000) --minutes $(or $(MINUTES),10)

.PHONY: soak
soak: $(VENV)/.dev system system-sql  ## Run a home at its real pace for HOURS (1), judge what grows, then take its clocks through a year
	@harness/src/raven_harness/crash/fetch.sh
	@mkdir -p .soak
	@$(BIN)/python -m raven_harness.soak --hours $(or $(HOURS),1) --samples .soak/samples.jsonl

.PHONY: reliability
reliability:  ## Do the same, beside raven2mqtt too, and write the tables of docs/reliability.md
	@$(MAKE) --no-print-directory crash WRITE=docs/reliability.md
	@$(MAKE) --no-print-directory crash PEER=raven2mqtt WRITE=docs/reliability.md

SECONDS ?= 600
.PHONY: fuzz
fuzz: $(VENV)/.dev  ## Look for bytes and messages that break a decoder, SECONDS=600 in all (x86-64)
	@mkdir -p .fuzz && $(BIN)/python -m tests.fuzz.run $(SECONDS)

.PHONY: check
check: $(VENV)/.dev $(VENV)/.release  ## Check style and types, and the locks for known vulnerabilities
	$(BIN)/ruff check $(SOURCES)
	$(BIN)/ruff format --check $(SOURCES)
	$(BIN)/mypy
	@$(BIN)/python -m raven_harness.audit

.PHONY: bench
bench: $(VENV)/.dev system system-sql  ## Measure what it costs, and rewrite docs/performance.md
	$(BIN)/python bench/run.py

.PHONY: compose-bench
compose-bench: $(VENV)/.dev  ## Measure the containers, and rewrite docs/performance-containers.md
	@tests/compose/run bench

.PHONY: docs
docs: $(VENV)/.dev  ## Write docs/contract, configuration.md and licences.md and the names of settings from the code
	$(BIN)/python -m raven_harness.generate

.PHONY: site
site: $(VENV)/.site  ## Make docs/ a site in site/, with every link checked
	@NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet
	@echo "site/index.html is its first page; to search in it: $(BIN)/mkdocs serve"

.PHONY: release
release: $(VENV)/.dev $(VENV)/.release  ## Build wheel, sdist, images, SBOMs and checksums into dist/ (PUSH=registry/owner sends the images there)
	@$(BIN)/python -m raven_harness.release $(if $(PUSH),--push $(PUSH))

.PHONY: release-test
release-test: $(VENV)/.dev $(VENV)/.release  ## Release the last commit to a registry on this machine, and run its images, as root
	@tests/release/run

.PHONY: lock
lock: $(VENV)/.dev  ## Lock the newest versions of what requirements/*.in ask for
	for name in requirements/demo requirements/dev bench/peers tests/fuzz/requirements; do \
	  $(BIN)/uv pip compile --quiet --upgrade --universal --generate-hashes --python-version 3.11 \
	    --custom-compile-command "make lock" $$name.in -o $$name.txt || exit 1; \
	done
	for name in $(IMAGES:%=requirements/%) requirements/site requirements/release; do \
	  $(BIN)/uv pip compile --quiet --universal --generate-hashes --python-version 3.11 \
	    --custom-compile-command "make lock" -c requirements/dev.txt $$name.in -o $$name.txt || exit 1; \
	done

.PHONY: clean
clean:  ## Remove what the other targets made here
	rm -rf $(VENV) site dist .peers .brokers .installed .crash .fuzz .soak .compose-test .machine .release-test .screenshots .mypy_cache .pytest_cache .ruff_cache .hypothesis

# What Debian has to bring.  No server of the system's own is started but Mosquitto's.
.PHONY: system
system:
	@$(call needs,mosquitto_passwd mosquitto_sub,mosquitto mosquitto-clients)

.PHONY: system-sql
system-sql:
	@$(call needs,mariadbd mariadb-install-db,mariadb-server-core mariadb-client-core)

# The browser in which tests look at the dashboard's pages, and letters for it.
.PHONY: system-browser
system-browser:
	@$(call needs,chromium,chromium fonts-dejavu-core)

# What records the file operations of which power cuts are made.
.PHONY: system-trace
system-trace:
	@$(call needs,strace,strace)

$(VENV)/bin/pip:
	@$(call needs,$(PYTHON),python3)
	@$(PYTHON) -c 'import sys; sys.exit("Python 3.11 or newer is needed, this is " + sys.version if sys.version_info < (3, 11) else 0)'
	@$(PYTHON) -c 'import ensurepip' 2>/dev/null || { $(call install,python3-venv); }
	$(PYTHON) -m venv $(VENV)

# The packages of the lock first, then our own from this folder.
$(VENV)/.demo $(VENV)/.dev: $(VENV)/.%: requirements/%.txt $(PROJECTS) | $(VENV)/bin/pip
	@echo "installing Python packages into $(VENV), some minutes on a small computer"
	@$(call locked,$<)
	@echo "  our own, from this folder"
	@$(PIP) --quiet install --no-deps --no-build-isolation $(PACKAGES:%=-e %)
	@touch $@

$(VENV)/.release $(VENV)/.site: $(VENV)/.%: requirements/%.txt | $(VENV)/bin/pip
	@echo "installing Python packages for this into $(VENV)"
	@$(call locked,$<)
	@touch $@
