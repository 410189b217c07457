// Jobs of all kinds on the web page: what they make, how they end, and whose they are.

import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import path from "node:path";
import { after, before, beforeEach, test } from "node:test";

import { LATENCY, launch, newPage, ROOT, Server, settings } from "./support.mjs";

// It is always cancelled.
const SLOW = { width: 256, height: 256, frames: 81, steps: 1000 };
/** Its stages and steps last long enough to be seen. */
const SEEN = { width: 256, height: 256, frames: 17 };
const PROMPT = "the red circle moves right";

let server, browser, page;
const errors = [];

before(async () => {
  server = await Server.create();
  await server.start("page-test-token");
  browser = await launch();
  page = await newPage(browser, { width: 1280, height: 800 }, errors);
  page.on("dialog", (dialog) => dialog.accept());
  for (const [name, output] of Object.entries(OUTPUTS)) await store(`${name}.json`, await guide({ output }));
  await page.goto(`${server.address}/?token=${server.token}`);
  await opened("wanx-21.json");
});

after(async () => {
  await browser?.close();
  await server?.remove();
});

// Each test begins with an empty queue.
beforeEach(async () => {
  await server.ask("queue", { clear: true });
  await server.ask("interrupt", {});
  while ((await server.ask("queue")).queue_running.length) await new Promise((resolve) => setTimeout(resolve, 100));
});

/** Output nodes for the frames of node 53, by the name of the workflow that has them. */
const OUTPUTS = {
  gif: { 54: { class_type: "VHS_VideoCombine", inputs: { images: ["53", 0], frame_rate: 16, loop_count: 0,
    filename_prefix: "gif", format: "image/gif", pingpong: false, save_output: true } } },
  webp: { 54: { class_type: "SaveAnimatedWEBP", inputs: { images: ["53", 0], filename_prefix: "webp", fps: 16,
    lossless: false, quality: 80, method: "default" } } },
  video: { 54: { class_type: "CreateVideo", inputs: { images: ["53", 0], fps: 16 } },
    55: { class_type: "SaveVideo", inputs: { video: ["54", 0], filename_prefix: "video", format: "auto", codec: "auto" } } },
  pictures: { 54: { class_type: "SaveImage", inputs: { images: ["53", 0], filename_prefix: "picture" } } },
};

/** The guide's graph at a small size, with other output nodes. */
async function guide({ output = {}, width = 64, height = 64, frames = 9, steps = 4 } = {}) {
  const graph = JSON.parse(await readFile(path.join(ROOT, "workflows/wanx-21.api.json")));
  Object.assign(graph[42].inputs, { image: "sample.png" });
  Object.assign(graph[49].inputs, { positive_prompt: PROMPT, negative_prompt: "static" });
  Object.assign(graph[50].inputs, { generation_width: width, generation_height: height, num_frames: frames });
  Object.assign(graph[52].inputs, { steps });
  return { ...graph, ...output };
}

const store = (name, content) => server.ask(`userdata/${encodeURIComponent(`workflows/${name}`)}`, content);

/** Asks as another program; the job's id. */
const submit = async (prompt) => (await server.ask("prompt", { prompt })).prompt_id;

/** A job's place in the history, once it has ended. */
const item = async (id) => {
  const found = page.locator(`#history .item[data-id="${id}"]`);
  await found.waitFor();
  return found;
};

const opened = (name) => page.waitForFunction((name) => {
  const run = document.querySelector("#run");
  return document.querySelector("#workflow").value === name && !run.disabled;
}, name);

/** Chooses a workflow and waits until the form has it. */
async function choose(name) {
  await page.selectOption("#workflow", name);
  await page.waitForFunction((name) => localStorage.getItem("wan-run.workflow") === name, name);
}

const text = (selector) => page.locator(selector).textContent();
const isLoaded = (image) => image.evaluate((element) => element.decode().then(() => element.naturalWidth));

test("a workflow that cannot be read is named, and does not run as another one", async () => {
  await store("broken.json", "not a workflow");
  await store("strange.json", { version: 1, nodes: [{ id: 1, type: "NoSuchNode", inputs: [], outputs: [] }], links: [] });
  await page.reload();
  await opened("wanx-21.json");
  const requests = [];
  page.on("request", (request) => request.url().endsWith("/prompt") && requests.push(request.url()));
  let release;
  const released = new Promise((resolve) => (release = resolve));
  await page.route("**/wan-run/convert", async (route) => {
    await released;
    await route.continue();
  });
  await page.selectOption("#workflow", "broken.json");
  await page.click("#run");
  release();
  await page.locator("#form-error", { hasText: "broken.json is not a workflow" }).waitFor();
  await page.unroute("**/wan-run/convert");
  await opened("wanx-21.json");
  assert.deepEqual(requests, []);
  assert.doesNotMatch(await text("#form-error"), /null/);

  // What cannot run is told before it is asked for.
  await choose("strange.json");
  await page.locator("#form-error", { hasText: "NoSuchNode" }).waitFor();
  await choose("wanx-21.json");
  assert.ok(await page.isHidden("#form-error"));
});

