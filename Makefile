# The project's commands. CI runs the same ones: a red run is reproduced by one word.
#
#   make demo                 builds and runs the demo (ARGS="--http 8081" changes a port)
#   make test                 everything that must pass, with what it needs installed first
#   make test-slow            10,000 idle WebSockets over a reload and an upgrade (needs 20,200 descriptors: ulimit -n)
#   make check                formatting, lints and documentation
#   make release              the binary that one would deploy: target/release/sealane
#   make load-failover        a region dies under load; prints the timeline (against a running demo)
#   make load-floods          a good client beside floods of twenty kinds; prints a table (a release build)
#   make fuzz TARGET=NAME     needs a nightly toolchain and cargo-fuzz
#   make fuzz-short           ten seconds for each target of the HTTP/1 codec, on the stable toolchain

CARGO ?= cargo
SUDO := $(shell [ "$$(id -u)" = 0 ] || command -v sudo)
# cmake builds zlib-ng, which Pingora's core links.
BUILD_NEEDS := cmake cc
FUZZ_NEEDS := cc g++
TEST_NEEDS := $(BUILD_NEEDS) curl dig openssl socat pebble h2load nghttp nghttpd

.PHONY: demo test test-slow check fmt clippy doc release load-failover load-floods fuzz fuzz-short needs-build needs-test needs-fuzz

demo: needs-build
	$(CARGO) run --locked -p sealane -- demo $(ARGS)

test: needs-test
	$(CARGO) test --locked --workspace

test-slow: needs-test
	SEALANE_IDLE_WEBSOCKETS=10000 $(CARGO) test --locked -p sealane --test websockets -- --nocapture

check: fmt clippy doc

fmt:
	$(CARGO) fmt --all --check

clippy: needs-build
	$(CARGO) clippy --locked --workspace --all-targets -- -D warnings

doc:
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc --locked --workspace --no-deps

release: needs-build
	$(CARGO) build --locked --release -p sealane

load-failover: needs-build
	$(CARGO) run --locked -p sealane-loadtests --bin failover -- $(ARGS)

load-floods: release
	$(CARGO) run --locked --release -p sealane-loadtests --bin floods -- run $(ARGS)

fuzz:
	$(CARGO) +nightly fuzz run --fuzz-dir fuzz $(TARGET) -- -max_total_time=60

# What cargo-fuzz passes, without the sanitizer that needs a nightly toolchain. With --target, so that
# build scripts are spared.
FUZZ_FLAGS := -Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
  -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
  -Cllvm-args=-sanitizer-coverage-trace-compares --cfg fuzzing

# What is found goes into a directory that is not kept; the seeds are only read.
fuzz-short: needs-fuzz
	@host=$$(rustc -vV | sed -n 's/^host: //p'); found=fuzz/h1/target/found; \
	for target in h1_request h1_answer h1_chunked; do \
	  mkdir -p $$found/$$target fuzz/artifacts/$$target; \
	  if ! RUSTFLAGS="$(FUZZ_FLAGS)" $(CARGO) run -q --locked --manifest-path fuzz/h1/Cargo.toml --target $$host --bin $$target -- \
	    $$found/$$target fuzz/seeds/$$target -artifact_prefix=fuzz/artifacts/$$target/ \
	    -max_total_time=10 -max_len=4096 -verbosity=0 -print_final_stats=1 >$$found/$$target.log 2>&1; then \
	    tail -n 40 $$found/$$target.log >&2; exit 1; \
	  fi; \
	  echo "$$target: $$(sed -n 's/^stat::number_of_executed_units: *//p' $$found/$$target.log) inputs"; \
	done

# Installs what is missing, by Debian's names; elsewhere it says what to install.
needs-build needs-test needs-fuzz: needs-%:
	@PATH=$$PATH:/usr/sbin; missing=; for tool in $(if $(filter test,$*),$(TEST_NEEDS),$(if $(filter fuzz,$*),$(FUZZ_NEEDS),$(BUILD_NEEDS))); do \
	  command -v $$tool >/dev/null 2>&1 && continue; \
	  case $$tool in dig) package=bind9-dnsutils;; cc) package=gcc;; \
	    h2load|nghttp) package=nghttp2-client;; nghttpd) package=nghttp2-server;; *) package=$$tool;; esac; \
	  missing="$$missing $$package"; \
	done; \
	[ -z "$$missing" ] && exit 0; \
	if ! command -v apt-get >/dev/null 2>&1; then echo "please install:$$missing" >&2; exit 1; fi; \
	echo "installing:$$missing"; \
	$(SUDO) apt-get update -qq && \
	DEBIAN_FRONTEND=noninteractive $(SUDO) apt-get install -y -qq --no-install-recommends $$missing >/dev/null
