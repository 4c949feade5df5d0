# The project's commands. CI runs the same ones: a red run is reproduced by one word.
#
#   make demo                 builds and runs the demo (ARGS="--http 8081" changes a port)
#   make test                 everything that must pass, with what it needs installed first
#   make test-slow            10,000 idle WebSockets over a reload and an upgrade (needs 20,000 descriptors: ulimit -n)
#   make judge-dns            the name server beside NSD, Knot and BIND: every name with every type, and questions by chance; and a
#                             signed zone judged by Zonemaster and, where it is installed, by DNSViz (as root)
#   make check                formatting, lints and documentation
#   make release              the binary that one would deploy: target/release/sealane
#   make load-failover        a region dies under load; prints the timeline (against a running demo)
#   make load-floods          a good client beside floods of twenty kinds; prints a table (a release build)
#   make load-resilience      a slow, failing, overloaded or lost part, with and without what is to help; prints a table (a release build)
#   make fuzz-short           six seconds for each of the proxy's parsers and the name server, on the stable toolchain; or another:
#                             make fuzz-short FUZZ_SECONDS=600 FUZZ_TARGETS=dns/zone_text
#   make fuzz                 configuration files; needs a nightly toolchain and cargo-fuzz

CARGO ?= cargo
SUDO := $(shell [ "$$(id -u)" = 0 ] || command -v sudo)
# cmake builds zlib-ng, which Pingora's core links.
BUILD_NEEDS := cmake cc
FUZZ_NEEDS := cc g++
TEST_NEEDS := $(BUILD_NEEDS) curl dig delv dnssec-keygen kdig openssl socat pebble h2load nghttp nghttpd nsd knotd named dnstap-read fstrm_capture
JUDGE_NEEDS := $(TEST_NEEDS) zonemaster-cli ip

.PHONY: demo test test-slow judge-dns check fmt clippy doc release load-failover load-floods load-resilience fuzz fuzz-short needs-build needs-test needs-judge needs-fuzz

demo: needs-build
	$(CARGO) run --locked -p sealane -- demo $(ARGS)

test: needs-test
	$(CARGO) test --locked --workspace

test-slow: needs-test
	SEALANE_IDLE_WEBSOCKETS=10000 $(CARGO) test --locked -p sealane --test websockets -- --nocapture

judge-dns: needs-judge
	$(CARGO) test --locked -p sealane-dns --test differential -- --ignored --nocapture
	$(CARGO) build --locked -p sealane
	$(SUDO) loadtests/judges/signed $${CARGO_TARGET_DIR:-target}/debug/sealane

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

load-resilience: release
	$(CARGO) run --locked --release -p sealane-loadtests --bin resilience -- $(ARGS)

fuzz:
	$(CARGO) +nightly fuzz run --fuzz-dir fuzz config_text -- -max_total_time=$(FUZZ_SECONDS)

# What cargo-fuzz passes, without the sanitizer that needs a nightly toolchain. With --target, so that
# build scripts are spared.
FUZZ_FLAGS := -Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
  -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
  -Cllvm-args=-sanitizer-coverage-trace-compares --cfg fuzzing

# Of each crate below fuzz/, its targets. What is found goes into a directory that is not kept; the seeds are
# only read.
FUZZ_SECONDS ?= 6
FUZZ_TARGETS ?= proxy/h1_request proxy/h1_answer proxy/h1_chunked proxy/h2_admission proxy/forwarded \
  proxy/accepted proxy/client_hello proxy/proxy_header dns/dns_question dns/dns_signed

fuzz-short: needs-fuzz
	@host=$$(rustc -vV | sed -n 's/^host: //p'); export CARGO_TARGET_DIR=$${CARGO_TARGET_DIR:-target}/fuzz; \
	for each in $(FUZZ_TARGETS); do \
	  crate=$${each%%/*}; target=$${each#*/}; found=$$CARGO_TARGET_DIR/found/$$target; \
	  mkdir -p $$found fuzz/artifacts/$$target; \
	  if ! RUSTFLAGS="$(FUZZ_FLAGS)" $(CARGO) run -q --locked --manifest-path fuzz/$$crate/Cargo.toml --target $$host --bin $$target -- \
	    $$found fuzz/seeds/$$target -artifact_prefix=fuzz/artifacts/$$target/ -max_total_time=$(FUZZ_SECONDS) \
	    -max_len=4096 -timeout=10 -verbosity=0 -print_final_stats=1 >$$found.log 2>&1; then \
	    tail -n 40 $$found.log >&2; exit 1; \
	  fi; \
	  echo "$$target: $$(sed -n 's/^stat::number_of_executed_units: *//p' $$found.log) inputs"; \
	done

# Debian starts these as services; tests start them themselves.
SERVICES := nsd:nsd knot:knot bind9:named

# Installs what is missing, by Debian's names; elsewhere it says what to install.
needs-build needs-test needs-judge needs-fuzz: needs-%:
	@PATH=$$PATH:/usr/sbin; missing=; for tool in $($(shell echo $* | tr a-z A-Z)_NEEDS); do \
	  command -v $$tool >/dev/null 2>&1 && continue; \
	  case $$tool in dig|delv|dnstap-read) package=bind9-dnsutils;; dnssec-keygen) package=bind9-utils;; kdig) package=knot-dnsutils;; cc) package=gcc;; fstrm_capture) package=fstrm-bin;; \
	    h2load|nghttp) package=nghttp2-client;; nghttpd) package=nghttp2-server;; knotd) package=knot;; named) package=bind9;; ip) package=iproute2;; *) package=$$tool;; esac; \
	  missing="$$missing $$package"; \
	done; \
	[ -z "$$missing" ] && exit 0; \
	if ! command -v apt-get >/dev/null 2>&1; then echo "please install:$$missing" >&2; exit 1; fi; \
	echo "installing:$$missing"; \
	$(SUDO) apt-get update -qq && \
	DEBIAN_FRONTEND=noninteractive $(SUDO) apt-get install -y -qq --no-install-recommends $$missing >/dev/null && \
	for service in $(SERVICES); do \
	  case " $$missing " in *" $${service%:*} "*) $(SUDO) systemctl disable --now $${service#*:} >/dev/null 2>&1 || true;; esac; \
	done
