"""Runs a job through the PyPI package comfy-api-simplified, against a running server.

    pip install -r tests/comfyui/requirements.txt
    wan-run serve --model tiny --token my-secret-token
    python3 tests/comfyui/pypi_client.py http://127.0.0.1:8188 my-secret-token

`make test-clients` does all three. Uploads an image, queues the guide's workflow at a small size, follows it over the WebSocket, downloads the video.
"""

import pathlib
import sys

from comfy_api_simplified import ComfyApiWrapper, ComfyWorkflowWrapper

ROOT = pathlib.Path(__file__).resolve().parents[2]

def main(url: str, token: str) -> None:
    api = ComfyApiWrapper(url, user="anyone", password=token)
    uploaded = api.upload_image(str(ROOT / "models" / "tiny" / "sample.png"))
    workflow = ComfyWorkflowWrapper(str(ROOT / "workflows" / "wanx-21.api.json"))
    for node in workflow.values():
        node.setdefault("_meta", {"title": node["class_type"]})
    image = f"{uploaded['subfolder']}/{uploaded['name']}"
    workflow.set_node_param("LoadImage", "image", image)
    for name, value in {"generation_width": 64, "generation_height": 64, "num_frames": 5}.items():
        workflow.set_node_param("WanVideoImageClipEncode", name, value)
    workflow.set_node_param("WanVideoSampler", "steps", 2)
    videos = api.queue_and_wait_images(workflow, "VHS_VideoCombine")
    (name, content), = videos.items()
    assert name.endswith(".mp4") and content[4:8] == b"ftyp", name
    print(f"{name}: {len(content)} bytes")


if __name__ == "__main__":
    main(*sys.argv[1:])
