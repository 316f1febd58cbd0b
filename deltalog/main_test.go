package deltalog

import (
	"flag"
	"os"
	"testing"

	"go.uber.org/goleak"

	"github.com/millrace-io/millrace/deploy/local"
)

// TestMain has property tests draw a thousand histories, or a few under -short.
func TestMain(m *testing.M) {
	flag.Parse()
	given := false
	flag.Visit(func(f *flag.Flag) { given = given || f.Name == "rapid.checks" })
	if !given && !testing.Short() {
		if err := flag.Set("rapid.checks", "1000"); err != nil {
			panic(err)
		}
	}
	if code := local.RunTests(m); code != 0 {
		os.Exit(code)
	}
	if err := goleak.Find(); err != nil {
		_, _ = os.Stderr.WriteString(err.Error() + "\n")
		os.Exit(1)
	}
}
