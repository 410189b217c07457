// Brings the parts together: the form makes requests, the event stream moves the job, the history keeps the results.

import * as api from "./api.js";
import { frame, showConnection } from "./chrome.js";
import { FormError, SettingsForm } from "./form.js";
import { Gallery } from "./gallery.js";
import { bindings, values } from "./graph.js";
import { t } from "./i18n.js";
import { ImageInput } from "./image.js";
import { JobView } from "./job.js";
import { EventSocket } from "./socket.js";

const HISTORY = 60;
const WORKFLOW = "wan-run.workflow";
/** The guide's workflow, which comes with the server. */
const GUIDE = "wanx-21.json";
const byId = (id) => document.getElementById(id);

/** One id for each tab, kept over reloads so that a running job goes on reporting here. */
function clientId() {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  const fresh = Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
  const id = sessionStorage.getItem("wan-run.client") ?? fresh;
  sessionStorage.setItem("wan-run.client", id);
  return id;
}

const client = clientId();
const image = new ImageInput();
const form = new SettingsForm(image);
const job = new JobView();
const gallery = new Gallery((graph) => {
  form.reuse(graph);
  byId("form").scrollIntoView({ behavior: "smooth" });
  byId("positive").focus();
});

/** The UI file of the chosen workflow, which goes into the video's metadata. */
let source = null;

/** Settings that the demo model understands, which those of the guide's workflow are not; `null` on other models. */
let sample = null;

async function openWorkflow(name, draft) {
  const json = await api.workflow(name);
  source = Array.isArray(json.nodes) ? json : null;
  const own = name === GUIDE ? sample : null;
  form.show(await api.toGraph(json), await api.objectInfo(), { ...own, ...draft });
  localStorage.setItem(WORKFLOW, name);
}

async function listWorkflows() {
  ({ sample } = await api.session());
  if (sample) form.demo(sample);
  const names = (await api.workflows()).filter((name) => name.endsWith(".json"));
  const select = byId("workflow");
  select.replaceChildren(...names.map((name) => new Option(name, name)));
  if (!names.length) return showError(t("no_workflows"));
  const last = localStorage.getItem(WORKFLOW);
  select.value = [last, GUIDE, names[0]].find((name) => names.includes(name));
  select.onchange = () => openWorkflow(select.value, {}).catch(report);
  await openWorkflow(select.value, form.draft());
}

function showError(text) {
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
  showError("");
  byId("run").disabled = true;
  try {
    await image.settled();
    const prompt = form.request();
    const extra = source ? { extra_pnginfo: { workflow: source } } : {};
    const { prompt_id: id } = await api.submit({ prompt, client_id: client, extra_data: extra });
    form.queued();
    if (!job.id) job.watch(id, prompt, 1);
    await refresh();
    byId("job").scrollIntoView({ behavior: "smooth", block: "nearest" });
  } catch (error) {
    report(error);
  } finally {
    byId("run").disabled = false;
  }
}

/** Reads queue and history anew: they, not the events, say what is true. */
async function refresh() {
  // In this order a job that ends meanwhile is seen in the history.
  const { queue_running: running, queue_pending: pending } = await api.queue();
  const history = await api.history(HISTORY);
  const waiting = [...running, ...pending];
  const mine = waiting.find(([, id]) => id === job.id) ?? waiting.find(([, , , extra]) => extra?.client_id === client) ?? running[0];
  if (job.id && history[job.id]) job.finish(history[job.id]);
  if (mine && !history[mine[1]]) job.watch(mine[1], mine[2], waiting.indexOf(mine));
  else if (job.id && !mine) job.gone();
  showQueue(waiting.filter((item) => item !== mine));
  gallery.show(history);
}

function showQueue(items) {
  byId("queue-box").hidden = items.length === 0;
  byId("queue").replaceChildren(
    ...items.map(([, id, graph]) => {
      const [line, text, button] = ["li", "span", "button"].map((name) => document.createElement(name));
      text.textContent = values(graph, bindings(graph)).positive || t("no_caption");
      button.type = "button";
      button.className = "plain";
      button.textContent = "✕";
      button.ariaLabel = t("cancel_waiting");
      button.onclick = () => Promise.all([api.removePending(id), api.interrupt(id)]).then(refreshSoon);
      line.append(text, button);
      return line;
    }),
  );
}

/** Several events come at once; one look at the server is enough for them. */
let due = null;
function refreshSoon() {
  due ??= setTimeout(() => {
    due = null;
    refresh().catch(report);
  }, 100);
}

const socket = new EventSocket(client);
frame(() => {
  form.redraw();
  job.redraw();
  gallery.redraw();
  showConnection(socket.isOpen);
  refreshSoon();
});
byId("form").onsubmit = run;
listWorkflows().catch(report);
socket.addEventListener("open", () => {
  showConnection(true);
  refreshSoon();
});
socket.addEventListener("lost", () => {
  showConnection(false);
  // A socket does not say that its token is refused; any request does, and leads to the login.
  api.session().catch(() => {});
});
socket.addEventListener("progress", ({ detail }) => job.progress(detail));
socket.addEventListener("preview", ({ detail }) => job.preview(detail));
for (const type of ["status", "execution_start", "execution_success", "execution_error", "execution_interrupted"]) {
  socket.addEventListener(type, refreshSoon);
}
