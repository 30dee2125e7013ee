/** The words in ComfyUI's language, and telling people something. */

import { app } from "../../scripts/app.js";
import { loadText } from "./text.js";

/** @type {import("./text.js").Text} */
let known;

export function language() {
  return app.extensionManager.setting.get("Comfy.Locale") ?? "";
}

/** Must be done before `words` is asked for. */
export async function learnWords(wanted = language()) {
  known = await loadText(wanted);
}

export function words() {
  return known;
}

/** Says it where the person looks: toasts do not show over a gallery in full screen. */
export function warn(gallery, key, values = {}) {
  const summary = known.t(key, values);
  if (document.fullscreenElement === gallery && gallery.session) gallery.session.note(summary);
  else app.extensionManager.toast.add({ severity: "warn", summary, life: 10000 });
}
