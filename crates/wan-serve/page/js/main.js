// Brings the parts together: the form makes requests, the event stream moves the job, the history keeps the results.

import * as api from "./api.js";
import { bring, frame, showConnection } from "./chrome.js";
import { FormError, SettingsForm } from "./form.js";
import { Gallery } from "./gallery.js";
import { bindings, isSameWorkflow, unknownClasses, values } from "./graph.js";
import { t } from "./i18n.js";
import { ImageInput } from "./image.js";
import { JobView } from "./job.js";
import { arrange } from "./lists.js";
import { Looks } from "./looks.js";
import { EventSocket } from "./socket.js";
import { keep, recall } from "./store.js";

const HISTORY = 60;
const WORKFLOW = "wan-run.workflow";
/** The guide's workflow, which comes with the server. */
const GUIDE = "wanx-21.json";
const byId = (id) => document.getElementById(id);

/** One id for each tab, kept over reloads so that a running job goes on reporting here. */
function clientId() {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  const fresh = Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
  const id = recall("wan-run.client", "sessionStorage") ?? fresh;
  keep("wan-run.client", id, "sessionStorage");
  return id;
}

const client = clientId();
const image = new ImageInput();
const form = new SettingsForm(image);
const job = new JobView();
const looks = new Looks(refresh, report);
const gallery = new Gallery(
  (prompt) => {
    form.forget();
    choosing(again(prompt, choice, ++wishes));
  },
  (id) => api.removeHistory(id).then(() => looks.soon(), report),
);

/** The UI file of the chosen workflow, which goes into the video's metadata. */
let source = null;

/** Settings that the demo model understands, which those of the guide's workflow are not; `null` on other models. */
let sample = null;

/** The name of the workflow in the form, empty for an earlier job's; `null` before there is one. */
let opened = null;

/**
 * The choice of a workflow or an earlier job that is under way, which requests wait for; it says whether the form shows what
 * was chosen.
 */
let choice = null;

/** How often the user has chosen: what was chosen last counts, not what arrives last. */
let wishes = 0;

/** Whether a request is under way. */
let isAsking = false;

function choosing(made) {
  choice = made;
  form.expectAnother();
  made.then(() => {
    if (choice !== made) return;
    choice = null;
    form.expectNone();
  });
}

async function readWorkflow(name) {
  const json = await api.workflow(name);
  try {
    return { graph: await api.toGraph(json), ui: Array.isArray(json?.nodes) ? json : null };
  } catch (error) {
    if (error.status !== 400) throw error;
    throw new Error([t("not_workflow", { name }), json && error.message].filter(Boolean).join("\n"), { cause: error });
  }
}

/** Opens a workflow of the list. If it cannot be read, the list goes back to the one that the form shows. */
async function choose(name) {
  showError("");
  const select = byId("workflow");
  try {
    const [{ graph, ui }, info] = await Promise.all([readWorkflow(name), api.objectInfo()]);
    // Another one may have been chosen meanwhile.
    if (select.value !== name) return false;
    show(name, graph, ui, info, { ...(name === GUIDE ? sample : null), ...form.draft(name) });
    keep(WORKFLOW, name);
    return true;
  } catch (error) {
    if (select.value !== name) return false;
    if (opened === null) select.selectedIndex = -1;
    else select.value = opened;
    report(error);
    return false;
  }
}

function show(name, graph, ui, info, settings) {
  [opened, source] = [name, ui];
  byId("workflow").value = name;
  byId("run").disabled = isAsking;
  form.show(name, graph, info, settings);
  const unknown = unknownClasses(graph, info);
  if (unknown.length) showError(t("unknown_nodes", { list: unknown.join(", ") }));
}

/** Takes the settings of an earlier job once the choice `before` is made, unless another `wish` follows. */
async function again(prompt, before, wish) {
  await before;
  try {
    const info = await api.objectInfo();
    if (wish !== wishes) return false;
    showEarlier(prompt, info);
    return true;
  } catch (error) {
    report(error);
    return false;
  }
}

/** Shows an earlier job's settings, and its workflow as well where the form has another one. */
function showEarlier([, , graph, extra], info) {
  const settings = values(graph, bindings(graph));
  showError("");
  if (opened && isSameWorkflow(form.graph, graph)) {
    show(opened, form.graph, source, info, settings);
  } else {
    const select = byId("workflow");
    const earlier = new Option(t("earlier"), "");
    earlier.dataset.i18n = "earlier";
    // It stands for what is shown, and cannot be chosen.
    earlier.hidden = true;
    if (![...select.options].some((option) => option.value === "")) select.add(earlier);
    show("", graph, extra?.extra_pnginfo?.workflow ?? null, info, settings);
  }
  if (settings.image && settings.image !== image.name && !image.isUploading) image.error(t("image_gone", { name: settings.image }));
  form.keepSeed();
  bring(byId("form"));
  byId("positive").focus({ preventScroll: true });
}

