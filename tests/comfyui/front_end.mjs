// Drives ComfyUI's own front end through a job on a running server, by hand: it is not part of the tests.
//
//   npm ci --prefix tests/page
//   wan-run serve --model tiny --insecure --front-end-root FOLDER/comfyui_frontend_package/static
//   node tests/comfyui/front_end.mjs http://127.0.0.1:8188 [PICTURE.png]
//
// Opens wanx-21.json from the list of workflows, takes the sample picture and a small size, presses Run, waits for the
// video in the queue's list, and prints which of the front end's requests to the server were refused.

import assert from "node:assert/strict";
import { createRequire } from "node:module";

const { chromium } = createRequire(new URL("../page/", import.meta.url))("playwright-core");
const [address, picture] = process.argv.slice(2);
assert.ok(address, "expected the server's address");

const browser = await chromium.launch({ executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium", args: ["--no-sandbox"] });
const page = await browser.newPage({ viewport: { width: 1500, height: 950 } });
const refused = new Set();
const steps = new Set();
page.on("pageerror", (error) => console.log(`error in the page: ${error.message}`));
page.on("response", (response) => {
  const url = new URL(response.url());
  if (url.origin === new URL(address).origin && response.status() >= 400) {
    refused.add(`${response.status()} ${response.request().method()} ${url.pathname}`);
  }
});
page.on("websocket", (socket) => socket.on("framereceived", ({ payload }) => {
  if (typeof payload !== "string") return steps.add("preview");
  const { type, data } = JSON.parse(payload);
  if (type === "progress") steps.add(`${data.value}/${data.max}`);
}));

await page.goto(address);
await page.waitForFunction(() => window.app?.graph);
// A first visit begins with a dialog about templates.
await page.getByText("No templates found").waitFor({ timeout: 15_000 }).catch(() => {});
await page.keyboard.press("Escape");
await page.mouse.click(700, 800);
await page.keyboard.press("w");
await page.getByText("wanx-21").first().click();
await page.waitForFunction(() => window.app.graph._nodes.length >= 12);
const video = await page.evaluate(() => {
  const set = (type, values) => {
    const node = window.app.graph._nodes.find((candidate) => candidate.type === type);
    for (const [name, value] of Object.entries(values)) node.widgets.find((widget) => widget.name === name).value = value;
    return Object.fromEntries(node.widgets.map((widget) => [widget.name, widget.value]));
  };
  set("LoadImage", { image: "sample.png" });
  set("WanVideoImageClipEncode", { generation_width: 128, generation_height: 128, num_frames: 17 });
  set("WanVideoSampler", { steps: 6 });
  return set("VHS_VideoCombine", {});
});
assert.equal(video.frame_rate, 16, "values that were saved by name are read");
await page.getByTestId("queue-button").or(page.getByRole("button", { name: "Run", exact: true })).first().click();
const history = async () => Object.values(await (await fetch(`${address}/history`)).json());
while (!(await history()).length) await page.waitForTimeout(500);
await page.waitForTimeout(3000);
if (picture) await page.screenshot({ path: picture });
const [entry] = await history();
assert.equal(entry.status.completed, true, JSON.stringify(entry.status));
assert.ok(entry.prompt[3].extra_pnginfo.workflow.nodes, "the workflow comes along");
console.log("outputs:", JSON.stringify(entry.outputs));
console.log("seen on the socket:", [...steps].join(" "));
console.log("refused:", [...refused].join(", ") || "nothing");
await browser.close();
