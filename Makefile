# MobiScud: `make demo` runs the main job on real parts, `make test` passes the tests; both do the set-up first.
BIN := .venv/bin
OUT ?= out/demo
FUZZ_SECONDS ?= 60
EXPLORE_EXAMPLES ?= 10000
SOAK_MIGRATIONS ?= 500
FUZZ_TARGETS ?= aper s1ap nas gtpv2 frames sctp capture tracker monitor

.PHONY: help setup demo check test unit compiled fuzz explore failures soak clean

help: ## this list
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "make %-8s %s\n", $$1, $$2}'

setup: ## Debian packages that are missing, .venv, MobiScud itself; safe to repeat
	@scripts/setup.sh

demo: setup ## the handover experiment on real parts (as root); report in out/demo
	$(BIN)/mobiscud demo --out $(OUT) $(DEMO_ARGS)

check: setup ## format, lint, types, import contracts
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

unit: setup ## the tests that need neither root nor real parts
	$(BIN)/pytest -m "not system" $(TEST_ARGS)

test: check ## check, and all tests; system tests on real parts included (as root)
	$(BIN)/pytest $(TEST_ARGS)
	@$(MAKE) compiled

compiled: setup ## the monitor's tests on its compiled form (mypyc), built in build/compiled
	scripts/compiled.sh
	PYTHONPATH=build/compiled $(BIN)/pytest -m "not system" tests/unit/epc_monitor $$(grep -l epc_monitor tests/property/*.py)

fuzz: setup ## each decoder under coverage-guided fuzzing, FUZZ_SECONDS (60) for each; corpus and finds in out/fuzz
	@$(BIN)/python -c "import atheris" 2>/dev/null || $(BIN)/pip install --quiet "atheris>=2.3"
	@for target in $(FUZZ_TARGETS); do echo "== $$target"; \
	  $(BIN)/python tests/fuzz/run.py $$target out/fuzz -max_total_time=$(FUZZ_SECONDS) -timeout=10 -verbosity=0 \
	    -print_final_stats=1 || exit 1; done

explore: setup ## EXPLORE_EXAMPLES (10000) new random walks of whole sites, a minute or two; make test takes the same ones each time
	HYPOTHESIS_PROFILE=explore EXPLORE_EXAMPLES=$(EXPLORE_EXAMPLES) $(BIN)/pytest --timeout=3600 --hypothesis-seed=random \
	  tests/property/test_site.py $(TEST_ARGS)

failures: setup ## every part dies at every moment of a migration (as root), FAILURE_CELLS="source-host link/at": only these; 4 minutes
	$(BIN)/python -m testbed.failures $(FAILURE_CELLS) $(FAILURE_ARGS)

soak: setup ## migrations with random aborts, retargets and kills (as root), SOAK_MIGRATIONS (500): 5 to 10 s each
	$(BIN)/python -m testbed.soak $(SOAK_MIGRATIONS) $(SOAK_ARGS)

clean: ## what builds and tests leave in the checkout
	rm -rf build out *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find epc_monitor -name '*.so' -delete
