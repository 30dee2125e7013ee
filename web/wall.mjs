/**
 * The wall that keeps keys inside galleries. It listens at the window, before an event travels down, because some hosts'
 * shortcuts listen on the way down too. Of all that listen there the first to be added hears first: so ComfyUI's page
 * imports this as it opens, before other packs add theirs and long before there is a gallery.
 */

/** @typedef {(event: KeyboardEvent) => void} OnKey */

const HELD_BACK = /** @type {const} */ (["keydown", "keyup", "keypress", "paste", "copy", "cut"]);

/** @type {Map<EventTarget, {keydown: OnKey, keyup: OnKey}>} what handles the keys, by the element that they are kept in */
const inside = new Map();

/** @param {Event} event */
function guard(event) {
  const host = event.composedPath().find((target) => inside.has(target));
  const handlers = host && inside.get(host);
  if (!handlers) return;
  event.stopImmediatePropagation();
  if (event.type === "keydown") handlers.keydown(/** @type {KeyboardEvent} */ (event));
  if (event.type === "keyup") handlers.keyup(/** @type {KeyboardEvent} */ (event));
}

for (const type of HELD_BACK) window.addEventListener(type, guard, true);

/**
 * Keys from inside `host` are handled here and go nowhere else; keys from outside are not touched.
 * @param {HTMLElement} host @param {{keydown: OnKey, keyup: OnKey}} handlers
 * @returns {() => void} takes the wall down
 */
export function wall(host, handlers) {
  inside.set(host, handlers);
  return () => void inside.delete(host);
}
