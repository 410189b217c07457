// The web page in a headless Chromium, on a real server with the embedded model: the whole job of someone who comes
// from the guide. SCREENSHOTS names a folder for pictures of what was seen.

import assert from "node:assert/strict";
import { readFile, writeFile } from "node:fs/promises";
import path from "node:path";
import { after, before, test } from "node:test";

import { launch, newPage, ROOT, Server, settings as fill } from "./support.mjs";

const TOKEN = "page-test-token";

let server, address, browser, page;
const errors = [];

before(async () => {
  server = await Server.create();
  address = await server.start(TOKEN);
  browser = await launch();
  page = await newPage(browser, { width: 1360, height: 1000 }, errors);
});

after(async () => {
  await browser?.close();
  await server?.remove();
});

/** A picture for people, of the whole page. */
async function screenshot(name) {
  if (!process.env.SCREENSHOTS) return;
  await page.evaluate(() => scrollTo({ top: 0, behavior: "instant" }));
  await page.screenshot({ path: path.join(process.env.SCREENSHOTS, `${name}.png`), fullPage: true });
}

const shown = (selector) => page.locator(selector).waitFor({ state: "visible" });
const text = (selector) => page.locator(selector).textContent();

const settings = (values) => fill(page, values);

test("a wrong token is refused, the right one opens the page", async () => {
  await page.goto(address);
  assert.match(page.url(), /\/login/);
  await page.fill("[name=password]", "nonsense");
  await page.click("button");
  await shown("#login-error");
  await page.fill("[name=password]", TOKEN);
  await page.click("button");
  await shown("#form");
  await page.waitForFunction(() => document.querySelector("#workflow").value === "wanx-21.json");
  await page.locator("#connection", { hasText: /^connected$/ }).waitFor();
});

/** Has the next workflow wait that the page opens; the result lets it go on. */
async function holdWorkflow() {
  let release;
  const released = new Promise((resolve) => (release = resolve));
  await page.route("**/wan-run/convert", (route) => released.then(() => route.continue()), { times: 1 });
  return release;
}

/** What the form holds. */
async function held() {
  const fields = ["positive", "negative", "width", "height", "frames", "steps", "cfg", "shift", "scheduler", "denoise", "existing"];
  const values = await Promise.all(fields.map((field) => page.inputValue(`#${field}`)));
  return Object.fromEntries(fields.map((field, index) => [field, values[index]]));
}

const SAMPLE = {
  positive: "the red circle moves right", negative: "static", width: "128", height: "128", frames: "81", steps: "10",
  cfg: "6", shift: "5", scheduler: "dpm++", denoise: "1", existing: "sample.png",
};

test("the form starts with what the demo model understands, and says what size the video will have", async () => {
  await page.waitForFunction(() => document.querySelector("#steps").value === "10");
  assert.deepEqual(await held(), SAMPLE);
  assert.match(await text("#size-note"), /128 × 128.*5\.1 seconds/s);
  await shown("#demo");
  assert.match(await text("#demo"), /only sentences about coloured shapes/);
  await screenshot("desktop-first");
});

test("what was typed for another model is not kept for the demo model, what was typed for this one is", async () => {
  await page.evaluate(() => localStorage.setItem("wan-run.draft", JSON.stringify({
    demo: false, workflows: { "wanx-21.json": { positive: "a girl", width: "832" } },
  })));
  await page.reload();
  await page.waitForFunction(() => document.querySelector("#steps").value === "10");
  assert.deepEqual(await held(), SAMPLE);
  await page.fill("#positive", "the red circle spins");
  await page.reload();
  await page.waitForFunction(() => document.querySelector("#positive").value === "the red circle spins");
});

test("what is typed before the workflow has come stays", async () => {
  const release = await holdWorkflow();
  await page.reload();
  await page.fill("#positive", "the red circle moves left");
  release();
  await page.waitForFunction(() => document.querySelector("#steps").value === "10");
  assert.equal(await page.inputValue("#positive"), "the red circle moves left");
  assert.equal(await page.inputValue("#negative"), "static");
});

test("on another model the form starts with the guide's values", async () => {
  const other = await browser.newContext({ viewport: { width: 1360, height: 1000 }, locale: "en-GB" });
  const tab = await other.newPage();
  await tab.route("**/wan-run/session", async (route) => {
    const answer = await route.fetch();
    await route.fulfill({ response: answer, json: { ...(await answer.json()), model: "another", sample: null } });
  });
  await tab.goto(`${address}/?token=${TOKEN}`);
  assert.equal(tab.url(), `${address}/`, "the token leaves the address bar");
  await tab.waitForFunction(() => document.querySelector("#steps").value === "10");
  assert.match(await tab.inputValue("#positive"), /^A beautiful anime girl/);
  assert.match(await tab.inputValue("#negative"), /static/);
  assert.match(await tab.textContent("#size-note"), /512 × 512.*5\.1 seconds/s);
  assert.ok(await tab.isHidden("#demo"));
  await tab.goBack();
  assert.ok(!tab.url().includes(TOKEN), "nor is it a step back");
  await other.close();
});

