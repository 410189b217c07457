# Two commands do everything on a fresh Debian or Ubuntu machine with Rust and make:
#   make demo   installs what is missing, builds, and makes a video with the embedded model
#   make test   installs what is missing and passes all tests

PACKAGES := build-essential clang libclang-dev pkg-config \
            libavcodec-dev libavformat-dev libavutil-dev libswscale-dev libavfilter-dev \
            python3 python3-requests
OUT ?= out
CARGO ?= cargo
CLIENT_VENV ?= .client-venv
# Damaged files and graphs that tests make up are the same each time; another number makes up others.
export PROPTEST_RNG_SEED ?= 1

# Where `make cuda-toolkit` puts the compiler for NVIDIA GPUs.
CUDA_TOOLKIT_DIR ?= .cuda-toolkit

# For which GPUs `make gpu-bundle` builds, as WAN_RUN_CUDA_ARCHS has it, and where to; one alone makes it smaller.
GPU_ARCHS ?= 80,86,89,90a,100,120,ptx
GPU_PROFILE ?= release
GPU_BUNDLE ?= $(OUT)/gpu-bundle
# What PyTorch's side needs beside PyTorch and transformers, for machines where nothing can be installed.
GPU_WHEELS ?= diffusers==0.42.1

# Where `make dist` puts the archives, and keeps the static FFmpeg they are linked with.
DIST ?= dist
STATIC_FFMPEG ?= .ffmpeg

.PHONY: all demo test test-long test-clients test-page deps build lint bench clean cuda-toolkit build-cuda lint-cuda \
        gpu-bundle dist dist-cpu dist-cuda

all: build

## Installs the Debian packages that are missing; asks for sudo only if there are any.
deps:
	@missing=""; \
	for p in $(PACKAGES); do dpkg -s $$p >/dev/null 2>&1 || missing="$$missing $$p"; done; \
	if [ -n "$$missing" ]; then \
	  echo "installing:$$missing"; \
	  sudo=""; [ "$$(id -u)" = 0 ] || sudo=sudo; \
	  $$sudo apt-get update -qq && \
	  $$sudo env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $$missing; \
	fi

build: deps
	$(CARGO) build --release --locked -p wan-run

## An 81-frame video from the sample image on the embedded model.
demo: build
	@mkdir -p $(OUT)
	$(CARGO) run --release --locked -q -p wan-run -- generate --model tiny \
	  --image models/tiny/sample.png --prompt "the red circle moves right" \
	  --negative-prompt "static" --seed 42 \
	  --output $(OUT)/demo.mp4 --contact-sheet $(OUT)/demo.png --overwrite
	@echo "the video is $(OUT)/demo.mp4, frames of it are in $(OUT)/demo.png"

test: deps
	$(CARGO) test --locked --workspace

## The tests that take minutes: ComfyUI's example client with its own request; whether 60 videos show what was asked.
LONG ?= its_own_request sixty_pairs_obey
test-long: deps
	$(CARGO) test --locked --workspace --test wan-run -- --ignored --nocapture $(LONG)

## A client library from PyPI that other people wrote.
test-clients: PACKAGES += python3-venv
test-clients: deps
	python3 -m venv $(CLIENT_VENV)
	$(CLIENT_VENV)/bin/pip install --quiet --requirement tests/comfyui/requirements.txt
	WAN_RUN_CLIENT_PYTHON=$(abspath $(CLIENT_VENV))/bin/python \
	  $(CARGO) test --locked --workspace --test wan-run -- --ignored independent_client

## The web page in a headless Chromium: the whole job, at desktop and phone width.
# NodeSource's package of Node.js brings npm along, Debian's does not.
test-page: PACKAGES += chromium nodejs $(if $(shell command -v npm),,npm)
test-page: deps
	$(CARGO) test --locked --workspace --test wan-run --no-run
	npm ci --prefix tests/page --no-audit --no-fund
	WAN_RUN=$${CARGO_TARGET_DIR:-$(CURDIR)/target}/debug/wan-run npm test --prefix tests/page

lint:
	$(CARGO) fmt --all --check
	$(CARGO) clippy --locked --workspace --all-targets -- -D warnings
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc --locked --workspace --exclude wan-run --no-deps

bench: deps
	$(CARGO) bench --locked --workspace

## CUDA compiler, headers and libraries from PyPI, without NVIDIA's installer; about 1.2 GB. No GPU is needed.
cuda-toolkit: PACKAGES += python3-venv
cuda-toolkit: deps
	.ci/cuda-toolkit $(CUDA_TOOLKIT_DIR)

## A program that computes on NVIDIA GPUs, and starts on machines without them as well.
build-cuda: cuda-toolkit
	. $(CUDA_TOOLKIT_DIR)/env && $(CARGO) build --release --locked -p wan-run --features cuda

## One folder for a machine with a GPU and without a compiler, Rust or FFmpeg: `run.sh` in it checks and times everything.
gpu-bundle: PACKAGES += xz-utils
gpu-bundle: cuda-toolkit
	. $(CUDA_TOOLKIT_DIR)/env && WAN_RUN_CUDA_ARCHS=$(GPU_ARCHS) \
	  $(CARGO) build --profile $(GPU_PROFILE) --locked -p wan-run --no-default-features --features cuda
	mkdir -p $(GPU_BUNDLE)
	rm -f $(GPU_BUNDLE)/wan-run $(GPU_BUNDLE)/wan-run.xz
	strip -o $(GPU_BUNDLE)/wan-run \
	  $${CARGO_TARGET_DIR:-target}/$(if $(filter dev,$(GPU_PROFILE)),debug,$(GPU_PROFILE))/wan-run
	xz -9 $(GPU_BUNDLE)/wan-run
	cp tests/gpu/run.sh tests/gpu/report.py tests/gpu/peer_torch.py tests/golden/reference.py $(GPU_BUNDLE)
	git rev-parse HEAD > $(GPU_BUNDLE)/commit
	rm -rf $(GPU_BUNDLE)/wheels
	$(CUDA_TOOLKIT_DIR)/venv/bin/pip download --quiet --no-deps --dest $(GPU_BUNDLE)/wheels $(GPU_WHEELS)
	@du -sh $(GPU_BUNDLE)

lint-cuda: cuda-toolkit
	. $(CUDA_TOOLKIT_DIR)/env && \
	  $(CARGO) clippy --locked --workspace --all-targets --features wan-run/cuda -- -D warnings

## Archives for machines without Rust: any x86-64 Linux of 2022 or later. The licences change, see packaging/LICENCES.md.
dist: dist-cpu dist-cuda

dist dist-cpu dist-cuda: PACKAGES += libx264-dev libwebp-dev zlib1g-dev nasm curl ca-certificates xz-utils \
                                     bsdextrautils python3-venv
dist-cpu: deps
	packaging/ffmpeg $(STATIC_FFMPEG)
	packaging/archive cpu $(STATIC_FFMPEG) $(DIST)

dist-cuda: deps cuda-toolkit
	packaging/ffmpeg $(STATIC_FFMPEG)
	. $(CUDA_TOOLKIT_DIR)/env && packaging/archive cuda $(STATIC_FFMPEG) $(DIST)

clean:
	$(CARGO) clean
