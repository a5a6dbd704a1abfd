# The commands of a contributor. Each target first installs its missing requirements.

CARGO ?= cargo
# Arguments of the demo, for example: make demo ARGS='--duration 30s'
ARGS ?=
# The duration of fuzzing each target, in seconds, and the targets.
FUZZ_SECONDS ?= 600
FUZZ_TARGETS ?= protocol resp settings web_config http traceparent exposition
# The duration of the soak test, in seconds.
SOAK_SECONDS ?= 3600
# The scrape and evaluation interval of the stack's Prometheus; durations in the rules are shortened in proportion.
PACE ?= 1s
# The number of instances of a fleet, the duration of the measurement in minutes, and the scrape interval in seconds.
INSTANCES ?= 1000
MINUTES ?= 5
INTERVAL ?= 15
# The commit to compare the public API with.
BASELINE ?= origin/main
# Combinations of the library's features that users choose.
COMBINATIONS := tls,exporter tls,middleware tls,axum,exporter tls,otel tls,otlp tls,redis proxy,exporter
# Why the instructions of the hot paths changed.
REASON ?=
export REASON
COUNT_INSTRUCTIONS := $(CARGO) run --locked --quiet --profile instructions -p poolscope-instructions
# The oldest supported compiler: rust-version in Cargo.toml.
MSRV := 1.88

.DEFAULT_GOAL := help
.PHONY: help demo stack test lint page bench instructions bench-proxy proxy-regress diagnose fuzz soak incidents sizing model versions api fleet schema msrv semver advisories package release fmt setup clean

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-11s  %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: ## Run the demo: a private PostgreSQL, a workload, the exporter and Jaeger's page (ARGS='…')
	@scripts/setup demo
	@echo 'Building the demo (some minutes the first time), then starting it; its first line is the address of its page.' >&2
	@POOLSCOPE_PG_BIN="$$(scripts/setup postgres-bin)" $(CARGO) run --profile demo --locked -p poolscope-cli --features jaeger --bin poolscope -- demo $(ARGS)

stack: ## Run the demo, Prometheus and Alertmanager together (ARGS='--scenario leak', PACE=15s)
	@scripts/setup stack
	@echo 'Building the demo (some minutes the first time), then starting it with Prometheus and Alertmanager.' >&2
	@$(CARGO) build --profile demo --locked -p poolscope-cli --features jaeger --bin poolscope
	@PACE='$(PACE)' scripts/stack "$${CARGO_TARGET_DIR:-target}/demo/poolscope" $(ARGS)

test: ## Run all tests, including those with a real PostgreSQL and the documentation's, and count instructions
	@scripts/setup test
	$(CARGO) test --locked --workspace --all-features
	@# Fails if a hot path is dearer than crates/instructions/counts.toml says.
	$(COUNT_INSTRUCTIONS)
	@# Runs the benchmark briefly and without optimization, only to show that it works.
	$(CARGO) test --locked --quiet -p poolscope --all-features --bench pool -- --quick
	@# The tests that depend on the server's version, with the oldest and the newest.
	@CARGO='$(CARGO)' scripts/versions short oldest newest

lint: ## Check formatting, lints, features, documentation, public API, spelling, dependencies and scripts
	@scripts/setup lint
	$(CARGO) fmt --all --check
	$(CARGO) clippy --locked --workspace --all-targets --all-features -- -D warnings
	$(CARGO) clippy --locked -p poolscope --lib --no-default-features -- -D warnings
	@# Each feature alone, and the combinations that users choose.
	RUSTFLAGS='-D warnings' $(CARGO) hack check --locked --quiet --workspace --each-feature --target-dir target/features
	@for features in $(COMBINATIONS); do \
		RUSTFLAGS='-D warnings' $(CARGO) check --locked --quiet -p poolscope --no-default-features \
			--features $$features --target-dir target/features || exit; \
	done
	RUSTDOCFLAGS='-D warnings' $(CARGO) doc --locked --workspace --lib --no-deps --all-features
	scripts/public-api
	scripts/lint-prose
	codespell
	target/page/node_modules/.bin/tsc --project crates/cli/tests/page
	$(CARGO) deny --locked check --hide-inclusion-graph bans licenses sources
	sh -n scripts/setup
	sh -n scripts/stack
	sh -n scripts/public-api
	sh -n scripts/lint-prose
	sh -n scripts/versions
	sh -n scripts/proxy-regress
	sh -n scripts/release
	sh -n crates/testing/src/server/watchdog.sh
	bash -n .ci/run
	@if command -v shellcheck >/dev/null; then \
		shellcheck scripts/setup scripts/stack scripts/public-api scripts/lint-prose scripts/versions scripts/proxy-regress scripts/release .ci/run && shellcheck --shell=sh crates/testing/src/server/watchdog.sh; \
	fi

page: ## Test the exporter's page in Chromium, and take the documentation's pictures
	@scripts/setup page
	$(CARGO) test --locked -p poolscope-cli --test page -- --include-ignored --skip cost --skip pictures_of_each --nocapture

bench: ## Measure the cost of a checkout
	@scripts/setup bench
	$(CARGO) bench --locked -p poolscope --all-features --bench pool

instructions: ## Count the instructions of the hot paths (REASON='why' writes the counts that differ)
	@scripts/setup instructions
	$(COUNT_INSTRUCTIONS) $(if $(REASON),-- --update "$$REASON")

