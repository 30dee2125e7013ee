/**
 * What our nodes get on ComfyUI's canvas, at once when they are made: settings that few people need (marked "advanced"
 * by the server) are folded away until they are asked for; a node shows the text that it ended with; and a Preference
 * Collector gets an element for its gallery, which comes to life when the gallery's modules have been fetched.
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
const USUAL = [560, 780];

export const WIDGET = "gallery";

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
  const element = newGallery();
  element.style.minHeight = `${SMALLEST}px`;
  const widget = node.addDOMWidget(WIDGET, "d3po-gallery", element, {
    serialize: false,
    hideOnZoom: false,
    getMinHeight: () => SMALLEST,
  });
  widget.serialize = false;
  element.addEventListener("d3po-state", ({ detail }) => remember(node, detail.taste.id));
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
  galleries.then(() => customElements.upgrade(element));
}

/** @param {ComfyNode} node @param {string} taste */
function remember(node, taste) {
  if (node.properties[PROPERTY] === taste) return;
  node.properties[PROPERTY] = taste;
  app.extensionManager.workflow?.activeWorkflow?.changeTracker?.captureCanvasState?.();
}
