/**
 * The pack's part in ComfyUI's page. ComfyUI imports every *.js below this folder when the page opens; this is the only
 * one. It gives our nodes what they need on the canvas, and keeps a place for each gallery. The gallery's own modules
 * (*.mjs) are fetched when the first gallery is to be seen: in a Preference Collector, in a subgraph's node that shows one,
 * or in the sidebar.
 */

import { api } from "../../scripts/api.js";
import { app } from "../../scripts/app.js";
import { addGallery, foldMenu, foldSettings, showPromoted, showText } from "./comfyui_node.mjs";
import { loadWords, words } from "./comfyui_words.mjs";
import "./wall.mjs"; // before other packs listen for keys

/** @import { Galleries } from "./types" */

const COLLECTOR = "D3PO_PreferenceCollector";
const OURS = /^D3PO_/;

/** What the server last said, also before there was a gallery to hear it. */
const server = {
  /** @type {string | null} the node that this page is running */
  running: null,
  /** how many prompts are in the queue */
  queued: 0,
};

api.addEventListener("status", ({ detail }) => (server.queued = detail?.exec_info?.queue_remaining ?? 0));

/** @type {Promise<Galleries> | undefined} */
let loading;

/** The galleries' module, fetched at the first call; after a failure, anew. @returns {Promise<Galleries>} */
function galleries() {
  loading ??= import("./comfyui_gallery.mjs").then(
    (module) => {
      module.begin(server);
      return module;
    },
    (error) => {
      loading = undefined;
      throw error;
    },
  );
  return loading;
}

/** A LoRA was made: the lists of all nodes know it without a reload. @param {{taste: string, lora: string}} detail */
async function taught({ taste, lora }) {
  loading?.then((module) => module.hear(taste));
  if (!lora) return;
  // The second asks for a notice of its own; it is what earlier pages have.
  await (app.reloadNodeDefs ?? app.refreshComboInNodes).call(app);
  const detail = words().t("comfyui.taught.how", { name: lora });
  app.extensionManager.toast.add({ severity: "success", summary: words().t("comfyui.taught"), detail, life: 15000 });
}

/** The gallery's tab in the sidebar. The page calls `render` again whenever it draws the panel anew. */
function sidebarTab() {
  /** @type {HTMLElement | null} */
  let panel = null;
  return {
    id: "d3po",
    icon: "pi pi-heart",
    title: words().t("comfyui.tab"),
    tooltip: words().t("comfyui.tab.tooltip"),
    type: "custom",
    /** @param {HTMLElement} room */
    render: async (room) => {
      panel = room;
      const { fillSidebar } = await galleries();
      if (panel === room) fillSidebar(room);
    },
    destroy: () => {
      panel = null;
      loading?.then((module) => module.closeSidebar());
    },
  };
}

app.registerExtension({
  name: "d3po",
  async setup() {
    await loadWords();
    app.extensionManager.registerSidebarTab(sidebarTab());
    api.addEventListener("executing", ({ detail }) => (server.running = detail));
    api.addEventListener("d3po.group", ({ detail }) => {
      const { running } = server;
      loading?.then((module) => module.showGroup(detail.taste, running));
    });
    api.addEventListener("d3po.taught", ({ detail }) => taught(detail));
  },
  nodeCreated(node) {
    if (node.isSubgraphNode?.()) showPromoted(node, galleries);
    if (!OURS.test(node.comfyClass)) return;
    foldSettings(node);
    showText(node);
    if (node.comfyClass === COLLECTOR) addGallery(node, galleries());
  },
  getNodeMenuItems(node) {
    return OURS.test(node.comfyClass) ? foldMenu(node) : [];
  },
});
