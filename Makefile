# Everything that a fresh machine with Rust needs is set up by these targets.
#   make run       build and start on 127.0.0.1:9090 with the example configuration
#   make test      format, lints, spelling and all tests; what CI runs first
#   make interop   tests beside Prometheus, Alertmanager and node_exporter (Debian packages)
#   make crash-test   the store on a simulated disk, SEEDS=10000 random histories
#   make fuzz      FACTOR=1000 times the random inputs of `make test` for whatever reads bytes
#   make bench     the store, its codecs, queries, and how late scrapes begin; SERIES=1000000
#   make conformance  Prometheus' PromQL cases against the running binary (needs ../shared)

SHELL := /bin/bash
VENV := .cache/venv
TYPOS := typos==1.52.0
PEERS := prometheus prometheus-alertmanager prometheus-node-exporter

# PromQL cases that must pass through HTTP; raise it when more do.
CONFORMANCE_MIN := 1311
SHARED := $(or $(NARTHEX_SHARED),../shared)

# Histories that `make crash-test` tries.
SEEDS := 10000
# How much longer than `make test` does `make fuzz` tries inputs.
FACTOR := 1000
# Series of the larger benchmarks.
SERIES := 1000000

.PHONY: run build test lint spelling interop conformance crash-test fuzz bench clean

build:
	cargo build --release

run: build
	@mkdir -p data
	@echo "Narthex starts on http://127.0.0.1:9090"
	@echo "  a query       http://127.0.0.1:9090/api/v1/query?query=up"
	@echo "  targets       http://127.0.0.1:9090/api/v1/targets"
	@echo "  rules         http://127.0.0.1:9090/api/v1/rules"
	@echo "  own metrics   http://127.0.0.1:9090/metrics"
	target/release/narthex --config.file=rules-examples/narthex.yml \
	  --web.listen-address=127.0.0.1:9090 --storage.tsdb.path=data --web.enable-lifecycle

test: lint spelling
	cargo test

lint:
	cargo fmt --check
	cargo clippy --all-targets --quiet -- -D warnings

spelling: $(VENV)/bin/typos
	$(VENV)/bin/typos

$(VENV)/bin/typos: $(VENV)/bin/python
	$(VENV)/bin/pip install --quiet $(TYPOS)

$(VENV)/bin/python:
	python3 -m venv $(VENV)

# The peers are only programs to talk to: nothing of theirs is started as a service.
interop:
	@command -v prometheus prometheus-node-exporter promtool amtool >/dev/null || { \
	  apt-get update -qq && \
	  RUNLEVEL=1 DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $(PEERS); }
	NARTHEX_REQUIRE_PEERS=1 cargo test --test it interop_

conformance: $(VENV)/bin/python
	cargo build
	$(VENV)/bin/pip install --quiet -r $(SHARED)/conformance/requirements.txt
	sed 's#target/release/narthex#$(CURDIR)/target/debug/narthex#; s#{here}#$(abspath $(SHARED))/conformance#' \
	  $(SHARED)/conformance/narthex.cmd > .cache/narthex.cmd
	$(VENV)/bin/python $(SHARED)/conformance/run.py --server-cmd-file .cache/narthex.cmd \
	  --json .cache/conformance.json $(SHARED)/conformance/promql
	@$(VENV)/bin/python -c 'import json, sys; n = json.load(open(".cache/conformance.json"))["passed"]; \
	  sys.exit(0 if n >= $(CONFORMANCE_MIN) else f"only {n} cases pass, not $(CONFORMANCE_MIN)")'

# Random histories of the store on a simulated disk; SIM_SEED=n repeats one.
crash-test:
	SIM_SEEDS=$(SEEDS) cargo test --release --lib storage::tests::crash -- --nocapture

# Each run with other inputs; FUZZ_SEED=n repeats one.
fuzz:
	FUZZ_FACTOR=$(FACTOR) FUZZ_SEED=$${FUZZ_SEED:-$$RANDOM$$RANDOM} \
	  cargo test --release --lib -- ::fuzz:: --nocapture

bench:
	BENCH_SERIES=$(SERIES) cargo bench

clean:
	cargo clean
	rm -rf .cache
