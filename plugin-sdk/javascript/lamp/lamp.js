// A device plugin in JavaScript, for a lamp: flashed as an ESP32 is, by a container to which the device calls back.
import { externalAddress, flashPod, info, invalidSettings, literal, plugin, unsupported } from "../flashjob.js";

const schema = { type: "object", properties: { shade: { type: "string" } }, additionalProperties: false };

export const devicePlugin = plugin({
  describe: () => ({ name: "lamp", version: "0.1.0", deviceTypes: ["lamp"], settingsSchema: JSON.stringify(schema) }),

  validateSettings(settings) {
    const faults = [];
    for (const [name, value] of Object.entries(JSON.parse(settings))) {
      if (name !== "shade") faults.push({ path: `/${name}`, message: "is no setting; expected shade" });
      else if (typeof value !== "string") faults.push({ path: "/shade", message: "expected a string" });
    }
    if (faults.length > 0) throw invalidSettings(...faults);
  },

  build({ firmware, version, image, settings, device }) {
    if (device.endpoint === null) throw unsupported("a lamp is reached over the network, and this one has no HOST_ENDPOINT");
    const { shade } = JSON.parse(settings);
    info(`the lamp ${device.name} is on`);
    const variables = {
      FIRMWARE: firmware,
      UUID: device.uid,
      HOST_ENDPOINT: device.endpoint,
      DEVICE: device.deviceType,
      APPLICATION_TYPE: device.applicationType ?? "light",
      VERSION: version,
    };
    const literals = Object.entries(variables).map(([name, value]) => [name, literal(value)]);
    return flashPod(image ?? "registry.example/lamp-flasher:1", {
      args: shade ? [literal("--shade"), literal(shade)] : [],
      env: [...literals, ["EXTERNAL_IP", externalAddress]],
      ports: [{ name: "light", number: 4433, protocol: "tcp" }],
      needsIp: true,
    });
  },
});
