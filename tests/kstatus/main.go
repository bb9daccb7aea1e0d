// Says of the object on its standard input what kstatus makes of it, as Flux and kpt see it: its status, a tab, and its words.
package main

import (
	"fmt"
	"io"
	"os"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/cli-utils/pkg/kstatus/status"
)

func main() {
	var object unstructured.Unstructured
	text, err := io.ReadAll(os.Stdin)
	if err == nil {
		err = object.UnmarshalJSON(text)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "standard input:", err)
		os.Exit(1)
	}
	result, err := status.Compute(&object)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	fmt.Printf("%s\t%s\n", result.Status, result.Message)
}
