package pgtype

import (
	"flag"
	"os"
	"testing"

	"github.com/millrace-io/millrace/deploy/local"
)

func TestMain(m *testing.M) {
	// The command line, parsed later, may ask for another number.
	if err := flag.Set("rapid.checks", "2000"); err != nil {
		panic(err)
	}
	os.Exit(local.RunTests(m))
}
