// A device plugin that does what its settings name: it looks around, loops, waits or talks too much.
package main

import (
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"time"

	"flashjob.nbfc.io/plugin"
)

type hostile struct{}

func init() { plugin.Serve(hostile{}) }

func main() {}

func (hostile) Describe() plugin.Info {
	return plugin.Info{Name: "hostile-go", Version: "0.1.0", DeviceTypes: []string{"hostile"}, SettingsSchema: "{}"}
}

func (hostile) ValidateSettings(settings string) error {
	switch settings {
	case "loop":
		for turns := uint64(1); turns != 0; turns = turns*2 | 1 {
		}
	case "sleep":
		time.Sleep(time.Hour)
	case "flood":
		for line := range 1000 {
			fmt.Println("line", line)
		}
	case "panic":
		panic("a panic")
	case "say":
		fmt.Println("to standard output")
		fmt.Fprintln(os.Stderr, "to standard error")
	case "look":
		folder, _ := os.ReadDir("/")
		_, dialed := net.Dial("tcp", "127.0.0.1:1")
		return fmt.Errorf("environment %d, arguments %d, files %d, dialed %t, now %d, random %d",
			len(os.Environ()), len(os.Args), len(folder), dialed == nil, time.Now().UnixNano(), rand.Uint64())
	}
	return nil
}

func (hostile) Build(plugin.Request) (plugin.FlashPod, error) {
	return plugin.FlashPod{Image: "image"}, nil
}

func (hostile) Judge(plugin.Request, plugin.Outcome) (plugin.Verdict, error) {
	return plugin.Flashed(), nil
}
