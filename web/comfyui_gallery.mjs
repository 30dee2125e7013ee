/** Galleries in ComfyUI: one in each Preference Collector, one in the sidebar. Fetched when the first is to be seen. */

import { api } from "../../scripts/api.js";
import { app } from "../../scripts/app.js";
import { dress, newGallery, WIDGET } from "./comfyui_node.mjs";
import { eachNode, queueSamplers, queueTrainers, upstream } from "./comfyui_queue.mjs";
import { loadWords } from "./comfyui_words.mjs";
import { D3POGallery } from "./gallery.mjs";
import { forEver, keep, recall } from "./stored.mjs";

/** @import { ComfyNode } from "./types" */

const COLLECTOR = "D3PO_PreferenceCollector";
const SAMPLER = "D3PO_PairedTrajectorySampler";
const LAST = "d3po/comfyui/taste";
const ID = /^[0-9a-f]{32}$/;

/** @type {D3POGallery | null} the one in the sidebar */
let aside = null;

/**
 * Begins once: theme and language follow the page, the wheel stays in the galleries, and their buttons queue nodes.
 * @param {{queued: number}} server what it last said
 */
export function begin(server) {
  const redress = () => galleries().forEach(dress);
  const observer = new MutationObserver(redress);
  for (const one of [document.documentElement, document.body]) {
    observer.observe(one, { attributes: true, attributeFilter: ["class"] });
  }
  app.ui.settings.addEventListener("Comfy.Locale.change", async ({ detail }) => {
    await loadWords(String(detail.value));
    redress();
  });
  window.addEventListener("wheel", keepWheel, { capture: true, passive: false });
  document.addEventListener("d3po-asked", ({ target, detail }) => {
    const gallery = /** @type {D3POGallery} */ (target);
    if (detail === "teach") queueTrainers(gallery, server.queued > 0);
    if (detail === "draw") queueSamplers(gallery);
  });
}

/** @param {ComfyNode} node */
function inNode(node) {
  return node.widgets?.find((widget) => widget.name === WIDGET)?.element;
}

/** All that are open now. @returns {D3POGallery[]} */
function galleries() {
  const inNodes = [...eachNode(COLLECTOR)].map(({ node }) => inNode(node));
  return [...inNodes, aside].filter((element) => element instanceof D3POGallery);
}

/**
 * Shows a taste that a workflow or the browser remembers, if the server has it: workflows travel.
 * @param {D3POGallery} element @param {unknown} taste
 */
export async function showKnown(element, taste) {
  if (typeof taste !== "string" || !ID.test(taste)) return;
  const known = await api.fetchApi(`/d3po/taste/${taste}/state`).then(
    (answer) => answer.ok,
    () => false,
  );
  if (known && !element.hasAttribute("taste")) element.setAttribute("taste", taste);
}

// In the sidebar

/** @param {HTMLElement} room */
export function fillSidebar(room) {
  if (aside && room.contains(aside)) return;
  room.style.height = "100%";
  aside = newGallery();
  aside.addEventListener("d3po-state", ({ detail }) => keep(forEver, LAST, detail.taste.id));
  aside.insist();
  showKnown(aside, usual());
  room.replaceChildren(aside);
}

export function closeSidebar() {
  aside = null;
}

/** The taste that the sidebar opens with: the graph's if it has one, else the one shown last. */
function usual() {
  const shown = new Set([...eachNode(COLLECTOR)].map(({ node }) => inNode(node)?.getAttribute("taste")));
  shown.delete(null);
  return shown.size === 1 ? [...shown][0] : recall(forEver, LAST, "");
}

// News

/** There is something new about a taste. @param {string} taste */
export function hear(taste) {
  for (const gallery of galleries()) {
    if (gallery.getAttribute("taste") === taste) gallery.session?.hear();
  }
}

/**
 * A group was drawn: it is on screen before the next one is begun, also where no taste was shown before.
 * @param {string} taste @param {string | null} running the node that this page is running
 */
export function showGroup(taste, running) {
  for (const { node, id } of eachNode(COLLECTOR)) {
    if (isFed(node, id, running)) inNode(node)?.setAttribute("taste", taste);
  }
  hear(taste);
}

/**
 * Whether what runs now is the collector or its sampler.
 * @param {ComfyNode} node @param {string} id @param {string | null} running
 */
function isFed(node, id, running) {
  if (!running) return false;
  if (running === id) return true;
  const around = id.slice(0, id.lastIndexOf(":") + 1);
  const samplers = [...upstream(node, (input) => input.name === "trajectories")].filter(
    (one) => one.comfyClass === SAMPLER,
  );
  return samplers.some((sampler) => around + sampler.id === running);
}

// The wheel

/**
 * The canvas under a gallery zooms with the wheel, Nodes 2.0 on the event's way down. What is in the gallery gets an
 * event of its own that does not leave it; scrolling needs none.
 * @param {WheelEvent} event
 */
function keepWheel(event) {
  const path = event.composedPath();
  if (!path.some((node) => node instanceof D3POGallery)) return;
  event.stopImmediatePropagation();
  const { clientX, clientY, deltaX, deltaY, deltaMode, ctrlKey, metaKey, shiftKey, altKey } = event;
  const copied = { clientX, clientY, deltaX, deltaY, deltaMode, ctrlKey, metaKey, shiftKey, altKey };
  const inside = new WheelEvent("wheel", { ...copied, bubbles: true, cancelable: true });
  if (!path[0].dispatchEvent(inside) || ctrlKey || metaKey) event.preventDefault();
}
