// The settings: bound to the inputs of the chosen workflow, checked by the ranges the server states for them.

import { adjustedSize, adjustsResolution, apply, bindings, spec, values, wholeFrames } from "./graph.js";
import { t } from "./i18n.js";

const byId = (id) => document.getElementById(id);

const NUMBERS = ["width", "height", "frames", "steps", "cfg", "shift", "denoise"];
const FIELDS = [...NUMBERS, "positive", "negative", "scheduler", "seed"];
const PRESETS = [[832, 480], [480, 832], [624, 624], [512, 512], [1280, 720], [720, 1280]];
const DRAFT = "wan-run.draft";
/** Lies in the input folder from the first start on. */
const SAMPLE = "sample.png";

/** A bad value; the message says which field and what it takes. */
export class FormError extends Error {
  constructor(field, message) {
    super(message);
    this.field = field;
  }
}

export class SettingsForm {
  #graph = null;
  #bound = {};
  #info = {};
  #demo = false;

  constructor(image) {
    this.image = image;
    byId("dice").onclick = () => this.#roll();
    for (const [width, height] of PRESETS) this.#preset(width, height);
    for (const field of FIELDS) byId(field).addEventListener("input", () => this.#changed());
    byId("new-seed").addEventListener("change", () => this.#changed());
    image.addEventListener("change", () => this.#changed());
  }

  /** Says what the demo model understands, and offers its size; `sample` holds its settings. */
  demo(sample) {
    this.#demo = true;
    byId("demo").hidden = false;
    byId("positive-hint").hidden = true;
    this.#preset(sample.width, sample.height);
  }

  /** Takes another workflow: fields it does not have disappear, the others get its values or the draft's. */
  show(graph, info, draft) {
    this.#graph = graph;
    this.#info = info;
    this.#bound = bindings(graph);
    for (const field of FIELDS) {
      const binding = this.#bound[field];
      const element = byId(field);
      element.closest(".field").hidden = !binding;
      if (binding) this.#limit(field, spec(info, binding));
    }
    byId("image-field").hidden = !("image" in this.#bound);
    if (this.#bound.image) {
      const [choices, options] = spec(info, this.#bound.image);
      this.image.choices(Array.isArray(choices) ? choices : (options?.options ?? []));
    }
    const settings = { ...values(graph, this.#bound), ...draft };
    // What the user has just chosen stays.
    if (this.image.isUploading) delete settings.image;
    this.fill(settings);
    // Workflows name images of the machine that they come from.
    if ("image" in this.#bound && !this.image.name && !this.image.isUploading) this.fill({ image: SAMPLE });
  }

  /** Puts `settings` into the fields. The image is taken only where the server has it. */
  fill(settings) {
    for (const field of FIELDS) {
      if (settings[field] !== undefined) byId(field).value = String(settings[field]);
    }
    const known = [...byId("existing").options].some((option) => option.value === settings.image);
    const isOther = settings.image !== this.image.name || this.image.isUploading;
    if (settings.image && known && isOther) this.image.use(settings.image);
    this.#changed();
  }

  /** After the language changed. */
  redraw() {
    this.#changed();
  }

  /** Fills in what a finished job was asked for. */
  reuse(graph) {
    this.fill(values(graph, bindings(graph)));
    byId("new-seed").checked = false;
    this.#changed();
  }

  /** The workflow with the settings in it. Throws `FormError` for the first that is out of range. */
  request() {
    const settings = {};
    byId("choose").removeAttribute("aria-invalid");
    for (const field of FIELDS) {
      byId(field).removeAttribute("aria-invalid");
      if (field in this.#bound) settings[field] = this.#read(field);
    }
    if ("image" in this.#bound) {
      if (!this.image.name) throw new FormError("choose", t("need_image"));
      const narrow = this.#tooNarrow(this.#size(settings));
      if (narrow) throw new FormError("choose", narrow);
      settings.image = this.image.name;
    }
    return apply(this.#graph, this.#bound, settings);
  }

  /** After a request was queued. */
  queued() {
    if (byId("new-seed").checked) this.#roll();
  }

  /** What was typed last, from an earlier visit; what was typed for the demo model suits no other, nor the reverse. */
  draft() {
    try {
      const draft = JSON.parse(localStorage.getItem(DRAFT)) ?? {};
      return Boolean(draft.demo) === this.#demo ? draft : {};
    } catch {
      return {};
    }
  }

  #read(field) {
    const text = byId(field).value;
    const what = byId(field).closest(".field").querySelector("span, label").textContent;
    if (field === "seed") {
      if (!/^\d{1,20}$/.test(text.trim())) throw new FormError(field, t("not_a_number", { what }));
      return Number.isSafeInteger(Number(text)) ? Number(text) : text.trim();
    }
    if (!NUMBERS.includes(field)) return text;
    const value = Number(text);
    if (text.trim() === "" || !Number.isFinite(value)) throw new FormError(field, t("not_a_number", { what }));
    const { min = -Infinity, max = Infinity } = spec(this.#info, this.#bound[field])[1] ?? {};
    if (value < min || value > max) {
      const words = max === Infinity ? "at_least" : "out_of_range";
      throw new FormError(field, t(words, { what, min, max }));
    }
    return value;
  }

  #limit(field, [type, options = {}]) {
    const element = byId(field);
    if (element instanceof HTMLSelectElement) {
      const choices = Array.isArray(type) ? type : (options.options ?? []);
      element.replaceChildren(...choices.map((choice) => new Option(choice, choice)));
    } else if (NUMBERS.includes(field)) {
      for (const limit of ["min", "max"]) {
        if (options[limit] === undefined) element.removeAttribute(limit);
        else element[limit] = options[limit];
      }
    }
  }

  #preset(width, height) {
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = `${width} × ${height}`;
    button.onclick = () => this.fill({ width, height });
    button.dataset.size = `${width}x${height}`;
    byId("presets").append(button);
  }

  #roll() {
    byId("seed").value = String(crypto.getRandomValues(new Uint32Array(1))[0]);
    this.#changed();
  }

  #changed() {
    const draft = Object.fromEntries(FIELDS.map((field) => [field, byId(field).value]));
    localStorage.setItem(DRAFT, JSON.stringify({ ...draft, image: this.image.name, demo: this.#demo }));
    const size = `${draft.width}x${draft.height}`;
    for (const button of byId("presets").children) button.ariaPressed = String(button.dataset.size === size);
    byId("size-note").textContent = this.#graph ? this.#sizeNote(draft) : "";
  }

  /** Size of the video; `kept` where the image's shape decides. */
  #size({ width, height }) {
    const kept = Boolean(this.image.size) && adjustsResolution(this.#graph);
    if (!kept) return { width, height, kept };
    return { ...adjustedSize(width, height, this.image.size.width, this.image.size.height), kept };
  }

  /** What is wrong with an image of which a side of the video vanishes. */
  #tooNarrow({ width, height, kept }) {
    if (!kept || (width > 0 && height > 0)) return "";
    return t("too_narrow", { w: this.image.size.width, h: this.image.size.height });
  }

  #sizeNote(draft) {
    const [width, height, asked] = [draft.width, draft.height, draft.frames].map(Number);
    if (!(width > 0 && height > 0 && asked > 0)) return "";
    const frames = wholeFrames(asked);
    const fps = Number(values(this.#graph, this.#bound).fps) || 16;
    const size = this.#size({ width, height });
    const narrow = this.#tooNarrow(size);
    if (narrow) return narrow;
    const note = t(size.kept ? "size_kept" : "size_is", {
      w: size.width, h: size.height, s: (frames / fps).toFixed(1).replace(/\.0$/, ""), fps,
    });
    return frames === asked ? note : `${note} ${t("frames_are", { n: frames })}`;
  }
}
