# make demo    the whole job on an embedded S3 server
# make check   an answer within a minute: lint, types, floors and the tests of values
# make test    what CI runs: lint, types, floors, tests
PYTHON ?= python3
SECONDS ?= 600
N ?= 10000
BIN := .venv/bin
STAMP := .venv/.installed
# pip shows what it does on a terminal, and is quiet in logs.
QUIET := $(shell test -t 2 || echo --quiet)

# Tests of values and arithmetic: no server, no bank, few files.
VALUES := tests/core/test_arguments.py tests/core/test_index_schema.py tests/core/test_layout.py tests/core/test_polygons.py \
  tests/core/test_schema.py tests/core/test_values.py \
  tests/core/fetch/test_concurrency.py tests/core/fetch/test_lateness.py tests/core/fetch/test_read_group.py \
  tests/core/pruning tests/core/reading/test_codec.py tests/core/sql tests/core/statements tests/core/statistics \
  tests/properties/test_ranges.py tests/properties/test_shard_keys.py \
  tests/properties/test_stats.py tests/server/filters tests/test_tests.py tests/test_words.py

.DEFAULT_GOAL := help
.PHONY: help venv demo demo-pretrain demo-floods check values test test-thorough test-bench test-install test-cluster test-terratorch install uninstall fuzz fuzz-flips fuzz-life crash-points lint format docs architecture floors clean
.PHONY: bench-ingest bench-engines bench-commits bench-codec bench-plan bench-stream bench-loader bench-node bench-serve bench-device bench-peers bench-quick bench-table-life bench-catalog bench-index-reads bench-simulate bench-pretrain forecasts

help:
	@echo "make demo          ingest, query and stream a small archive on an embedded S3 server"
	@echo "make demo-pretrain pretrain a small masked model on several ranks, kill it, and go on; some minutes"
	@echo "make demo-floods   train a network that maps floods of four dates, and measure it on events it has not seen; a minute"
	@echo "make check         lint, types, floors and the tests of values, within a minute"
	@echo "make test          lint, types, floors and tests, as CI runs them"
	@echo "make test-thorough the many cases of tests that make test has some of; some minutes"
	@echo "make test-bench    the tests of the benchmarks that run them, small; some minutes"
	@echo "make test-install  the wheel in fresh environments of the Pythons 3.11 to 3.13 that are here; some minutes"
	@echo "make test-cluster  clusters on this host: SLURM with three nodes, ranks in namespaces; some minutes, as root"
	@echo "make test-terratorch TerraTorch's tasks on our data module, in an environment of its own (Python 3.11, 2.5 GB); some minutes"
	@echo "make fuzz          random statements and broken archives for SECONDS=600, with a summary; SEED=NUMBER repeats a run"
	@echo "make fuzz-flips    damage files of a bank, plans, states and caches N=10000 times, and read them; some minutes"
	@echo "make fuzz-life     N=100 lives of a small table: several writers, readers and maintainers, beside a model; some minutes"
	@echo "make crash-points  stop each operation on a table at each of its requests, and look at what is there; some minutes"
	@echo "make install       service, object store and nightly ingest on this machine, as units of systemd, in PREFIX=/opt/tensorbank"
	@echo "make uninstall     remove them from PREFIX; data, settings and secrets stay"
	@echo "make lint          ruff, mypy and import-linter only"
	@echo "make format        let ruff rewrite the code"
	@echo "make docs          build the guides and the reference of the API as a site in build/docs; warnings are errors"
	@echo "make floors        print which package may import which, and which module may import which library"
	@echo "make architecture  write the table of packages in tensorbank/ARCHITECTURE.md anew"
	@echo "make bench-ingest  samples and bytes per second of ingest"
	@echo "make bench-engines ingest on Dask beside ingest by processes, and what an empty task costs"
	@echo "make bench-commits requests and CPU seconds of one more commit, from the first to the thousandth"
	@echo "make bench-codec   bytes and seconds of codec chains and profiles, by modality (PATCHES=FOLDER of real samples, or made-up ones)"
	@echo "make bench-plan    time, memory and pruning of plans on an index of 10 million samples (15 GB, made first)"
	@echo "make bench-stream  throughput, memory, faults and order of streaming, each beside its ceiling (BANK=FOLDER, or one is made)"
	@echo "make bench-loader  CPU seconds a GB of tensors by codec profile, and samples that one process hands out of memory (SOURCE=ARCHIVES)"
	@echo "make bench-node    a node's cache that is cold, half full and warm, and several ranks together, beside one without"
	@echo "make bench-serve   latency, throughput and memory of the service, and streaming by what it hands out"
	@echo "make bench-device  how much of the copy to a GPU is hidden behind the model's work, and decoding there beside the CPU, where there is one"
	@echo "make bench-peers   TensorBank beside the loaders of the field, each in an environment of its own (hours, 25 GB)"
	@echo "make bench-table-life  commits, compaction, columns, deletion, garbage, and plans after them (SAMPLES=10000000 PARTS=1000; 30 GB)"
	@echo "make bench-catalog a table of 100 million samples: open, plan, page, commit, compact, collect (SAMPLES=, PARTS=; 40 GB)"
	@echo "make bench-index-reads what a first query moves of an index behind a store, beside whole files (INDEX=FOLDER; minutes, 1.2 GB made first)"
	@echo "make bench-simulate forecasts of epochs beside the epochs, in 20 configurations; some minutes"
	@echo "make bench-pretrain share of time that a pretraining is busy, beside what the network allows, and what a budget saves; some minutes"
	@echo "make forecasts     the pictures and tables of loader/FORECAST.md; some minutes"
	@echo "make bench-quick   rates as shares of the ceiling beside the accepted ones, in under three minutes"
	@echo "make venv          (re)install .venv; done by the others when pyproject.toml or constraints.txt changed"

