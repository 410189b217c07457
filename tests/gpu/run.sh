#!/usr/bin/env bash
# Checks and timings on a machine with an NVIDIA GPU, from prebuilt binaries alone: the driver, the CUDA libraries, and
# for comparisons PyTorch. `make gpu-bundle` builds the folder that this needs.
#
#     run.sh [STAGE ...]        default: all, in this order
#
#   info        GPU, driver, clocks, versions
#   selftest    every op, component and job on small and true sizes, each group in a process of its own
#   sanitize    compute-sanitizer over the ops at small sizes, where it starts
#   synthesize  a 14B FP8 model with random weights, 30 GB, into $WORK
#   generate    832x480x81, 10 steps, cfg 6, with 0, 10 and 40 blocks swapped
#   bench       wan-run bench
#   peer        the same shapes in PyTorch, and its values of the first blocks against ours
#   report      one table of everything found so far, with ratios
#
# Environment: OUT results (8 files at most); WORK where the model goes; LIMIT seconds for the whole call; STEPS of
# generate. Later calls add to the results of earlier ones in OUT. What takes longer than its limit is stopped and
# reported, and the next thing begins. REHEARSE=1 runs all of it with small sizes on whatever libraries LD_LIBRARY_PATH
# leads to (tests/gpu/emulator), PyTorch on the CPU: it shows that the script works and nothing else.
#
# PyTorch's side needs diffusers. Where nothing can be installed, carry it as wheels:
#     python3 -m pip download --no-deps --only-binary=:all: --python-version 3.12 --implementation cp \
#       --platform manylinux2014_x86_64 -d wheels diffusers==0.42.1 importlib_metadata
#     python3 -m pip install --no-index --no-deps --target /tmp/site wheels/*.whl; export PYTHONPATH=/tmp/site
set -uo pipefail
here=$(cd "$(dirname "$0")" && pwd)
OUT=${OUT:-$PWD/out/gpu}
LIMIT=${LIMIT:-570}
STEPS=${STEPS:-10}
LAYOUT=14b-fp8 SIZE=832x480x81 SMALLER=512x512x81 LARGER=1280x720x81 SWAPS=(0 10 40) FULL=(--full) TORCH=cuda SLOWER=1
if [ -n "${REHEARSE:-}" ]; then
  LAYOUT=tiny SIZE=64x64x5 SMALLER=64x48x5 LARGER=80x64x5 SWAPS=(0 1 4) FULL=() TORCH=cpu SLOWER=10
fi
IFS=x read -r width height frames <<< "$SIZE"
PYTHON=${PYTHON:-python3}
began=$SECONDS
mkdir -p "$OUT"
rows=$OUT/selftest.jsonl times=$OUT/bench.jsonl peers=$OUT/peer.jsonl log=$OUT/run.log

if [ -f "$here/wan-run.gz" ] && [ ! -x "$here/wan-run" ]; then
  gunzip -c "$here/wan-run.gz" > "$here/wan-run" && chmod +x "$here/wan-run"
fi
for wan_run in "$here/wan-run" "$here/../../target/release/wan-run"; do [ -x "$wan_run" ] && break; done
[ -x "$wan_run" ] || { echo "run.sh: no wan-run beside it: make gpu-bundle" >&2; exit 2; }

# The model goes where there is room: memory first.
if [ -z "${WORK:-}" ]; then
  WORK=/tmp/wan-run-gpu
  [ "$(df --output=avail -BG /dev/shm 2>/dev/null | tail -1 | tr -dc 0-9)" -ge 40 ] 2>/dev/null && WORK=/dev/shm/wan-run-gpu
fi
mkdir -p "$WORK"

# CUDA's libraries: the system's, and those that PyTorch's wheels bring.
wheels=$($PYTHON - 2>/dev/null <<'EOF'
import glob, os, sysconfig
site = sysconfig.get_paths()["purelib"]
print(":".join(sorted({os.path.dirname(p) for p in glob.glob(f"{site}/nvidia/**/lib*.so*", recursive=True)})))
EOF
)
export LD_LIBRARY_PATH=${LD_LIBRARY_PATH:+$LD_LIBRARY_PATH:}/usr/local/cuda/lib64:/usr/local/nvidia/lib64${wheels:+:$wheels}

say() { printf '%s\n' "$*" | tee -a "$log"; }
left() { echo $((LIMIT - (SECONDS - began))); }

# limited SECONDS COMMAND ...: within its own limit and what is left of the call.
limited() {
  local seconds=$(($1 * SLOWER)) rest
  shift
  rest=$(left)
  [ "$rest" -gt 5 ] || return 125
  [ "$seconds" -lt "$rest" ] || seconds=$rest
  timeout -k 10 "$seconds" "$@"
}

