package main

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/alecthomas/kong"
)

var update = flag.Bool("update", false, "write the README's list of flags")

// TestREADMEListsTheWorkersFlagsAsItsHelpDoes holds the README against the
// command line; -update writes it.
func TestREADMEListsTheWorkersFlagsAsItsHelpDoes(t *testing.T) {
	const begin, end = "<!-- worker: written by go test ./worker -run README -update -->\n", "<!-- end -->"
	name := filepath.Join("..", "README.md")
	b, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	head, rest, ok := strings.Cut(string(b), begin)
	have, tail, closed := strings.Cut(rest, end)
	if !ok || !closed {
		t.Fatalf("%s has no list of flags between %q and %q", name, begin, end)
	}
	want := flagList(t)
	if *update {
		if err := os.WriteFile(name, []byte(head+begin+want+end+tail), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if have != want {
		t.Errorf("%s lists other flags than the help (go test ./worker -run README -update writes it)\n--- README\n%s--- help\n%s", name, have, want)
	}
}

func flagList(t *testing.T) string {
	t.Helper()
	parser, err := kong.New(&flags{}, kong.Name("millrace-worker"))
	if err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	b.WriteString("| `millrace-worker …` | |\n|---|---|\n")
	for _, f := range parser.Model.Flags {
		if f.Name != "help" {
			fmt.Fprintf(&b, "| `%s` | %s |\n", f.Summary(), f.Help)
		}
	}
	return b.String()
}
