#!/usr/bin/env bash
# Checks and timings on a machine with an NVIDIA GPU, from prebuilt binaries alone: the driver, the CUDA libraries, and
# for comparisons PyTorch. `make gpu-bundle` builds the folder that this needs.
#
#     run.sh [UNIT ...]        default: all that are not done yet, in the order of UNITS below
#
# Called again on the same machine it goes on with what is left: results and what is done are kept in $WORK, and a unit
# that was cut off is begun anew. The most telling units come first.
#
# Environment: OUT results (8 files at most); WORK the model, 30 GB, and earlier results; CACHE what is compiled; LIMIT
# seconds for the whole call. WAN_RUN_KERNELS=portable leaves out the kernels for Hopper alone (all of them are used where
# it is not set); where an op's hangs or is wrong that is set here for the op, and what follows goes on without them.
# REHEARSE=1 runs all of it with small sizes on whatever libraries LD_LIBRARY_PATH leads to (tests/gpu/emulator), PyTorch
# on the CPU: it shows that the script works and nothing else.
set -uo pipefail
here=$(cd "$(dirname "$0")" && pwd)
OUT=${OUT:-$PWD/out/gpu}
LIMIT=${LIMIT:-570}
LAYOUT=14b-fp8 SIZE=832x480x81 SMALLER=512x512x81 LARGER=1280x720x81 SWAPS=(0 10 40) FULL=(--full) TORCH=cuda SLOWER=1
if [ -n "${REHEARSE:-}" ]; then
  LAYOUT=tiny SIZE=64x64x5 SMALLER=64x48x5 LARGER=80x64x5 SWAPS=(0 1 4) FULL=() TORCH=cpu SLOWER=10
fi
# Each with the seconds it needs at least: with less left it waits for the next call.
UNITS=("info 5" "probe 20" "selftest 70" "steps 45" "torch_dit 60" "smaller 25" "swaps 60" "job_fast 60" "job_four 15"
  "rates 40" "torch_rates 30" "vae 20" "torch_vae 30" "blocks 35" "encoders 20" "exact_step 25" "sanitize 45"
  "job0 55" "job1 55" "job2 55" "swapped_steps 45" "larger 70")
IFS=x read -r width height frames <<< "$SIZE"
PYTHON=${PYTHON:-python3}
began=$SECONDS

# Images of one kernel for several GPUs are much alike: xz halves what gzip leaves.
if [ -f "$here/wan-run.xz" ] && [ ! -x "$here/wan-run" ]; then
  $PYTHON -c 'import lzma, shutil, sys; shutil.copyfileobj(lzma.open(sys.argv[1]), open(sys.argv[2], "wb"))' \
    "$here/wan-run.xz" "$here/wan-run" && chmod +x "$here/wan-run"
fi
for wan_run in "$here/wan-run" "$here/../../target/release/wan-run"; do [ -x "$wan_run" ] && break; done
[ -x "$wan_run" ] || { echo "run.sh: no wan-run beside it: make gpu-bundle" >&2; exit 2; }

# The model goes where there is room: memory first.
if [ -z "${WORK:-}" ]; then
  WORK=/tmp/wan-run-gpu
  room() { [ "$(df --output=avail -BG "$1" 2>/dev/null | tail -1 | tr -dc 0-9)" -ge 36 ] 2>/dev/null; }
  if [ -e /dev/shm/wan-run-gpu ] || room /dev/shm; then
    WORK=/dev/shm/wan-run-gpu
  elif mkdir -p "$WORK" && ! mountpoint -q "$WORK"; then
    mount -t tmpfs -o size=40g tmpfs "$WORK" 2>/dev/null
  fi
