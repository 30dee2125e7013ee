/** Pictures of fixed prompts and seeds, before and after. */

import { el } from "./dom.js";

/** @param {any[]} strip @param {import("./text.js").Text} text @param {import("./api.js").Api} api */
export function beforeAndAfter(strip, text, api) {
  const shot = (url, key, prompt) => {
    const alt = text.t(`${key}.alt`, { prompt });
    const picture = el("img", { src: api.url(url), alt, loading: "lazy", decoding: "async" });
    return el("figure", {}, picture, el("figcaption", { class: "badge", "aria-hidden": "true" }, text.t(key)));
  };
  const rows = strip.map(({ prompt, before, after }) =>
    el("li", { title: prompt }, shot(before, "round.before", prompt), shot(after, "round.after", prompt)),
  );
  return el("ul", { class: "strip" }, ...rows);
}
