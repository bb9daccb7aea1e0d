// Package plugin is what a device plugin in Go is written with: implement [Plugin], hand it to [Serve] in an init function, and
// build it with build.sh beside this file. What every field means is documented in wit/0.1.0/plugin.wit and in the generated types.
package plugin

import (
	log "flashjob.nbfc.io/plugin/bindings/flashjob_plugin_log"
	types "flashjob.nbfc.io/plugin/bindings/flashjob_plugin_types"
	_ "flashjob.nbfc.io/plugin/bindings/wit_exports"
	exports "flashjob.nbfc.io/plugin/export_flashjob_plugin_device_plugin"
	wit "go.bytecodealliance.org/pkg/wit/types"
)

// The types of the contract.
type (
	Device     = types.Device
	Request    = types.Request
	Arg        = types.Arg
	EnvValue   = types.EnvValue
	Env        = wit.Tuple2[string, types.EnvValue]
	Port       = types.Port
	User       = types.User
	FlashPod   = types.FlashPod
	Outcome    = types.Outcome
	Verdict    = types.Verdict
	FieldError = types.FieldError
	Info       = types.PluginInfo
)

// Plugin is what a device plugin gives. Every function is pure: the same request, the same answer.
// An error that is not one of this package is taken as a failure of the plugin.
type Plugin = exports.Plugin

// Transports of a port.
const (
	TCP = types.ProtocolTcp
	UDP = types.ProtocolUdp
)

// Serve makes a plugin the one that this component is. To be called in an init function.
func Serve(plugin Plugin) { exports.Serve(plugin) }

// Literal is a word of a command line, taken as it stands.
func Literal(text string) Arg { return types.MakeArgLiteral(text) }

// ExternalAddress is a word of a command line that the operator fills in.
func ExternalAddress() Arg { return types.MakeArgExternalAddress() }

// Variable is an environment variable whose value is taken as it stands.
func Variable(name, value string) Env { return Env{F0: name, F1: types.MakeEnvValueLiteral(value)} }

// AddressVariable is an environment variable whose value is the external address.
func AddressVariable(name string) Env { return Env{F0: name, F1: types.MakeEnvValueExternalAddress()} }

// SecretVariable is an environment variable whose value is a key of the Secret behind a slot.
func SecretVariable(name, slot, key string) Env {
	return Env{F0: name, F1: types.MakeEnvValueSecretKey(wit.Tuple2[string, string]{F0: slot, F1: key})}
}

// ImageUser, Uid and Root say whom the container runs as; FlashPod.User must be set to one of them, and its zero value is ImageUser.
func ImageUser() User { return types.MakeUserImageDefault() }

// Uid is this user id, from 1.
func Uid(id uint32) User { return types.MakeUserUid(id) }

// Root needs the grant runAsRoot.
func Root() User { return types.MakeUserRoot() }

// Flashed says that the Pod's success is the proof.
func Flashed() Verdict { return types.MakeVerdictFlashed(types.ProofPod) }

// FlashedOnceReported says that the device must report the new version.
func FlashedOnceReported() Verdict { return types.MakeVerdictFlashed(types.ProofReportedVersion) }

// Retry asks for another attempt, for this reason.
func Retry(reason string) Verdict { return types.MakeVerdictRetry(reason) }

// GiveUp says that it makes no sense to try again, for this reason.
func GiveUp(reason string) Verdict { return types.MakeVerdictGiveUp(reason) }

// Unsupported is the error of a plugin that cannot flash this device.
func Unsupported(text string) error {
	return exports.Error{PluginError: types.MakePluginErrorUnsupportedDevice(text)}
}

// InvalidRequest is the error of a request that lacks what the plugin needs.
func InvalidRequest(text string) error {
	return exports.Error{PluginError: types.MakePluginErrorInvalidRequest(text)}
}

// InvalidSettings is the error of settings that are not valid: every fault with its JSON pointer.
func InvalidSettings(faults ...FieldError) error {
	return exports.Error{PluginError: types.MakePluginErrorInvalidSettings(faults)}
}

// Log writes one line into the operator's log.
func Log(line string) { log.Write(log.LevelInfo, line) }

// NoSettings judges the settings of a plugin that has none.
func NoSettings(settings string) error {
	if settings == "{}" {
		return nil
	}
	return InvalidSettings(FieldError{Message: "this plugin has no settings"})
}

// Explanation says why a container ended: its own last words, or Kubernetes' reason where it left none.
func Explanation(outcome Outcome) string {
	if outcome.TerminationMessage != "" {
		return outcome.TerminationMessage
	}
	return outcome.Reason
}
