/** Galleries in ComfyUI: one in each Preference Collector, one in the sidebar. */

import { api } from "../../scripts/api.js";
import { app } from "../../scripts/app.js";
import { eachNode, upstream } from "./comfyui_graph.js";
import { language, learnWords, words } from "./comfyui_words.js";
import { D3POGallery } from "./gallery.js";
import { forEver, keep, recall } from "./stored.js";

const COLLECTOR = "D3PO_PreferenceCollector";
const SAMPLER = "D3PO_PairedTrajectorySampler";
const WIDGET = "gallery";
const PROPERTY = "d3po_taste";
const DARK = ":root.dark-theme, body.dark-theme";
const LAST = "d3po/comfyui/taste";
const ID = /^[0-9a-f]{32}$/;
const SMALLEST = 420;
const USUAL = [560, 780];

/** @type {D3POGallery | null} the one in the sidebar */
let aside = null;
/** @type {string | null} the node that this page is running */
let running = null;

function newGallery(taste) {
  const element = new D3POGallery();
  element.setAttribute("base", api.apiURL("/d3po"));
  element.setAttribute("choosable", "");
  element.setAttribute("single", "");
  dress(element);
  Object.assign(element.style, { display: "block", height: "100%" });
  if (taste) element.setAttribute("taste", taste);
  return element;
}

function dress(element) {
  element.setAttribute("lang", language());
  element.setAttribute("theme", document.querySelector(DARK) ? "dark" : "light");
}

function inNode(node) {
  return node.widgets?.find((widget) => widget.name === WIDGET)?.element;
}

/** All that are open now. @returns {D3POGallery[]} */
export function galleries() {
  const found = [...eachNode(COLLECTOR)].map(({ node }) => inNode(node));
  return [...found, aside].filter((element) => element instanceof D3POGallery);
}

export function ofTaste(taste) {
  return galleries().filter((element) => element.getAttribute("taste") === taste);
}

// In a node

export function intoNode(node) {
  const element = newGallery("");
  element.style.minHeight = `${SMALLEST}px`;
  const widget = node.addDOMWidget(WIDGET, "d3po-gallery", element, {
    serialize: false,
    hideOnZoom: false,
    getMinHeight: () => SMALLEST,
  });
  widget.serialize = false;
  // The workflow keeps which taste is shown, so that it is there again after a reload.
  element.addEventListener("d3po-state", ({ detail }) => remember(node, detail.taste.id));
  const { onConfigure, onExecuted } = node;
  node.onConfigure = function (info) {
    onConfigure?.apply(this, arguments);
    showKnown(element, info.properties?.[PROPERTY]);
  };
  node.onExecuted = function (said) {
    onExecuted?.apply(this, arguments);
    const [taste] = said?.d3po_taste ?? [];
    if (taste) element.setAttribute("taste", taste);
  };
  node.setSize(node.size.map((length, at) => Math.max(length, USUAL[at])));
}

function remember(node, taste) {
  if (node.properties[PROPERTY] === taste) return;
  node.properties[PROPERTY] = taste;
  app.extensionManager.workflow?.activeWorkflow?.changeTracker?.captureCanvasState?.();
}

/** Shows a taste that a workflow or the browser remembers, if the server has it: workflows travel. */
async function showKnown(element, taste) {
  if (typeof taste !== "string" || !ID.test(taste)) return;
  const known = await api.fetchApi(`/d3po/taste/${taste}/state`).then(
    (answer) => answer.ok,
    () => false,
  );
  if (known && !element.hasAttribute("taste")) element.setAttribute("taste", taste);
}

// In the sidebar

export function sidebarTab() {
  return {
    id: "d3po",
    icon: "pi pi-heart",
    title: words().t("comfyui.tab"),
    tooltip: words().t("comfyui.tab.tooltip"),
    type: "custom",
    // The page calls it again whenever it draws the panel anew.
    render: (room) => {
      if (aside && room.contains(aside)) return;
      room.style.height = "100%";
      aside = newGallery("");
      aside.addEventListener("d3po-state", ({ detail }) => keep(forEver, LAST, detail.taste.id));
      aside.insist();
      showKnown(aside, usual());
      room.replaceChildren(aside);
    },
    destroy: () => {
      aside = null;
    },
  };
}

/** The taste that the sidebar opens with: the graph's if it has one, else the one shown last. */
function usual() {
  const shown = new Set([...eachNode(COLLECTOR)].map(({ node }) => inNode(node)?.getAttribute("taste")));
  shown.delete(null);
  return shown.size === 1 ? [...shown][0] : recall(forEver, LAST, "");
}

// News

/** @param {string | null} id */
export function nowRunning(id) {
  running = id;
}

/** A group was drawn: it is on screen before the next one is begun, also where no taste was shown before. */
export function showGroup(taste) {
  for (const { node, id } of eachNode(COLLECTOR)) {
    if (isFed(node, id)) inNode(node)?.setAttribute("taste", taste);
  }
  for (const gallery of ofTaste(taste)) gallery.session?.hear();
}

/** Whether what runs now is the collector or its sampler. */
function isFed(node, id) {
  if (!running) return false;
  if (running === id) return true;
  const around = id.slice(0, id.lastIndexOf(":") + 1);
  const samplers = [...upstream(node, (input) => input.name === "trajectories")].filter(
    (one) => one.comfyClass === SAMPLER,
  );
  return samplers.some((sampler) => around + sampler.id === running);
}

// The page around

/** Theme and language change with the page's; and what is for the gallery stays in it. */
export function followPage() {
  const redress = () => galleries().forEach(dress);
  const observer = new MutationObserver(redress);
  for (const one of [document.documentElement, document.body]) {
    observer.observe(one, { attributes: true, attributeFilter: ["class"] });
  }
  app.ui.settings.addEventListener("Comfy.Locale.change", async ({ detail }) => {
    await learnWords(detail.value);
    redress();
  });
  window.addEventListener("wheel", keepWheel, { capture: true, passive: false });
}

/**
 * The canvas under a gallery zooms with the wheel, Nodes 2.0 on the event's way down. What is in the gallery gets an
 * event of its own that does not leave it; scrolling needs none.
 */
function keepWheel(event) {
  const path = event.composedPath();
  if (!path.some((node) => node instanceof D3POGallery)) return;
  event.stopImmediatePropagation();
  const { clientX, clientY, deltaX, deltaY, deltaMode, ctrlKey, metaKey, shiftKey, altKey } = event;
  const about = { clientX, clientY, deltaX, deltaY, deltaMode, ctrlKey, metaKey, shiftKey, altKey };
  const inside = new WheelEvent("wheel", { ...about, bubbles: true, cancelable: true });
  if (!path[0].dispatchEvent(inside) || ctrlKey || metaKey) event.preventDefault();
}