test("a double click makes one video", async () => {
  const requests = [];
  await page.route("**/prompt", (route) => {
    requests.push(route.request().url());
    return route.fulfill({ status: 400, json: { error: { message: "not taken", details: "" } } });
  });
  await page.dblclick("#run");
  await page.locator("#form-error", { hasText: "not taken" }).waitFor();
  await page.waitForTimeout(300);
  assert.equal(requests.length, 1);
  await page.unroute("**/prompt");
});

test("each workflow keeps what was typed for it", async () => {
  await page.fill("#positive", "the red circle spins");
  await choose("gif.json");
  assert.equal(await page.inputValue("#positive"), PROMPT);
  await choose("wanx-21.json");
  assert.equal(await page.inputValue("#positive"), "the red circle spins");
});

test("numbers that the server would not take are told in sentences", async () => {
  for (const [field, value, sentence] of [
    ["steps", "2.5", /Steps: a whole number/],
    ["seed", "-1", /Seed: a whole number from 0 to 18446744073709551615/],
    ["seed", "18446744073709551616", /Seed: a whole number from 0 to/],
  ]) {
    const before = await page.inputValue(`#${field}`);
    await page.fill(`#${field}`, value);
    await page.click("#run");
    await page.locator("#form-error").waitFor();
    assert.match(await text("#form-error"), sentence);
    await page.fill(`#${field}`, before);
  }
});

test("what is no MP4 is shown as well: pictures, GIF, WebP, and videos without a first frame", async () => {
  const ids = {};
  for (const [name, output] of Object.entries(OUTPUTS)) ids[name] = await submit(await guide({ output }));
  const pictures = await item(ids.pictures);
  assert.ok(await pictures.locator(".error").isHidden());
  assert.equal(await pictures.locator(".badge").textContent(), "9 pictures");
  await pictures.locator("summary").click();
  const links = await pictures.locator(".files a").evaluateAll((links) => links.map((link) => link.download));
  assert.equal(new Set(links).size, 9);
  const [download] = await Promise.all([page.waitForEvent("download"), pictures.locator(".files a").last().click()]);
  assert.equal(download.suggestedFilename(), links[8]);
  const video = (await item(ids.video)).locator(".poster video");
  await video.scrollIntoViewIfNeeded();
  await page.waitForFunction((video) => video.videoWidth === 64, await video.elementHandle());
  for (const name of ["gif", "webp", "pictures"]) {
    const poster = (await item(ids[name])).locator(".poster");
    await poster.scrollIntoViewIfNeeded();
    assert.equal(await isLoaded(poster.locator("img")), 64, name);
    await poster.click();
    assert.equal(await isLoaded(page.locator("#player img")), 64, name);
    assert.ok((await page.locator("#player img").boundingBox()).width >= 640, "small ones are shown larger");
    await page.goBack();
    await page.locator("#player").waitFor({ state: "hidden" });
  }
  await (await item(ids.video)).locator(".poster").click();
  await page.waitForFunction(() => document.querySelector("#player video").currentTime > 0);
  await page.keyboard.press("Escape");
  await page.waitForFunction(() => document.querySelector("#player video").networkState === HTMLMediaElement.NETWORK_EMPTY);
});

test("the last result of one's own is shown in whatever form it has", async () => {
  for (const [name, note] of [["gif", PROMPT], ["pictures", `First of 9 files, which the history has · ${PROMPT}`]]) {
    await choose(`${name}.json`);
    const [answer] = await Promise.all([page.waitForResponse("**/prompt"), page.click("#run")]);
    // Until then the result of an earlier job may be shown.
    await item((await answer.json()).prompt_id);
    assert.equal(await text("#result-note"), note);
    assert.equal(await isLoaded(page.locator("#picture")), 64);
    assert.ok(await page.isHidden("#job-error"));
  }
});

/** Has the page note what the present job shows from now on. */
const watchJob = () => page.evaluate(() => {
  const visible = (id) => document.getElementById(id).checkVisibility();
  window.lines = [];
  window.watcher?.disconnect();
  window.watcher = new MutationObserver(() => {
    if (!visible("progress-box")) return;
    const shown = ["idle", "preview", "result"].find(visible);
    const [line, idle, ended] = ["progress-text", "idle", "job-error"].map((id) => document.getElementById(id).textContent);
    window.lines.push({ line, shown, idle, ended: visible("job-error") ? ended : "" });
  });
  window.watcher.observe(document.querySelector("#job"), { subtree: true, childList: true, attributes: true, characterData: true });
});

