/** What the gallery's buttons put into the queue: the trainers or the samplers of its taste, and nothing else. */

import { api } from "../../scripts/api.js";
import { app } from "../../scripts/app.js";
import { eachNode, upstream, valueOf } from "./comfyui_graph.js";
import { warn } from "./comfyui_words.js";

const TRAINER = "D3PO_LoraTrainer";
const SAMPLER = "D3PO_PairedTrajectorySampler";
const AUTO = "auto";
const NEXT = -1;
const LAST = 0;

let inQueue = 0;
api.addEventListener("status", ({ detail }) => (inQueue = detail?.exec_info?.queue_remaining ?? 0));

/** Teach: next in the queue, before what is still to be drawn, as it was asked for by hand. */
export async function queueTrainers(gallery) {
  const ids = found(TRAINER, gallery);
  if (!ids) {
    // It was asked for, and the next press of Run would teach.
    if (gallery.session?.state?.can.includes("stop")) await gallery.session.act("stop");
    return;
  }
  if (inQueue) warn(gallery, "comfyui.queued");
  await app.queuePrompt(NEXT, 1, ids); // a list is what all versions of the page take
}

/** Draw more. */
export async function queueSamplers(gallery) {
  const ids = found(SAMPLER, gallery);
  if (ids) await app.queuePrompt(LAST, 1, ids);
}

/** Ids of the nodes of a kind that serve a gallery's taste; null, and a word about it, if there are none. */
function found(kind, gallery) {
  const taste = gallery.session?.state?.taste;
  const all = [...eachNode(kind)];
  const ours = taste ? serving(all, taste) : all;
  const active = ours.filter((one) => one.active);
  if (active.length) return active.map((one) => one.id);
  const why = ours.length ? "off" : all.length ? "other" : "none";
  warn(gallery, `comfyui.${kind === TRAINER ? "trainer" : "sampler"}.${why}`, { name: taste?.name ?? "" });
  return null;
}

/**
 * Those that name the taste; else those that leave it to the checkpoint, if they can be told apart those with the
 * taste's one. One too many does no harm: the server knows for which taste Teach was pressed.
 */
function serving(nodes, taste) {
  const named = nodes.filter(({ node }) => valueOf(node, "taste") === taste.name && taste.name !== AUTO);
  if (named.length) return named;
  const open = nodes.filter(({ node }) => [AUTO, "", undefined].includes(valueOf(node, "taste")));
  const alike = open.filter(({ node }) => checkpoints(node).includes(taste.model.name));
  return alike.length ? alike : open;
}

/** What may be the checkpoint of a node's model: the names of the files chosen upstream, without their endings. */
function checkpoints(node) {
  const names = [];
  for (const one of upstream(node, (input) => input.type === "MODEL")) {
    for (const { value } of one.widgets ?? []) {
      if (typeof value === "string") names.push(value.replace(/^.*[\\/]/, "").replace(/\.\w+$/, ""));
    }
  }
  return names;
}
