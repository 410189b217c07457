// Lists that are told anew as a whole.

/** Gives `list` these items in this order. Those that stay are not touched: they keep focus, and a click under way. */
export function arrange(list, items) {
  for (const item of [...list.children]) {
    if (!items.includes(item)) item.remove();
  }
  items.forEach((item, index) => {
    if (item !== list.children[index]) list.insertBefore(item, list.children[index] ?? null);
  });
}
