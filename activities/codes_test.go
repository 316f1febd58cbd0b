package activities

import (
	"flag"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "add sections for codes that docs/reasons.md lacks")

// TestEveryReasonCodeIsDocumented holds docs/reasons.md, and the codes that
// DESIGN.md names, against the codes that there are. With -update it adds a
// section for a code that lacks one, which is then to be written.
func TestEveryReasonCodeIsDocumented(t *testing.T) {
	listed := reasonSections(t)
	known := map[string]bool{}
	for _, c := range classes {
		known[string(c.code)] = true
	}
	for _, code := range constants(t, "reason.go") {
		known[code] = true
	}
	for _, dir := range []string{".", filepath.Join("internal", "pgsource"), filepath.Join("..", "workflows"), filepath.Join("..", "starter", "control")} {
		for _, code := range problemCodes(t, dir) {
			known[code] = true
		}
	}
	if len(known) < 40 {
		t.Fatalf("found %d codes: not all were looked at", len(known))
	}
	if *update {
		writeSections(t, listed, known)
		listed = reasonSections(t)
	}
	for code := range known {
		if listed[code] == nil {
			t.Errorf("%s lacks the reason code %s (go test ./activities -run Documented -update adds a section to write)", reasonsPage, code)
		}
	}
	for code, s := range listed {
		if !known[code] {
			t.Errorf("%s has %s, which is no reason code", reasonsPage, code)
		}
		for part, text := range map[string]string{"Meaning": s.meaning, "Cause": s.cause, "Remedy": s.remedy} {
			if len(text) < 10 || strings.Contains(text, unwritten) {
				t.Errorf("%s: %s of %s is not written", reasonsPage, part, code)
			}
		}
	}
	for _, c := range classes {
		s := listed[string(c.code)]
		if s == nil {
			continue
		}
		about := map[bool]string{true: "database", false: "table"}[c.database]
		if becomes := [...]string{retry: "is tried again", anew: "begins again", park: "parks"}[c.act]; !strings.Contains(s.kind, becomes) || !strings.Contains(s.kind, about) {
			t.Errorf("%s says of %s %q, which as %v %s and concerns a %s", reasonsPage, c.code, s.kind, c.class, becomes, about)
		}
		if c.act != park {
			continue
		}
		command := strings.ReplaceAll(s.command, "public.orders", "public.a")
		if !goesOn.MatchString(command) {
			t.Errorf("%s: the remedy of %s ends with %q, which makes nothing go on", reasonsPage, c.code, s.command)
		}
		if CopiesAgain(c.code) && c.code != "UNREPRESENTABLE_VALUE" && !strings.HasSuffix(command, " --yes") {
			t.Errorf("%s: the remedy of %s ends with %q, which does not copy the table", reasonsPage, c.code, s.command)
		}
	}
	for code := range documented(t, "DESIGN.md", "## 9.") {
		if !known[code] {
			t.Errorf("DESIGN.md names %s, which is no reason code", code)
		}
	}
}

const (
	reasonsPage = "docs/reasons.md"
	// unwritten stands in a section that was added and not written.
	unwritten = "TO BE WRITTEN"
)

// section is what docs/reasons.md says of one code.
type section struct {
	text                         string // all of it, heading included
	kind, meaning, cause, remedy string
	command                      string // the last line of the remedy's commands
}

var sectionParts = regexp.MustCompile(`(?s)\A## ([A-Z_]+)\n\n\*([^*]+)\*\n\n\*\*Meaning:\*\* (.+?)\n\n\*\*Cause:\*\* (.+?)\n\n\*\*Remedy:\*\* (.+?)\n\n(?:\x60{3}\n(.+?)\n\x60{3}\n\n)?\z`)

// reasonSections reads docs/reasons.md: one section a code, in order.
func reasonSections(t *testing.T) map[string]*section {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("..", reasonsPage))
	if err != nil {
		t.Fatal(err)
	}
	sections := map[string]*section{}
	last := ""
	for i, text := range strings.Split(string(b)+"\n", "\n## ") {
		if i == 0 {
			continue
		}
		text = "## " + strings.TrimRight(text, "\n") + "\n\n"
		m := sectionParts.FindStringSubmatch(text)
		if m == nil {
			t.Fatalf("%s: a section is not made of meaning, cause, remedy and commands:\n%s", reasonsPage, text)
		}
		if m[1] <= last {
			t.Errorf("%s: %s stands after %s", reasonsPage, m[1], last)
		}
		last = m[1]
		sections[m[1]] = &section{text: text, kind: m[2], meaning: m[3], cause: m[4], remedy: m[5], command: m[6][strings.LastIndexByte(m[6], '\n')+1:]}
	}
	return sections
}

// writeSections writes docs/reasons.md in order, with a section for each code.
func writeSections(t *testing.T, listed map[string]*section, known map[string]bool) {
	t.Helper()
	name := filepath.Join("..", reasonsPage)
	b, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	head, _, _ := strings.Cut(string(b), "\n## ")
	text := strings.TrimRight(head, "\n") + "\n\n"
	for code := range known {
		if listed[code] == nil {
			listed[code] = &section{text: fmt.Sprintf("## %s\n\n*table: parks*\n\n**Meaning:** %s.\n\n**Cause:** %s.\n\n**Remedy:** %s.\n\n```\nmillrace unpark shop public.orders\n```\n\n", code, unwritten, unwritten, unwritten)}
		}
	}
	for _, code := range slices.Sorted(maps.Keys(listed)) {
		text += listed[code].text
	}
	if err := os.WriteFile(name, []byte(strings.TrimRight(text, "\n")+"\n"), 0o644); err != nil {
		t.Fatal(err)
	}
}

