package main

import (
	"encoding/json"
	"os/exec"
	"strings"
	"testing"
)

const module = "github.com/millrace-io/millrace/"

// arrows is the import table of DESIGN.md: what each package may import of
// ours. A name that ends in /... stands for a package and all below it.
var arrows = map[string][]string{
	"activities/change":                {},
	"activities/fleet":                 {},
	"activities/internal/pgsource/...": {"activities/change", "activities/fleet", "activities/internal/pgsource/..."},
	"activities/internal/topic/...":    {"activities/change"},
	"activities/internal/lake/pgtype":  {"activities/change", "deltalog/..."},
	"activities/internal/batch/...":    {"activities/change", "activities/internal/lake/pgtype", "deltalog/..."},
	"activities/internal/lake/...":     {"activities/change", "activities/internal/lake/...", "activities/internal/batch/...", "deltalog/..."},
	"activities":                       {"activities/...", "deltalog/..."},
	"workflows/...":                    {"activities", "activities/change", "activities/fleet", "workflows/..."},
	"worker/...":                       {"activities", "activities/change", "activities/fleet", "workflows/...", "worker/...", "deploy/local/..."},
	"starter/...":                      {"activities", "activities/change", "activities/fleet", "workflows/...", "starter/...", "deltalog/..."},
	"deltalog/...":                     {"deltalog/..."},
	"deploy/...":                       {"deploy/...", "deltalog/...", "activities/change", "activities/fleet", "workflows/..."},
}

// sole names the one package that may import a library.
var sole = map[string]string{
	"github.com/jackc/pgx/":          "activities/internal/pgsource/...",
	"github.com/jackc/pglogrepl":     "activities/internal/pgsource/...",
	"github.com/segmentio/kafka-go":  "activities/internal/topic/...",
	"github.com/parquet-go/":         "deltalog/...",
	"github.com/aws/":                "deltalog/store/s3",
	"github.com/cockroachdb/pebble/": "",
	"go.temporal.io/":                "",
}

// besides are those that a library's rule lets in, too.
var besides = map[string][]string{
	"github.com/cockroachdb/pebble/": {"deltalog/...", "activities/internal/lake/..."},
	"go.temporal.io/":                {"activities", "workflows/...", "worker/...", "starter/...", "deploy/..."},
	"github.com/jackc/pgx/":          {"deploy/..."}, // load generators
}

func matches(pattern, pkg string) bool {
	if base, ok := strings.CutSuffix(pattern, "/..."); ok {
		return pkg == base || strings.HasPrefix(pkg, base+"/")
	}
	return pkg == pattern
}

// rule returns the most specific rule for a package.
func rule(pkg string) (allowed []string, found bool) {
	best := -1
	for pattern, a := range arrows {
		if matches(pattern, pkg) && len(pattern) > best {
			best, allowed, found = len(pattern), a, true
		}
	}
	return allowed, found
}

func TestImportsFollowTheArrowsOfTheDesign(t *testing.T) {
	out, err := exec.Command("go", "list", "-json=ImportPath,Imports", module+"...").Output()
	if err != nil {
		t.Fatalf("list packages: %v", err)
	}
	dec := json.NewDecoder(strings.NewReader(string(out)))
	seen := 0
	for dec.More() {
		var p struct {
			ImportPath string
			Imports    []string
		}
		if err := dec.Decode(&p); err != nil {
			t.Fatal(err)
		}
		pkg := strings.TrimPrefix(p.ImportPath, module)
		seen++
		allowed, ok := rule(pkg)
		if !ok {
			t.Errorf("%s has no place in the import table", pkg)
			continue
		}
		for _, imp := range p.Imports {
			if ours, ok := strings.CutPrefix(imp, module); ok {
				if !matchesAny(allowed, ours) {
					t.Errorf("%s may not import %s", pkg, ours)
				}
				continue
			}
			for library, owner := range sole {
				if !strings.HasPrefix(imp, library) {
					continue
				}
				if (owner == "" || !matches(owner, pkg)) && !matchesAny(besides[library], pkg) {
					t.Errorf("%s may not import %s", pkg, imp)
				}
			}
		}
	}
	if seen < 10 {
		t.Fatalf("saw %d packages: go list did not list the module", seen)
	}
}

func matchesAny(patterns []string, pkg string) bool {
	for _, p := range patterns {
		if matches(p, pkg) {
			return true
		}
	}
	return false
}
