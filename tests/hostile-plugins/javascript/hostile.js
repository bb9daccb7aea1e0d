// A device plugin that does what its settings name: it looks around, loops, throws or talks too much.
import { flashPod, info, plugin } from "../../../plugin-sdk/javascript/flashjob.js";

const hostile = plugin({
  describe: () => ({ name: "hostile-javascript", version: "0.1.0", deviceTypes: ["hostile"], settingsSchema: "{}" }),

  validateSettings(settings) {
    if (settings === "loop") for (;;);
    if (settings === "flood") for (let line = 0; line < 1000; line++) info(`line ${line}`);
    if (settings === "say") info("a little");
    if (settings === "look") throw new Error(`now ${Date.now()}, random ${Math.random()}`);
  },

  build: () => flashPod("image"),
});

export const devicePlugin = {
  ...hostile,

  // Where nobody catches it: what is told of it then goes to standard error.
  validateSettings(settings) {
    if (settings === "throw") throw new Error("out of hand");
    return hostile.validateSettings(settings);
  },
};
