/**
 * The host's shortcuts in our tab. The gallery keeps keys to itself; those that the host draws, skips and interrupts
 * with are handed on from it, and Escape ends what is open in the gallery before it interrupts any work.
 */

/** @returns {import("../web/gallery.mjs").D3POGallery | null} */
const gallery = () => gradioApp().querySelector("#tab_d3po d3po-gallery");

/** @param {KeyboardEvent} event */
function enter(event) {
  if (event.key !== "Enter" || !(event.ctrlKey || event.metaKey || event.altKey)) return;
  event.stopImmediatePropagation();
  event.preventDefault();
  const { key, ctrlKey, metaKey, altKey } = event;
  document.body.dispatchEvent(new KeyboardEvent("keydown", { key, ctrlKey, metaKey, altKey, bubbles: true }));
}

// Before the gallery's own wall, which is built when it comes.
window.addEventListener(
  "keydown",
  (event) => {
    const open = gallery();
    if (!open || !open.checkVisibility()) return;
    if (event.composedPath().includes(open)) enter(event);
    else if (event.key === "Escape" && open.leave()) event.stopImmediatePropagation();
  },
  true,
);
