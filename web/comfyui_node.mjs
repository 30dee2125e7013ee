/**
 * What our nodes get on ComfyUI's canvas, at once when they are made: settings that few people need (marked "advanced"
 * by the server) are folded away until they are asked for; a node shows the text that it ended with; and a Preference
 * Collector gets an element for its gallery, which comes to life when the gallery's modules have been fetched. So does the
 * node of a subgraph in which a collector's gallery is promoted, as the page calls it.
 *
 * Nodes 2.0 folds by itself, by the same property of the node, which workflows keep.
 */

import { api } from "../../scripts/api.js";
import { app } from "../../scripts/app.js";
import { language, words } from "./comfyui_words.mjs";

/** @import { ComfyNode, ComfyWidget, D3POGallery, Galleries } from "./types" */

const MORE = "d3po_more";
const PROPERTY = "d3po_taste";
const DARK = ":root.dark-theme, body.dark-theme";
const SMALLEST = 420;
/** In a subgraph's node, which does not stretch it in Nodes 2.0. */
const SMALLEST_PROMOTED = 520;
const USUAL = [560, 780];

const WIDGET = "gallery";
/** Of the input that a subgraph's node shows a gallery by. Nothing can be connected to it. */
const SLOT = "D3PO_GALLERY";

/** The type of a gallery's widget. */
export const KIND = "d3po-gallery";

// Settings folded away

function always() {
  return Boolean(app.extensionManager.setting.get("Comfy.Node.AlwaysShowAdvancedWidgets"));
}

function vueNodes() {
  return Boolean(app.extensionManager.setting.get("Comfy.VueNodes.Enabled"));
}

/** @param {ComfyNode} node */
function rare(node) {
  return (node.widgets ?? []).filter((widget) => widget.options?.advanced);
}

/** @param {ComfyNode} node @param {ComfyWidget} widget */
function isLinked(node, widget) {
  return node.inputs?.some((input) => input.widget?.name === widget.name && input.link !== null);
}

/** @param {object} object @param {string} name @param {() => unknown} get asked at each reading */
function live(object, name, get) {
  Object.defineProperty(object, name, { get, set() {}, configurable: true, enumerable: true });
}

/** @param {ComfyNode} node */
function label(node) {
  return words().t(node.showAdvanced ? "comfyui.fewer" : "comfyui.more", { n: rare(node).length });
}

/** The node grows and shrinks by what appears and goes. @param {ComfyNode} node */
function toggle(node) {
  const before = node.computeSize()[1];
  node.showAdvanced = !node.showAdvanced;
  const [width, height] = node.size;
  node.setSize([width, height + node.computeSize()[1] - before]);
  node.setDirtyCanvas(true, true);
}

/** @param {ComfyNode} node */
export function foldSettings(node) {
  const widgets = rare(node);
  if (!widgets.length) return;
  // Asked for at each drawing: the property also changes in Nodes 2.0, by undo and when a workflow is loaded.
  for (const widget of widgets) {
    live(widget, "hidden", () => !node.showAdvanced && !always() && !isLinked(node, widget));
  }
  const more = node.addWidget("button", MORE, null, () => toggle(node), { serialize: false, canvasOnly: true });
  more.serialize = false;
  live(more, "label", () => label(node));
  live(more, "hidden", always);
  node.setSize([node.size[0], node.computeSize()[1]]);
}

/** The same in the node's menu. @param {ComfyNode} node */
export function foldMenu(node) {
  if (vueNodes() || always() || !rare(node).length) return [];
  return [{ content: label(node), callback: () => toggle(node) }];
}

// A node's last words

/** Shows what a node said at its end ("Waiting for picks: 3 of 16") as it shows progress. @param {ComfyNode} node */
export function showText(node) {
  const { onExecuted } = node;
  node.onExecuted = function (output) {
    onExecuted?.call(this, output);
    const [text] = output?.text ?? [];
    if (!text || node.graph !== app.canvas.graph) return;
    api.dispatchCustomEvent("progress_text", { nodeId: node.id, text });
    const needed = node.computeSize();
    node.setSize(node.size.map((length, at) => Math.max(length, needed[at])));
  };
}