fi
done=$WORK/done kept=$WORK/results parts=$WORK/parts
mkdir -p "$OUT" "$done" "$kept" "$parts"
cp -n "$kept"/* "$OUT"/ 2>/dev/null
rows=$OUT/selftest.jsonl times=$OUT/bench.jsonl peers=$OUT/peer.jsonl log=$OUT/run.log
export WAN_RUN_KERNELS=${WAN_RUN_KERNELS:-all}
[ -e "$done/portable" ] && export WAN_RUN_KERNELS=portable:$(paste -sd, "$done/portable")

# Whatever is compiled or tuned once is found again by the next process. Not beside the model: some machines let nothing be
# loaded from a folder in memory.
CACHE=${CACHE:-/tmp/wan-run-gpu-cache}
mkdir -p "$CACHE/nv"
export XDG_CACHE_HOME=$CACHE CUDA_CACHE_PATH=$CACHE/nv CUDA_CACHE_DISABLE=0 CUDA_CACHE_MAXSIZE=1073741824 PYTHONUNBUFFERED=1
export TORCHINDUCTOR_CACHE_DIR=$CACHE/inductor TRITON_CACHE_DIR=$CACHE/triton
export PYTHONPATH=$WORK/site${PYTHONPATH:+:$PYTHONPATH}
if ls "$here"/wheels/*.whl > /dev/null 2>&1 && [ ! -d "$WORK/site" ]; then
  $PYTHON -m pip install -q --no-index --no-deps --no-compile --no-cache-dir --target "$WORK/site" "$here"/wheels/*.whl
fi 2>> "$log"

# CUDA's libraries: those that PyTorch's wheels bring, so that both sides multiply with the same ones; then the system's.
wheels=$($PYTHON - 2>/dev/null <<'PY'
import glob, os, sysconfig
site = sysconfig.get_paths()["purelib"]
print(":".join(sorted({os.path.dirname(p) for p in glob.glob(f"{site}/nvidia/**/lib*.so*", recursive=True)})))
PY
)
if [ -n "${REHEARSE:-}" ]; then
  wheels=${LD_LIBRARY_PATH:-}${wheels:+:$wheels}
else
  wheels=${wheels:+$wheels:}${LD_LIBRARY_PATH:-}
fi
export LD_LIBRARY_PATH=${wheels:+$wheels:}/usr/local/cuda/lib64:/usr/local/nvidia/lib64

say() { printf '%s\n' "$*" | tee -a "$log"; }
left() { echo $((LIMIT - (SECONDS - began))); }

# limited SECONDS COMMAND ...: within its own limit and what is left of the call; 124 or 137 if that was too short, 125 if
# nothing was left. What does not even die when it is killed, as on a GPU that hangs, is left behind: its output must go to
# a file, not into a pipe.
limited() {
  local seconds=$(($1 * SLOWER)) rest pid until
  shift
  rest=$(left)
  [ "$rest" -gt 5 ] || return 125
  [ "$seconds" -lt "$rest" ] || seconds=$rest
  timeout -k 5 "$seconds" "$@" &
  pid=$! until=$((SECONDS + seconds + 12))
  while kill -0 "$pid" 2>/dev/null; do
    [ "$SECONDS" -lt "$until" ] || return 137
    sleep 0.1
  done
  wait "$pid"
}

# row FILE GROUP NAME OUTCOME REASON CHECKS: one more line of results, as wan-run writes them.
row() {
  printf '{"group":"%s","name":"%s","outcome":"%s","reason":"%s","checks":[%s],"seconds":0}\n' "$2" "$3" "$4" "$5" "$6" >> "$1"
}

# told FILE: the last line of a log, as a string of JSON.
told() { tail -1 "$1" 2>/dev/null | tr -d '"\\' | tr -dc '[:print:]' | cut -c 1-300; }

# check NAME SECONDS ARGUMENTS ...: some rows of selftest in a process of their own, into a file of their own.
check() {
  local name=$1 seconds=$2 part=$parts/$1 code
  shift 2
  rm -f "$part".*
  limited "$seconds" "$wan_run" selftest --device cuda --json "$part.jsonl" "$@" > "$part.txt" 2> "$part.log"
  code=$?
  case $code in
    0) ;;
    # A failed row is in the results; without one the process did not get that far.
    1) [ -s "$part.jsonl" ] || row "$part.jsonl" process "$name" error "$(told "$part.log")" "" ;;
    124 | 137) row "$part.jsonl" process "$name" error "stopped after $seconds s, after $(told "$part.txt")" "" ;;
    125) row "$part.jsonl" process "$name" skipped "no time left in this call" "" ;;
    *) row "$part.jsonl" process "$name" error "exit code $code: $(told "$part.log")" "" ;;
  esac
  return "$code"
}

# collect NAME ...: adds finished parts to the results.
collect() {
  local name
  for name in "$@"; do
    cat "$parts/$name.jsonl" >> "$rows" 2>/dev/null
    { cat "$parts/$name.txt"; tail -20 "$parts/$name.log"; } 2>/dev/null | tee -a "$OUT/selftest.txt" | grep -vE '^ok' | cut -c 1-400
  done
}

