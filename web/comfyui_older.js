/** Workflows that were saved before a node had all of its widgets. */

/**
 * Before there was a choice of method, the trainer's beta and learning rate stood in workflows as D3PO's own. They are
 * 0 now, which stands for the own ones of whatever method is chosen; another method would take them for its own.
 */
const FORMER = { beta: 205, learning_rate: 0.001 };
const FIRST_LATER = "method";

function kept(node) {
  return node.widgets.filter((widget) => widget.serialize !== false);
}

/** The trainer of an older workflow says 0 where it said what was the default then. */
export function readOlder(node) {
  const { onConfigure } = node;
  node.onConfigure = function (info) {
    onConfigure?.apply(this, arguments);
    const later = kept(node).findIndex((widget) => widget.name === FIRST_LATER);
    if (!info.widgets_values || info.widgets_values.length > later) return;
    for (const widget of node.widgets) {
      if (widget.name in FORMER && widget.value === FORMER[widget.name]) widget.value = 0;
    }
  };
}
