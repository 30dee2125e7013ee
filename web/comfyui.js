/**
 * The pack's part in ComfyUI's page: the gallery in the Preference Collector and in a tab of the sidebar, the buttons
 * in it that queue nodes, rare settings folded away, and news from the server passed on.
 */

import { api } from "../../scripts/api.js";
import { app } from "../../scripts/app.js";
import { foldMenu, foldSettings } from "./comfyui_fold.js";
import { followPage, galleries, intoNode, nowRunning, ofTaste, showGroup, sidebarTab } from "./comfyui_gallery.js";
import { eachNode } from "./comfyui_graph.js";
import { readOlder } from "./comfyui_older.js";
import { queueSamplers, queueTrainers } from "./comfyui_queue.js";
import { learnWords, words } from "./comfyui_words.js";

const COLLECTOR = "D3PO_PreferenceCollector";
const TRAINER = "D3PO_LoraTrainer";
const OURS = /^D3PO_/;

/** A LoRA was made: the lists of all nodes know it without a reload. */
async function taught({ taste, lora }) {
  for (const gallery of ofTaste(taste)) gallery.session?.hear();
  if (!lora) return;
  // The second asks for a notice of its own; it is what older pages have.
  await (app.reloadNodeDefs ?? app.refreshComboInNodes).call(app);
  const detail = words().t("comfyui.taught.how", { name: lora });
  app.extensionManager.toast.add({ severity: "success", summary: words().t("comfyui.taught"), detail, life: 15000 });
}

/** What a node said when it was done ("Waiting for picks: 3 of 16") stands in it, as what it says meanwhile does. */
function showSaid(node) {
  const { onExecuted } = node;
  node.onExecuted = function (said) {
    onExecuted?.apply(this, arguments);
    const [text] = said?.text ?? [];
    if (!text || node.graph !== app.canvas.graph) return;
    api.dispatchCustomEvent("progress_text", { nodeId: node.id, text });
    const needed = node.computeSize();
    node.setSize(node.size.map((length, at) => Math.max(length, needed[at])));
  };
}

app.registerExtension({
  name: "d3po",
  async setup() {
    await learnWords();
    followPage();
    app.extensionManager.registerSidebarTab(sidebarTab());
    api.addEventListener("executing", ({ detail }) => nowRunning(detail));
    api.addEventListener("d3po.group", ({ detail }) => showGroup(detail.taste));
    api.addEventListener("d3po.taught", ({ detail }) => taught(detail));
    document.addEventListener("d3po-asked", ({ target, detail }) => {
      if (detail === "teach") queueTrainers(target);
      if (detail === "draw") queueSamplers(target);
    });
  },
  nodeCreated(node) {
    if (!OURS.test(node.comfyClass)) return;
    foldSettings(node);
    showSaid(node);
    if (node.comfyClass === COLLECTOR) intoNode(node);
    if (node.comfyClass === TRAINER) readOlder(node);
  },
  getNodeMenuItems(node) {
    return OURS.test(node.comfyClass) ? foldMenu(node) : [];
  },
});
