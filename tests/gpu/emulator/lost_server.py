"""A server whose GPU is lost while it runs a job: `lost_server.py PROGRAM FOLDER`, with EMULATOR_FAULT set.

The server must start again by itself, at the same address and with the same token, and end that job and the one behind it.
"""

import json
import os
import pathlib
import socket
import subprocess
import sys
import time
import urllib.request

program, folder = sys.argv[1], pathlib.Path(sys.argv[2])
fault = pathlib.Path(os.environ["EMULATOR_FAULT"])
data, root = folder / "server", pathlib.Path(__file__).parents[3]


def graph(seed):
    """The guide's workflow, as small as it may be, on the sample image."""
    nodes = json.loads((root / "workflows/wanx-21.api.json").read_text())
    for node in nodes.values():
        inputs, kind = node["inputs"], node["class_type"]
        if kind == "LoadImage":
            inputs["image"] = "sample.png"
        if "num_frames" in inputs:
            inputs.update(num_frames=5, width=64, height=64, generation_width=64, generation_height=64)
        if kind == "WanVideoSampler":
            inputs.update(steps=2, seed=seed)
    return nodes


def call(path, body=None):
    request = urllib.request.Request(f"http://127.0.0.1:{port}{path}", json.dumps(body).encode() if body else None)
    request.add_header("Authorization", "Bearer " + (data / "token").read_text().strip())
    request.add_header("Content-Type", "application/json")
    with urllib.request.urlopen(request, timeout=30) as answer:
        return json.load(answer)


def patiently(action, seconds=240):
    """What `action` returns once it is something; while the server is away there is nothing."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            found = action()
        except OSError:
            found = None
        if found:
            return found
        assert server.poll() is None, f"the server ended with {server.returncode}"
        time.sleep(0.2)
    raise SystemExit("the server took too long")


with socket.socket() as free:
    free.bind(("127.0.0.1", 0))
    port = free.getsockname()[1]
(data / "input").mkdir(parents=True)
(data / "input/sample.png").write_bytes((root / "models/tiny/sample.png").read_bytes())
log = folder / "server.log"
command = [program, "serve", "--model", "tiny", "--port", str(port), "--data-dir", str(data)]
with log.open("wb") as out:
    server = subprocess.Popen(command, stdout=out, stderr=subprocess.STDOUT)
try:
    patiently(lambda: call("/queue"))
    jobs = [call("/prompt", {"prompt": graph(seed)})["prompt_id"] for seed in (1, 2)]
    fault.touch()
    for job in jobs:
        entry = patiently(lambda: call(f"/history/{job}").get(job))
        assert entry["status"]["status_str"] == "success", entry["status"]
    assert not fault.exists(), "no kernel ran on the GPU"
    assert "the server starts again" in log.read_text(), "the GPU was not lost"
finally:
    server.terminate()
    server.wait(60)
    print(log.read_text())
