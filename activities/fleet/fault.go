package fleet

import (
	"cmp"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"unicode"

	"github.com/goccy/go-yaml/ast"
)

// Fault is one thing wrong with a fleet file.
type Fault struct {
	// File is the file's name without its folder.
	File string
	// Line and Column count from 1. Zero means that the fault has no place.
	Line, Column int
	// Path names the value, such as databases.shop.url; empty for the file.
	Path string
	// Message says what is wrong and what to write instead.
	Message string
	// Quote is the line, with secrets masked.
	Quote string
}

// Error returns the place, the message and the quoted line with a mark.
func (f *Fault) Error() string {
	var b strings.Builder
	b.WriteString(f.File)
	if f.Line > 0 {
		fmt.Fprintf(&b, ":%d:%d", f.Line, f.Column)
	}
	b.WriteString(": ")
	if f.Path != "" {
		b.WriteString(f.Path + ": ")
	}
	b.WriteString(f.Message)
	if f.Line > 0 {
		fmt.Fprintf(&b, "\n%6d | %s", f.Line, f.Quote)
		if f.Column >= 1 && f.Column <= len([]rune(f.Quote)) {
			b.WriteString("\n       | " + strings.Repeat(" ", f.Column-1) + "^")
		}
	}
	return b.String()
}

// Faults are all faults of one file, in the order of their lines.
type Faults []*Fault

// Error returns every fault, one after the other.
func (fs Faults) Error() string {
	texts := make([]string, len(fs))
	for i, f := range fs {
		texts[i] = f.Error()
	}
	return strings.Join(texts, "\n")
}

// Unwrap returns the faults one by one.
func (fs Faults) Unwrap() []error {
	errs := make([]error, len(fs))
	for i, f := range fs {
		errs[i] = f
	}
	return errs
}

// sorted returns the faults by place, those without a place last, and none
// twice.
func (fs Faults) sorted() Faults {
	nowhere := func(f *Fault) int {
		if f.Line == 0 {
			return 1
		}
		return 0
	}
	slices.SortStableFunc(fs, func(a, b *Fault) int {
		return cmp.Or(cmp.Compare(nowhere(a), nowhere(b)), cmp.Compare(a.Line, b.Line), cmp.Compare(a.Column, b.Column))
	})
	return slices.CompactFunc(fs, func(a, b *Fault) bool {
		return a.Line == b.Line && a.Column == b.Column && a.Message == b.Message
	})
}

// masked is what stands in quotes for the rest of a line that holds a secret.
const masked = "***"

var (
	secretKey   = regexp.MustCompile(`(?i)pass|pwd|secret|token|credential|(?:api|access)[_-]?key`)
	secretLine  = regexp.MustCompile(`(?i)[\w-]*(?:pass|pwd|secret|token|credential|(?:api|access)[_-]?key)[\w-]*["']?\s*[:=]\s*`)
	credentials = regexp.MustCompile(`://[^/\s:]*:[^@\s]*@|\w:[^/\s]+@`)
)

// isSecretKey tells whether a value under this key may be a secret, even where
// the key is misspelt.
func isSecretKey(key string) bool {
	return secretKey.MatchString(key) || distance(strings.ToLower(key), "password") <= 3
}

// quotable returns the lines of src as they may be shown: without secrets and
// without characters that a terminal would obey.
func quotable(src []byte) []string {
	lines := strings.Split(string(src), "\n")
	for i, line := range lines {
		line = strings.Map(func(c rune) rune {
			switch {
			case c == '\t':
				return ' '
			case !unicode.IsPrint(c):
				return '?'
			}
			return c
		}, strings.TrimRight(line, "\r"))
		for _, at := range secretLine.FindAllStringIndex(line, -1) {
			value := strings.TrimLeft(line[at[1]:], `"' `)
			end := strings.IndexAny(value, `"' ,}`)
			if end < 0 {
				end = len(value)
			}
			if _, err := ParseSecret(value[:end]); err != nil && value != "" {
				line = line[:at[1]] + masked
				break
			}
		}
		if at := credentials.FindStringIndex(line); at != nil {
			line = line[:at[0]+1] + masked
		}
		if r := []rune(line); len(r) > 200 {
			line = string(r[:200]) + " …"
		}
		lines[i] = line
	}
	return lines
}

// mask hides the values of n that may be secrets from the quoted lines. The
// keys of a mapping may be names of databases, which say nothing of the values.
func (r *reader) mask(n ast.Node, names bool) {
	switch n := n.(type) {
	case *ast.MappingNode:
		for _, v := range n.Values {
			r.mask(v, names)
		}
	case *ast.MappingValueNode:
		key := keyText(n.Key)
		if !names && isSecretKey(key) {
			s, _ := scalar(n.Value)
			if _, err := ParseSecret(s); err != nil {
				r.hide(n.Key, n.Value)
			}
		}
		r.mask(n.Value, key == "databases")
	case *ast.SequenceNode:
		for _, v := range n.Values {
			r.mask(v, false)
		}
	case *ast.AnchorNode:
		r.mask(n.Value, names)
	case *ast.TagNode:
		r.mask(n.Value, names)
	}
}

// hide masks a value: the rest of its key's line, and every line below that
// the value covers.
func (r *reader) hide(key ast.MapKeyNode, value ast.Node) {
	from := key.GetToken().Position
	if i := from.Line - 1; i >= 0 && i < len(r.lines) {
		line := []rune(r.lines[i])
		keep := min(len(line), max(0, from.Column-1)+len([]rune(keyText(key))))
		rest := string(line[keep:])
		if colon := strings.IndexByte(rest, ':'); colon >= 0 {
			r.lines[i] = string(line[:keep]) + rest[:colon+1] + " " + masked
		}
	}
	ast.Walk(hider{lines: r.lines, key: from.Line}, value)
}

// hideBelow masks what is indented below keys of secrets, where no nodes tell
// what belongs to them.
func (r *reader) hideBelow() {
	below := -1 // the indentation of the key, or none
	for i, line := range r.lines {
		indent := len(line) - len(strings.TrimLeft(line, " "))
		switch {
		case below >= 0 && indent > below:
			r.lines[i] = masked
		case secretLine.MatchString(line):
			below = indent
		default:
			below = -1
		}
	}
}

// hider masks the lines of the nodes below a key's line, which counts from 1.
type hider struct {
	lines []string
	key   int
}

// Visit masks the lines of one node.
func (h hider) Visit(n ast.Node) ast.Visitor {
	text, _ := scalar(n)
	tk := n.GetToken()
	last := tk.Position.Line - 1 + max(strings.Count(text, "\n"), strings.Count(tk.Origin, "\n"))
	for i := max(h.key, tk.Position.Line-1); i <= last && i < len(h.lines); i++ {
		h.lines[i] = masked
	}
	return h
}

// err returns the faults found, or nil. Lines are quoted only now that all
// secrets in them are known.
func (r *reader) err() error {
	if len(r.faults) == 0 {
		return nil
	}
	for _, f := range r.faults {
		if i := f.Line - 1; i >= 0 && i < len(r.lines) {
			f.Quote = r.lines[i]
		}
	}
	return r.faults.sorted()
}
