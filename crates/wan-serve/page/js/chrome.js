// What frames the page: theme, language, and the panel with address and token.

import * as api from "./api.js";
import { switchLanguage, t, translate } from "./i18n.js";

const byId = (id) => document.getElementById(id);

function theme() {
  const root = document.documentElement;
  const saved = localStorage.getItem("wan-run.theme");
  if (saved) root.dataset.theme = saved;
  byId("theme").textContent = "◐";
  byId("theme").onclick = () => {
    const dark = root.dataset.theme
      ? root.dataset.theme === "dark"
      : matchMedia("(prefers-color-scheme: dark)").matches;
    root.dataset.theme = dark ? "light" : "dark";
    localStorage.setItem("wan-run.theme", root.dataset.theme);
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

async function copy(text, button) {
  // The clipboard is not available over plain HTTP from another machine: then the text is selected by hand.
  await navigator.clipboard?.writeText(text);
  button.textContent = t(navigator.clipboard ? "copied" : "copy");
  setTimeout(() => (button.textContent = t("copy")), 1500);
}

function accessPanel() {
  const [panel, button] = [byId("access"), byId("access-button")];
  let token = "";
  let shown = false;
  const draw = () => {
    byId("access-token").textContent = token ? (shown ? token : "•".repeat(12)) : t("no_token");
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
    if (token) draw();
    const session = await api.session();
    token = session.token ?? "";
    byId("access-model").textContent = `${session.model} · ${session.device} · wan-run ${session.version}`;
    draw();
  };
  button.onclick = () => open(panel.hidden);
  byId("access-close").onclick = () => open(false);
  byId("reveal").onclick = () => {
    shown = !shown;
    draw();
  };
  byId("copy-token").onclick = ({ target }) => copy(token, target);
  document.querySelector("[data-copy]").onclick = ({ target }) => copy(location.host, target);
  panel.onkeydown = ({ key }) => key === "Escape" && open(false);
}

/** Sets all of it up; `onLanguage` is called after the language changed. */
export function frame(onLanguage) {
  translate();
  theme();
  language(onLanguage);
  accessPanel();
}

/** Shows whether the event stream is open. */
export function showConnection(open) {
  byId("connection").textContent = t(open ? "connected" : "lost");
  byId("connection").classList.toggle("lost", !open);
}
