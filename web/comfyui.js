/**
 * The gallery inside ComfyUI: in the Preference Collector and in a tab of the sidebar. Teach queues the trainers of the
 * graph and nothing else.
 */

import { api } from "../../scripts/api.js";
import { app } from "../../scripts/app.js";
import { D3POGallery } from "./gallery.js";
import { loadText } from "./text.js";

const COLLECTOR = "D3PO_PreferenceCollector";
const TRAINER = "D3PO_LoraTrainer";
const SMALLEST = 420;

function gallery() {
  const element = new D3POGallery();
  element.setAttribute("base", api.apiURL("/d3po"));
  element.setAttribute("lang", language() ?? "");
  element.setAttribute("theme", document.body.classList.contains("dark-theme") ? "dark" : "light");
  Object.assign(element.style, { display: "block", height: "100%" });
  element.addEventListener("d3po-asked", (event) => {
    if (/** @type {CustomEvent} */ (event).detail === "teach") teach();
  });
  // The canvas under a widget zooms with the wheel.
  element.addEventListener("wheel", (event) => event.stopPropagation());
  return element;
}

async function teach() {
  const trainers = app.rootGraph.nodes.filter((node) => node.type === TRAINER);
  if (trainers.length) {
    await app.queuePrompt(0, 1, { queueNodeIds: trainers.map((node) => String(node.id)) });
    return;
  }
  const text = await loadText(language());
  app.extensionManager.toast.add({ severity: "warn", summary: text.t("comfyui.no_trainer"), life: 8000 });
}

function language() {
  return app.extensionManager.setting.get("Comfy.Locale");
}

function intoNode(node) {
  const element = gallery();
  element.style.minHeight = `${SMALLEST}px`;
  const widget = node.addDOMWidget("gallery", "d3po-gallery", element, {
    serialize: false,
    hideOnZoom: false,
    getMinHeight: () => SMALLEST,
  });
  widget.serialize = false;
  const { onExecuted } = node;
  node.onExecuted = function (said) {
    onExecuted?.apply(this, arguments);
    const [taste] = said?.d3po_taste ?? [];
    if (taste) element.setAttribute("taste", taste);
  };
  node.setSize([Math.max(node.size[0], 400), Math.max(node.size[1], SMALLEST + 80)]);
}

app.registerExtension({
  name: "d3po",
  async setup() {
    const text = await loadText(language());
    app.extensionManager.registerSidebarTab({
      id: "d3po",
      icon: "pi pi-heart",
      title: text.t("comfyui.tab"),
      tooltip: text.t("comfyui.tab.tooltip"),
      type: "custom",
      render: (room) => {
        room.style.height = "100%";
        room.replaceChildren(gallery());
      },
    });
  },
  nodeCreated(node) {
    if (node.comfyClass === COLLECTOR) intoNode(node);
  },
});
