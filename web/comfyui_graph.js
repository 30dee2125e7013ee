/** Finding nodes in the graph that is open, in its subgraphs too. */

import { app } from "../../scripts/app.js";

const MUTED = 2;
const BYPASSED = 4;

/**
 * All nodes of a kind, with the ids by which the server runs them ("5", or "12:5" in a subgraph).
 * @param {string} kind
 * @returns {Generator<{node: any, id: string, active: boolean}>} active: neither it nor what it is in is switched off
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
 * @param {any} node
 * @param {(input: any) => boolean} wanted which of its inputs; further up, all of the same type
 */
export function* upstream(node, wanted) {
  const seen = new Set([node]);
  const ahead = [[node, wanted]];
  while (ahead.length) {
    const [from, which] = ahead.shift();
    for (const [slot, input] of (from.inputs ?? []).entries()) {
      if (!which(input)) continue;
      const found = from.getInputNode(slot);
      if (!found || seen.has(found)) continue;
      seen.add(found);
      yield found;
      ahead.push([found, (other) => other.type === input.type]);
    }
  }
}

/** A widget's value, or undefined if it comes through a link. */
export function valueOf(node, name) {
  const linked = node.inputs?.some((input) => input.widget?.name === name && input.link !== null);
  return linked ? undefined : node.widgets?.find((widget) => widget.name === name)?.value;
}