# portable OP WHY: from here on without the kernels for Hopper alone, of `attention` or `conv3d`; fails if that is so already.
portable() {
  [ "$WAN_RUN_KERNELS" != portable ] || return 1
  grep -qsx "$1" "$done/portable" && return 1
  echo "$1" >> "$done/portable"
  WAN_RUN_KERNELS=portable:$(paste -sd, "$done/portable")
  export WAN_RUN_KERNELS
  say "ON WITHOUT HOPPER'S OWN KERNELS FOR $1: $2"
  row "$rows" kernels "$1 for Hopper alone" failed "left out after: $2" ""
}

# The same of both; fails if neither had such kernels.
portable_all() {
  local any=1 op
  for op in attention conv3d; do portable "$op" "$1" && any=0; done
  return "$any"
}

# doubted OP NAME: a row of a part of selftest in which one of these kernels may be at fault, or that has no end.
doubted() {
  local rows='"name":"attention (exact |sage |\+|bf16|f16)'
  [ "$1" = attention ] || rows='"name":"conv3d'
  grep -E "\"group\":\"process\"|$rows" "$parts/$2.jsonl" 2>/dev/null |
    grep -E '"outcome":"(failed|error)"' | head -1 | cut -c 1-160 | tr -d '"\\'
}

# In the background, while only results matter and times do not: the model, and PyTorch's compiled blocks.
synthesizing="" warming=""
prepare() {
  if [ ! -f "$WORK/model.toml" ] && [ -z "$synthesizing" ]; then
    timeout 240 "$wan_run" synthesize --layout "$LAYOUT" "$WORK" > "$parts/synthesizing.log" 2>&1 &
    synthesizing=$!
  fi
  if [ "$TORCH" = cuda ] && [ ! -e "$done/warm" ] && [ -z "$warming" ]; then
    {
      until [ -f "$WORK/model.toml" ] || ! kill -0 "${synthesizing:-$$}" 2>/dev/null; do sleep 0.5; done
      timeout 150 "$PYTHON" "$here/peer_torch.py" warm --out "$parts/warm.jsonl" --dit "$WORK/dit.safetensors" \
        --size "$SIZE" "$SMALLER" && touch "$done/warm"
    } > "$parts/warming.log" 2>&1 &
    warming=$!
  fi
}
# finished NAME: waits for one of them, once.
finished() {
  local -n pid=$1
  [ -n "$pid" ] && [ "$pid" != done ] || return 0
  wait "$pid"
  pid=done
  tail -5 "$parts/$1.log" >> "$log"
}
# Waits until nothing else runs; NO_MODEL without a model.
NO_MODEL=75
ready() {
  prepare
  finished synthesizing
  finished warming
  [ -f "$WORK/model.toml" ] || { say "no model: $(told "$parts/synthesizing.log")"; return $NO_MODEL; }
}

