// The job that is watched: its progress, its previews, its result or its error.

import * as api from "./api.js";
import { t } from "./i18n.js";

const byId = (id) => document.getElementById(id);

/** Video files among a history entry's outputs. */
export function videos(entry) {
  const groups = Object.values(entry.outputs ?? {}).flatMap(({ gifs = [], images = [] }) => [...gifs, ...images]);
  return groups.filter(({ filename }) => /\.(mp4|webm|mov|mkv|gif|webp)$/i.test(filename));
}

/** The error text of a failed entry; empty for one that was cancelled or succeeded. */
export function failure(entry) {
  const messages = Object.fromEntries(entry.status?.messages ?? []);
  return messages.execution_error?.exception_message?.trim() ?? "";
}

const clock = (seconds) => `${Math.floor(seconds / 60)}:${String(Math.round(seconds % 60)).padStart(2, "0")}`;

export class JobView {
  id = null;
  #graph = {};
  #steps = [];
  /** Puts the words that are shown into the page, in the present language. */
  #words = () => {};

  constructor() {
    byId("cancel").onclick = () => this.#cancel();
  }

  /** Watches a job of the queue; `ahead` jobs run before it, none if it runs. */
  watch(id, graph, ahead) {
    if (id !== this.id) {
      this.id = id;
      this.#steps = [];
      this.#show("idle");
      byId("job-error").hidden = true;
    }
    this.#graph = graph;
    byId("progress-box").hidden = false;
    byId("cancel").disabled = false;
    if (ahead > 0) this.#line(() => t("waiting", { n: ahead }), null);
    else if (!this.#steps.length) this.#line(() => t("starting"), null);
  }

  /** After the language changed. */
  redraw() {
    this.#words();
  }

  /** A `progress` message of the server. */
  progress({ prompt_id: id, node, value, max }) {
    if (id !== this.id) return;
    if (!/Sampler/.test(this.#graph[node]?.class_type ?? "Sampler")) {
      return this.#line(() => t("decoding"), value / max);
    }
    this.#steps.push(performance.now());
    const taken = this.#steps.length - 1;
    const each = taken ? (this.#steps[taken] - this.#steps[0]) / taken / 1000 : 0;
    const left = () => (each && max > value ? t("left", { t: clock(each * (max - value)) }) : "");
    this.#line(() => t("step", { n: value, total: max }), value / max, left);
  }

  preview({ id, image }) {
    if (id !== null && id !== this.id) return;
    const element = byId("preview");
    const old = element.src;
    element.src = URL.createObjectURL(image);
    if (old.startsWith("blob:")) URL.revokeObjectURL(old);
    this.#show("preview");
  }

  /** The watched job has ended; `entry` is its history. */
  finish(entry) {
    byId("progress-box").hidden = true;
    const [video] = videos(entry);
    if (entry.status?.completed && video) {
      byId("result").src = api.viewUrl(video);
      this.#show("result");
      byId("result").play().catch(() => {});
    } else {
      const text = failure(entry);
      this.#say(() => (byId("job-error").textContent = text ? `${t("failed")}\n${text}` : t("cancelled")));
      byId("job-error").classList.toggle("calm", !text);
      byId("job-error").hidden = false;
      this.#show("idle");
    }
    this.id = null;
  }

  /** The watched job is nowhere any more: it was taken out of the queue. */
  gone() {
    byId("progress-box").hidden = true;
    this.#show("idle");
    this.id = null;
  }

  async #cancel() {
    byId("cancel").disabled = true;
    await Promise.all([api.removePending(this.id), api.interrupt(this.id)]);
  }

  #say(words) {
    this.#words = words;
    words();
  }

  #line(text, part, eta = () => "") {
    this.#say(() => {
      byId("progress-text").textContent = text();
      byId("eta").textContent = eta();
    });
    if (part === null) byId("progress").removeAttribute("value");
    else byId("progress").value = part;
  }

  #show(what) {
    for (const id of ["idle", "preview", "result"]) byId(id).hidden = id !== what;
    if (what !== "result") byId("result").removeAttribute("src");
  }
}
