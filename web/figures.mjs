/** Figures that tell what a round came to: a curve, a blind check's result on its line, images before and after. */

import { el, svg } from "./dom.mjs";

/** @import { Api, Comparison, Text } from "./types" */

const WIDE = 320;
const HIGH = 120;
const EDGE = { left: 46, right: 10, top: 10, bottom: 22 };

/** @param {number[]} shares of the hidden picks predicted right, epoch by epoch @param {Text} text */
export function predictionChart(shares, text) {
  const [first, last] = [1, shares.length];
  /** @param {number} epoch */
  const x = (epoch) => EDGE.left + ((epoch - first) / Math.max(1, last - first)) * (WIDE - EDGE.left - EDGE.right);
  /** @param {number} share */
  const y = (share) => EDGE.top + (1 - share) * (HIGH - EDGE.top - EDGE.bottom);
  const path = shares.map((share, at) => `${at ? "L" : "M"}${x(at + 1).toFixed(1)} ${y(share).toFixed(1)}`).join("");
  /** @param {number} share @param {string} look */
  const level = (share, look) => [
    svg("path", { d: `M${EDGE.left} ${y(share)}H${WIDE - EDGE.right}`, class: look }),
    svg("text", { x: EDGE.left - 6, y: y(share) + 4, "text-anchor": "end" }, text.percent(share)),
  ];
  const marks = [first, last].map((epoch) =>
    svg("text", { x: x(epoch), y: HIGH - 5, "text-anchor": "middle" }, text.value(epoch)),
  );
  const dots = shares.map((share, at) => svg("circle", { cx: x(at + 1), cy: y(share), r: 2.6 }));
  const ends = { first: text.percent(shares[0]), last: text.percent(shares[shares.length - 1]) };
  const chart = { viewBox: `0 0 ${WIDE} ${HIGH}`, class: "chart", role: "img" };
  const drawing = svg(
    "svg",
    { ...chart, "aria-label": text.t("details.chart.alt", ends) },
    ...level(1, "level"),
    ...level(0.5, "level chance"),
    ...level(0, "level"),
    svg("path", { d: path, class: "curve" }),
    ...dots,
    ...marks,
  );
  return el("figure.figure", {}, el("figcaption.hint", {}, text.t("details.chart")), drawing);
}

/**
 * A line from 0 to all pairs, with the band that chance would give and a mark at the result.
 * @param {{taught: number, low: number, high: number}} result
 * @param {number} of @param {string} label @param {Text} text
 */
export function chanceLine({ taught, low, high }, of, label, text) {
  /** @param {number} n */
  const x = (n) => 12 + (n / of) * (WIDE - 24);
  const half = (WIDE - 24) / of / 2;
  const ticks = Array.from({ length: of + 1 }, (_, n) => svg("path", { d: `M${x(n)} 24v8`, class: "level" }));
  const drawing = svg(
    "svg",
    { viewBox: `0 0 ${WIDE} 56`, class: "chart line", role: "img", "aria-label": label },
    svg("rect", { x: x(low) - half, y: 18, width: x(high) - x(low) + 2 * half, height: 20, rx: 6, class: "band" }),
    svg("path", { d: `M12 28H${WIDE - 12}`, class: "level" }),
    ...ticks,
    svg("circle", { cx: x(taught), cy: 28, r: 8, class: "mark" }),
    ...[0, of].map((n) => svg("text", { x: x(n), y: 52, "text-anchor": "middle" }, String(n))),
    svg("text", { x: x(taught), y: 12, "text-anchor": "middle", class: "strong" }, String(taught)),
  );
  return el("figure.figure", {}, drawing, el("figcaption.hint", {}, text.t("blind.chance", { low, high })));
}

/** @param {Comparison[]} strip @param {Text} text @param {Api} api */
export function beforeAndAfter(strip, text, api) {
  /** @param {string} url @param {string} key @param {string} prompt */
  const shot = (url, key, prompt) => {
    const alt = text.t(`${key}.alt`, { prompt });
    const picture = el("img", { src: api.url(url), alt, loading: "lazy", decoding: "async" });
    return el("figure", {}, picture, el("figcaption.badge", { "aria-hidden": "true" }, text.t(key)));
  };
  const rows = strip.map(({ prompt, before, after }) =>
    el("li", { title: prompt }, shot(before, "round.before", prompt), shot(after, "round.after", prompt)),
  );
  return el("ul.strip", {}, ...rows);
}