bench-proxy: ## Compare the proxy with PgBouncer, a copying TCP proxy and direct connections
	@scripts/setup test
	$(CARGO) bench --locked -p poolscope --all-features --bench proxy

proxy-regress: ## Run PostgreSQL's regression tests directly and through the proxy (some minutes)
	@scripts/setup test
	@CARGO='$(CARGO)' scripts/proxy-regress

diagnose: ## Diagnose known causes on real servers, and print the confusion matrix (about half an hour)
	@scripts/setup diagnose
	$(CARGO) test --locked -p poolscope --features exporter --test diagnosis full_run -- --ignored --nocapture
	POOLSCOPE_BLESS=1 $(CARGO) test --locked --quiet -p poolscope --features exporter --test diagnosis -- current committed

fuzz: ## Fuzz what reads foreign input, each target for ten minutes (FUZZ_SECONDS=60 FUZZ_TARGETS='http settings')
	@scripts/setup fuzz
	@# New inputs go to the first directory; the seeds are recorded streams and examples. There is no unsafe code for a
	@# sanitizer; overflow and assertions are checked.
	@for target in $(FUZZ_TARGETS); do \
		mkdir -p fuzz/corpus/$$target; \
		seeds=fuzz/seeds/$$target; \
		[ $$target != protocol ] || seeds=src/wire/recorded; \
		$(CARGO) +nightly fuzz run --sanitizer none $$target fuzz/corpus/$$target $$seeds -- \
			-max_total_time=$(FUZZ_SECONDS) -max_len=4096 -timeout=10 -print_final_stats=1 || exit; \
	done

soak: ## Run the exporter against broken servers, and pools under load and under faults, for an hour each (SOAK_SECONDS=600)
	POOLSCOPE_SOAK_SECONDS='$(SOAK_SECONDS)' $(CARGO) test --release --locked -p poolscope-cli --test cli soak -- --nocapture
	@# Writes target/soak/load.csv and load.svg.
	POOLSCOPE_SOAK_SECONDS='$(SOAK_SECONDS)' $(CARGO) test --release --locked -p poolscope --all-features --test chaos soak:: -- --nocapture
	POOLSCOPE_CHAOS_SECONDS='$(SOAK_SECONDS)' $(CARGO) test --release --locked -p poolscope --all-features --test chaos -- --nocapture --skip soak::
	@# A cache whose Redis is killed, and then suspended, for a minute each.
	POOLSCOPE_OUTAGE_SECONDS=60 $(CARGO) test --release --locked -p poolscope --all-features --test redis_server away -- --nocapture

incidents: ## Kill the demo in every scenario, and read the incident files
	@scripts/setup demo
	POOLSCOPE_ALL_SCENARIOS=1 $(CARGO) test --locked -p poolscope-cli --test cli incidents

model: ## Check the concurrent protocols with loom, more thoroughly than `make test` (minutes)
	LOOM_MAX_PREEMPTIONS=4 $(CARGO) test --release --locked -p poolscope-model

versions: ## Run the tests with real servers against each supported PostgreSQL, Redis and Valkey
	@scripts/setup versions
	@CARGO='$(CARGO)' scripts/versions

sizing: ## Compare the recommended size with simulations, for docs/sizing.md
	POOLSCOPE_BLESS=1 $(CARGO) test --release --locked -p poolscope --lib simulated_grid -- --ignored

api: ## Update docs/public-api.txt after an intended API change
	@scripts/setup lint
	scripts/public-api update

fleet: ## Measure Prometheus and VictoriaMetrics with a fleet's metrics (INSTANCES=1000 MINUTES=5)
	@scripts/setup fleet
	$(CARGO) build --release --locked --quiet -p poolscope-cli --bin poolscope --example fleet
	target/release/examples/fleet --measure target/release/poolscope \
		--instances $(INSTANCES) --minutes $(MINUTES) --interval $(INTERVAL)

msrv: ## Check that the oldest supported compiler builds it
	@scripts/setup msrv
	rustup run $(MSRV) $(CARGO) check --locked --workspace --all-features --lib --bins --target-dir target/msrv

semver: ## Check the public API for breaking changes (BASELINE=origin/main)
	@scripts/setup semver
	$(CARGO) semver-checks -p poolscope --features axum,otlp,tls,web-config --only-explicit-features --baseline-rev $(BASELINE)

advisories: ## Check the dependencies for known vulnerabilities (needs the network)
	@scripts/setup lint
	$(CARGO) deny --locked check --hide-inclusion-graph advisories

package: ## Build the package to publish, from the committed files
	$(CARGO) package --locked -p poolscope

release: ## Build the binary to publish, with its SBOM and checksums (ARGS=--verify: twice, and compare)
	@scripts/setup release
	CARGO='$(CARGO)' scripts/release $(ARGS)

schema: ## Regenerate the dashboards' JSON schema from Grafana's types
	@scripts/setup schema
	@mkdir -p target/schema
	cp $(addprefix crates/cli/tests/monitoring/schema/,package.json package-lock.json tsconfig.json dashboard.ts make.mjs) target/schema
	cd target/schema && npm ci --ignore-scripts --no-audit --no-fund --silent && npx --no-install tsc --project . && \
		node make.mjs ../../crates/cli/tests/monitoring/schema/dashboard.schema.json ../../dashboards/*.json

fmt: ## Format the code
	$(CARGO) fmt

setup: ## Install the requirements of test, lint and bench
	@for purpose in test lint bench; do scripts/setup $$purpose || exit; done

clean: ## Remove build output
	$(CARGO) clean