/** Fills the list of workflows, and opens the last one. */
async function listWorkflows() {
  ({ sample } = await api.session());
  if (sample) form.demo(sample);
  const names = (await api.workflows()).filter((name) => name.endsWith(".json"));
  const select = byId("workflow");
  select.replaceChildren(...names.map((name) => new Option(name, name)));
  if (!names.length) throw new Error(t("no_workflows"));
  const last = recall(WORKFLOW);
  select.value = [last, GUIDE, names[0]].find((name) => names.includes(name));
  select.onchange = () => {
    wishes += 1;
    choosing(choose(select.value));
  };
  return choose(select.value);
}

/** Says what is wrong with the form; an empty text says that nothing is. */
function showError(text) {
  for (const field of document.querySelectorAll("[aria-invalid]")) field.removeAttribute("aria-invalid");
  byId("form-error").textContent = text;
  byId("form-error").hidden = !text;
}

function report(error) {
  showError(error.message);
  if (error instanceof FormError) {
    byId(error.field).setAttribute("aria-invalid", "true");
    byId(error.field).focus();
  }
}

async function run(event) {
  event.preventDefault();
  if (isAsking) return;
  showError("");
  isAsking = byId("run").disabled = true;
  try {
    // The form does not show what was asked for.
    if (choice && !(await choice)) return;
    await image.settled();
    const prompt = form.request();
    const extra = source ? { extra_pnginfo: { workflow: source } } : {};
    const { prompt_id: id } = await api.submit({ prompt, client_id: client, extra_data: extra });
    form.queued();
    if (job.id === null) job.clear();
    if (job.id === null || !job.isOwn) job.watch({ id, graph: prompt, ahead: 0, isOwn: true });
    // Before anything else comes: what moves later moves under a finger on Cancel.
    bring(byId("job"));
  } catch (error) {
    report(error);
  } finally {
    isAsking = byId("run").disabled = false;
    // Also where the answer was lost, and the request was not.
    looks.soon();
  }
}

/** Reads queue and history anew: they, not the events, say what is true. */
async function refresh() {
  const before = job.id;
  // In this order a job that ends meanwhile is seen in the history.
  const { queue_running: running, queue_pending: pending } = await api.queue();
  const history = await api.history(HISTORY);
  const waiting = [...running, ...pending];
  socket.expectsEvents = waiting.length > 0;
  const own = waiting.find(([, , , extra]) => extra?.client_id === client);
  if (job.id && history[job.id]) job.finish(history[job.id]);
  // What others have running is watched where nothing of one's own is to be seen.
  const watched = own ?? (job.holdsOwn ? undefined : running[0]);
  if (watched && !history[watched[1]]) {
    const [, id, graph] = watched;
    job.watch({ id, graph, ahead: waiting.indexOf(watched), isOwn: watched === own });
  } else if (job.id && job.id === before && !watched) {
    // One that was asked for meanwhile is in no queue that was read before.
    job.gone();
  }
  showQueue(waiting.filter((item) => item !== watched), running);
  gallery.show(history);
}

function showQueue(items, running) {
  const list = byId("queue");
  const shown = new Map([...list.children].map((line) => [line.dataset.id, line]));
  const lines = items.map((item) => {
    const [, id, graph] = item;
    const line = shown.get(id) ?? queueLine(id);
    const what = values(graph, bindings(graph)).positive || t("no_caption");
    line.querySelector("span").textContent = running.includes(item) ? `${t("running")} · ${what}` : what;
    line.querySelector("button").ariaLabel = t("cancel_waiting");
    return line;
  });
  arrange(list, lines);
  byId("queue-box").hidden = items.length === 0;
}

function queueLine(id) {
  const [line, text, button] = ["li", "span", "button"].map((name) => document.createElement(name));
  line.dataset.id = id;
  button.type = "button";
  button.className = "plain";
  button.textContent = "✕";
  button.onclick = () => api.cancel(id).then(() => looks.soon(), report);
  line.append(text, button);
  return line;
}

const socket = new EventSocket(client);
frame(() => {
  form.redraw();
  job.redraw();
  gallery.redraw();
  showConnection(socket.isOpen);
  looks.soon();
});
byId("form").onsubmit = run;
// The second click of a double one would make a second video.
byId("run").addEventListener("click", (event) => event.detail > 1 && event.preventDefault());
const begin = () => choosing(listWorkflows().catch((error) => (report(error), false)));
begin();
socket.addEventListener("open", () => {
  showConnection(true);
  if (opened === null && choice === null) begin();
  for (const part of [image, job, gallery]) part.reconnected();
  looks.soon();
});
// Events may have been missed.
for (const type of ["online", "pageshow"]) addEventListener(type, () => looks.soon());
document.addEventListener("visibilitychange", () => document.hidden || looks.soon());
socket.addEventListener("lost", () => {
  showConnection(false);
  // A socket does not say that its token is refused; any request does, and leads to the login.
  api.session().catch(() => {});
});
socket.addEventListener("executing", ({ detail }) => job.executing(detail));
socket.addEventListener("progress_state", ({ detail }) => job.progress(detail));
socket.addEventListener("preview", ({ detail }) => job.preview(detail));
for (const type of ["status", "execution_start", "execution_success", "execution_error", "execution_interrupted"]) {
  socket.addEventListener(type, () => looks.soon());
}