test("each stage has its name, and none comes back; nothing says that nothing runs", async () => {
  await choose("wanx-21.json");
  await settings(page, SEEN);
  await watchJob();
  await page.click("#run");
  await page.locator("#result").waitFor();
  const seen = await page.evaluate(() => window.lines);
  const stages = seen.map(({ line }) => line.replace(/^Step .*/, "Sampling"));
  const begun = stages.filter((stage, index) => stage !== "Preparing" && stage !== stages[index - 1]);
  assert.deepEqual(begun.filter((stage) => /Sampling|Decoding/.test(stage)), ["Sampling", "Decoding and writing"], `${begun}`);
  assert.ok(begun.includes("Reading the image"), `${begun}`);
  assert.ok(!stages.slice(stages.indexOf("Sampling")).includes("Preparing"), `${stages}`);
  assert.deepEqual(seen.filter(({ shown, idle }) => shown === "idle" && /Nothing is running/.test(idle)), []);
});

test("a result stays until the next job of one's own has something to show, whatever others do", async () => {
  await page.fill("#positive", "the blue star spins");
  await settings(page, SEEN);
  await watchJob();
  await page.click("#run");
  await settings(page, SLOW);
  await page.click("#run");
  // The result before, the first job's preview and its result, the second job's preview.
  await page.waitForFunction(() => {
    const shown = window.lines.map(({ shown }) => shown);
    return shown.filter((what, index) => what !== shown[index - 1]).join() === "result,preview,result,preview";
  });
  await page.click("#cancel");
  await page.locator("#job-error", { hasText: "Cancelled" }).waitFor();

  await settings(page, {});
  await page.click("#run");
  await page.locator("#result").waitFor();
  const id = await submit(await guide(SLOW));
  await page.locator("#queue li", { hasText: `running · ${PROMPT}` }).waitFor();
  assert.ok(await page.isVisible("#result"));
  assert.ok(await page.isHidden("#progress-box"));
  await page.click("#queue li button");
  const ended = await item(id);
  assert.equal(await ended.locator(".error").textContent(), "Cancelled");
  assert.ok(await page.isVisible("#result"));
});

test("that a job was cancelled stays said while the next one begins", async () => {
  await settings(page, SLOW);
  await page.click("#run");
  await page.locator("#progress-text:visible", { hasText: /^Step/ }).waitFor();
  await page.click("#run");
  await page.locator("#queue li").waitFor();
  await watchJob();
  await page.click("#cancel");
  await page.waitForFunction(() => window.lines.some(({ ended }) => ended === "The job before this one: Cancelled"));
});

test("a page that comes in the middle of a job says where it stands, or that it is another's", async () => {
  await settings(page, SLOW);
  await page.click("#run");
  await page.locator("#progress-text:visible", { hasText: /^Step/ }).waitFor();
  await page.reload();
  await page.waitForFunction(() => /^(Sampling|Step)/.test(document.querySelector("#progress-text").textContent));
  const other = await newPage(browser, page.viewportSize(), errors);
  await other.goto(`${server.address}/?token=${server.token}`);
  await other.locator("#progress-text", { hasText: "Running (started elsewhere)" }).waitFor();
  assert.match(await other.textContent("#idle"), /started elsewhere is running/);
  await other.close();
});

/** A graph of ComfyUI's own nodes that the demo model runs. */
async function ownNodes(sampling) {
  const graph = JSON.parse(await readFile(path.join(ROOT, "tests/comfyui/native.api.json")));
  delete graph[10];
  graph[11].inputs.model = ["1", 0];
  Object.assign(graph[5].inputs, { image: "sample.png" });
  Object.assign(graph[6].inputs, { text: "the blue star moves left" });
  Object.assign(graph[9].inputs, { width: 64, height: 64, length: 9 });
  Object.assign(graph[12].inputs, { steps: 2, seed: 7, ...sampling });
  return graph;
}

test("a sampler that the server lacks is refused, and does not become another one", async () => {
  await store("foreign.json", await ownNodes({ sampler_name: "euler_ancestral", scheduler: "bong_tangent" }));
  await page.reload();
  await opened("wanx-21.json");
  await choose("foreign.json");
  assert.equal(await page.inputValue("#sampler"), "euler_ancestral");
  assert.equal(await page.inputValue("#scheduler"), "bong_tangent");
  const [answer] = await Promise.all([page.waitForResponse("**/prompt"), page.click("#run")]);
  assert.equal(answer.status(), 400);
  await page.locator("#form-error:visible").waitFor();
  await page.selectOption("#sampler", "euler");
  await page.selectOption("#scheduler", "beta");
  const [taken] = await Promise.all([page.waitForResponse("**/prompt"), page.click("#run")]);
  await item((await taken.json()).prompt_id);
  await choose("wanx-21.json");
});

