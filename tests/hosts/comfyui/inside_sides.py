"""Names what comes out of each of the host's nodes that take a positive and a negative conditioning."""

from __future__ import annotations

import asyncio

from inside import host_nodes, report

asyncio.run(host_nodes.init_extra_nodes(init_custom_nodes=False, init_api_nodes=False))
sided = {}
for kind, node in host_nodes.NODE_CLASS_MAPPINGS.items():
    inputs = {
        name: spec[0]
        for part in node.INPUT_TYPES().values()
        if isinstance(part, dict)
        for name, spec in part.items()
        if spec
    }
    ends = [name for name, what in inputs.items() if what == "CONDITIONING"]
    both = all(any(name.startswith(side) for name in ends) for side in ("positive", "negative"))
    if both and "CONDITIONING" in node.RETURN_TYPES:
        sided[kind] = list(getattr(node, "RETURN_NAMES", ()) or ("positive", "negative"))
report(sided)
