// The web page on a connection that loses requests, answers and events.

import assert from "node:assert/strict";
import { after, before, test } from "node:test";

import { launch, newPage, Server, settings } from "./support.mjs";

const TOKEN = "page-test-token";

let server, browser, page;
const errors = [];

before(async () => {
  server = await Server.create();
  await server.start(TOKEN);
  browser = await launch();
  page = await newPage(browser, { width: 1280, height: 800 }, errors);
});

after(async () => {
  await browser?.close();
  await server?.remove();
});

const opened = () => page.waitForFunction(() => document.querySelector("#steps").value !== "" && !document.querySelector("#run").disabled);

test("a page whose first requests were lost is whole after the connection came back", async () => {
  await page.route("**/wan-run/session", (route) => route.abort());
  await page.goto(`${server.address}/?token=${TOKEN}`);
  await page.locator("#form-error", { hasText: "does not answer" }).waitFor();
  await page.fill("#positive", "the red circle moves left");
  server.kill();
  await page.locator("#connection.lost").waitFor();
  await page.unroute("**/wan-run/session");
  await server.start(TOKEN);
  await opened();
  assert.equal(await page.inputValue("#positive"), "the red circle moves left");
  assert.ok(await page.isHidden("#form-error"));
  assert.equal(await page.locator("#presets button", { hasText: "128 × 128" }).count(), 1);
});

test("a job of which the last answers were lost is seen to end", async () => {
  await settings(page, {});
  await page.click("#run");
  // No event follows the one after which this request is made.
  let lost = 0;
  await page.route("**/history?*", async (route) => {
    const { queue_running: running, queue_pending: pending } = await server.ask("queue");
    if (running.length + pending.length || lost === 2) return route.continue();
    lost += 1;
    return route.abort();
  });
  await page.locator("#result").waitFor();
  assert.equal(lost, 2);
  await page.unroute("**/history?*");
  assert.ok(await page.isHidden("#form-error"), "the header says that the server does not answer");
});

test("a request of which the answer was lost is seen to run", async () => {
  await settings(page, { width: 256, height: 256, frames: 81, steps: 1000 });
  await page.route("**/prompt", async (route) => {
    await route.fetch();
    await route.abort();
  }, { times: 1 });
  await page.click("#run");
  await page.locator("#form-error", { hasText: "does not answer" }).waitFor();
  await page.locator("#progress-text:visible", { hasText: /^Step/ }).waitFor();
  await page.click("#cancel");
  await page.locator("#job-error", { hasText: "Cancelled" }).waitFor();
});

test("a short job that was asked for in the middle of a look at the server is not taken for gone", async () => {
  const gate = () => {
    const made = {};
    made.passed = new Promise((resolve) => (made.open = resolve));
    return made;
  };
  const [looking, asked, ended] = [gate(), gate(), gate()];
  // What the first look is told is older than the job, and the next look comes after its end.
  let looks = 0;
  await page.route("**/queue", async (route) => {
    looks += 1;
    const isFirst = looks === 1;
    const response = isFirst && (await route.fetch());
    if (isFirst) looking.open();
    await (isFirst ? asked : ended).passed;
    await (isFirst ? route.fulfill({ response }) : route.continue());
  });
  await page.route("**/history?*", async (route) => {
    const response = await route.fetch();
    const entries = Object.entries(await response.json()).filter(([id]) => id !== job);
    await route.fulfill({ response, json: Object.fromEntries(entries) });
  }, { times: 1 });
  let job = null;
  await page.evaluate(() => dispatchEvent(new Event("online")));
  await looking.passed;
  await settings(page, {});
  const [answer] = await Promise.all([page.waitForResponse("**/prompt"), page.click("#run")]);
  job = (await answer.json()).prompt_id;
  const caption = await page.inputValue("#positive");
  await page.evaluate(() => (document.querySelector("#result-note").textContent = ""));
  while (!(await server.ask(`history/${job}`))[job]) await new Promise((resolve) => setTimeout(resolve, 50));
  asked.open();
  ended.open();
  await page.locator(`#history .item[data-id="${job}"]`).waitFor();
  assert.equal(await page.textContent("#result-note"), caption);
  await page.unroute("**/queue");
});

test("silence while a job runs is a connection that is dead", async () => {
  let sockets = 0;
  await page.routeWebSocket("**/ws?*", (socket) => {
    sockets += 1;
    const onwards = socket.connectToServer();
    // The first one loses all that the server says once it is open.
    if (sockets === 1) onwards.onMessage(() => {});
  });
  await page.reload();
  await opened();
  await settings(page, { width: 256, height: 256, frames: 81, steps: 1000 });
  await page.click("#run");
  await page.locator("#progress-text:visible", { hasText: /^Step/ }).waitFor();
  assert.equal(sockets, 2);
  await page.click("#cancel");
  await page.locator("#job-error", { hasText: "Cancelled" }).waitFor();
});

test("nothing went wrong in the page itself", () => {
  // The browser reports lost requests as errors of their own.
  assert.deepEqual(errors.filter((line) => !/Failed to load resource|WebSocket connection/.test(line)), []);
});
