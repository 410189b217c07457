// What the tests of the page share: a server with the embedded model in a folder of its own, and a browser.
// WAN_RUN names the program, CHROMIUM the browser. LATENCY keeps requests of the page back for so many milliseconds at
// most: what then fails has looked too early, or is a race in the page.

import { spawn } from "node:child_process";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import { fileURLToPath } from "node:url";

import { chromium } from "playwright-core";

export const ROOT = path.resolve(path.dirname(fileURLToPath(import.meta.url)), "../..");
const PROGRAM = process.env.WAN_RUN ?? path.join(ROOT, "target/debug/wan-run");
const PATIENCE = 120_000;
export const LATENCY = Number(process.env.LATENCY ?? 0);

export class Server {
  /** A server that is not started yet. */
  static async create() {
    const server = new Server();
    server.folder = await mkdtemp(path.join(tmpdir(), "wan-run-page-"));
    return server;
  }

  /** Starts it, where it was before if that was anywhere. */
  start(token) {
    this.token = token;
    const port = this.address ? new URL(this.address).port : "0";
    const options = ["serve", "--model", "tiny", "--port", port, "--data-dir", this.folder, "--token", token];
    // Without what the user has configured.
    const env = { ...process.env, XDG_CONFIG_HOME: path.join(this.folder, "config") };
    this.process = spawn(PROGRAM, options, { env, stdio: ["ignore", "pipe", "ignore"] });
    return new Promise((resolve, reject) => {
      let text = "";
      this.process.stdout.on("data", (data) => {
        text += data;
        const found = text.match(/http:\/\/\S+/);
        if (found) resolve((this.address = found[0]));
      });
      this.process.on("error", reject);
      this.process.on("exit", (code) => reject(new Error(`the server ended with ${code}`)));
    });
  }

  kill() {
    this.process?.kill("SIGKILL");
  }

  /** Kills it and removes its folder. */
  async remove() {
    const runs = this.process && this.process.exitCode === null && this.process.signalCode === null;
    const ended = runs && new Promise((resolve) => this.process.once("exit", resolve));
    this.kill();
    await ended;
    await rm(this.folder, { recursive: true, force: true, maxRetries: 3 });
  }

  /** What another program asks of it: the JSON of `path`; a POST if there is a body. */
  async ask(path, body) {
    const headers = { Authorization: `Bearer ${this.token}`, "Content-Type": "application/json" };
    const method = body === undefined ? "GET" : "POST";
    const answer = await fetch(`${this.address}/${path}`, { method, headers, body: body && JSON.stringify(body) });
    const text = await answer.text();
    if (!answer.ok) throw new Error(`${path}: ${answer.status} ${text}`);
    return text && JSON.parse(text);
  }
}

export const launch = () =>
  chromium.launch({
    executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium",
    args: ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
      "--disable-component-update", "--disable-sync"],
  });

/** A page of its own session; what goes wrong in it is added to `errors`. */
export async function newPage(browser, viewport, errors) {
  const page = await browser.newPage({ viewport, locale: "en-GB" });
  page.setDefaultTimeout(PATIENCE);
  if (LATENCY) await page.route("**/*", (route) => setTimeout(() => route.fallback().catch(() => {}), Math.random() * LATENCY));
  page.on("pageerror", (error) => errors.push(error.message));
  page.on("console", (message) => message.type() === "error" && errors.push(message.text()));
  return page;
}

export async function settings(page, { width = 64, height = 64, frames = 9, steps = 6 }) {
  for (const [name, value] of Object.entries({ width, height, frames, steps })) await page.fill(`#${name}`, String(value));
}
