# Everything a fresh machine with Rust needs is set up by these targets.
#   make run    build and start on 127.0.0.1:9090 with the example configuration
#   make test   what CI runs first: format, lints, spelling, all tests
#   make interop  tests beside Prometheus, Alertmanager and node_exporter (Debian packages)

SHELL := /bin/bash
VENV := .cache/venv

.PHONY: run build test lint spelling interop clean

build:
	cargo build --release

run: build
	@mkdir -p data
	@echo "Narthex starts on http://127.0.0.1:9090"
	@echo "  queries   http://127.0.0.1:9090/api/v1/query?query=up"
	@echo "  targets   http://127.0.0.1:9090/api/v1/targets"
	@echo "  metrics   http://127.0.0.1:9090/metrics"
	@echo "  alerts    http://127.0.0.1:9090/alertmanager/api/v2/alerts"
	target/release/narthex --config.file=rules-examples/narthex.yml \
	  --web.listen-address=127.0.0.1:9090 --storage.tsdb.path=data --web.enable-lifecycle

test: lint spelling
	cargo test

lint:
	cargo fmt --check
	cargo clippy --all-targets --quiet -- -D warnings

spelling: $(VENV)/bin/typos
	$(VENV)/bin/typos

$(VENV)/bin/typos:
	python3 -m venv $(VENV)
	$(VENV)/bin/pip install --quiet typos==1.52.0

interop:
	tests/interop/run.sh

clean:
	cargo clean
	rm -rf .cache
