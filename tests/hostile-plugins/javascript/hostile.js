// A device plugin that does what its settings name: it looks around, loops or talks too much.
import { flashPod, info, plugin } from "../../../plugin-sdk/javascript/flashjob.js";

export const devicePlugin = plugin({
  describe: () => ({ name: "hostile-javascript", version: "0.1.0", deviceTypes: ["hostile"], settingsSchema: "{}" }),

  validateSettings(settings) {
    if (settings === "loop") for (;;);
    if (settings === "flood") for (let line = 0; line < 1000; line++) info(`line ${line}`);
    if (settings === "say") info("a little");
    if (settings === "look") throw new Error(`now ${Date.now()}, random ${Math.random()}`);
  },

  build: () => flashPod("image"),
});
