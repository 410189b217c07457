// The job that is watched: its progress, its previews, its result or its error.

import * as api from "./api.js";
import { bindings, values } from "./graph.js";
import { t } from "./i18n.js";
import { ending, files, present } from "./outputs.js";

const byId = (id) => document.getElementById(id);

const CANCEL_AGAIN_MS = 5000;

/** What nodes do, by class; all others load models and hold settings. */
const ACTIVITIES = [
  [/Decode|Combine|CreateVideo|^Save|^Preview/, "decoding"],
  [/Sampler$/, "sampling"],
  [/TextEncode$/, "reading_text"],
  [/ImageClipEncode|VisionEncode|ImageToVideo|FirstLastFrame|^LoadImage|^ImageScale/, "reading_image"],
];
const activity = (className = "") => ACTIVITIES.find(([pattern]) => pattern.test(className))?.[1] ?? "starting";

const clock = (seconds) => `${Math.floor(seconds / 60)}:${String(Math.round(seconds % 60)).padStart(2, "0")}`;

export class JobView {
  id = null;
  /** Whether this page asked for the job. */
  isOwn = false;
  /** Whether the result of a job of this page is shown: it stays until a later one of these has something to show. */
  #hasResult = false;
  /** Words for how a job of this page ended without a result, as long as they are shown. */
  #ended = null;
  #graph = {};
  /** Where a job of this page stands, as the server told it last: it may do so before the job is watched. */
  #told = { id: null };
  /** Puts the words that are shown into the page, in the present language; one function for each place. */
  #words = new Map();

  constructor() {
    byId("cancel").onclick = () => this.#cancel();
  }

  /** Watches a job of the queue; `ahead` jobs run before it, none if it runs. */
  watch({ id, graph, ahead, isOwn }) {
    if (id !== this.id) {
      Object.assign(this, { id, isOwn });
      this.#graph = graph;
      byId("cancel").disabled = false;
      byId("progress-box").hidden = false;
      if (!this.#hasResult) this.#wait(isOwn ? "busy" : "busy_elsewhere");
      const ended = this.#ended;
      if (ended) this.#say("job-error", () => t("job_before", { what: ended() }));
      else byId("job-error").hidden = true;
    }
    if (ahead > 0) this.#line(() => t("waiting", { n: ahead }), null);
    else if (!isOwn) this.#line(() => t("elsewhere"), null);
    else if (this.#told.id === id) this.#drawProgress();
    else this.#line(() => t("starting"), null);
  }

  /** Whether something is shown that became of a job of this page. */
  get holdsOwn() {
    return this.#hasResult || this.#ended !== null;
  }

  /** Says no more how the last job ended. */
  clear() {
    this.#ended = null;
    byId("job-error").hidden = true;
  }

  /** After the connection was lost: what it kept from coming is asked for again. */
  reconnected() {
    if (byId("result").error) byId("result").load();
  }

  /** After the language changed. */
  redraw() {
    for (const words of this.#words.values()) words();
  }

  /** An `executing` message: a node begins, or runs where the page was loaded anew. */
  executing({ prompt_id: id, node }) {
    if (node && !(id === this.#told.id && node === this.#told.node)) this.#tell({ id, node, value: 0, max: 0 });
  }

  /** A `progress_state` message: the steps of the node that runs. */
  progress({ prompt_id: id, nodes }) {
    const [node, { value, max }] = Object.entries(nodes).find(([, { state }]) => state === "running") ?? [null, {}];
    if (node) this.#tell({ id, node, value, max });
  }

  #tell({ id, node, value, max }) {
    const now = performance.now();
    const last = this.#told;
    const goesOn = id === last.id && node === last.node && value >= last.value;
    // The first step of a node may have waited for its model: time counts from its end.
    const first = goesOn && last.value > 0 ? last.first : { value, now };
    const each = value > first.value ? (now - first.now) / (value - first.value) / 1000 : 0;
    // What is repeated says nothing new of the time that is left.
    const left = goesOn && value === last.value ? last.left : each * (max - value);
    this.#told = { id, node, value, max, first, left };
    if (id === this.id) this.#drawProgress();
  }

  #drawProgress() {
    const { node, value, max, left } = this.#told;
    const doing = activity(this.#graph[node]?.class_type);
    const counts = value > 0 && max > 1;
    const words = () => (counts && doing === "sampling" ? t("step", { n: value, total: max }) : t(doing));
    this.#line(words, counts ? value / max : null, () => (left > 0 ? t("left", { t: clock(left) }) : ""));
  }

  preview({ id, image }) {
    if (this.id === null || (id !== null && id !== this.id)) return;
    const element = byId("preview");
    const old = element.src;
    element.src = URL.createObjectURL(image);
    if (old.startsWith("blob:")) URL.revokeObjectURL(old);
    this.#show("preview");
  }

  /** The watched job has ended; `entry` is its history. */
  finish(entry) {
    byId("progress-box").hidden = true;
    const { how, text } = ending(entry);
    const made = files(entry);
    if (how === "done" && made.length) {
      this.#show("result");
      this.#hasResult = this.isOwn;
      present(made[0], byId("result"), byId("picture"));
      const caption = values(this.#graph, bindings(this.#graph)).positive?.trim() || t("no_caption");
      byId("picture").alt = caption;
      const count = () => made.length > 1 && t("first_of", { n: made.length });
      this.#say("result-note", () => [count(), caption].filter(Boolean).join(" · "));
    } else {
      this.#end(() => [t(how), text].filter(Boolean).join("\n"), how !== "failed");
    }
    this.id = null;
  }

  /** The watched job is nowhere any more: it was taken out of the queue. */
  gone() {
    byId("progress-box").hidden = true;
    if (!this.#hasResult) this.#wait("idle");
    this.id = null;
  }

  #end(words, calm) {
    if (!this.#hasResult) this.#wait("idle");
    this.#say("job-error", words);
    byId("job-error").classList.toggle("calm", calm);
    byId("job-error").hidden = false;
    this.#ended = this.isOwn ? words : null;
  }

  async #cancel() {
    byId("cancel").disabled = true;
    try {
      await api.cancel(this.id);
      // It may take a while; a request that came to nothing can be repeated.
      setTimeout(() => (byId("cancel").disabled = false), CANCEL_AGAIN_MS);
    } catch (error) {
      byId("cancel").disabled = false;
      this.#say("progress-text", () => error.message);
    }
  }

  #say(id, words) {
    const draw = () => (byId(id).textContent = words());
    this.#words.set(id, draw);
    draw();
  }

  #line(text, part, eta = () => "") {
    this.#say("progress-text", text);
    this.#say("eta", eta);
    if (part === null) byId("progress").removeAttribute("value");
    else byId("progress").value = part;
  }

  /** Words in place of a picture. */
  #wait(key) {
    this.#say("idle", () => t(key));
    this.#show("idle");
  }

  #show(what) {
    for (const id of ["idle", "preview"]) byId(id).hidden = id !== what;
    byId("result-note").hidden = what !== "result";
    if (what !== "idle") this.clear();
    if (what === "result") return;
    this.#hasResult = false;
    present(null, byId("result"), byId("picture"));
  }
}
