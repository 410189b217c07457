// The image of the request: chosen, dropped, pasted, or one that lies on the server already.

import * as api from "./api.js";
import { t } from "./i18n.js";

const byId = (id) => document.getElementById(id);

/** Whether the picture is transparent somewhere: a small copy tells. */
function isTransparent(picture) {
  const side = 256;
  const context = new OffscreenCanvas(side, side).getContext("2d");
  context.imageSmoothingQuality = "high";
  context.drawImage(picture, 0, 0, side, side);
  const { data } = context.getImageData(0, 0, side, side);
  return data.some((value, index) => index % 4 === 3 && value < 255);
}

/** Knows the uploaded name and the picture's size; emits `change`. What was chosen last counts, not what arrived last. */
export class ImageInput extends EventTarget {
  name = "";
  size = null;
  /** The upload that will be the image, while it is under way. */
  #upload = null;
  /** Stands for what was chosen last. */
  #choice = null;
  /** Whether the picture did not come. */
  #isLost = false;

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
    const none = new Option(t("none"), "");
    none.dataset.i18n = "none";
    // The one that was just uploaded may be missing from an older list.
    const all = !this.name || names.includes(this.name) ? names : [...names, this.name];
    select.replaceChildren(none, ...all.map((name) => new Option(name, name)));
    select.value = this.name;
  }

  get isUploading() {
    return this.#upload !== null;
  }

  /** Waits until the image is there that was chosen last; throws if its upload fails. */
  async settled() {
    while (this.#upload) await this.#upload;
  }

  async upload(file) {
    this.error("");
    byId("choose").textContent = t("uploading");
    const choice = (this.#choice = {});
    this.#upload = this.#send(file, choice);
    // Whoever waits for it hears of its error; all others see it beside the image.
    await this.#upload.catch(() => {});
  }

  /** Uploads and takes a file, unless something else is chosen meanwhile. */
  async #send(file, choice) {
    try {
      const { name } = await api.upload(file);
      const select = byId("existing");
      if (![...select.options].some((option) => option.value === name)) select.add(new Option(name, name));
      if (choice === this.#choice) this.use(name);
    } catch (error) {
      if (choice !== this.#choice) return;
      this.#idle();
      this.error(error.message || t("not_image"));
      throw error;
    }
  }

  /** No upload is waited for any more. */
  #idle() {
    this.#choice = this.#upload = null;
    byId("choose").textContent = t("choose");
    byId("file").value = "";
  }

  /** After the connection was lost: a picture that it kept from coming is asked for again. */
  reconnected() {
    if (this.#isLost && !this.isUploading) this.use(this.name);
  }

  /** Takes an image of the input folder; an empty name takes none. An upload that is under way comes too late. */
  use(name) {
    this.#idle();
    this.#isLost = false;
    this.name = name ?? "";
    this.size = null;
    byId("existing").value = this.name;
    const preview = byId("image-preview");
    preview.hidden = !this.name;
    preview.alt = this.name;
    byId("image-note").hidden = true;
    this.error("");
    if (!this.name) {
      preview.removeAttribute("src");
      return this.dispatchEvent(new Event("change"));
    }
    const slash = this.name.lastIndexOf("/");
    const [subfolder, filename] = [this.name.slice(0, Math.max(slash, 0)), this.name.slice(slash + 1)];
    const file = { filename, subfolder, type: "input" };
    preview.onload = () => {
      if (byId("image-note").hidden && isTransparent(preview)) {
        byId("image-note").hidden = false;
        preview.src = api.viewUrl(file, { channel: "rgb" });
      }
      this.size = { width: preview.naturalWidth, height: preview.naturalHeight };
      this.dispatchEvent(new Event("change"));
    };
    preview.onerror = () => {
      this.#isLost = true;
      this.error(t("not_image"));
    };
    preview.src = api.viewUrl(file);
    this.dispatchEvent(new Event("change"));
  }

  /** Says beside the image what is wrong with it. */
  error(text) {
    byId("image-error").textContent = text;
    byId("image-error").hidden = !text;
  }
}
