package topic

import (
	"flag"
	"fmt"
	"os"
	"testing"

	"github.com/millrace-io/millrace/deploy/local"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) {
	if err := flag.Set("rapid.checks", "1000"); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	code := m.Run()
	if err := local.CloseShared(); err != nil {
		fmt.Fprintln(os.Stderr, "stop servers:", err)
		code = 1
	}
	if code == 0 {
		if err := goleak.Find(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			code = 1
		}
	}
	os.Exit(code)
}
