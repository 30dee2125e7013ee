/**
 * Galleries in ComfyUI: one in each Preference Collector and in each subgraph's node that shows it, one in the sidebar.
 * Fetched when the first is to be seen.
 */

import { api } from "../../scripts/api.js";
import { app } from "../../scripts/app.js";
import { dress, KIND, newGallery } from "./comfyui_node.mjs";
import { eachNode, queueSamplers, queueTrainers, upstream } from "./comfyui_queue.mjs";
import { loadWords } from "./comfyui_words.mjs";
import { D3POGallery } from "./gallery.mjs";
import { forEver, keep, recall } from "./stored.mjs";

/** @import { ListedNode } from "./types" */

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
  api.addEventListener("executed", ({ detail }) => {
    const [taste] = detail.output?.d3po_taste ?? [];
    if (taste) showWhere((listed) => listed.id === (detail.display_node ?? detail.node), taste);
  });
}

/** A collector's galleries: its own, and those of the subgraphs' nodes that show it. @param {ListedNode} listed */
function galleriesOf({ node, around }) {
  return [node, ...around].map((one) => one.widgets?.find((widget) => widget.type === KIND)?.element);
}

/** All in nodes. @returns {D3POGallery[]} */
function inNodes() {
  const all = new Set([...eachNode(COLLECTOR)].flatMap(galleriesOf));
  return [...all].filter((element) => element instanceof D3POGallery);
}

/** All that are open now. @returns {D3POGallery[]} */
function galleries() {
  return aside ? [...inNodes(), aside] : inNodes();
}

/** Shows a taste in the galleries of some collectors. @param {(listed: ListedNode) => boolean} where @param {string} taste */
function showWhere(where, taste) {
  for (const listed of eachNode(COLLECTOR)) {
    if (where(listed)) galleriesOf(listed).forEach((element) => element?.setAttribute("taste", taste));
  }
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
  const shown = new Set(inNodes().map((element) => element.getAttribute("taste")));
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
  showWhere((listed) => isFed(listed, running), taste);
  hear(taste);
}

/**
 * Whether what runs now is the collector or its sampler, which may be in a subgraph.
 * @param {ListedNode} listed @param {string | null} running
 */
function isFed(listed, running) {
  if (!running) return false;
  if (running === listed.id) return true;
  const sources = [...upstream(listed, (input) => input.name === "trajectories")];
  return sources.some(
    ({ node, id }) =>
      (node.comfyClass === SAMPLER && running === id) || (node.isSubgraphNode?.() && running.startsWith(`${id}:`)),
  );
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
