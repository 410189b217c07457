// What the browser keeps for the page. Where it keeps nothing, the page does as long as it is open.

/** What the browser would not take. */
const refused = new Map();

/** The text kept under `key` in `area`, `localStorage` or `sessionStorage`; `null` if there is none. */
export function recall(key, area = "localStorage") {
  if (refused.has(key)) return refused.get(key);
  try {
    return window[area].getItem(key);
  } catch {
    return null;
  }
}

export function keep(key, text, area = "localStorage") {
  try {
    window[area].setItem(key, text);
    refused.delete(key);
  } catch {
    refused.set(key, text);
  }
}