var quotedCode = regexp.MustCompile("`([A-Z]+(?:_[A-Z]+)+|INTERNAL|PUBLICATION|STOPPED|SUPERSEDED)`")

// documented returns the codes in the tables of one section of a document.
func documented(t *testing.T, name, section string) map[string]bool {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("..", name))
	if err != nil {
		t.Fatal(err)
	}
	_, text, ok := strings.Cut(string(b), "\n"+section)
	if !ok {
		t.Fatalf("%s has no section %q", name, section)
	}
	text, _, _ = strings.Cut(text, "\n## ")
	codes := map[string]bool{}
	for line := range strings.Lines(text) {
		if strings.HasPrefix(line, "|") {
			for _, m := range quotedCode.FindAllStringSubmatch(line, -1) {
				codes[m[1]] = true
			}
		}
	}
	if len(codes) == 0 {
		t.Fatalf("%s names no codes in section %q", name, section)
	}
	return codes
}

// constants returns the values of a file's constants of type Code.
func constants(t *testing.T, name string) (codes []string) {
	t.Helper()
	ast.Inspect(parse(t, name), func(n ast.Node) bool {
		spec, ok := n.(*ast.ValueSpec)
		if !ok {
			return true
		}
		if typ, ok := spec.Type.(*ast.Ident); ok && typ.Name == "Code" {
			for _, v := range spec.Values {
				codes = appendText(codes, v)
			}
		}
		return true
	})
	return codes
}

// problemCodes returns the codes of the problems and reasons that a package
// spells out.
// Problems inside of errors are left out: there the class has the code.
func problemCodes(t *testing.T, dir string) (codes []string) {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(dir, "*.go"))
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range files {
		if strings.HasSuffix(name, "_test.go") {
			continue
		}
		ast.Inspect(parse(t, name), func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.CompositeLit:
				if typ, ok := n.Type.(*ast.Ident); ok && typ.Name == "Error" {
					return false
				}
			case *ast.KeyValueExpr:
				if key, ok := n.Key.(*ast.Ident); ok && key.Name == "Code" {
					codes = appendText(codes, n.Value)
				}
			case *ast.AssignStmt:
				if len(n.Lhs) == 1 && selects(n.Lhs[0], "Code") {
					codes = appendText(codes, n.Rhs[0])
				}
			case *ast.CallExpr:
				f, ok := n.Fun.(*ast.Ident)
				if ok && f.Name == "add" && len(n.Args) == 4 {
					codes = appendText(codes, n.Args[1])
				}
				if selects(n.Fun, "problem") {
					codes = appendText(codes, n.Args[0])
				}
			}
			return true
		})
	}
	slices.Sort(codes)
	return slices.Compact(codes)
}

func parse(t *testing.T, name string) *ast.File {
	t.Helper()
	f, err := parser.ParseFile(token.NewFileSet(), name, nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

// selects tells whether an expression is x.name.
func selects(e ast.Expr, name string) bool {
	s, ok := e.(*ast.SelectorExpr)
	return ok && s.Sel.Name == name
}

// appendText appends the value of a string literal, and nothing for others.
func appendText(texts []string, e ast.Expr) []string {
	lit, ok := e.(*ast.BasicLit)
	if !ok || lit.Kind != token.STRING {
		return texts
	}
	s, err := strconv.Unquote(lit.Value)
	if err != nil {
		return texts
	}
	return append(texts, s)
}

// goesOn is how the remedies of what parks end: a command that goes on, or that
// begins anew. The command line parses each of these (starter's tests).
var goesOn = regexp.MustCompile(`^millrace (resume shop|unpark shop public\.a( --yes)?|unpark shop --new-epoch --yes|apply shop)$`)

func TestEveryRemedyOfWhatParksEndsWithTheCommandThatGoesOn(t *testing.T) {
	reasons := map[string]Reason{}
	for _, c := range classes {
		if c.act == park {
			f := Classify(c.class)
			table := ""
			if !f.Database {
				table = "public.a"
			}
			reasons[string(f.Reason.Code)+" "+table] = f.Reason.Parked("shop", table)
		}
	}
	for _, code := range append(constants(t, "reason.go"), problemCodes(t, filepath.Join("internal", "pgsource"))...) {
		reasons[code] = Reason{Code: Code(code), Remedy: "GRANT SELECT ON TABLE public.a TO millrace"}.Parked("shop", "public.a")
		reasons[code+" without more"] = Reason{Code: Code(code)}.Parked("shop", "")
	}
	if len(reasons) < 40 {
		t.Fatalf("%d reasons: not all were looked at", len(reasons))
	}
	for what, r := range reasons {
		command := r.Remedy[strings.LastIndexByte(r.Remedy, '\n')+1:]
		if !goesOn.MatchString(command) || strings.Contains(r.Remedy, "{") && !strings.Contains(r.Remedy, "{column: string}") {
			t.Errorf("%s ends with %q: %s", what, command, r.Remedy)
		}
	}
}