test("a file that is no image is an error beside the image", async () => {
  const file = path.join(server.folder, "broken.png");
  await writeFile(file, "hello");
  await page.setInputFiles("#file", file);
  await shown("#image-error");
  assert.match(await text("#image-error"), /image/i);
});

test("images can be dropped and pasted", async () => {
  const content = [...await readFile(path.join(ROOT, "models/tiny/sample.png"))];
  for (const [name, kind] of [["dropped.png", "drop"], ["pasted.png", "paste"]]) {
    await page.evaluate(({ content, name, kind }) => {
      const files = new DataTransfer();
      files.items.add(new File([new Uint8Array(content)], name, { type: "image/png" }));
      const options = { bubbles: true, cancelable: true, dataTransfer: files, clipboardData: files };
      const event = kind === "drop" ? new DragEvent("drop", options) : new ClipboardEvent("paste", options);
      document.querySelector("#drop").dispatchEvent(event);
    }, { content, name, kind });
    await page.waitForFunction((name) => document.querySelector("#existing").value === name, name);
    await page.waitForFunction(() => document.querySelector("#image-preview").naturalWidth > 0);
    assert.ok(await page.isHidden("#image-error"));
  }
});

test("of a transparent image what the video is made of is shown, and said", async () => {
  const content = await page.evaluate(async () => {
    const canvas = new OffscreenCanvas(300, 200);
    const context = canvas.getContext("2d");
    context.fillStyle = "red";
    context.fillRect(0, 0, 300, 200);
    context.clearRect(100, 50, 20, 20);
    return [...new Uint8Array(await (await canvas.convertToBlob({ type: "image/png" })).arrayBuffer())];
  });
  await page.setInputFiles("#file", { name: "hole.png", mimeType: "image/png", buffer: Buffer.from(content) });
  await shown("#image-note");
  assert.match(await page.getAttribute("#image-preview", "src"), /channel=rgb/);
  await page.selectOption("#existing", "sample.png");
  await page.waitForFunction(() => document.querySelector("#image-preview").naturalWidth > 0);
  assert.ok(await page.isHidden("#image-note"));
});

test("a file that is too large is said to be", async () => {
  const file = path.join(server.folder, "large.png");
  await writeFile(file, Buffer.alloc(51 * 2 ** 20));
  await page.setInputFiles("#file", file);
  await page.locator("#image-error", { hasText: "has 51 MiB, which is more than the server takes" }).waitFor();
});

/** Has uploads of files of this name wait; the result lets them go on. */
async function holdUploads(name) {
  let release;
  const released = new Promise((resolve) => (release = resolve));
  await page.route("**/upload/image", async (route) => {
    if (route.request().postDataBuffer().includes(`filename="${name}"`)) await released;
    await route.continue();
  });
  return release;
}

test("the picture that was chosen last counts, however slowly it arrives", async () => {
  const buffer = await readFile(path.join(ROOT, "models/tiny/sample.png"));
  const choose = (name) => page.setInputFiles("#file", { name, mimeType: "image/png", buffer });
  const isChosen = (name) => page.waitForFunction((name) => document.querySelector("#existing").value === name, name);
  const release = await holdUploads("slow.png");
  await choose("slow.png");
  await choose("quick.png");
  await isChosen("quick.png");
  const arrived = page.waitForResponse("**/upload/image");
  release();
  await (await arrived).finished();
  await page.waitForFunction(() => [...document.querySelector("#existing").options].some(({ value }) => value === "slow.png"));
  assert.equal(await page.inputValue("#existing"), "quick.png");
  await page.unroute("**/upload/image");

  // A request waits for the picture that the form is about to show.
  const prompts = [];
  await page.route("**/prompt", (route) => {
    prompts.push(route.request().postDataJSON().prompt);
    return route.fulfill({ status: 400, json: { error: { message: "not taken", details: "" } } });
  });
  await settings({});
  const goOn = await holdUploads("last.png");
  await choose("last.png");
  await page.click("#run");
  await page.waitForTimeout(500);
  assert.deepEqual(prompts, []);
  goOn();
  await page.locator("#form-error", { hasText: "not taken" }).waitFor();
  assert.deepEqual(prompts.map((prompt) => Object.values(prompt).find((node) => node.class_type === "LoadImage").inputs.image), ["last.png"]);
  await page.unroute("**/upload/image");

  // Where it does not arrive, there is no request with the one before.
  let refuse;
  const refused = new Promise((resolve) => (refuse = resolve));
  await page.route("**/upload/image", async (route) => {
    await refused;
    await route.fulfill({ status: 507, json: { error: { message: "no room", details: "" } } });
  });
  await choose("lost.png");
  await page.click("#run");
  refuse();
  await page.locator("#image-error", { hasText: "no room" }).waitFor();
  await page.waitForFunction(() => !document.querySelector("#run").disabled);
  assert.equal(prompts.length, 1);
  await page.unroute("**/upload/image");
  await page.unroute("**/prompt");
});

