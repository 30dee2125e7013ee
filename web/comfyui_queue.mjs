/** Nodes in the graph that is open, and what a gallery's buttons queue: its taste's trainers or samplers, no more. */

import { app } from "../../scripts/app.js";
import { words } from "./comfyui_words.mjs";

/** @import { ComfyGraph, ComfyInput, ComfyNode, D3POGallery, ListedNode, State } from "./types" */

const TRAINER = "D3PO_LoraTrainer";
const REWARD_TRAINER = "D3PO_DraftLoraTrainer";
const SAMPLER = "D3PO_PairedTrajectorySampler";
const AUTO = "auto";
const NEXT = -1;
const LAST = 0;
const MUTED = 2;
const BYPASSED = 4;

// Finding nodes, in subgraphs too

/**
 * All nodes of a kind, with the ids by which the server runs them ("5", or "12:5" in a subgraph).
 * @param {string} kind @param {ComfyGraph | undefined} [graph] @returns {Generator<ListedNode>}
 */
export function* eachNode(kind, graph = app.rootGraph, prefix = "", around = true) {
  for (const node of graph?.nodes ?? []) {
    const id = prefix + node.id;
    const active = around && node.mode !== MUTED && node.mode !== BYPASSED;
    if (node.comfyClass === kind) yield { node, id, active };
    if (node.isSubgraphNode?.()) yield* eachNode(kind, node.subgraph, `${id}:`, active);
  }
}

/**
 * The nodes that lead to an input, nearest first.
 * @param {ComfyNode} node
 * @param {(input: ComfyInput) => boolean} accepts which of its inputs; further up, all of the same type
 * @returns {Generator<ComfyNode>}
 */
export function* upstream(node, accepts) {
  const seen = new Set([node]);
  const ahead = [{ node, accepts }];
  for (let next = ahead.shift(); next; next = ahead.shift()) {
    for (const [slot, input] of (next.node.inputs ?? []).entries()) {
      if (!next.accepts(input)) continue;
      const source = next.node.getInputNode(slot);
      if (!source || seen.has(source)) continue;
      seen.add(source);
      yield source;
      ahead.push({ node: source, accepts: (other) => other.type === input.type });
    }
  }
}

/** A widget's value, or undefined if it comes through a link. @param {ComfyNode} node @param {string} name */
function valueOf(node, name) {
  const linked = node.inputs?.some((input) => input.widget?.name === name && input.link !== null);
  return linked ? undefined : node.widgets?.find((widget) => widget.name === name)?.value;
}

// Queueing them

/**
 * Teach: next in the queue, before what is still to be drawn, as it was asked for by hand. A round by a reward that was
 * stopped goes on at the node that teaches by rewards.
 * @param {D3POGallery} gallery @param {boolean} busy something is in the queue already
 */
export async function queueTrainers(gallery, busy) {
  const byReward = gallery.session?.state?.rounds.some((round) => !round.finished && round.reward);
  const ids = findActive(byReward ? REWARD_TRAINER : TRAINER, gallery);
  if (!ids) {
    // It was asked for, and the next press of Run would teach.
    if (gallery.session?.state?.can.includes("stop")) await gallery.session.act("stop");
    return;
  }
  if (busy) warn(gallery, "comfyui.queued");
  await app.queuePrompt(NEXT, 1, ids); // a list is what all versions of the page take
}

/** Draw more. @param {D3POGallery} gallery */
export async function queueSamplers(gallery) {
  const ids = findActive(SAMPLER, gallery);
  if (ids) await app.queuePrompt(LAST, 1, ids);
}

/**
 * Ids of the nodes of a kind that serve a gallery's taste; null, and a word about it, if there are none.
 * @param {string} kind @param {D3POGallery} gallery
 */
function findActive(kind, gallery) {
  const taste = gallery.session?.state?.taste;
  const all = [...eachNode(kind)];
  const ours = taste ? serving(all, taste) : all;
  const active = ours.filter((one) => one.active);
  if (active.length) return active.map((one) => one.id);
  const reason = ours.length ? "off" : all.length ? "other" : "none";
  const which = kind === SAMPLER ? "sampler" : "trainer";
  warn(gallery, `comfyui.${which}.${reason}`, { name: taste?.name ?? "", node: words().t(`comfyui.node.${kind}`) });
  return null;
}

/**
 * Those that name the taste; else those that leave it to the checkpoint, if they can be told apart those with the
 * taste's one. One too many does no harm: the server knows for which taste Teach was pressed.
 * @param {ListedNode[]} nodes @param {State["taste"]} taste
 */
function serving(nodes, taste) {
  const named = nodes.filter(({ node }) => valueOf(node, "taste") === taste.name && taste.name !== AUTO);
  if (named.length) return named;
  const open = nodes.filter(({ node }) => [AUTO, "", undefined].includes(/** @type {any} */ (valueOf(node, "taste"))));
  const alike = open.filter(({ node }) => checkpoints(node).includes(taste.model.name));
  return alike.length ? alike : open;
}

/**
 * What may be the checkpoint of a node's model: the names of the files chosen upstream, without their endings.
 * @param {ComfyNode} node
 */
function checkpoints(node) {
  const names = [];
  for (const one of upstream(node, (input) => input.type === "MODEL")) {
    for (const { value } of one.widgets ?? []) {
      if (typeof value === "string") names.push(value.replace(/^.*[\\/]/, "").replace(/\.\w+$/, ""));
    }
  }
  return names;
}

/**
 * Says it where the person looks: toasts do not show over a gallery in full screen.
 * @param {D3POGallery} gallery @param {string} key
 */
function warn(gallery, key, values = {}) {
  const summary = words().t(key, values);
  if (document.fullscreenElement === gallery && gallery.session) gallery.session.note(summary);
  else app.extensionManager.toast.add({ severity: "warn", summary, life: 10000 });
}
