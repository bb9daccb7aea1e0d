// Package export_flashjob_plugin_device_plugin is what the generated bindings call, by the name that they demand.
package export_flashjob_plugin_device_plugin

import (
	"errors"
	"fmt"
	"runtime/debug"

	types "flashjob.nbfc.io/plugin/bindings/flashjob_plugin_types"
	wit "go.bytecodealliance.org/pkg/wit/types"
)

// Plugin is what a device plugin gives.
type Plugin interface {
	// Describe says what this plugin is.
	Describe() types.PluginInfo
	// ValidateSettings judges settings: one JSON object.
	ValidateSettings(settings string) error
	// Build says what the flash Pod for one attempt needs.
	Build(request types.Request) (types.FlashPod, error)
	// Judge says what an ended flash Pod means.
	Judge(request types.Request, outcome types.Outcome) (types.Verdict, error)
}

// Error is an error of the contract.
type Error struct{ types.PluginError }

func (Error) Error() string { return "the plugin refuses" }

var served Plugin

// An instance answers once and is thrown away: there is nothing to collect, and a collection while the host allocates would trap.
func init() { debug.SetGCPercent(-1) }

// Serve makes a plugin the one that this component is.
func Serve(plugin Plugin) { served = plugin }

// A panic becomes an answer too: else nobody would read what it says.
func answer[T any](ask func() (T, error)) (answer wit.Result[T, types.PluginError]) {
	defer func() {
		if cause := recover(); cause != nil {
			answer = wit.Err[T](types.MakePluginErrorInternal(fmt.Sprint("panic: ", cause)))
		}
	}()
	value, err := ask()
	var refusal Error
	switch {
	case err == nil:
		return wit.Ok[T, types.PluginError](value)
	case errors.As(err, &refusal):
		return wit.Err[T](refusal.PluginError)
	default:
		return wit.Err[T](types.MakePluginErrorInternal(err.Error()))
	}
}

// Describe, ValidateSettings, Build and Judge are the exports of the component.
func Describe() types.PluginInfo { return served.Describe() }

// ValidateSettings is an export of the component.
func ValidateSettings(settings string) wit.Result[wit.Unit, types.PluginError] {
	return answer(func() (wit.Unit, error) { return wit.Unit{}, served.ValidateSettings(settings) })
}

// Build is an export of the component.
func Build(request types.Request) wit.Result[types.FlashPod, types.PluginError] {
	return answer(func() (types.FlashPod, error) { return served.Build(request) })
}

// Judge is an export of the component.
func Judge(request types.Request, outcome types.Outcome) wit.Result[types.Verdict, types.PluginError] {
	return answer(func() (types.Verdict, error) { return served.Judge(request, outcome) })
}
