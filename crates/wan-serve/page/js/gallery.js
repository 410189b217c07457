// What has been made, newest first.

import * as api from "./api.js";
import { bindings, values, wholeFrames } from "./graph.js";
import { t, translate } from "./i18n.js";
import { arrange } from "./lists.js";
import { ending, files, isStill, isVideo, present } from "./outputs.js";

const byId = (id) => document.getElementById(id);

/**
 * Draws the history; `onAgain(prompt)` gets the request of a job whose settings are wanted again, `onRemove(id)` the job that
 * is to go.
 */
export class Gallery {
  #items = new Map();

  constructor(onAgain, onRemove) {
    this.onAgain = onAgain;
    this.onRemove = onRemove;
    const player = byId("player");
    // The player is a step of the browser's history: going back closes it, and closing it goes back.
    player.onclose = () => {
      this.#present(null);
      if (history.state?.player) history.back();
    };
    addEventListener("popstate", () => player.close());
  }

  /** Takes `/history`'s answer; items that are shown already stay as they are. */
  show(entries) {
    const ids = Object.keys(entries).reverse();
    for (const id of this.#items.keys()) {
      if (!(id in entries)) this.#items.delete(id);
    }
    for (const id of ids) {
      if (!this.#items.has(id)) this.#items.set(id, this.#item(id, entries[id]));
    }
    arrange(byId("history"), ids.map((id) => this.#items.get(id)));
    byId("history-empty").hidden = ids.length > 0;
  }

  /** Has everything drawn anew by the next `show`, in another language. */
  redraw() {
    this.#items.clear();
  }

  /** Has pictures that could not be loaded drawn anew by the next `show`. */
  reconnected() {
    for (const [id, item] of this.#items) {
      if (item.querySelector(".poster.lost")) this.#items.delete(id);
    }
  }

  #item(id, entry) {
    const item = byId("history-item").content.firstElementChild.cloneNode(true);
    const part = (name) => item.querySelector(`.${name}`);
    const graph = entry.prompt[2];
    const asked = values(graph, bindings(graph));
    const caption = asked.positive?.trim() || t("no_caption");
    const made = files(entry);
    const { how, text } = ending(entry);
    translate(item);
    item.dataset.id = id;
    part("caption").textContent = part("caption").title = caption;
    const facts = (width, height) => (part("facts").textContent = this.#facts(asked, width, height));
    facts(asked.width, asked.height);
    part("again").onclick = () => this.onAgain(entry.prompt);
    part("remove").onclick = () => confirm(t("remove_sure")) && this.onRemove(id);
    part("poster").hidden = !made.length;
    if (made.length) {
      this.#poster(part("poster"), made[0], facts);
      part("poster").ariaLabel = t("play", { what: caption });
      part("poster").onclick = () => this.#play(made[0], caption);
      part("badge").textContent = this.#length(asked, made);
    }
    const [isOne, areMore] = [made.length === 1, made.length > 1];
    part("download").hidden = !isOne;
    part("files").hidden = !areMore;
    if (isOne) this.#offer(part("download"), made[0]);
    if (areMore) {
      part("count").textContent = t("files", { n: made.length });
      part("list").append(...made.map((file) => this.#line(file, caption)));
    }
    part("error").hidden = how === "done";
    part("error").textContent = text || t(how);
    part("error").classList.toggle("calm", how === "cancelled");
    return item;
  }

  /** What a job was asked for; `width` and `height` are those of what it made, where that is known. */
  #facts({ steps, sampler, scheduler, cfg, seed }, width, height) {
    const sampling = steps && [t("steps_are", { n: steps }), sampler, scheduler].filter(Boolean).join(", ");
    const facts = [width && `${width} × ${height}`, sampling, cfg !== undefined && `CFG ${cfg}`, seed !== undefined && `${t("seed")}\u00a0${seed}`];
    return facts.filter(Boolean).join(" · ");
  }

  /** Seconds of what moves, the number of pictures else. */
  #length({ frames, fps }, made) {
    if (isStill(made[0])) return t("pictures", { n: made.length });
    return frames ? `${(wholeFrames(frames) / (fps || 16)).toFixed(1)} s` : "";
  }

  /** Fills the poster: with the first frame beside the video if there is one, with the file itself else. */
  #poster(poster, file, onSize) {
    const [picture, video] = [poster.querySelector("img"), poster.querySelector("video")];
    const lost = () => poster.classList.add("lost");
    video.onerror = lost;
    const own = () => {
      picture.onerror = lost;
      picture.hidden = isVideo(file);
      video.hidden = !isVideo(file);
      if (isVideo(file)) video.src = api.viewUrl(file);
      else picture.src = api.viewUrl(file, isStill(file) ? { preview: "jpeg;80" } : {});
    };
    picture.onload = () => onSize(picture.naturalWidth, picture.naturalHeight);
    video.onloadedmetadata = () => onSize(video.videoWidth, video.videoHeight);
    if (!file.workflow) return own();
    video.hidden = true;
    // The name is told even where the frame was not kept.
    picture.onerror = own;
    picture.src = api.viewUrl({ ...file, filename: file.workflow }, { preview: "jpeg;80" });
  }

  /** One of several files. */
  #line(file, caption) {
    const line = byId("file-item").content.firstElementChild.cloneNode(true);
    translate(line);
    line.querySelector(".name").textContent = file.filename;
    line.querySelector(".name").onclick = () => this.#play(file, caption);
    this.#offer(line.querySelector(".download"), file);
    return line;
  }

  #offer(link, file) {
    link.href = api.viewUrl(file);
    link.download = file.filename;
  }

  #play(file, caption) {
    byId("player").querySelector("img").alt = caption;
    this.#present(file);
    byId("player").showModal();
    history.pushState({ player: true }, "");
  }

  #present(file) {
    const player = byId("player");
    present(file, player.querySelector("video"), player.querySelector("img"));
  }
}