# row GROUP NAME OUTCOME REASON CHECKS: one more line of results, as wan-run writes them.
row() {
  printf '{"group":"%s","name":"%s","outcome":"%s","reason":"%s","checks":[%s],"seconds":0}\n' "$1" "$2" "$3" "$4" "$5" >> "$rows"
}

# check NAME SECONDS ARGUMENTS ...: some rows of selftest in a process of their own.
check() {
  local name=$1 seconds=$2 code before after
  shift 2
  before=$(cat "$rows" 2>/dev/null | wc -l)
  limited "$seconds" "$wan_run" selftest --device cuda --json "$rows" "$@" 2>> "$log" | tee -a "$OUT/selftest.txt"
  code=${PIPESTATUS[0]}
  after=$(cat "$rows" 2>/dev/null | wc -l)
  case $code in
    0) ;;
    # A failed row is in the results; without one the process did not get that far.
    1) [ "$after" -gt "$before" ] || row process "$name" error "$(tail -1 "$log" | tr -d '"\\')" "" ;;
    124 | 137) row process "$name" error "stopped after $seconds s" "" ;;
    125) row process "$name" skipped "no time left in this call" "" ;;
    *) row process "$name" error "exit code $code" "" ;;
  esac
}

info() {
  {
    date -u
    nvidia-smi --query-gpu=name,driver_version,memory.total,clocks.sm,clocks.max.sm,power.limit,temperature.gpu --format=csv
    nproc; free -g | head -2; df -h /dev/shm /tmp | cat
    "$wan_run" --version
    [ -f "$here/commit" ] && echo "commit $(cat "$here/commit")"
    $PYTHON -c 'import torch; print("torch", torch.__version__, "cuda", torch.version.cuda, "cudnn", torch.backends.cudnn.version())'
    $PYTHON -c 'import diffusers; print("diffusers", diffusers.__version__)'
    "$wan_run" info --json --model tiny
  } 2>&1 | tee -a "$log"
}

selftest() {
  check linear 90 "${FULL[@]}" --only ops/linear
  check attention 120 "${FULL[@]}" --only ops/attention
  check rows 90 "${FULL[@]}" --only ops/layer_norm --only ops/rms_norm --only ops/residual --only ops/gated \
    --only ops/channel --only ops/activate
  check conv3d 60 "${FULL[@]}" --only ops/conv3d
  check jobs 60 --only jobs/
  check dit 120 "${FULL[@]}" --only components/dit
  check vae 60 "${FULL[@]}" --only components/vae
  check encoders 90 "${FULL[@]}" --only components/umt5 --only components/clip
}

sanitize() {
  local tool code
  if ! limited 60 compute-sanitizer "$wan_run" selftest --device cuda --only "ops/rms_norm bf16 1x8" >> "$log" 2>&1; then
    row sanitizer start skipped "compute-sanitizer does not start here" ""
    return
  fi
  for tool in memcheck racecheck synccheck initcheck; do
    limited 100 compute-sanitizer --tool "$tool" --error-exitcode 9 "$wan_run" selftest --device cuda \
      --only "ops/linear e4m3 in fp8" --only "bf16 130x200" --only "bf16 257x1000" --only "bf16 33x256" \
      --only "ops/conv3d bf16 3x3x3" >> "$log" 2>&1
    code=$?
    case $code in
      0) row sanitizer "$tool" passed "" "" ;;
      124 | 125 | 137) row sanitizer "$tool" skipped "no time left" "" ;;
      *) row sanitizer "$tool" failed "exit code $code, see run.log" "" ;;
    esac
  done
}

synthesize() {
  [ -f "$WORK/model.toml" ] && return
  limited 300 "$wan_run" synthesize --layout "$LAYOUT" "$WORK" 2>&1 | tee -a "$log"
}

# The GPU's memory in use, in MiB, sampled until the file appears.
watch_memory() {
  local most=0 now
  while [ ! -e "$1" ]; do
    now=$(nvidia-smi --query-gpu=memory.used --format=csv,noheader,nounits | head -1)
    [ "${now:-0}" -gt "$most" ] && most=$now
    sleep 0.3
  done
  echo "$most" > "$1.most"
}