venv: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "TensorBank needs Python 3.11 or newer, but '$(PYTHON)' is $$($(PYTHON) --version 2>&1). Name another: make venv PYTHON=python3.12" >&2; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@echo "installing into .venv, which takes a minute or two"
	@$(BIN)/python -m pip install $(QUIET) --disable-pip-version-check -c constraints.txt -e ".[dev,demo]"
	@touch $(STAMP)

demo: venv
	$(BIN)/tensorbank demo

demo-pretrain: venv
	$(BIN)/tensorbank demo-pretrain

demo-floods: venv
	$(BIN)/tensorbank demo-floods

check: venv
	@$(MAKE) --no-print-directory --jobs=2 --output-sync=target lint values

values: venv
	$(BIN)/pytest -q -n 2 $(VALUES)

# Three at a time on two cores: many tests wait, for a server that starts or for a limit that ends.
test: lint
	$(BIN)/pytest -n 3 --dist loadfile --no-loadscope-reorder -m "not thorough" --ignore=tests/e2e/test_install.py --ignore=tests/cluster --ignore=tests/terratorch --ignore-glob='tests/test_bench_*'

test-thorough: venv
	$(BIN)/pytest -n 2 --dist loadfile --no-loadscope-reorder -m thorough --ignore=tests/terratorch

test-bench: venv
	$(BIN)/pytest -n 2 --dist loadfile tests/test_bench_loader.py tests/test_bench_node.py tests/test_bench_peers.py tests/test_bench_pretrain.py tests/test_bench_stream.py

test-install: venv
	$(BIN)/pytest tests/e2e/test_install.py

test-cluster: venv
	$(BIN)/pytest -n 2 --dist loadfile tests/cluster

# TerraTorch wants other versions than ours of some libraries, and takes long to resolve: a frozen list, installed as it is.
TERRATORCH := build/terratorch
test-terratorch: $(TERRATORCH)/.installed
	$(TERRATORCH)/bin/python -m pytest -q --confcutdir=tests/terratorch tests/terratorch

$(TERRATORCH)/.installed: tests/terratorch/requirements.txt pyproject.toml
	python3.11 -m venv $(TERRATORCH)
	$(TERRATORCH)/bin/python -m pip install $(QUIET) --disable-pip-version-check --no-deps -r tests/terratorch/requirements.txt
	$(TERRATORCH)/bin/python -m pip install $(QUIET) --disable-pip-version-check --no-deps -e .
	@touch $@