test("a copy of the tab, which has its client id, stays connected beside it", async () => {
  const [copy] = await Promise.all([page.waitForEvent("popup"), page.evaluate(() => void open(location.href))]);
  await copy.waitForLoadState();
  await copy.waitForFunction(() => !document.querySelector("#connection").classList.contains("lost"));
  const ids = await Promise.all([page, copy].map((tab) => tab.evaluate(() => sessionStorage.getItem("wan-run.client"))));
  assert.equal(ids[0], ids[1]);
  const losses = (tab) => tab.evaluate(async () => {
    let count = 0;
    const connection = document.querySelector("#connection");
    new MutationObserver(() => (count += connection.classList.contains("lost"))).observe(connection, { attributes: true });
    await new Promise((resolve) => setTimeout(resolve, 2000));
    return count;
  });
  assert.deepEqual(await Promise.all([page, copy].map(losses)), [0, 0]);
  await copy.close();
});

test("values out of range are told before anything is sent", async () => {
  await page.setInputFiles("#file", path.join(ROOT, "models/tiny/sample.png"));
  await shown("#image-preview");
  await settings({ steps: 0 });
  await page.click("#run");
  await shown("#form-error");
  assert.match(await text("#form-error"), /Steps/);
  assert.equal(await page.getAttribute("#steps", "aria-invalid"), "true");
});

test("an image that is too narrow for a video is refused in the form", async () => {
  const content = await page.evaluate(async () => {
    const canvas = new OffscreenCanvas(2000, 3);
    canvas.getContext("2d");
    return [...new Uint8Array(await (await canvas.convertToBlob({ type: "image/png" })).arrayBuffer())];
  });
  await page.setInputFiles("#file", { name: "narrow.png", mimeType: "image/png", buffer: Buffer.from(content) });
  await settings({ width: 128, height: 128 });
  await page.locator("#size-note", { hasText: "2000 × 3: too narrow for a video" }).waitFor();
  await page.click("#run");
  await shown("#form-error");
  assert.match(await text("#form-error"), /2000 × 3: too narrow for a video/);
  assert.equal(await text("#history"), "");
  await page.selectOption("#existing", "sample.png");
  await page.locator("#size-note", { hasText: "128 × 128" }).waitFor();
});

test("image, prompts, run: progress moves, previews come, the video plays", async () => {
  await page.fill("#positive", "the balloon rises over the hills");
  await page.fill("#negative", "static, blurry");
  await settings({ width: 256, height: 256, frames: 17 });
  const seed = await page.inputValue("#seed");
  await page.evaluate(() => {
    window.seen = new Set();
    const look = () => {
      const line = document.querySelector("#progress-text").textContent;
      const preview = document.querySelector("#preview");
      if (line) window.seen.add(line);
      if (!preview.hidden && preview.naturalWidth > 0) window.seen.add("preview");
    };
    new MutationObserver(look).observe(document.querySelector("#job"), { subtree: true, childList: true, attributes: true, characterData: true });
    document.querySelector("#preview").addEventListener("load", look);
  });
  await page.click("#run");
  await page.waitForFunction(() => window.seen.has("preview"));
  await screenshot("desktop-running");
  await shown("#result");
  const seen = await page.evaluate(() => [...window.seen]);
  const steps = seen.filter((line) => /^Step \d of 6$/.test(line));
  assert.ok(steps.length >= 3, `progress: ${seen}`);
  await page.waitForFunction(() => {
    const video = document.querySelector("#result");
    return video.readyState >= 2 && video.videoWidth === 256 && video.duration > 1;
  });
  await page.waitForFunction(() => document.querySelector("#result").currentTime > 0.2);
  assert.notEqual(await page.inputValue("#seed"), seed, "a new seed for the next run");
  await page.waitForFunction(() => document.querySelectorAll("#history .item img").length === 1);
  const poster = await page.evaluate(() => {
    const image = document.querySelector("#history .item img");
    const [inner, outer] = [image, image.parentElement].map((element) => element.getBoundingClientRect());
    return { within: inner.top >= outer.top && inner.bottom <= outer.bottom, fit: getComputedStyle(image).objectFit };
  });
  assert.deepEqual(poster, { within: true, fit: "contain" }, "whatever its shape, the whole picture is seen");
  await screenshot("desktop");
});

