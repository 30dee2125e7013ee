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
/** Id of the place in a subgraph where its inputs come from. */
const SUBGRAPH_INPUT = "-10";

// Finding nodes, in subgraphs too

/**
 * A node's id by which the server runs it: "5", or "12:5" in a subgraph.
 * @param {ComfyNode} node @param {ComfyNode[]} around the subgraph nodes that it is in, the outermost first
 */
function idOf(node, around) {
  return [...around, node].map((one) => one.id).join(":");
}

/**
 * All nodes of a kind.
 * @param {string} kind @param {ComfyGraph | undefined} [graph]
 * @param {ComfyNode[]} [around] the subgraph nodes that the graph is in, the outermost first
 * @returns {Generator<ListedNode>}
 */
export function* eachNode(kind, graph = app.rootGraph, around = []) {
  for (const node of graph?.nodes ?? []) {
    const active = [...around, node].every(({ mode }) => mode !== MUTED && mode !== BYPASSED);
    if (node.comfyClass === kind) yield { node, id: idOf(node, around), active, around };
    if (node.isSubgraphNode?.()) yield* eachNode(kind, node.subgraph, [...around, node]);
  }
}

/**
 * Where an input is connected in the end: itself or, where it leads out of a subgraph, that of the subgraph's node.
 * @param {ComfyNode} node @param {number} slot @param {ComfyNode[]} around
 * @returns {{node: ComfyNode, slot: number, around: ComfyNode[]}}
 */
function outermost(node, slot, around) {
  const link = node.graph?.getLink?.(node.inputs?.[slot]?.link ?? null);
  const host = around.at(-1);
  if (!host || String(link?.origin_id) !== SUBGRAPH_INPUT) return { node, slot, around };
  return outermost(host, link?.origin_slot ?? 0, around.slice(0, -1));
}

/**
 * The nodes that lead to an input, nearest first, also from outside of its subgraph.
 * @param {{node: ComfyNode, around: ComfyNode[]}} listed
 * @param {(input: ComfyInput) => boolean} accepts which of its inputs; further up, all of the same type
 * @returns {Generator<{node: ComfyNode, id: string}>}
 */
export function* upstream({ node, around }, accepts) {
  const seen = new Set([node]);
  const ahead = [{ node, around, accepts }];
  for (let next = ahead.shift(); next; next = ahead.shift()) {
    for (const [at, input] of (next.node.inputs ?? []).entries()) {
      if (!next.accepts(input)) continue;
      const place = outermost(next.node, at, next.around);
      const source = place.node.getInputNode(place.slot);
      if (!source || seen.has(source)) continue;
      seen.add(source);
      yield { node: source, id: idOf(source, place.around) };
      ahead.push({ node: source, around: place.around, accepts: (other) => other.type === input.type });
    }
  }
}

/**
 * A widget's value, or undefined if it comes through a link; where the widget is shown on a subgraph's node, that one's.
 * @param {ListedNode} listed @param {string} name
 */
function valueOf({ node, around }, name) {
  const inner = node.inputs?.findIndex((input) => input.widget?.name === name) ?? -1;
  const place = inner < 0 ? null : outermost(node, inner, around);
  const input = place?.node.inputs?.[place.slot];
  if (place && input?.link !== null && input?.link !== undefined) return undefined;
  const shown = input?.widget?.name ?? name;
  return (place?.node ?? node).widgets?.find((widget) => widget.name === shown)?.value;
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
  const named = nodes.filter((one) => valueOf(one, "taste") === taste.name && taste.name !== AUTO);
  if (named.length) return named;
  const open = nodes.filter((one) => [AUTO, "", undefined].includes(/** @type {any} */ (valueOf(one, "taste"))));
  const alike = open.filter((one) => checkpoints(one).includes(taste.model.name));
  return alike.length ? alike : open;
}

/**
 * What may be the checkpoint of a node's model: the names of the files chosen upstream, without their endings.
 * @param {ListedNode} listed
 */
function checkpoints(listed) {
  const names = [];
  for (const { node } of upstream(listed, (input) => input.type === "MODEL")) {
    for (const { value } of node.widgets ?? []) {
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