fuzz: venv
	PYTHONPATH=tests $(BIN)/python -m support.fuzz --seconds $(SECONDS) $(if $(SEED),--seed $(SEED))

fuzz-flips: venv
	PYTHONPATH=tests $(BIN)/python benchmarks/flips.py --n $(N) $(if $(SEED),--seed $(SEED))

fuzz-life: N := 100
fuzz-life: venv
	PYTHONPATH=tests $(BIN)/python -m support.whole_life --lives $(N) $(if $(SEED),--seed $(SEED))

crash-points: venv
	PYTHONPATH=tests $(BIN)/python benchmarks/crash_points.py

# PREFIX, UNITS, OWNER and VENV: deploy/systemd/install.sh says what they are.
install uninstall: export PREFIX := $(PREFIX)
install uninstall: export UNITS := $(UNITS)
install uninstall: export OWNER := $(OWNER)
install uninstall: export VENV := $(VENV)
install uninstall:
	@deploy/systemd/install.sh $@

lint: venv
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: venv
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs: venv
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --config-file deploy/docs/mkdocs.yml

floors: venv
	@PYTHONPATH=tests $(BIN)/python -m support.architecture floors

architecture: venv
	PYTHONPATH=tests $(BIN)/python -m support.architecture

bench-ingest: venv
	$(BIN)/python benchmarks/ingest.py
	$(BIN)/python benchmarks/results_page.py

bench-engines: venv
	$(BIN)/python benchmarks/bench_engines.py

bench-commits: venv
	PYTHONPATH=tests $(BIN)/python benchmarks/bench_commits.py

bench-codec: venv
	$(BIN)/python benchmarks/bench_codec.py $(PATCHES)
	$(BIN)/python benchmarks/results_page.py

bench-plan: venv
	$(BIN)/python benchmarks/bench_plan.py $(INDEX)

bench-stream: venv
	$(BIN)/python benchmarks/bench_stream.py $(if $(BANK),--bank $(BANK))
	$(BIN)/python benchmarks/results_page.py

bench-loader: venv
	TENSORBANK_LEASES=off $(BIN)/python benchmarks/bench_loader.py $(if $(SOURCE),--source $(SOURCE))
	$(BIN)/python benchmarks/results_page.py

bench-node: venv
	TENSORBANK_LEASES=off $(BIN)/python benchmarks/bench_node.py
	$(BIN)/python benchmarks/results_page.py

bench-serve: venv
	$(BIN)/python benchmarks/bench_serve.py
	$(BIN)/python benchmarks/results_page.py

bench-device: venv
	$(BIN)/python benchmarks/device_stream.py --decoding

bench-peers: venv
	$(BIN)/python benchmarks/bench_peers.py $(if $(BANK),--bank $(BANK)) $(if $(SAMPLES),--samples $(SAMPLES))
	$(BIN)/python benchmarks/results_page.py

bench-table-life: venv
	$(BIN)/python benchmarks/bench_table_life.py $(if $(SAMPLES),--samples $(SAMPLES)) $(if $(PARTS),--parts $(PARTS))

bench-catalog: venv
	$(BIN)/python benchmarks/bench_catalog.py $(if $(SAMPLES),--samples $(SAMPLES)) $(if $(PARTS),--parts $(PARTS))

bench-index-reads: venv
	$(BIN)/python benchmarks/bench_index_reads.py $(or $(INDEX),build/index-reads)

bench-simulate: venv
	TENSORBANK_LEASES=off $(BIN)/python benchmarks/bench_simulate.py
	$(BIN)/python benchmarks/results_page.py

bench-pretrain: venv
	TENSORBANK_LEASES=off $(BIN)/python benchmarks/bench_pretrain.py
	$(BIN)/python benchmarks/results_page.py

forecasts: venv
	$(BIN)/python benchmarks/forecasts.py

bench-quick: venv
	$(BIN)/python benchmarks/bench_quick.py

clean:
	rm -rf dist build .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis
