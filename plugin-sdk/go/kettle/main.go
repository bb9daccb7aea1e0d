// A device plugin in Go, for a kettle: flashed as an ESP32 is, by a container to which the device calls back.
package main

import "flashjob.nbfc.io/plugin"

type kettle struct{}

func init() { plugin.Serve(kettle{}) }

func main() {}

func (kettle) Describe() plugin.Info {
	return plugin.Info{Name: "kettle", Version: "0.1.0", DeviceTypes: []string{"kettle"}, SettingsSchema: "{}"}
}

func (kettle) ValidateSettings(settings string) error { return plugin.NoSettings(settings) }

func (kettle) Build(request plugin.Request) (plugin.FlashPod, error) {
	device := request.Device
	if device.Endpoint.IsNone() {
		return plugin.FlashPod{}, plugin.Unsupported("a kettle is reached over the network, and this one has no HOST_ENDPOINT")
	}
	plugin.Log("the kettle is on")
	return plugin.FlashPod{
		Image: request.Image.SomeOr("registry.example/kettle-flasher:1"),
		Env: []plugin.Env{
			plugin.Variable("FIRMWARE", request.Firmware),
			plugin.Variable("UUID", device.Uid),
			plugin.Variable("HOST_ENDPOINT", device.Endpoint.Some()),
			plugin.Variable("DEVICE", device.DeviceType),
			plugin.Variable("APPLICATION_TYPE", device.ApplicationType.SomeOr("tea")),
			plugin.Variable("VERSION", request.Version),
			plugin.AddressVariable("EXTERNAL_IP"),
		},
		Ports:   []plugin.Port{{Name: "steam", Number: 4433, Protocol: plugin.TCP}},
		NeedsIp: true,
	}, nil
}

func (kettle) Judge(_ plugin.Request, outcome plugin.Outcome) (plugin.Verdict, error) {
	if outcome.ExitCode.SomeOr(1) == 0 {
		return plugin.FlashedOnceReported(), nil
	}
	return plugin.Retry(plugin.Explanation(outcome)), nil
}