generate() {
  synthesize
  "$wan_run" sample "$WORK/sample.png" --overwrite
  local swap code start seconds bytes wanted=$((frames * height * width * 3)) sum first=""
  for swap in "${SWAPS[@]}"; do
    rm -f "$WORK"/done*
    watch_memory "$WORK/done" &
    start=$(date +%s.%N)
    limited 200 "$wan_run" generate --model "$WORK/model.toml" --models-dir "$WORK" --device cuda \
      --image "$WORK/sample.png" --prompt "a red balloon drifts over the hills" --negative-prompt "static, blurry" \
      --width "$width" --height "$height" --frames "$frames" --steps "$STEPS" --cfg 6 --seed 42 --no-adjust-resolution \
      --blocks-to-swap "$swap" --format rgb --output "$WORK/video.rgb" --overwrite \
      --save-latents "$WORK/latents.safetensors" --progress json --quiet 2>&1 | tail -40 >> "$log"
    code=${PIPESTATUS[0]}
    seconds=$(echo "$(date +%s.%N) $start" | awk '{print $1 - $2}')
    touch "$WORK/done"; wait
    bytes=$(stat -c %s "$WORK/video.rgb" 2>/dev/null || echo 0)
    # Behind the header, which has the number of blocks.
    sum=$($PYTHON -c 'import hashlib, struct, sys
d = open(sys.argv[1], "rb").read(); n = struct.unpack("<Q", d[:8])[0]; print(hashlib.sha256(d[8 + n:]).hexdigest()[:16])' \
      "$WORK/latents.safetensors" 2>/dev/null)
    first=${first:-$sum}
    local checks
    checks="{\"what\":\"s\",\"value\":$seconds},{\"what\":\"peak, MiB\",\"value\":$(cat "$WORK/done.most")},{\"what\":\"frames\",\"value\":$((bytes / (height * width * 3)))}"
    if [ "$code" = 0 ] && [ "$bytes" = "$wanted" ] && [ -n "$sum" ] && [ "$sum" = "$first" ]; then
      row generate "$SIZE, $STEPS steps, $swap swapped" passed "latents $sum" "$checks"
    else
      row generate "$SIZE, $STEPS steps, $swap swapped" failed "exit code $code, latents $sum, first $first" "$checks"
    fi
    say "generate, $swap swapped: exit code $code, $seconds s, $bytes bytes, latents $sum"
    rm -f "$WORK/video.rgb" "$WORK/latents.safetensors"
  done
}

# timing SECONDS ARGUMENTS ...
timing() {
  local seconds=$1
  shift
  limited "$((seconds + 20))" "$wan_run" bench --device cuda --model "$WORK/model.toml" --json "$times" \
    --limit-seconds "$seconds" "$@" 2>&1 | tee -a "$log"
}

bench() {
  synthesize
  timing 100 --size "$SIZE" --only copies/ --only products/ --only attention/ --runs 5
  timing 90 --size "$SIZE" --swap 0 --only step/
  timing 60 --size "$SIZE" --swap "${SWAPS[1]},${SWAPS[2]}" --only "step/bf16"
  timing 45 --size "$SMALLER" --swap 0 --only step/
  timing 60 --size "$SIZE" --only vae/ --only encoders/ --runs 3
  timing 90 --size "$LARGER" --swap 0 --only step/ --runs 1
}

peer() {
  synthesize
  local torch=("$PYTHON" "$here/peer_torch.py" --out "$peers" --dit "$WORK/dit.safetensors" --vae "$WORK/vae.safetensors" --size "$SIZE" --device "$TORCH")
  limited 60 "${torch[@]}" blocks --size 208x240x9 --layers 4 --reference "$WORK/reference.safetensors" 2>&1 | tail -5 >> "$log"
  check reference 60 --model "$WORK/model.toml" --reference "$WORK/reference.safetensors" --only reference/
  # Shapes of the 14B model whatever the layout: too large for a rehearsal.
  [ "$TORCH" = cpu ] || limited 90 "${torch[@]}" roofline attention --runs 5 2>&1 | tee -a "$log"
  limited 240 "${torch[@]}" dit 2>&1 | tee -a "$log"
  limited 90 "${torch[@]}" vae 2>&1 | tee -a "$log"
}

report() {
  $PYTHON "$here/report.py" "$OUT" | tee "$OUT/report.txt"
}

stages=("$@")
[ $# -gt 0 ] || stages=(info selftest sanitize synthesize generate bench peer report)
for stage in "${stages[@]}"; do
  case $stage in
    info | selftest | sanitize | synthesize | generate | bench | peer | report)
      say "== $stage, $(left) s left"
      "$stage"
      ;;
    *) echo "run.sh: found stage \`$stage\`, expected some of those at the top of this file" >&2; exit 2 ;;
  esac
done
