"""Load on `wan-run serve`: 200 queued jobs while 50 clients poll /queue and /history.

    cargo build --release -p wan-run
    python3 benches/serve_load.py target/release/wan-run [--jobs 200] [--clients 50] [--interval 1.0]

Prints errors, percentiles of the answer times, and the server's resident memory from start to end.
"""

import argparse
import http.client
import json
import pathlib
import random
import subprocess
import tempfile
import threading
import time

ROOT = pathlib.Path(__file__).resolve().parents[1]
TOKEN = "load-test-token"


def graph(seed):
    nodes = json.loads((ROOT / "workflows" / "wanx-21.api.json").read_text())
    nodes["42"]["inputs"]["image"] = "sample.png"
    nodes["50"]["inputs"].update(generation_width=64, generation_height=64, num_frames=5)
    nodes["52"]["inputs"].update(steps=1, cfg=1, seed=seed)
    return nodes


class Client:
    def __init__(self, port):
        self.connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)

    def request(self, method, path, body=None):
        start = time.perf_counter()
        headers = {"Authorization": f"Bearer {TOKEN}"}
        self.connection.request(method, path, json.dumps(body) if body is not None else None, headers)
        response = self.connection.getresponse()
        content = response.read()
        return response.status, content, time.perf_counter() - start


class Polls:
    """Answer times by path, and what went wrong."""

    def __init__(self):
        self.times = {"/queue": [], "/history/{id}": [], "/history": []}
        self.errors = []
        self.lock = threading.Lock()

    def run(self, port, ids, interval, stop):
        client = Client(port)
        time.sleep(random.random() * interval)
        while not stop.is_set():
            own = random.choice(ids) if ids else "none"
            paths = {"/queue": "/queue", "/history/{id}": f"/history/{own}", "/history": "/history?max_items=200"}
            for kind, path in paths.items():
                try:
                    status, _, seconds = client.request("GET", path)
                    with self.lock:
                        self.times[kind].append(seconds)
                        if status != 200:
                            self.errors.append(f"{path}: {status}")
                except OSError as error:
                    with self.lock:
                        self.errors.append(f"{path}: {error}")
                    client = Client(port)
            stop.wait(interval)


def resident_mib(pid):
    for line in pathlib.Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS"):
            return int(line.split()[1]) / 1024
    return 0.0


def main():
    options = argparse.ArgumentParser()
    options.add_argument("binary")
    options.add_argument("--jobs", type=int, default=200)
    options.add_argument("--clients", type=int, default=50)
    options.add_argument("--interval", type=float, default=1.0, help="seconds between the polls of a client")
    options = options.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        command = [options.binary, "serve", "--model", "tiny", "--port", "0", "--data-dir", folder, "--token", TOKEN]
        server = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        try:
            port = int(server.stdout.readline().rsplit(":", 1)[1])
            measure(server.pid, port, options)
        finally:
            server.terminate()
            server.wait()


def measure(pid, port, options):
    client, polls, stop, ids = Client(port), Polls(), threading.Event(), []
    arguments = (port, ids, options.interval, stop)
    threads = [threading.Thread(target=polls.run, args=arguments) for _ in range(options.clients)]
    for thread in threads:
        thread.start()
    start, memory = time.time(), [resident_mib(pid)]
    for seed in range(options.jobs):
        status, content, _ = client.request("POST", "/prompt", {"prompt": graph(seed), "client_id": "load"})
        assert status == 200, content
        ids.append(json.loads(content)["prompt_id"])
    submitted = time.time() - start
    while json.loads(client.request("GET", "/prompt")[1])["exec_info"]["queue_remaining"]:
        memory.append(resident_mib(pid))
        time.sleep(0.5)
    total = time.time() - start
    stop.set()
    for thread in threads:
        thread.join()
    history = json.loads(client.request("GET", "/history")[1])
    done = [entry for entry in history.values() if entry["status"]["completed"]]
    print(f"jobs           {len(done)} of {options.jobs} completed in {total:.0f} s; submitted in {submitted:.1f} s")
    for kind, times in polls.times.items():
        times.sort()
        at = lambda q: 1000 * times[min(len(times) - 1, int(q * len(times)))]
        print(f"{kind:14} {len(times)} polls: p50 {at(0.5):.1f} ms, p99 {at(0.99):.1f} ms, most {1000 * times[-1]:.1f} ms")
    print(f"errors         {len(polls.errors)} {polls.errors[:3]}")
    quarters = ", ".join(f"{memory[len(memory) * part // 4]:.0f}" for part in (1, 2, 3))
    print(
        f"memory         start {memory[0]:.0f}, after each quarter {quarters}, end {resident_mib(pid):.0f},"
        f" most {max(memory):.0f} MiB"
    )


if __name__ == "__main__":
    main()
