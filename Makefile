# SPDX-License-Identifier: MIT OR Apache-2.0
# The commands of a developer. `make` alone lists them. All set-up is done by the scripts, which say
# what they install before they do it.

.DEFAULT_GOAL := help
.PHONY: help drill test test-all tier0 simulate catalogue lint bench coverage servers clean-cache

help: ## list these commands
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

drill: ## recover a real sample server as a virtual machine, from nothing (10 minutes the first time)
	@scripts/drill.sh

test: ## every test that this machine can run; says what was skipped and why
	@scripts/test.sh

test-all: ## the same with every sample server, building those that are missing (hours without KVM); writes tests/RESULTS.md
	@E2E_BUILD=all scripts/test.sh

tier0: ## the fast tests, which need nothing but Rust
	@scripts/tier0.sh

simulate: ## ten thousand simulated histories of a library whose store fails (RELEVO_SEEDS=n for others)
	@scripts/simulate.sh

catalogue: ## memory of every operation on a library as of 1 TiB (RELEVO_TIB=n for others)
	@scripts/catalogue.sh

lint: ## formatting, clippy, documentation, licences and advisories
	@scripts/lint.sh

bench: ## measure (hours; BENCH_MEMORY=none: more than an hour), print the tables and keep them in tests/benches/RESULTS.md
	@scripts/bench.sh

coverage: ## lines covered by the fast tests
	@tests/coverage.sh

servers: ## build every sample server that is not in the cache
	@scripts/prepare-machine.sh test
	@for name in $$(tests/fixtures/build/server.sh --list); do tests/fixtures/build/server.sh $$name || exit; done

clean-cache: ## delete the sample servers, packages and libraries of the cache
	@scripts/clean-cache.sh
