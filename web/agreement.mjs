/** How much several people agree, and each with themselves, above the history of picks. */

import { el, fold } from "./dom.mjs";

/** @import { History, Text } from "./types" */

/**
 * What there is to say, as a paragraph or as lines to unfold; null if nobody has met anybody's picks again.
 * @param {History} page @param {Text} text
 */
export function agreementOf({ consistency, agreement }, text) {
  if (!agreement && consistency.length === 1) {
    const [{ same, of }] = consistency;
    return el("p.hint", {}, text.t("history.consistency", { same, n: of }));
  }
  const names = new Set([...(agreement?.people ?? []), ...consistency].map(({ who }) => who));
  if (!names.size) return null;
  const lines = [...names].sort().map((who) => el("li", {}, ...line(who, { consistency, agreement }, text)));
  const title = agreement
    ? text.t("agreement.title", { ...shares(agreement, text), n: agreement.groups })
    : text.t("agreement.repeats");
  return fold(title, el("ul.people", {}, ...lines), agreement && el("p.hint", {}, forResearchers(agreement, text)));
}

/**
 * @param {string} who @param {Pick<History, "consistency" | "agreement">} page @param {Text} text
 */
function line(who, { consistency, agreement }, text) {
  const one = agreement?.people.find((each) => each.who === who);
  const again = consistency.find((each) => each.who === who);
  const words = [
    one && text.t("agreement.others", { ...shares(one, text), n: one.groups }),
    again && text.t("agreement.again", { same: again.same, n: again.of }),
  ];
  return [el("b", {}, who || text.t("history.nobody")), " ", words.filter(Boolean).join(text.t("agreement.and"))];
}

/** @param {{ same: number, chance: number }} agreement @param {Text} text */
function shares({ same, chance }, text) {
  return { percent: text.percent(same), chance: text.percent(chance) };
}

/** @param {NonNullable<History["agreement"]>} agreement @param {Text} text */
function forResearchers({ alpha, low, high }, text) {
  const [known, from, to] = [alpha, low, high].map((value) => value?.toFixed(2) ?? "");
  if (alpha === null) return text.t("agreement.alpha.none");
  return text.t(low === null ? "agreement.alpha" : "agreement.alpha.interval", { alpha: known, low: from, high: to });
}
