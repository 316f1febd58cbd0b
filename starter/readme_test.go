package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/alecthomas/kong"
)

// TestREADMEListsTheCommandsAsTheirHelpDoes holds the README's list of commands
// against the command line; -update writes it.
func TestREADMEListsTheCommandsAsTheirHelpDoes(t *testing.T) {
	const begin, end = "<!-- commands: written by go test ./starter -run README -update -->\n", "<!-- end -->"
	name := filepath.Join("..", "README.md")
	b, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	head, rest, ok := strings.Cut(string(b), begin)
	have, tail, closed := strings.Cut(rest, end)
	if !ok || !closed {
		t.Fatalf("%s has no list of commands between %q and %q", name, begin, end)
	}
	want := commandList(t)
	if *update {
		if err := os.WriteFile(name, []byte(head+begin+want+end+tail), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if have != want {
		t.Errorf("%s lists other commands than the help (go test ./starter -run README -update writes it)\n--- README\n%s--- help\n%s", name, have, want)
	}
}

// commandList is a table of all commands: what each takes, beside the flags
// that every command has, and its help in a sentence.
func commandList(t *testing.T) string {
	t.Helper()
	parser, err := kong.New(&commands{}, kong.Name("millrace"))
	if err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	b.WriteString("| `millrace …` | flags | |\n|---|---|---|\n")
	for _, c := range parser.Model.Leaves(true) {
		usage := c.Path()
		for _, p := range c.Positional {
			usage += " " + p.Summary()
		}
		usage = strings.TrimPrefix(usage, "millrace ")
		var flags []string
		for _, f := range c.Flags {
			if f.Hidden {
				continue
			}
			flags = append(flags, "`"+f.Summary()+"`")
		}
		fmt.Fprintf(&b, "| `%s` | %s | %s |\n", usage, strings.Join(flags, " "), c.Help)
	}
	return b.String()
}
