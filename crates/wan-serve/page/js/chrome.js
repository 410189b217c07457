// What frames the page: theme, language, and the panel with address and token.

import * as api from "./api.js";
import { switchLanguage, t, translate } from "./i18n.js";
import { keep, recall } from "./store.js";

const byId = (id) => document.getElementById(id);

function theme() {
  const root = document.documentElement;
  const saved = recall("wan-run.theme");
  if (saved) root.dataset.theme = saved;
  byId("theme").textContent = "◐";
  byId("theme").onclick = () => {
    const dark = root.dataset.theme
      ? root.dataset.theme === "dark"
      : matchMedia("(prefers-color-scheme: dark)").matches;
    root.dataset.theme = dark ? "light" : "dark";
    keep("wan-run.theme", root.dataset.theme);
  };
}

function language(onChange) {
  const button = byId("language");
  button.textContent = t("language");
  button.onclick = () => {
    switchLanguage();
    button.textContent = t("language");
    onChange();
  };
}

/** Copies `text`; where that fails, `element` shows it once `reveal` was called, and it is selected there. */
async function copy(text, button, element, reveal = () => {}) {
  let copied = await navigator.clipboard?.writeText(text).then(() => true, () => false);
  if (!copied) {
    // Over plain HTTP from another machine there is only the old command, which copies what is selected.
    reveal();
    getSelection().selectAllChildren(element);
    copied = document.execCommand("copy");
  }
  button.textContent = t(copied ? "copied" : "selected");
  setTimeout(() => (button.textContent = t("copy")), 1500);
}

/** Scrolls to an element, at once for those who want little motion. */
export function bring(element) {
  const isStill = matchMedia("(prefers-reduced-motion: reduce)").matches;
  element.scrollIntoView({ behavior: isStill ? "auto" : "smooth" });
}

/** Whatever gets the focus stays clear of the bars at the window's edges. */
function clearBars() {
  const bars = { "--top": document.querySelector(".bar"), "--bottom": document.querySelector(".run") };
  const observer = new ResizeObserver(() => {
    for (const [name, bar] of Object.entries(bars)) document.documentElement.style.setProperty(name, `${bar.offsetHeight}px`);
  });
  for (const bar of Object.values(bars)) observer.observe(bar);
  // Of a text field the browser brings only the line with the caret into sight.
  addEventListener("keyup", ({ key }) => key === "Tab" && document.activeElement.scrollIntoView({ block: "nearest" }));
}

function accessPanel() {
  const [panel, button] = [byId("access"), byId("access-button")];
  /** `null` until the server has told it. */
  let token = null;
  let shown = false;
  const draw = () => {
    const words = token ? (shown ? token : "•".repeat(12)) : t("no_token");
    byId("access-token").textContent = token === null ? "" : words;
    byId("reveal").textContent = t(shown ? "hide" : "show");
    byId("reveal").ariaPressed = String(shown);
    byId("reveal").hidden = byId("copy-token").hidden = !token;
  };
  const open = async (wanted) => {
    panel.hidden = !wanted;
    button.ariaExpanded = String(wanted);
    if (!wanted) return button.focus();
    shown = false;
    byId("access-server").textContent = location.host;
    byId("access-close").focus();
    draw();
    try {
      const session = await api.session();
      token = session.token ?? "";
      byId("access-model").textContent = `${session.model} · ${session.device} · wan-run ${session.version}`;
    } catch (error) {
      byId("access-model").textContent = error.message;
    }
    draw();
  };
  button.onclick = () => open(panel.hidden);
  byId("access-close").onclick = () => open(false);
  byId("reveal").onclick = () => {
    shown = !shown;
    draw();
  };
  const reveal = () => {
    shown = true;
    draw();
  };
  byId("copy-token").onclick = ({ target }) => copy(token, target, byId("access-token"), reveal);
  byId("copy-server").onclick = ({ target }) => copy(location.host, target, byId("access-server"));
  panel.onkeydown = ({ key }) => key === "Escape" && open(false);
}

/** Sets all of it up; `onLanguage` is called after the language changed. */
export function frame(onLanguage) {
  translate();
  theme();
  language(onLanguage);
  accessPanel();
  clearBars();
}

/** Shows whether the event stream is open. */
export function showConnection(open) {
  byId("connection").textContent = t(open ? "connected" : "lost");
  byId("connection").classList.toggle("lost", !open);
}
