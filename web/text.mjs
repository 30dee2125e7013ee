/** The gallery's words, from text/<language>.json. The code itself holds none. */

/** @import { Words } from "./types" */

const HERE = new URL("./text/", import.meta.url);
const RETRY_MS = 1500;

/** @type {Map<string, Promise<Words>>} */
const loaded = new Map();

/** "en" or "zh" for what the host asked for, or else what the browser prefers. @param {string | null} locale */
export function chooseLanguage(locale) {
  const language = (locale || navigator.language || "en").toLowerCase();
  return language.startsWith("zh") ? "zh" : "en";
}

/** @param {string | null} locale @returns {Promise<Text>} */
export async function loadText(locale) {
  const language = chooseLanguage(locale);
  const words = loaded.get(language) ?? fetchWords(language);
  loaded.set(language, words);
  return new Text(language, await words);
}

/** @param {string} language @returns {Promise<Words>} */
async function fetchWords(language) {
  for (;;) {
    try {
      const answer = await fetch(new URL(`${language}.json`, HERE));
      if (answer.ok) return await answer.json();
    } catch {
      // The server is restarting; without words there is nothing to show yet.
    }
    await new Promise((done) => setTimeout(done, RETRY_MS));
  }
}

export class Text {
  /** @param {string} language @param {Words} words */
  constructor(language, words) {
    this.language = language;
    this.words = words;
    this.plural = new Intl.PluralRules(language);
    this.integer = new Intl.NumberFormat(language, { maximumFractionDigits: 0 });
    this.fine = new Intl.NumberFormat(language, { maximumSignificantDigits: 3 });
    this.moment = new Intl.DateTimeFormat(language, { dateStyle: "short", timeStyle: "short" });
  }

  /**
   * The words under `key`, with {names} filled in. An entry with "one" and "other" is chosen by `n`.
   * @param {string} key @param {Record<string, string|number>} values
   */
  t(key, values = {}) {
    const entry = this.words[key] ?? key;
    const phrase = typeof entry === "string" ? entry : (entry[this.plural.select(Number(values.n))] ?? entry.other);
    return phrase.replace(/\{(\w+)\}/g, (_, name) => this.value(values[name]));
  }

  /** @param {string} key */
  has(key) {
    return key in this.words;
  }

  /** @param {string | number | undefined} value */
  value(value) {
    return typeof value === "number" ? this.integer.format(value) : String(value ?? "");
  }

  /** "about 40 s", "about 3 min", "about 1 h 20 min". @param {number} seconds */
  duration(seconds) {
    if (seconds < 55) return this.t("time.seconds", { n: Math.max(5, Math.round(seconds / 5) * 5) });
    const minutes = Math.max(1, Math.round(seconds / 60));
    if (minutes < 60) return this.t("time.minutes", { n: minutes });
    return this.t("time.hours", { hours: Math.floor(minutes / 60), minutes: minutes % 60 });
  }

  /** A share between 0 and 1 as "81%". @param {number} share */
  percent(share) {
    return this.t("percent", { n: Math.round(share * 100) });
  }

  /** @param {string|number} when ISO text, or seconds since 1970 */
  when(when) {
    const date = new Date(typeof when === "number" ? when * 1000 : when);
    return Number.isNaN(date.getTime()) ? "" : this.moment.format(date);
  }
}

/**
 * What a judge makes of the picks so far, in words.
 * @param {import("./types").Understood} understood @param {import("./types").Text} text
 */
export function understoodWords({ right, share, more }, text) {
  if (!share) return text.t("foot.understood.not");
  return text.t(more ? "foot.understood.more" : "foot.understood", { percent: text.percent(right) });
}