# found_in LIBRARY ...: where the loader finds them, as far as LD_LIBRARY_PATH says.
found_in() {
  local library folder
  for library in "$@"; do
    for folder in ${LD_LIBRARY_PATH//:/ }; do
      [ ! -e "$folder/$library" ] || { echo "$folder/$library"; break; }
    done
  done
}

info() {
  {
    date -u
    nvidia-smi --query-gpu=name,driver_version,memory.total,clocks.sm,clocks.max.sm,power.limit,temperature.gpu --format=csv
    nproc; free -g | head -2; df -h /dev/shm "$WORK" "$CACHE" | cat; command -v gcc cc clang
    found_in libcublasLt.so.13 libcudnn.so.9 libnvrtc.so.13
    # Candle's kernels are compiled by the driver, with this; they are kept in the cache.
    ldconfig -p | grep ptxjit || echo "no libnvidia-ptxjitcompiler in the loader's cache"
    "$wan_run" --version
    [ -f "$here/commit" ] && echo "commit $(cat "$here/commit")"
    "$wan_run" info --json --model tiny
  } 2>&1 | tee -a "$log"
}

# Does it open the GPU and compute at all? Alone and first: it fills the cache of what the driver compiles.
probe() {
  prepare
  local attention=(--only "130x200 2x128" --only "70x64 2x128" --only "257x1000") conv3d=(--only "conv3d bf16 3x3x3 64->96") why
  check probe 60 "${attention[@]}" --only "linear e4m3 in fp8" --only jobs/denoising
  check probe_conv3d 40 "${conv3d[@]}"
  collect probe probe_conv3d
  say "$(find "$CACHE/nv" -type f | wc -l) files that the driver has compiled and kept"
  grep -q '"group":"ops"' "$parts/probe.jsonl" || {
    say "WAN-RUN DOES NOT GET TO ITS FIRST ROW"
    { ldconfig -p | grep -E 'cuda|cublas|cudnn|nvrtc'; find / -xdev \( -name 'libcublasLt.so*' -o -name 'libcuda.so*' \) 2>/dev/null
      echo "$LD_LIBRARY_PATH"; } >> "$log"
    return
  }
  why=$(doubted attention probe)
  if [ -n "$why" ] && portable attention "$why"; then
    check probe_portable 60 "${attention[@]}"
    collect probe_portable
  fi
  why=$(doubted conv3d probe_conv3d)
  if [ -n "$why" ] && portable conv3d "$why"; then
    check probe_conv3d_portable 40 "${conv3d[@]}"
    collect probe_conv3d_portable
  fi
}

# Nothing is timed here, and most of it is the host's work: all at once.
selftest() {
  prepare
  local all=(attention linear rows conv3d jobs dit vae encoders) name pids=() why
  check attention 150 "${FULL[@]}" --only ops/attention & pids+=($!)
  check linear 150 "${FULL[@]}" --only ops/linear & pids+=($!)
  check rows 150 "${FULL[@]}" --only ops/layer_norm --only ops/rms_norm --only ops/residual --only ops/gated \
    --only ops/channel --only ops/activate & pids+=($!)
  check conv3d 150 "${FULL[@]}" --only ops/conv3d & pids+=($!)
  check jobs 150 --only jobs/ & pids+=($!)
  check dit 150 "${FULL[@]}" --only components/dit & pids+=($!)
  check vae 150 "${FULL[@]}" --only components/vae & pids+=($!)
  check encoders 150 "${FULL[@]}" --only components/umt5 --only components/clip & pids+=($!)
  wait "${pids[@]}"
  collect "${all[@]}"
  local op
  for op in attention conv3d; do
    why=$(doubted "$op" "$op")
    [ -n "$why" ] && portable "$op" "$why" || continue
    check "${op}_portable" 90 "${FULL[@]}" --only "ops/$op"
    collect "${op}_portable"
  done
}

# The GPU's memory in use, in MiB, sampled until the file appears.
watch_memory() {
  local most=0 now
  while [ ! -e "$1" ]; do
    now=$(nvidia-smi --query-gpu=memory.used --format=csv,noheader,nounits | head -1)
    [ "${now:-0}" -gt "$most" ] && most=$now
    sleep 0.5
  done 2>/dev/null
  echo "$most" > "$1.most"
}

# job KIND SWAPPED STEPS ARGUMENTS ...: a whole job; its latents must be those of the first of its kind.
job() {
  ready || return
  [ -f "$WORK/sample.png" ] || "$wan_run" sample "$WORK/sample.png"
  local kind=$1 swap=$2 steps=$3 name="$1, $SIZE, $3 steps, $2 swapped" code start seconds bytes
  local wanted=$((frames * height * width * 3)) sum first watcher checks
  shift 3
  rm -f "$WORK"/stopped*
  watch_memory "$WORK/stopped" & watcher=$!
  start=$(date +%s.%N)
  limited 200 "$wan_run" generate --model "$WORK/model.toml" --models-dir "$WORK" --device cuda \
    --image "$WORK/sample.png" --prompt "a red balloon drifts over the hills" --negative-prompt "static, blurry" \
    --width "$width" --height "$height" --frames "$frames" --steps "$steps" --cfg 6 --seed 42 --no-adjust-resolution \
    --blocks-to-swap "$swap" --format rgb --output "$WORK/video.rgb" --overwrite \
    --save-latents "$WORK/latents.safetensors" --progress json "$@" > "$parts/job.log" 2>&1
  code=$?
  seconds=$(echo "$(date +%s.%N) $start" | awk '{print $1 - $2}')
  touch "$WORK/stopped"; wait "$watcher"
  tail -60 "$parts/job.log" >> "$log"
  bytes=$(stat -c %s "$WORK/video.rgb" 2>/dev/null || echo 0)
  # Behind the header, which has the number of blocks.
  sum=$($PYTHON -c 'import hashlib, struct, sys
d = open(sys.argv[1], "rb").read(); n = struct.unpack("<Q", d[:8])[0]; print(hashlib.sha256(d[8 + n:]).hexdigest()[:16])' \
    "$WORK/latents.safetensors" 2>/dev/null)
  checks="{\"what\":\"s\",\"value\":$seconds},{\"what\":\"most of the GPU in use, context included, MiB\",\"value\":$(cat "$WORK/stopped.most")},{\"what\":\"frames\",\"value\":$((bytes / (height * width * 3)))}"
  checks+=$(sed -n 's/.*"event":"finished","stage":"\([^"]*\)","seconds":\([0-9.]*\).*/,{"what":"\1, s","value":\2}/p' "$parts/job.log" | tr -d '\n')
  rm -f "$WORK/video.rgb" "$WORK/latents.safetensors"
  # Kernels of another kind give other values.
  first=$done/latents.$kind.${WAN_RUN_KERNELS:-all}
  [ "$code" != 0 ] || [ -e "$first" ] || echo "$sum" > "$first"
  if [ "$code" = 0 ] && [ "$bytes" = "$wanted" ] && [ -n "$sum" ] && [ "$sum" = "$(cat "$first")" ]; then
    row "$rows" generate "$name" passed "latents $sum" "$checks"
  elif [ "$code" = 125 ] || [ "$(left)" -le 5 ]; then
    row "$rows" generate "$name" skipped "no time left in this call" ""
  else
    row "$rows" generate "$name" failed "exit code $code, latents $sum, first $(cat "$first" 2>/dev/null): $(told "$parts/job.log")" "$checks"
    case $code in 124 | 137) portable_all "a job with $swap swapped has no end" && job "$kind" "$swap" "$steps" "$@" ;; esac
  fi
  say "generate, $name: exit code $code, $seconds s, $bytes bytes, latents $sum"
}
job_fast() { job fast "${SWAPS[0]}" 20 --fast; }
job_four() { job "four steps" "${SWAPS[0]}" 4 --fast --cfg 1 --scheduler euler/simple; }
job0() { job default "${SWAPS[0]}" 10; }
job1() { job default "${SWAPS[1]}" 10; }
job2() { job default "${SWAPS[2]}" 10; }

# Jobs of two steps with more and more swapped blocks, in one process: their latents, times and memory.
swaps() {
  ready || return
  check swaps 150 --model "$WORK/model.toml" --size "$SIZE" --steps 2 --swap "$(IFS=,; echo "${SWAPS[*]}")" --only model/
  collect swaps
}

# timing SECONDS ARGUMENTS ...
timing() {
  local seconds=$1 code
  shift
  limited "$((seconds + 10))" "$wan_run" bench --device cuda --model "$WORK/model.toml" --json "$times" \
    --limit-seconds "$seconds" "$@" > "$parts/timing.txt" 2>&1
  code=$?
  tee -a "$log" < "$parts/timing.txt" | cut -c 1-400
  return "$code"
}

# Each in a process of its own: one that fails leaves the others.
steps() {
  ready || return
  local numerics only
  for numerics in bf16 fp8 fast; do
    only=(--size "$SIZE" --swap 0 --runs 2 --only "step/$numerics ")
    timing 60 "${only[@]}"
    case $? in 124 | 137)
      [ "$(left)" -gt 5 ] && portable attention "a step in $numerics has no end" && timing 60 "${only[@]}" ;;
    esac
  done
}
# The default without cuDNN.
exact_step() { ready && timing 60 --size "$SIZE" --swap 0 --runs 2 --only "step/bf16-exact "; }
swapped_steps() { ready && timing 60 --size "$SIZE" --swap "${SWAPS[1]},${SWAPS[2]}" --runs 1 --only "step/bf16 "; }
smaller() { ready && timing 60 --size "$SMALLER" --swap 0 --runs 2 --only "step/bf16 " --only "step/fp8 " --only "step/fast "; }
larger() { ready && timing 100 --size "$LARGER" --swap 0 --runs 1 --only "step/fast "; }
vae() {
  ready || return
  timing 30 --size "$SIZE" --only convolution/ --runs 5
  timing 40 --size "$SIZE" --only vae/ --runs 2
}
encoders() { ready && timing 40 --size "$SIZE" --only encoders/ --runs 2; }
rates() {
  ready || return
  timing 30 --size "$SIZE" --only attention/ --runs 5
  timing 60 --size "$SIZE" --only copies/ --only products/ --runs 5
}

