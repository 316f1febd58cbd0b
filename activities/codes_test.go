package activities

import (
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// TestEveryReasonCodeIsDocumented holds the README's list of reason codes, and
// those that DESIGN.md names, against the codes that there are.
func TestEveryReasonCodeIsDocumented(t *testing.T) {
	listed := documented(t, "README.md", "## Reason codes")
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
	for code := range known {
		if !listed[code] {
			t.Errorf("README.md lacks the reason code %s", code)
		}
	}
	for code := range listed {
		if !known[code] {
			t.Errorf("README.md lists %s, which is no reason code", code)
		}
	}
	for code := range documented(t, "DESIGN.md", "## 9.") {
		if !known[code] {
			t.Errorf("DESIGN.md names %s, which is no reason code", code)
		}
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
