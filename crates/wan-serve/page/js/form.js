// The settings: bound to the inputs of the chosen workflow, checked by the ranges the server states for them.

import { adjustedSize, adjustsResolution, apply, bindings, spec, values, wholeFrames } from "./graph.js";
import { t } from "./i18n.js";
import { keep, recall } from "./store.js";

const byId = (id) => document.getElementById(id);

const NUMBERS = ["width", "height", "frames", "steps", "cfg", "shift", "denoise"];
const FIELDS = [...NUMBERS, "positive", "negative", "sampler", "scheduler", "seed"];
const PRESETS = [[832, 480], [480, 832], [624, 624], [512, 512], [1280, 720], [720, 1280]];
const DRAFTS = "wan-run.draft";
const LARGEST_SEED = 2n ** 64n - 1n;
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
  #name = "";
  #graph = null;
  #bound = {};
  #info = {};
  #demo = false;
  /** Whether another workflow is under way. */
  #expectsAnother = false;
  /** What the user gave meanwhile. */
  #early = new Set();

  constructor(image) {
    this.image = image;
    byId("dice").onclick = () => {
      this.#given("seed");
      this.#roll();
    };
    for (const [width, height] of PRESETS) this.#preset(width, height);
    for (const field of FIELDS) {
      byId(field).addEventListener("input", () => {
        this.#given(field);
        this.#changed();
      });
    }
    byId("new-seed").addEventListener("change", () => this.#changed());
    image.addEventListener("change", () => {
      // Later on it changes with each workflow as well.
      if (!this.#graph) this.#given("image");
      this.#changed();
    });
  }

  /** Says what the demo model understands, and offers its size; `sample` holds its settings. */
  demo(sample) {
    if (this.#demo) return;
    this.#demo = true;
    byId("demo").hidden = false;
    byId("positive-hint").hidden = true;
    this.#preset(sample.width, sample.height);
  }

  /** The workflow that is shown. */
  get graph() {
    return this.#graph;
  }

  /** Another workflow is under way: what the user gives from now on is for it. */
  expectAnother() {
    this.#expectsAnother = true;
  }

  /** None is under way any more. */
  expectNone() {
    this.#expectsAnother = false;
    if (this.#graph) this.#early.clear();
  }

  /** What the user gave so far is not wanted any more. */
  forget() {
    this.#early.clear();
  }

  /**
   * Takes another workflow: fields it does not have disappear, the others get its values or those of `settings`. What
   * is typed is kept under `name`, unless that is empty.
   */
  show(name, graph, info, settings) {
    this.#name = name;
    this.#graph = graph;
    this.#info = info;
    this.#bound = bindings(graph);
    const own = values(graph, this.#bound);
    for (const field of FIELDS) {
      const binding = this.#bound[field];
      const element = byId(field);
      element.closest(".field").hidden = !binding;
      if (binding) this.#limit(field, spec(info, binding), own[field]);
    }
    byId("image-field").hidden = !("image" in this.#bound);
    if (this.#bound.image) {
      const [choices, options] = spec(info, this.#bound.image);
      this.image.choices(Array.isArray(choices) ? choices : (options?.options ?? []));
    }
    const all = { ...own, ...settings };
    // What the user has just typed or chosen stays.
    for (const field of this.#early) delete all[field];
    if (this.image.isUploading) delete all.image;
    this.fill(all);
    // Workflows name images of the machine that they come from.
    if ("image" in this.#bound && !this.image.name && !this.image.isUploading) this.fill({ image: SAMPLE });
  }

  /** Puts `settings` into the fields. Of choices and images only those are taken that there are. */
  fill(settings) {
    const offers = (select, value) => [...select.options].some((option) => option.value === String(value));
    for (const field of FIELDS) {
      const [element, value] = [byId(field), settings[field]];
      if (value === undefined || (element instanceof HTMLSelectElement && !offers(element, value))) continue;
      element.value = String(value);
    }
    const known = offers(byId("existing"), settings.image);
    const isOther = settings.image !== this.image.name || this.image.isUploading;
    if (settings.image && known && isOther) this.image.use(settings.image);
    this.#changed();
  }

  /** After the language changed. */
  redraw() {
    this.#changed();
  }

  /** The next request has the seed that is shown. */
  keepSeed() {
    byId("new-seed").checked = false;
  }

  /** The workflow with the settings in it. Throws `FormError` for the first that is out of range. */
  request() {
    const settings = {};
    for (const field of FIELDS) {
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

  /** What was typed last for a workflow. */
  draft(name) {
    return this.#drafts()[name] ?? {};
  }

  /** By workflow; what was typed for the demo model suits no other, nor the reverse. */
  #drafts() {
    try {
      const { demo, workflows } = JSON.parse(recall(DRAFTS));
      return demo === this.#demo ? (workflows ?? {}) : {};
    } catch {
      return {};
    }
  }

  #read(field) {
    const text = byId(field).value;
    const what = byId(field).closest(".field").querySelector("span, label").textContent;
    if (field === "seed") {
      const fits = /^\d{1,20}$/.test(text.trim()) && BigInt(text.trim()) <= LARGEST_SEED;
      if (!fits) throw new FormError(field, t("not_a_seed", { what, max: LARGEST_SEED }));
      return Number.isSafeInteger(Number(text)) ? Number(text) : text.trim();
    }
    if (!NUMBERS.includes(field)) return text;
    const value = Number(text);
    if (text.trim() === "" || !Number.isFinite(value)) throw new FormError(field, t("not_a_number", { what }));
    const [type, { min = -Infinity, max = Infinity } = {}] = spec(this.#info, this.#bound[field]);
    if (type === "INT" && !Number.isInteger(value)) throw new FormError(field, t("not_whole", { what }));
    if (value < min || value > max) {
      const words = max === Infinity ? "at_least" : "out_of_range";
      throw new FormError(field, t(words, { what, min, max }));
    }
    return value;
  }

  #limit(field, [type, options = {}], own) {
    const element = byId(field);
    if (element instanceof HTMLSelectElement) {
      const offered = Array.isArray(type) ? type : (options.options ?? []);
      // What the server lacks it refuses by name, where the workflow asks for it; another choice would be a guess.
      const choices = own === undefined || offered.includes(own) ? offered : [...offered, own];
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
    button.onclick = () => {
      this.#given("width", "height");
      this.fill({ width, height });
    };
    button.dataset.size = `${width}x${height}`;
    byId("presets").append(button);
  }

  #roll() {
    byId("seed").value = String(crypto.getRandomValues(new Uint32Array(1))[0]);
    this.#changed();
  }

  /** The user gives these fields themselves. */
  #given(...fields) {
    if (this.#expectsAnother || !this.#graph) fields.forEach((field) => this.#early.add(field));
  }

  #changed() {
    const draft = Object.fromEntries(FIELDS.map((field) => [field, byId(field).value]));
    if (this.#name) {
      const workflows = { ...this.#drafts(), [this.#name]: { ...draft, image: this.image.name } };
      keep(DRAFTS, JSON.stringify({ demo: this.#demo, workflows }));
    }
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