# pytorch SECONDS ARGUMENTS ...
pytorch() {
  local seconds=$1
  shift
  limited "$seconds" "$PYTHON" "$here/peer_torch.py" "$@" --out "$peers" --dit "$WORK/dit.safetensors" \
    --vae "$WORK/vae.safetensors" --device "$TORCH" > "$parts/torch.txt" 2>&1 || say "peer_torch.py $1: exit code $?"
  tail -40 "$parts/torch.txt" | tee -a "$log" | grep -iE '^\{|error' | cut -c 1-300
}
torch_dit() {
  ready || return
  # What was chosen while other programs computed is chosen anew; what was compiled is kept.
  find "$TORCHINDUCTOR_CACHE_DIR" -name '*.best_config' -delete 2>/dev/null
  pytorch 190 dit --size "$SIZE" "$SMALLER" --steps 2
}
# Shapes of the 14B model whatever the layout: too large for a rehearsal.
torch_rates() { ready && [ "$TORCH" != cpu ] && pytorch 90 attention roofline --size "$SIZE" --runs 5; }
torch_vae() {
  ready || return
  if [ "$TORCH" = cpu ]; then
    pytorch 75 vae --size "$SIZE"
  else
    pytorch 110 convolution vae --size "$SIZE" --runs 5
  fi
}
blocks() {
  ready || return
  pytorch 60 blocks --size 208x240x9 --layers 4 --reference "$WORK/reference.safetensors"
  check reference 60 --model "$WORK/model.toml" --reference "$WORK/reference.safetensors" --only reference/
  collect reference
}

