# attnc: one verb per task, each from a bare checkout. `make` prints them.
#
#   make test ARGS="-k additive -x"           arguments of pytest
#   make test EXTRA="torch==2.13.0"           more packages in the environment
#   make demo ARGS="--target de"              arguments of examples/translate.py
#   make bench ARGS="--kinds decode"          arguments of python -m benchmarks
#   make test PYTHON=python3.12               another Python, after `make clean`
#   ATTNC_ISA=scalar make test                the suite on one instruction set
#   ATTNC_NO_THREADS=1 make test              without threads, after `make clean`

PYTHON = python3
VENV = .venv
ARGS =
EXTRA =
RUFF = ruff==0.17.5
CLANG_FORMAT = clang-format==23.1.5
MYPY = mypy==2.4.1
PLAYWRIGHT = playwright>=1.50
browsers = chromium chromium-browser google-chrome

comma = ,
run = $(VENV)/bin/python
pip = $(run) -m pip install --quiet --disable-pip-version-check
python = $(notdir $(PYTHON))
sources = $(wildcard csrc/*.h csrc/*/*.c csrc/*/*.h csrc/*/*.inc) setup.py pyproject.toml
formatted = $(wildcard csrc/*.h csrc/*/*.c csrc/*/*.h csrc/*/*.inc tests/c/*.c benchmarks/*.c)

help:
	@echo 'make demo    train a translator (about a minute) and draw what it looked at'
	@echo 'make examples  run all examples in a short form: each has to reach a figure'
	@echo 'make test    run the tests, on all processors unless ARGS says what to run'
	@echo 'make notebooks  open the course in JupyterLab'
	@echo 'make docs    build the site into build/docs; its notebooks are run'
	@echo 'make docs-check  check its links, and open its pages in Chromium where there is one'
	@echo 'make bench   compare the speed with that of PyTorch, JAX and NumPy'
	@echo 'make asan    run the tests with AddressSanitizer and UndefinedBehaviorSanitizer;'
	@echo '             ARGS="--sample 12" takes one in twelve of the cases of each test'
	@echo 'make tsan    run kernels and thread pool, without Python, with ThreadSanitizer;'
	@echo '             ARGS=2 takes each problem in float or in double, not in both'
	@echo 'make emulate run the kernels for another machine (CC, RUN), without Python'
	@echo 'make coverage  count the lines of C that the tests reach'
	@echo 'make lint    check the style of the Python and the C files, and the types'
	@echo 'make clean   remove everything that these made'

demo: $(VENV)/examples
	$(run) examples/translate.py --output demo-output $(ARGS)

examples: $(VENV)/examples
	$(run) examples/every.py $(ARGS)

test: $(VENV)/test
	$(if $(EXTRA),$(pip) $(EXTRA))
	$(run) -m pytest $(or $(ARGS),-n auto)

notebooks: $(VENV)/notebooks
	$(run) -m jupyterlab examples/course $(ARGS)

# Notebooks and pages with code are run by it. `SPHINX=-E` builds all of it anew.
docs: $(VENV)/docs
	$(run) docs/prepare.py build/docs-source
	$(run) -m sphinx --builder html --fail-on-warning --keep-going --nitpicky --quiet --jobs 2 \
	    --doctree-dir build/docs-doctrees $(SPHINX) build/docs-source build/docs

docs-check: docs
	$(if $(strip $(foreach each,$(browsers),$(shell command -v $(each)))),$(pip) '$(PLAYWRIGHT)')
	$(run) docs/check.py build/docs
	$(run) docs/browse.py build/docs build/docs-screenshots $(BROWSE)

bench: $(VENV)/bench
	$(run) -m benchmarks $(ARGS)

# A copy of the tree, built with other flags. Sanitizers come before all other libraries; Python
# itself leaks on purpose. With malloc for every object, a stray pointer hits a red zone.
copied = attnc csrc tests examples benchmarks docs setup.py pyproject.toml Makefile \
    README.md README.zh.md CONTRIBUTING.md CHANGELOG.md CITATION.cff SECURITY.md LICENSE MANIFEST.in
define copy
rm -rf build/$(1)
mkdir -p build/$(1)
cp -R $(copied) build/$(1)
rm -f build/$(1)/attnc/*.so
cd build/$(1) && ATTNC_CFLAGS="$(2)" $(abspath $(run)) setup.py --quiet build_ext --inplace
endef
library = $$($${CC:-gcc} -print-file-name=$(1).so)

# Left out: what trains or measures memory, what reads the checkout, and what is Python alone.
unsuited = --ignore=tests/test_translate.py --ignore=tests/test_transformer_translate.py \
    --ignore=tests/test_why_attention.py --ignore=tests/test_pronoun.py \
    --ignore=tests/test_scale.py --ignore=tests/test_language_model_example.py \
    --ignore=tests/test_glimpse.py --ignore=tests/test_soft_vs_hard.py \
    --ignore=tests/test_combined_example.py --ignore=tests/test_global_vs_local.py \
    --ignore=tests/test_summarise.py --ignore=tests/test_listen.py \
    --ignore=tests/test_caption.py --ignore=tests/test_entail.py --ignore=tests/test_align.py \
    --ignore=tests/test_video.py --ignore=tests/test_course.py \
    --ignore-glob='tests/test_plot*.py' \
    --ignore=tests/test_benchmarks.py --ignore=tests/test_packaging.py \
    --ignore-glob='tests/test_torch*.py' --ignore-glob='tests/test_jax*.py' \
    --ignore=tests/test_bridge_examples.py --ignore=tests/test_source.py \
    --ignore=tests/test_typing.py --ignore=tests/test_docs.py --ignore=tests/test_docs_pages.py \
    --ignore=tests/test_comparison.py --ignore=tests/test_course.py \
    --ignore=tests/test_graders.py --ignore-glob='tests/test_show*.py' \
    --ignore-glob='tests/test_stage_*.py' --ignore-glob='tests/test_teaching*.py'

asan: $(VENV)/test
	$(call copy,asan,-O1 -g1 -fno-omit-frame-pointer -fsanitize=address$(comma)undefined \
	    -fno-sanitize-recover=all)
	cd build/asan && LD_PRELOAD="$(call library,libasan) $(call library,libubsan)" \
	    ASAN_OPTIONS=detect_leaks=0:allocator_may_return_null=1 PYTHONMALLOC=malloc \
	    $(abspath $(run)) -m pytest -n auto $(unsuited) $(ARGS)

harness = $(wildcard csrc/targets/*.c csrc/engine/*.c) tests/c/harness.c
strict = -std=c11 -Wall -Wextra -Werror -ffp-contract=off $(threads)
emscripten = $(findstring emcc,$(CC))
wasm = -sALLOW_MEMORY_GROWTH -sSINGLE_FILE
threads = $(if $(ATTNC_NO_THREADS),-DATTNC_NO_THREADS,$(if $(emscripten),,-pthread))

# Its shadow memory collides with random addresses on some kernels; not all containers allow to ask
# for others.
tsan:
	mkdir -p build
	$(CC) -O1 -g -fsanitize=thread $(strict) $(harness) -o build/tsan -lm
	$$(setarch --addr-no-randomize echo setarch --addr-no-randomize 2>/dev/null) build/tsan $(ARGS)

# make emulate CC=aarch64-linux-gnu-gcc RUN="qemu-aarch64 -L /usr/aarch64-linux-gnu"
# make emulate CC=emcc RUN=node
emulate:
	mkdir -p build
	$(CC) -O2 $(strict) $(harness) -o build/harness -lm $(if $(emscripten),$(wasm))
	$(RUN) build/harness

# Branches are counted as the source has them: without copies of the functions that are always
# inlined, and without what the compiler adds. Some lines run more often than gcovr believes.
coverage: $(VENV)/test
	$(call copy,coverage,-O0 -g --coverage -fprofile-update=atomic -Dalways_inline=unused)
	cd build/coverage && $(abspath $(run)) -m pytest -n auto $(unsuited) $(ARGS)
	$(pip) 'gcovr>=8.8'
	cd build/coverage && $(abspath $(run)) -m gcovr --filter csrc/ --fail-under-line 95 \
	    --exclude-throw-branches --exclude-unreachable-branches \
	    --gcov-suspicious-hits-threshold 0 --merge-mode-functions=merge-use-line-min \
	    --txt --txt-metric line --txt-metric branch --txt-summary --html-details coverage.html

lint: $(VENV)/lint
	$(run) -m ruff check .
	$(run) -m ruff format --check .
	$(VENV)/bin/clang-format --dry-run -Werror $(formatted)
	$(run) -m mypy
	$(run) -m mypy.stubtest --mypy-config-file pyproject.toml attnc._core

clean:
	rm -rf $(VENV) build dist demo-output* *.egg-info attnc/*.so
	rm -rf .pytest_cache .hypothesis .ruff_cache .mypy_cache
	find attnc benchmarks tests examples -name __pycache__ -prune -exec rm -rf {} +

# The stamps below say what the environment holds. The package is installed in place: a change of a
# Python file counts at once, a change in csrc builds the extension anew.

$(VENV)/build: $(sources) | $(VENV)/made
	@echo 'building attnc ...'
	$(pip) --no-build-isolation --editable .
	@touch $@

# What the extras name; attnc itself is there already.
$(VENV)/examples $(VENV)/notebooks $(VENV)/test $(VENV)/docs $(VENV)/bench: $(VENV)/%: $(VENV)/build
	@echo 'installing what attnc[$*] needs ...'
	$(pip) 'attnc[$*]'
	@touch $@

# The stub is held against the module as it is built.
$(VENV)/lint: Makefile $(VENV)/build
	@echo 'installing $(RUFF), $(CLANG_FORMAT), $(MYPY) ...'
	$(pip) '$(RUFF)' '$(CLANG_FORMAT)' '$(MYPY)'
	@touch $@

$(VENV)/made:
	$(if $(missing),$(error attnc needs $(missing)))
	@echo 'making the environment $(VENV) ...'
	$(PYTHON) -m venv --clear $(VENV)
	$(pip) 'setuptools>=77' 'numpy>=2.0'
	@touch $@

# What this machine lacks and what installs it, in one line; apt names as in Debian and Ubuntu.
missing = $(shell $(prerequisites))
define prerequisites
version=$$($(PYTHON) 2>/dev/null -c \
    'import sys; print("%d%02d %d.%d" % (2 * sys.version_info[:2]))'); \
test "$$version" || { echo "$(PYTHON): apt install $(python)"; exit; }; \
test "$${version% *}" -ge 311 || { \
    echo "Python 3.11 or newer, and $(PYTHON) is $${version#* }: apt install python3.11-dev" \
         "python3.11-venv, then add PYTHON=python3.11 to this command"; exit; }; \
$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || \
    { what="Python's venv"; apt=$(python)-venv; }; \
test -e "$$($(PYTHON) -c 'import sysconfig; print(sysconfig.get_path("include"))')/Python.h" || \
    { what="$${what:+$$what and }Python.h"; apt="$$apt $(python)-dev"; }; \
cc=$${CC:-$$($(PYTHON) -c 'import sysconfig; print(sysconfig.get_config_var("CC"))')}; \
printf '\043include <math.h>\n' | $$cc -fsyntax-only -x c - 2>/dev/null || \
    { what="$${what:+$$what and }a C compiler"; apt="$$apt build-essential"; }; \
test -z "$$what" || echo "$$what: apt install" $$apt
endef

.PHONY: help demo examples test notebooks docs docs-check bench asan tsan emulate coverage lint \
    clean
.DELETE_ON_ERROR:
