// What a job of the history has made, and how it ended.

import * as api from "./api.js";

const VIDEO = /\.(mp4|webm|mov|mkv)$/i;
const MOVING_PICTURE = /\.(gif|webp)$/i;
const PICTURE = /\.(png|jpe?g)$/i;
const KINDS = [VIDEO, MOVING_PICTURE, PICTURE];

const kind = ({ filename }) => KINDS.findIndex((pattern) => pattern.test(filename));

export const isVideo = (file) => kind(file) === 0;
export const isStill = (file) => kind(file) === 2;

/** Files of a history entry that a browser can show: videos, then pictures that move, then others. */
export function files(entry) {
  const outputs = Object.values(entry.outputs ?? {});
  const all = outputs.flatMap(({ gifs = [], images = [] }) => [...gifs, ...images]);
  return all.filter((file) => kind(file) >= 0).sort((a, b) => kind(a) - kind(b));
}

/** How the job of a history entry ended: `done`, `cancelled` or `failed`, and the error's text. */
export function ending({ status = {} }) {
  const { execution_error: error, execution_interrupted: interrupted } = Object.fromEntries(status.messages ?? []);
  if (error) return { how: "failed", text: error.exception_message?.trim() ?? "" };
  if (interrupted) return { how: "cancelled", text: "" };
  return { how: status.completed ? "done" : "failed", text: "" };
}

/** Shows a file in whichever of two elements suits it, and empties the other; no file empties both. */
export function present(file, video, picture) {
  for (const element of [video, picture]) {
    const suits = file !== null && (element === video) === isVideo(file);
    element.hidden = !suits;
    if (suits) element.src = api.viewUrl(file);
    else if (element.hasAttribute("src")) {
      element.removeAttribute("src");
      // Without this a video plays on unseen.
      element.load?.();
    }
  }
  if (!video.hidden) video.play().catch(() => {});
}