// A gallery

/** A gallery's element with all that it needs to know, before or after its modules are there. */
export function newGallery() {
  const element = /** @type {D3POGallery} */ (document.createElement("d3po-gallery"));
  element.setAttribute("base", api.apiURL("/d3po"));
  element.setAttribute("choosable", "");
  element.setAttribute("single", "");
  Object.assign(element.style, { display: "block", height: "100%" });
  dress(element);
  return element;
}

/** Gives it the page's language and theme. @param {D3POGallery} element */
export function dress(element) {
  element.setAttribute("lang", language());
  element.setAttribute("theme", document.querySelector(DARK) ? "dark" : "light");
}

/**
 * Gives a Preference Collector its gallery's element and remembers in the workflow which taste is shown, so that it is
 * there again after a reload.
 * @param {ComfyNode} node @param {Promise<Galleries>} galleries
 */
export function addGallery(node, galleries) {
  const { element } = galleryWidget(node, WIDGET, galleries, SMALLEST);
  node.addInput(WIDGET, SLOT, { widget: { name: WIDGET } });
  const { onConfigure, onExecuted } = node;
  node.onConfigure = function (workflow) {
    onConfigure?.call(this, workflow);
    const taste = workflow.properties?.[PROPERTY];
    galleries.then((module) => module.showKnown(element, taste));
  };
  node.onExecuted = function (output) {
    onExecuted?.call(this, output);
    const [taste] = output?.d3po_taste ?? [];
    if (taste) element.setAttribute("taste", taste);
  };
  node.setSize(node.size.map((length, at) => Math.max(length, USUAL[at])));
}

/**
 * Lets a subgraph's node show the gallery of a collector in it. The page has a way for that, and makes no element itself
 * but for text.
 * @param {ComfyNode} node @param {() => Promise<Galleries>} galleries
 */
export function showPromoted(node, galleries) {
  const { createPromotedHostWidget } = node;
  if (!createPromotedHostWidget) return;
  node.createPromotedHostWidget = function (input, id, source) {
    // While a node is copied or made, it has no place and another id.
    const placed = this.graph?.getNodeById?.(this.id) === this;
    if (source.type !== KIND || !placed) return createPromotedHostWidget.call(this, input, id, source);
    const { onAdded, onRemoved, onResize } = this;
    const widget = galleryWidget(this, input.name, galleries(), SMALLEST_PROMOTED);
    Object.assign(this, { onAdded, onRemoved, onResize }); // the node lets go of what is promoted by itself
    galleries().then((module) => module.showKnown(widget.element, this.properties[PROPERTY]));
    return widget;
  };
}

/**
 * Adds a gallery's element to a node, and returns the widget.
 * @param {ComfyNode} node @param {string} name @param {Promise<Galleries>} galleries @param {number} smallest its height
 * @returns {ComfyWidget & {element: D3POGallery}}
 */
function galleryWidget(node, name, galleries, smallest) {
  const element = newGallery();
  element.style.minHeight = `${smallest}px`;
  const options = { serialize: false, hideOnZoom: false, getMinHeight: () => smallest };
  const widget = node.addDOMWidget(name, KIND, element, options);
  widget.serialize = false;
  element.addEventListener("d3po-state", ({ detail }) => remember(node, detail.taste.id));
  galleries.then(() => customElements.upgrade(element));
  return Object.assign(widget, { element });
}

/** @param {ComfyNode} node @param {string} taste */
function remember(node, taste) {
  if (node.properties[PROPERTY] === taste) return;
  node.properties[PROPERTY] = taste;
  app.extensionManager.workflow?.activeWorkflow?.changeTracker?.captureCanvasState?.();
}