test("the history outlives a reload, plays, downloads, and gives its settings back", async () => {
  await page.reload();
  await shown("#history .item");
  assert.match(await text("#history .caption"), /the balloon rises/);
  await page.fill("#positive", "something else");
  await page.click("#history .again");
  await page.waitForFunction(() => !document.querySelector("#new-seed").checked);
  assert.equal(await page.inputValue("#positive"), "the balloon rises over the hills");

  // Also where the form's workflow comes after the wish: it does not undo it.
  await page.fill("#positive", "something else");
  const release = await holdWorkflow();
  await page.reload();
  await page.click("#history .again");
  release();
  await page.waitForFunction(() => document.querySelector("#positive").value === "the balloon rises over the hills");
  assert.equal(await page.inputValue("#workflow"), "wanx-21.json");
  const [download] = await Promise.all([page.waitForEvent("download"), page.click("#history .download")]);
  assert.match(download.suggestedFilename(), /^WanVideo2_1_\d+\.mp4$/);
  await page.click("#history .poster");
  await page.waitForFunction(() => document.querySelector("#player video").currentTime > 0);
  await page.keyboard.press("Escape");
});

/** By how many pixels the page is wider than the window. */
const overflow = () => page.evaluate(() => document.documentElement.scrollWidth - innerWidth);

test("a running job and a waiting one can be stopped", async () => {
  await settings({ width: 256, height: 256, frames: 81, steps: 1000 });
  await page.click("#run");
  await page.locator("#progress-text:visible", { hasText: /^Step/ }).waitFor();
  await page.fill("#positive", "the balloon rises over the hills, and ".repeat(12));
  await page.click("#run");
  await shown("#queue li");
  const window = page.viewportSize();
  for (const width of [window.width, 390]) {
    await page.setViewportSize({ width, height: window.height });
    assert.ok((await overflow()) <= 0, `${await overflow()} pixels too wide at ${width}, with a long prompt waiting`);
    await page.waitForFunction(() => {
      const line = document.querySelector("#queue span");
      return line && line.scrollWidth > line.clientWidth;
    });
    await screenshot(`waiting-${width}`);
  }
  await page.setViewportSize(window);
  await page.click("#queue li button");
  await page.locator("#queue li").waitFor({ state: "detached" });
  await page.click("#cancel");
  await shown("#job-error");
  assert.equal(await text("#job-error"), "Cancelled");
});

test("the access panel shows address and token", async () => {
  await page.click("#access-button");
  await shown("#access");
  assert.equal(await text("#access-server"), new URL(address).host);
  await page.waitForFunction(() => document.querySelector("#access-model").textContent.includes("tiny"));
  assert.notEqual(await text("#access-token"), TOKEN);
  await page.click("#reveal");
  assert.equal(await text("#access-token"), TOKEN);
  await page.click("#reveal");
  // As over plain HTTP from another machine.
  await page.evaluate(() => Object.defineProperty(navigator, "clipboard", { value: undefined }));
  await page.click("#copy-token");
  await page.locator("#copy-token", { hasText: "Copied" }).waitFor();
  assert.equal(await page.evaluate(() => String(getSelection())), TOKEN);
  await page.keyboard.press("Escape");
  assert.ok(await page.isHidden("#access"));
});

