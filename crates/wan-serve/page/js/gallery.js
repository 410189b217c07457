// What has been made, newest first.

import * as api from "./api.js";
import { bindings, values, wholeFrames } from "./graph.js";
import { t, translate } from "./i18n.js";
import { failure, videos } from "./job.js";

const byId = (id) => document.getElementById(id);

/** Draws the history; `onAgain(graph)` gets the workflow of a job whose settings are wanted again. */
export class Gallery {
  #items = new Map();

  constructor(onAgain) {
    this.onAgain = onAgain;
    byId("player").onclose = () => byId("player").querySelector("video").removeAttribute("src");
  }

  /** Takes `/history`'s answer; items that are shown already stay as they are. */
  show(history) {
    const ids = Object.keys(history).reverse();
    for (const [id, item] of this.#items) {
      if (!(id in history)) {
        item.remove();
        this.#items.delete(id);
      }
    }
    for (const id of ids) {
      if (!this.#items.has(id)) this.#items.set(id, this.#item(id, history[id]));
    }
    const items = ids.map((id) => this.#items.get(id));
    const list = byId("history");
    // Items that are put in anew lose the keyboard's focus.
    if (items.length !== list.children.length || items.some((item, index) => item !== list.children[index])) {
      list.replaceChildren(...items);
    }
    byId("history-empty").hidden = ids.length > 0;
  }

  /** Has everything drawn anew by the next `show`, in another language. */
  redraw() {
    this.#items.clear();
  }

  #item(id, entry) {
    const item = byId("history-item").content.firstElementChild.cloneNode(true);
    const part = (name) => item.querySelector(`.${name}`);
    const graph = entry.prompt[2];
    const asked = values(graph, bindings(graph));
    const caption = asked.positive?.trim() || t("no_caption");
    const [video] = videos(entry);
    translate(item);
    item.dataset.id = id;
    part("caption").textContent = caption;
    part("caption").title = caption;
    const facts = [`${asked.width} × ${asked.height}`, asked.steps && `${asked.steps} × ${asked.scheduler}`, `CFG ${asked.cfg}`, `#${asked.seed}`];
    part("facts").textContent = asked.width ? facts.filter(Boolean).join(" · ") : "";
    part("again").onclick = () => this.onAgain(graph);
    part("remove").onclick = () => api.removeHistory(id).then(() => item.remove());
    if (video) {
      const poster = video.workflow ? { ...video, filename: video.workflow } : null;
      if (poster) item.querySelector("img").src = api.viewUrl(poster, { preview: "jpeg;80" });
      part("poster").ariaLabel = t("play", { what: caption });
      part("poster").onclick = () => this.#play(video);
      part("badge").textContent = asked.frames ? `${(wholeFrames(asked.frames) / (asked.fps || 16)).toFixed(1)} s` : "";
      part("download").href = api.viewUrl(video);
      part("download").download = video.filename;
    } else {
      part("poster").hidden = part("download").hidden = true;
      part("error").hidden = false;
      const text = failure(entry);
      part("error").textContent = text || t("cancelled");
      part("error").classList.toggle("calm", !text);
    }
    return item;
  }

  #play(video) {
    const player = byId("player").querySelector("video");
    player.src = api.viewUrl(video);
    byId("player").showModal();
    player.play().catch(() => {});
  }
}