test("settings of a job of another workflow come with that workflow", async () => {
  const native = await ownNodes();
  await choose("wanx-21.json");
  await settings(page, { steps: 3 });
  const [answer] = await Promise.all([page.waitForResponse("**/prompt"), page.click("#run")]);
  const guideJob = await item((await answer.json()).prompt_id);
  const nativeJob = await item(await submit(native));
  await page.fill("#steps", "5");
  await nativeJob.locator(".again").click();
  await page.waitForFunction(() => document.querySelector("#positive").value === "the blue star moves left");
  assert.equal(await page.inputValue("#workflow"), "");
  assert.equal(await page.inputValue("#sampler"), "uni_pc");
  assert.equal(await page.inputValue("#scheduler"), "simple");
  await page.selectOption("#sampler", "dpmpp_2m");
  await page.selectOption("#scheduler", "karras");
  const [taken] = await Promise.all([page.waitForResponse("**/prompt"), page.click("#run")]);
  const sent = taken.request().postDataJSON().prompt;
  assert.deepEqual(Object.values(sent).map((node) => node.class_type), Object.values(native).map((node) => node.class_type));
  assert.deepEqual([sent[12].inputs.sampler_name, sent[12].inputs.scheduler], ["dpmpp_2m", "karras"]);
  const made = await item((await taken.json()).prompt_id);
  assert.match(await made.textContent(), /2 steps, dpmpp_2m, karras/);

  await choose("wanx-21.json");
  await page.locator("#sampler").waitFor({ state: "hidden" });
  await guideJob.locator(".again").click();
  await page.waitForFunction(() => document.querySelector("#steps").value === "3");
  assert.equal(await page.inputValue("#workflow"), "wanx-21.json", "it is the workflow of this job");
});

/** Waits until nothing has moved for a while: what comes in meanwhile pushes the rest down. */
const atRest = () => page.evaluate(async (rest) => {
  const look = () => [scrollX, scrollY, ...[...document.querySelectorAll("main *")].map((element) => element.getBoundingClientRect().top)].join();
  for (let [before, since] = [look(), performance.now()]; performance.now() - since < rest; ) {
    await new Promise((resolve) => setTimeout(resolve, 50));
    const now = look();
    if (now !== before) [before, since] = [now, performance.now()];
  }
}, 500 + 2 * LATENCY);

test("whatever has the focus is in sight", async () => {
  for (const viewport of [{ width: 1280, height: 800 }, { width: 390, height: 844 }]) {
    await page.setViewportSize(viewport);
    await page.evaluate(() => {
      document.activeElement.blur();
      scrollTo(0, 0);
    });
    await atRest();
    const visited = new Set();
    for (let presses = 0; presses < 60; presses += 1) {
      await page.keyboard.press("Tab");
      const name = await page.evaluate(() => document.activeElement.id || document.activeElement.className || "body");
      visited.add(name);
      // The page scrolls once the key is up.
      await page.waitForFunction(() => {
        const element = document.activeElement;
        if (element === document.body || element.closest(".skip")) return true;
        const { left, top, width, height } = element.getBoundingClientRect();
        const points = [0.1, 0.5, 0.9].map((part) => document.elementFromPoint(left + width / 2, top + height * part));
        return points.every((found) => found && (element.contains(found) || found.contains(element) || element.labels?.[0]?.contains(found)));
      }, null, { timeout: 10_000 }).catch(() => assert.fail(`${name} at ${viewport.width} pixels is covered`));
    }
    for (const name of ["seed", "denoise", "run", "again"]) assert.ok(visited.has(name), `${[...visited]}`);
  }
});

test("on a phone, progress and Cancel are in sight once a job was asked for", async () => {
  await page.setViewportSize({ width: 390, height: 844 });
  await page.evaluate(() => document.querySelector("#form").scrollIntoView());
  await settings(page, SLOW);
  await page.click("#run");
  await page.locator("#preview").waitFor();
  await page.waitForFunction(() => ["progress", "cancel"].every((id) => {
    const { top, bottom } = document.getElementById(id).getBoundingClientRect();
    return top >= document.querySelector(".bar").offsetHeight && bottom <= innerHeight;
  }));
  await page.click("#cancel");
  await page.locator("#job-error", { hasText: "Cancelled" }).waitFor();
});

test("nothing went wrong in the page itself", () => {
  // The browser reports refused requests as errors of their own.
  assert.deepEqual(errors.filter((line) => !/Failed to load resource/.test(line)), []);
});