test("a job can be asked for and cancelled from the keyboard alone", async () => {
  await page.evaluate(() => document.activeElement.blur());
  await page.evaluate(() => scrollTo(0, 0));
  const visited = [];
  /** Moves on to `id`, key by key; whatever has the focus on the way must show it. */
  const tabTo = async (id) => {
    for (let presses = 0; presses < 60; presses += 1) {
      await page.keyboard.press("Tab");
      const at = await page.evaluate(() => {
        const element = document.activeElement;
        const style = getComputedStyle(element);
        // Between the page's last element and its first the focus is the browser's own.
        const seen = element === document.body || (style.outlineStyle !== "none" && parseFloat(style.outlineWidth) >= 2);
        return { id: element.id, name: `${element.tagName}.${element.className}#${element.id}`, seen };
      });
      visited.push(at.id);
      assert.ok(at.seen, `the focus on ${at.name} cannot be seen`);
      if (at.id === id) return;
    }
    assert.fail(`#${id} cannot be reached: ${visited}`);
  };
  await tabTo("positive");
  await page.keyboard.press("Control+A");
  await page.keyboard.type("a wave rolls in");
  await tabTo("run");
  for (const id of ["choose", "existing", "negative", "width", "height", "frames", "steps", "cfg", "shift", "scheduler",
    "denoise", "seed", "dice", "new-seed"]) assert.ok(visited.includes(id), `#${id} is left out: ${visited}`);
  await page.keyboard.press("Enter");
  await page.locator("#progress-text:visible", { hasText: /^Step/ }).waitFor();
  await tabTo("cancel");
  await page.keyboard.press("Enter");
  await page.waitForFunction(() => document.querySelector("#job-error").textContent === "Cancelled");
  await page.waitForFunction(() => /a wave rolls in/.test(document.querySelector("#history .caption").textContent));
});

/** The least contrast of text to its ground in the page as it is, by WCAG 2.2, and where that is. */
function leastContrast() {
  const channels = (color) => color.match(/[\d.]+/g).map(Number);
  const luminance = ([r, g, b]) => {
    const [x, y, z] = [r, g, b].map((value) => value / 255).map((v) => (v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4));
    return 0.2126 * x + 0.7152 * y + 0.0722 * z;
  };
  const ground = (element) => {
    for (let at = element; at; at = at.parentElement) {
      const color = channels(getComputedStyle(at).backgroundColor);
      if (color.length < 4 || color[3] > 0.9) return color;
    }
    return [255, 255, 255];
  };
  const texts = [...document.querySelectorAll("h1, h2, p, span, small, legend, label, button, a, input, textarea, select")]
    .filter((element) => element.checkVisibility() && !element.disabled && !element.closest(".skip, .poster"));
  const found = texts.map((element) => {
    const pair = [channels(getComputedStyle(element).color), ground(element)].map(luminance).sort((a, b) => b - a);
    return { ratio: (pair[0] + 0.05) / (pair[1] + 0.05), where: element.id || element.className || element.tagName };
  });
  return found.reduce((least, next) => (next.ratio < least.ratio ? next : least));
}

test("light and dark follow the system and the button, and can be read", async () => {
  const background = () => page.evaluate(() => getComputedStyle(document.body).backgroundColor);
  const seen = [];
  for (const colorScheme of ["light", "dark"]) {
    await page.emulateMedia({ colorScheme });
    seen.push(await background());
    const { ratio, where } = await page.evaluate(leastContrast);
    assert.ok(ratio >= 4.5, `${colorScheme}: contrast ${ratio.toFixed(2)} at ${where}`);
    await screenshot(`desktop-${colorScheme}`);
  }
  assert.notEqual(seen[0], seen[1]);
  await page.click("#theme");
  assert.equal(await background(), seen[0], "the button goes against the system");
  await page.reload();
  await page.locator("#history .item").first().waitFor();
  assert.equal(await background(), seen[0], "the choice is kept");
});

test("Chinese, at a phone's width", async () => {
  await page.click("#language");
  assert.equal(await text("#run"), "生成视频");
  await page.locator("#history .error", { hasText: "已取消" }).first().waitFor();
  await page.locator("#size-note", { hasText: "视频尺寸为" }).waitFor();
  assert.equal(await page.getAttribute("html", "lang"), "zh-CN");
  await page.setViewportSize({ width: 390, height: 844 });
  assert.ok((await overflow()) <= 0, `${await overflow()} pixels too wide`);
  assert.match(await text("#demo"), /演示模型/);
  const header = await page.locator(".bar").evaluate((bar) => bar.offsetHeight);
  assert.ok(header < 70, `the header takes ${header} pixels`);
  await screenshot("phone");
  await page.click("#theme");
  await screenshot("phone-dark");
});

test("nothing went wrong in the page itself", () => {
  // The browser reports refused requests as errors of their own.
  assert.deepEqual(errors.filter((line) => !/Failed to load resource/.test(line)), []);
});

test("after a restart with another token the page asks for it", async () => {
  server.kill();
  await page.waitForFunction(() => document.querySelector("#connection").classList.contains("lost"));
  await server.start("another-token");
  await page.waitForURL(/\/login/);
  await page.fill("[name=password]", "another-token");
  await page.click("button");
  await shown("#form");
});
