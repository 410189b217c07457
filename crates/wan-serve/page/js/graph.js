// Where a workflow keeps the settings that the form shows.

/** Inputs by class that stand for a setting wherever the class occurs. */
const ROLES = {
  LoadImage: { image: "image" },
  WanVideoTextEncode: { positive: "positive_prompt", negative: "negative_prompt" },
  WanVideoImageClipEncode: { width: "generation_width", height: "generation_height", frames: "num_frames" },
  WanVideoImageToVideoEncode: { width: "width", height: "height", frames: "num_frames" },
  WanVideoEmptyEmbeds: { width: "width", height: "height", frames: "num_frames" },
  WanImageToVideo: { width: "width", height: "height", frames: "length" },
  WanFirstLastFrameToVideo: { width: "width", height: "height", frames: "length" },
  EmptyHunyuanLatentVideo: { width: "width", height: "height", frames: "length" },
  WanVideoSampler: {
    steps: "steps", cfg: "cfg", shift: "shift", seed: "seed", scheduler: "scheduler", denoise: "denoise_strength",
  },
  KSampler: {
    steps: "steps", cfg: "cfg", seed: "seed", sampler: "sampler_name", scheduler: "scheduler", denoise: "denoise",
  },
  ModelSamplingSD3: { shift: "shift" },
  VHS_VideoCombine: { fps: "frame_rate" },
  CreateVideo: { fps: "fps" },
};

const isLink = (value) => Array.isArray(value) && value.length === 2 && typeof value[0] === "string";

/** Follows `input` upstream to a node of class `wanted`, through nodes that pass an input of the same name on. */
function upstream(graph, id, input, wanted) {
  for (let hops = 0; hops < 32; hops++) {
    const link = graph[id]?.inputs?.[input];
    if (!isLink(link)) return null;
    id = link[0];
    if (graph[id]?.class_type === wanted) return id;
  }
  return null;
}

/** Ids of the nodes that load end images: the form's picture is the first one's. */
function endImages(graph) {
  const ends = Object.values(graph).map(({ inputs }) => inputs?.end_image).filter(isLink);
  const loads = ends.map(([id]) => (graph[id]?.class_type === "LoadImage" ? id : upstream(graph, id, "image", "LoadImage")));
  return new Set(loads);
}

/** The settings of an API graph: role to `{node, input, className}`. */
export function bindings(graph) {
  const found = {};
  const ends = endImages(graph);
  for (const [node, { class_type: className, inputs = {} }] of Object.entries(graph)) {
    if (ends.has(node)) continue;
    for (const [role, input] of Object.entries(ROLES[className] ?? {})) {
      if (!(role in found) && !isLink(inputs[input])) found[role] = { node, input, className };
    }
    if (className === "KSampler") {
      for (const role of ["positive", "negative"]) {
        const text = upstream(graph, node, role, "CLIPTextEncode");
        if (text) found[role] = { node: text, input: "text", className: "CLIPTextEncode" };
      }
    }
  }
  return found;
}

/** What the graph holds for each bound role. */
export function values(graph, bound) {
  return Object.fromEntries(
    Object.entries(bound).map(([role, { node, input }]) => [role, graph[node].inputs?.[input]]),
  );
}

/** A copy of the graph with `settings` filled in; roles it does not have are left out. */
export function apply(graph, bound, settings) {
  const copy = structuredClone(graph);
  for (const [role, value] of Object.entries(settings)) {
    if (role in bound && value !== undefined) copy[bound[role].node].inputs[bound[role].input] = value;
  }
  return copy;
}

/** Whether two graphs differ in nothing but their settings. */
export function isSameWorkflow(one, other) {
  const frame = (graph) => {
    const bound = bindings(graph);
    const blank = apply(graph, bound, Object.fromEntries(Object.keys(bound).map((role) => [role, null])));
    const nodes = Object.entries(blank).map(([id, { class_type: name, inputs }]) => [id, name, Object.entries(inputs).sort()]);
    return JSON.stringify(nodes.sort());
  };
  return frame(one) === frame(other);
}

/** Classes of a graph's nodes that the server does not have. */
export function unknownClasses(graph, info) {
  return [...new Set(Object.values(graph).map((node) => node.class_type))].filter((name) => !(name in info));
}

/** `[type or choices, options]` of a bound input, from `/object_info`. */
export function spec(info, { className, input }) {
  const inputs = info[className]?.input ?? {};
  return inputs.required?.[input] ?? inputs.optional?.[input] ?? ["*", {}];
}

/** Whether the graph takes the picture's aspect ratio and only the area of width times height. */
export function adjustsResolution(graph) {
  const encode = Object.values(graph).find((node) => node.class_type === "WanVideoImageClipEncode");
  return encode?.inputs?.adjust_resolution === true;
}

/** Frames of the video where `asked` are asked for: the first, and groups of four. */
export const wholeFrames = (asked) => Math.floor((asked - 1) / 4) * 4 + 1;

/** Size of the video of a `width` x `height` request for a picture of the given size, in multiples of 16. */
export function adjustedSize(width, height, imageWidth, imageHeight) {
  const area = width * height;
  const aspect = imageHeight / imageWidth;
  const fit = (length) => Math.floor(Math.floor(length / 8) / 2) * 16;
  return { width: fit(Math.sqrt(area / aspect)), height: fit(Math.sqrt(area * aspect)) };
}
