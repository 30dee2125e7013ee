/** The words in ComfyUI's language. */

import { app } from "../../scripts/app.js";
import { loadText } from "./text.mjs";

/** @import { Text } from "./types" */

/** @type {Text} */
let loaded;

/** The language that the page is set to, or "" for the browser's. @returns {string} */
export function language() {
  return String(app.extensionManager.setting.get("Comfy.Locale") ?? "");
}

/** Loads the words; to be awaited before `words` is called. */
export async function loadWords(locale = language()) {
  loaded = await loadText(locale);
}

export function words() {
  return loaded;
}