sanitize() {
  local tool code PATH=$PATH:/usr/local/cuda/bin
  command -v compute-sanitizer > /dev/null || { row "$rows" sanitizer start skipped "there is none" ""; return; }
  for tool in memcheck racecheck synccheck; do
    limited 60 compute-sanitizer --tool "$tool" --error-exitcode 9 "$wan_run" selftest --device cuda \
      --only "attention exact bf16 130x200" --only "attention sage bf16 130x200" --only "attention +33 bf16" \
      --only "layer_norm bf16 33x256" --only "conv3d bf16 3x3x3 16" --only "conv3d bf16 3x3x3 64->96" > "$parts/sanitize.txt" 2>&1
    code=$?
    tail -60 "$parts/sanitize.txt" >> "$log"
    if [ "$code" = 0 ]; then
      row "$rows" sanitizer "$tool" passed "" ""
    elif [ "$code" = 124 ] || [ "$code" = 125 ] || [ "$code" = 137 ]; then
      row "$rows" sanitizer "$tool" skipped "no time left" ""
    elif grep -qiE 'device not supported|error 999' "$parts/sanitize.txt"; then
      row "$rows" sanitizer "$tool" skipped "not on this machine: $(told "$parts/sanitize.txt")" ""
    else
      row "$rows" sanitizer "$tool" failed "exit code $code, see run.log: $(told "$parts/sanitize.txt")" ""
    fi
  done
}

report() {
  $PYTHON "$here/report.py" "$OUT" > "$OUT/report.txt"
  cp -f "$OUT"/* "$kept"/ 2>/dev/null
}

# What the GPU was allowed and did meanwhile: a clock that sinks explains a slow row.
nvidia-smi --query-gpu=timestamp,clocks.sm,clocks.mem,power.draw,temperature.gpu,clocks_event_reasons.active --format=csv,noheader \
  -lms 1000 >> "$OUT/clocks.csv" 2> /dev/null &
trap "kill $! 2> /dev/null" EXIT

known=$(printf ' %s' "${UNITS[@]% *}")" "
for name in "$@"; do
  case $known in *" $name "*) ;; *) echo "run.sh: found unit \`$name\`, expected some of$known" >&2; exit 2 ;; esac
done
for unit in "${UNITS[@]}"; do
  read -r name least <<< "$unit"
  case " ${*:-$name} " in *" $name "*) ;; *) continue ;; esac
  [ $# -gt 0 ] || [ ! -e "$done/$name" ] || continue
  if [ "$(left)" -lt "$least" ]; then
    say "== $name: $(left) s left, for the next call"
    continue
  fi
  say "== $name, $(left) s left"
  "$name"
  code=$?
  # What was cut off is begun anew in the next call, and what had no model.
  [ "$(left)" -le 5 ] || [ "$code" = "$NO_MODEL" ] || touch "$done/$name"
  report
done
report
cat "$OUT/report.txt"
