/**
 * Settings that few people need (marked "advanced" by the server) are folded away on the canvas until they are asked
 * for. Nodes 2.0 does that by itself, by the same property of the node, which workflows keep.
 */

import { app } from "../../scripts/app.js";
import { words } from "./comfyui_words.js";

const MORE = "d3po_more";

function always() {
  return Boolean(app.extensionManager.setting.get("Comfy.Node.AlwaysShowAdvancedWidgets"));
}

function vueNodes() {
  return Boolean(app.extensionManager.setting.get("Comfy.VueNodes.Enabled"));
}

function rare(node) {
  return (node.widgets ?? []).filter((widget) => widget.options?.advanced);
}

function isLinked(node, widget) {
  return node.inputs?.some((input) => input.widget?.name === widget.name && input.link !== null);
}

function live(object, name, get) {
  Object.defineProperty(object, name, { get, set() {}, configurable: true, enumerable: true });
}

function label(node) {
  return words().t(node.showAdvanced ? "comfyui.fewer" : "comfyui.more", { n: rare(node).length });
}

/** The node grows and shrinks by what appears and goes. */
function toggle(node) {
  const before = node.computeSize()[1];
  node.showAdvanced = !node.showAdvanced;
  const [width, height] = node.size;
  node.setSize([width, height + node.computeSize()[1] - before]);
  node.setDirtyCanvas(true, true);
}

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

/** The same in the node's menu. */
export function foldMenu(node) {
  if (vueNodes() || always() || !rare(node).length) return [];
  return [{ content: label(node), callback: () => toggle(node) }];
}
