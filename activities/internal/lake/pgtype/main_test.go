package pgtype

import (
	"flag"
	"os"
	"testing"
)

func TestMain(m *testing.M) {
	// The command line, parsed later, may ask for another number.
	if err := flag.Set("rapid.checks", "2000"); err != nil {
		panic(err)
	}
	os.Exit(m.Run())
}
