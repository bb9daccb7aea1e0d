// What a device plugin in JavaScript is written with. Names and shapes are those of wit/0.1.0/plugin.wit, in camelCase:
// a variant is {tag, val}, an option is the value or null, a tuple is a list.
import log from "flashjob:plugin/log@0.1.0";

/** Makes the export `devicePlugin` of a component: what may be left out has a default, and an error that is thrown becomes an answer. */
export function plugin({ describe, build, validateSettings = noSettings, judge = exitCode }) {
  return { describe, validateSettings: answering(validateSettings), build: answering(build), judge: answering(judge) };
}

/** A container of this image, with these wishes and no other. */
export function flashPod(image, wishes = {}) {
  const none = { command: [], args: [], env: [], ports: [], groups: [], capabilities: [], secrets: [], scratch: [] };
  const no = { needsIp: false, attachDevice: false, user: { tag: "image-default" }, deadlineSeconds: null };
  return { image, ...none, ...no, ...wishes };
}

/** A word of a command line or the value of a variable, taken as it stands. */
export const literal = (text) => ({ tag: "literal", val: text });
/** A word of a command line or the value of a variable that the operator fills in. */
export const externalAddress = { tag: "external-address" };

/** To be thrown: this plugin cannot flash this device. */
export const unsupported = (text) => ({ tag: "unsupported-device", val: text });
/** To be thrown: the settings are not valid; each fault is {path, message}. */
export const invalidSettings = (...faults) => ({ tag: "invalid-settings", val: faults });

/** Writes one line into the operator's log. */
export const info = (line) => log.write("info", line);

/** Judges the settings of a plugin that has none. */
export function noSettings(settings) {
  if (settings !== "{}") throw invalidSettings({ path: "", message: "this plugin has no settings" });
}

/** Exit code 0 flashed the device, and the version that it reports is the proof; anything else is worth another attempt. */
export function exitCode(_request, { exitCode, terminationMessage, reason }) {
  return exitCode === 0 ? { tag: "flashed", val: "reported-version" } : { tag: "retry", val: terminationMessage || reason };
}

function answering(ask) {
  return (...words) => {
    try {
      return ask(...words);
    } catch (error) {
      throw error instanceof Error ? { tag: "internal", val: String(error) } : error;
    }
  };
}
