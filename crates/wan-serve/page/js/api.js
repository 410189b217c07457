// The server's HTTP API, as far as the page uses it.

import { t } from "./i18n.js";

/** There was no answer, or not a whole one. */
export class Unreachable extends Error {}

/** An answer that was not 2xx; `body` is its JSON where it had some. */
export class ApiError extends Error {
  constructor(status, body) {
    super(readable(body) || `HTTP ${status}`);
    this.status = status;
    this.body = body;
  }
}

/** The sentence a person needs out of an error body: ComfyUI's `{error: {message, details}}` or `{error: text}`. */
function readable(body) {
  const error = body?.error;
  if (typeof error === "string") return error;
  if (!error) return "";
  return [error.message, error.details].filter(Boolean).join("\n");
}

async function request(path, options = {}) {
  const lost = (cause) => {
    throw new Unreachable(t("unreachable"), { cause });
  };
  const response = await fetch(path, { credentials: "same-origin", ...options }).catch(lost);
  if (response.status === 401) {
    location.assign("login");
    throw new ApiError(401, null);
  }
  const text = await response.text().catch(lost);
  let body = null;
  try {
    body = text ? JSON.parse(text, exact) : null;
  } catch {
    body = null;
  }
  if (!response.ok) throw new ApiError(response.status, body);
  return body;
}

/** Seeds go up to 2^64 - 1: integers that a number cannot hold stay text, which the server takes as well. */
function exact(_key, value, context) {
  const rounded = typeof value === "number" && Number.isInteger(value) && !Number.isSafeInteger(value);
  return rounded && context?.source ? context.source : value;
}

const post = (path, body) =>
  request(path, { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body) });

export const session = () => request("wan-run/session");
export const workflows = () => request("userdata?dir=workflows");
export const workflow = (name) => request(`userdata/${encodeURIComponent(`workflows/${name}`)}`);
/** A workflow in either format as API graph. */
export const toGraph = async (json) => (await post("wan-run/convert", json)).prompt;
export const objectInfo = () => request("object_info");
export const queue = () => request("queue");
export const history = (max) => request(`history?max_items=${max}`);
export const submit = (body) => post("prompt", body);
/** Takes a job out of the queue, or stops it if it runs. In this order: it may begin between the two. */
export async function cancel(id) {
  await post("queue", { delete: [id] });
  await post("interrupt", { prompt_id: id });
}
export const removeHistory = (id) => post("history", { delete: [id] });

export async function upload(file) {
  const form = new FormData();
  form.append("image", file, file.name || "pasted.png");
  try {
    return await request("upload/image", { method: "POST", body: form });
  } catch (error) {
    if (error.body?.error?.type !== "request_too_large") throw error;
    throw new Error(t("file_too_large", { size: Math.ceil(file.size / 2 ** 20) }));
  }
}

/** Address of a stored file; `extra` are more query parameters. */
export function viewUrl({ filename, subfolder = "", type = "output" }, extra = {}) {
  return `view?${new URLSearchParams({ filename, subfolder, type, ...extra })}`;
}
