// The image of the request: chosen, dropped, pasted, or one that lies on the server already.

import * as api from "./api.js";
import { t } from "./i18n.js";

const byId = (id) => document.getElementById(id);

/** Knows the uploaded name and the picture's size; emits `change`. */
export class ImageInput extends EventTarget {
  name = "";
  size = null;

  constructor() {
    super();
    const [drop, file] = [byId("drop"), byId("file")];
    byId("choose").onclick = () => file.click();
    file.onchange = () => file.files[0] && this.upload(file.files[0]);
    byId("existing").onchange = ({ target }) => this.use(target.value);
    drop.ondragover = (event) => {
      event.preventDefault();
      drop.classList.add("over");
    };
    drop.ondragleave = () => drop.classList.remove("over");
    drop.ondrop = (event) => {
      event.preventDefault();
      drop.classList.remove("over");
      const dropped = event.dataTransfer.files[0];
      if (dropped) this.upload(dropped);
    };
    document.addEventListener("paste", ({ clipboardData }) => {
      const pasted = [...(clipboardData?.files ?? [])].find((item) => item.type.startsWith("image/"));
      if (pasted) this.upload(pasted);
    });
  }

  /** Lists what lies in the input folder. */
  choices(names) {
    const select = byId("existing");
    select.replaceChildren(new Option(t("none"), ""), ...names.map((name) => new Option(name, name)));
    select.value = names.includes(this.name) ? this.name : "";
  }

  async upload(file) {
    this.#error("");
    byId("choose").textContent = t("uploading");
    try {
      const { name } = await api.upload(file);
      const select = byId("existing");
      if (![...select.options].some((option) => option.value === name)) select.add(new Option(name, name));
      this.use(name);
    } catch (error) {
      this.#error(error.message || t("not_image"));
    } finally {
      byId("choose").textContent = t("choose");
      byId("file").value = "";
    }
  }

  /** Takes an image of the input folder; an empty name takes none. */
  use(name) {
    this.name = name ?? "";
    this.size = null;
    byId("existing").value = this.name;
    const preview = byId("image-preview");
    preview.hidden = !this.name;
    preview.alt = this.name;
    this.#error("");
    if (!this.name) {
      preview.removeAttribute("src");
      return this.dispatchEvent(new Event("change"));
    }
    const slash = this.name.lastIndexOf("/");
    const [subfolder, filename] = [this.name.slice(0, Math.max(slash, 0)), this.name.slice(slash + 1)];
    preview.onload = () => {
      this.size = { width: preview.naturalWidth, height: preview.naturalHeight };
      this.dispatchEvent(new Event("change"));
    };
    preview.onerror = () => this.#error(t("not_image"));
    preview.src = api.viewUrl({ filename, subfolder, type: "input" });
    this.dispatchEvent(new Event("change"));
  }

  #error(text) {
    byId("image-error").textContent = text;
    byId("image-error").hidden = !text;
  }
}
