package fleet

import (
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/parser"
	"github.com/goccy/go-yaml/token"
)

// reader walks the nodes of one file and notes every fault it meets, so that
// one reading reports all of them.
type reader struct {
	name    string
	source  string
	lines   []string // as they may be quoted
	doc     ast.Node // nil where the file could not be parsed
	anchors map[string]ast.Node
	places  map[string]*token.Token // of keys, by path
	faults  Faults
	// unsupported are the keys to refuse; see the variable of that name.
	unsupported []string
}

// field is a key that a mapping may have.
type field struct {
	key  string
	read func(path string, n ast.Node)
}

func newReader(name string, b []byte, unsupported []string) *reader {
	r := &reader{
		name:    name,
		source:  string(b),
		lines:   quotable(b),
		anchors: make(map[string]ast.Node),
		places:  make(map[string]*token.Token),

		unsupported: unsupported,
	}
	r.parse(b)
	return r
}

// parse makes the nodes. The parser is not ours: should it panic, the file is
// faulty.
func (r *reader) parse(b []byte) {
	defer func() {
		if recover() != nil {
			r.doc = nil
			r.faults = Faults{{File: r.name, Message: "not valid YAML"}}
		}
	}()
	if len(b) > maxFile {
		r.fault("", nil, "the file is larger than %d MiB", maxFile>>20)
		return
	}
	f, err := parser.ParseBytes(b, 0, parser.AllowDuplicateMapKey())
	if err != nil {
		r.syntax(err)
		return
	}
	var docs []ast.Node
	for _, d := range f.Docs {
		if d.Body != nil {
			docs = append(docs, d.Body)
		}
	}
	switch len(docs) {
	case 0:
		r.fault("", nil, "the file is empty; it needs at least kafka, lake and databases")
		return
	case 1:
	default:
		r.fault("", docs[1].GetToken(), "a second YAML document begins here; a fleet file is one")
		return
	}
	r.doc = docs[0]
	ast.Walk(anchorer(r.anchors), r.doc)
	r.mask(r.doc, false)
}

// anchorer collects anchors by name.
type anchorer map[string]ast.Node

// Visit notes one node.
func (a anchorer) Visit(n ast.Node) ast.Visitor {
	if n, ok := n.(*ast.AnchorNode); ok && n.Name != nil {
		a[n.Name.GetToken().Value] = n.Value
	}
	return a
}

// bare finds list items that begin with ! or * outside quotes, which YAML takes
// for a tag or an alias.
var bare = regexp.MustCompile(`(?m)(?:[\[,]|^\s*-)\s*([!*][^\s,\]]*)`)

const quoteHint = `in YAML, a pattern that begins with ! or * stands in quotes, such as "!public.audit_*"`

// syntax notes an error of the YAML parser.
func (r *reader) syntax(err error) {
	message, tk := "not valid YAML", (*token.Token)(nil)
	if e, ok := err.(yaml.Error); ok { //nolint:errorlint // the parser returns it bare
		message, tk = message+": "+e.GetMessage(), e.GetToken()
	}
	if bare.MatchString(r.source) {
		message += "; " + quoteHint
	}
	r.hideBelow()
	r.fault("", tk, "%s", message)
}

// fault notes that something is wrong at a token; nil means the file.
func (r *reader) fault(path string, at *token.Token, format string, args ...any) {
	f := &Fault{File: r.name, Path: path, Message: fmt.Sprintf(format, args...)}
	if at != nil && at.Position != nil {
		f.Line, f.Column = at.Position.Line, at.Position.Column
	}
	r.faults = append(r.faults, f)
}

// faultAt notes that something is wrong with the value at path, or, where the
// file does not give it, with the nearest that holds it.
func (r *reader) faultAt(path, format string, args ...any) {
	for p := path; ; {
		if tk := r.places[p]; tk != nil {
			r.fault(path, tk, format, args...)
			return
		}
		i := strings.LastIndexByte(p, '.')
		if i < 0 {
			r.fault(path, nil, format, args...)
			return
		}
		p = p[:i]
	}
}

// given tells whether the file has the key at path.
func (r *reader) given(path string) bool { return r.places[path] != nil }

// resolve follows anchors, aliases and the tags that change nothing here.
func (r *reader) resolve(n ast.Node) ast.Node {
	for range 16 {
		switch v := n.(type) {
		case *ast.AnchorNode:
			n = v.Value
		case *ast.AliasNode:
			to, ok := r.anchors[v.Value.GetToken().Value]
			if !ok {
				return n
			}
			n = to
		default:
			return n
		}
	}
	return n
}

// glued returns the text of what the parser takes for a mapping with one key
// and YAML does not, because no space follows the colon: host:port in a list.
func glued(n ast.Node) (string, bool) {
	if m, ok := n.(*ast.MappingNode); ok && len(m.Values) == 1 {
		n = m.Values[0]
	}
	v, ok := n.(*ast.MappingValueNode)
	if !ok || v.Start == nil || v.Value == nil {
		return "", false
	}
	value, ok := scalar(v.Value)
	if !ok {
		value, ok = glued(v.Value)
	}
	key, colon, after := v.Key.GetToken(), v.Start.Position, v.Value.GetToken()
	if m, isMap := v.Value.(*ast.MappingValueNode); isMap {
		after = m.Key.GetToken()
	}
	if !ok || key.Position.Line != colon.Line || after.Position.Line != colon.Line ||
		after.Position.Column != colon.Column+1 || after.Type == token.SingleQuoteType || after.Type == token.DoubleQuoteType {
		return "", false
	}
	return key.Value + ":" + value, true
}

// entries calls each with the keys and values of a mapping, except those whose
// key comes twice. A missing value is nil; null is one. It tells whether n is a mapping.
func (r *reader) entries(path string, n ast.Node, each func(key string, at *token.Token, value ast.Node)) bool {
	var values []*ast.MappingValueNode
	switch v := r.resolve(n).(type) {
	case *ast.MappingNode:
		values = v.Values
	case *ast.MappingValueNode:
		values = []*ast.MappingValueNode{v}
	default:
		r.wrongKind(path, n, "a mapping of keys to values")
		return false
	}
	seen := make(map[string]int)
	for _, v := range values {
		key, at := keyText(v.Key), v.Key.GetToken()
		if v.Key.IsMergeKey() {
			r.fault(path, at, "merge keys (<<) are not accepted; what all databases share goes under defaults")
			continue
		}
		if line, twice := seen[key]; twice {
			r.fault(join(path, key), at, "duplicate key: it is already given in line %d", line)
			continue
		}
		seen[key] = at.Position.Line
		if null, ok := v.Value.(*ast.NullNode); v.Value == nil || ok && null.GetToken().Type == token.ImplicitNullType {
			r.places[join(path, key)] = at
			each(key, at, nil)
			continue
		}
		each(key, at, v.Value)
	}
	return true
}

// object reads a mapping with known keys, of which some are known to be refused.
// It tells whether n is a mapping.
func (r *reader) object(path string, n ast.Node, fields []field, refused ...field) bool {
	return r.entries(path, n, func(key string, at *token.Token, value ast.Node) {
		all := append(slices.Clip(fields), refused...)
		i := slices.IndexFunc(all, func(f field) bool { return f.key == key })
		if i < 0 {
			keys := make([]string, len(fields))
			for i := range fields {
				keys[i] = fields[i].key
			}
			r.fault(path, at, "unknown key %q; the nearest valid key is %q (valid here: %s)",
				key, nearest(key, keys), strings.Join(keys, ", "))
			return
		}
		p := join(path, key)
		r.places[p] = at
		if value == nil {
			r.fault(p, at, "the value is missing")
			return
		}
		r.places[p] = value.GetToken()
		all[i].read(p, value)
	})
}

// wrongKind notes that n is not what is wanted. It does not repeat the value.
func (r *reader) wrongKind(path string, n ast.Node, want string) {
	switch v := r.resolve(n).(type) {
	case *ast.AliasNode:
		r.fault(path, n.GetToken(), "alias %q has no anchor; %s", "*"+v.Value.GetToken().Value, quoteHint)
	case *ast.TagNode:
		r.fault(path, n.GetToken(), "YAML takes %q for a tag; %s", v.GetToken().Value, quoteHint)
	default:
		r.fault(path, n.GetToken(), "want %s, not %s", want, kindName(v))
	}
}

func kindName(n ast.Node) string {
	switch n.(type) {
	case *ast.MappingNode, *ast.MappingValueNode:
		return "a mapping"
	case *ast.SequenceNode:
		return "a list"
	case *ast.StringNode, *ast.LiteralNode:
		return "a text"
	case *ast.IntegerNode, *ast.FloatNode, *ast.InfinityNode, *ast.NanNode:
		return "a number"
	case *ast.BoolNode:
		return "true or false"
	case *ast.NullNode:
		return "nothing"
	}
	return "this"
}

// text reads a string.
func (r *reader) text(into *string) func(string, ast.Node) {
	return func(path string, n ast.Node) {
		switch v := r.resolve(n).(type) {
		case *ast.StringNode:
			*into = v.Value
		case *ast.LiteralNode:
			*into = v.Value.Value
		default:
			s, ok := glued(v)
			if !ok {
				r.wrongKind(path, n, "a text")
				return
			}
			*into = s
		}
	}
}

// number reads an integer of at least low and at most high.
func (r *reader) number(into *int, low, high int) func(string, ast.Node) {
	return func(path string, n ast.Node) {
		v, ok := r.resolve(n).(*ast.IntegerNode)
		if !ok {
			r.wrongKind(path, n, "a whole number")
			return
		}
		i, err := strconv.ParseInt(v.GetToken().Value, 10, 32)
		if err != nil || int(i) < low || int(i) > high {
			r.fault(path, n.GetToken(), "%s is not a number from %d to %d", v.GetToken().Value, low, high)
			return
		}
		*into = int(i)
	}
}

// flag reads true or false.
func (r *reader) flag(into *bool) func(string, ast.Node) {
	return func(path string, n ast.Node) {
		v, ok := r.resolve(n).(*ast.BoolNode)
		if !ok {
			r.wrongKind(path, n, "true or false")
			return
		}
		*into = v.Value
	}
}

// duration reads a duration of at least low and at most high.
func (r *reader) duration(into *time.Duration, low, high time.Duration) func(string, ast.Node) {
	return func(path string, n ast.Node) {
		s, ok := scalar(r.resolve(n))
		if !ok {
			r.wrongKind(path, n, "a duration such as 500ms, 5s, 10m, 6h or 7d")
			return
		}
		d, err := parseDuration(s)
		switch {
		case err != nil:
			r.fault(path, n.GetToken(), "bad duration %q; write a number with its unit, such as 500ms, 5s, 10m, 6h or 7d", s)
		case d < low || d > high:
			r.fault(path, n.GetToken(), "%s is not a duration from %s to %s", s, formatDuration(low), formatDuration(high))
		default:
			*into = d
		}
	}
}

// texts reads a list of strings and calls each for every one.
func (r *reader) texts(each func(path string, at *token.Token, s string)) func(string, ast.Node) {
	return func(path string, n ast.Node) {
		list, ok := r.resolve(n).(*ast.SequenceNode)
		if !ok {
			r.wrongKind(path, n, "a list")
			return
		}
		for i, item := range list.Values {
			var s string
			before := len(r.faults)
			p := path + "[" + strconv.Itoa(i) + "]"
			r.text(&s)(p, item)
			if len(r.faults) == before {
				each(p, first(item), s)
			}
		}
	}
}

// scalar returns the text of a scalar node.
func scalar(n ast.Node) (string, bool) {
	switch v := n.(type) {
	case *ast.StringNode:
		return v.Value, true
	case *ast.LiteralNode:
		return v.Value.Value, true
	case *ast.IntegerNode, *ast.FloatNode, *ast.BoolNode, *ast.InfinityNode, *ast.NanNode:
		return v.GetToken().Value, true
	}
	return "", false
}

// first returns the token where a node begins.
func first(n ast.Node) *token.Token {
	switch v := n.(type) {
	case *ast.MappingNode:
		if !v.IsFlowStyle && len(v.Values) > 0 {
			return first(v.Values[0])
		}
	case *ast.MappingValueNode:
		return v.Key.GetToken()
	}
	return n.GetToken()
}

// keyText returns the text of a mapping's key.
func keyText(n ast.MapKeyNode) string {
	switch v := n.(type) {
	case *ast.StringNode:
		return v.Value
	case *ast.MappingKeyNode:
		if s, ok := scalar(v.Value); ok {
			return s
		}
	}
	return n.GetToken().Value
}

// join adds a key to a path.
func join(path, key string) string {
	if path == "" {
		return key
	}
	return path + "." + key
}

// parseDuration reads what time.ParseDuration reads, and d for 24 hours.
func parseDuration(s string) (time.Duration, error) {
	if days, ok := strings.CutSuffix(s, "d"); ok {
		n, err := strconv.ParseUint(days, 10, 16)
		return time.Duration(n) * 24 * time.Hour, err
	}
	return time.ParseDuration(s)
}

// formatDuration writes whole days as such.
func formatDuration(d time.Duration) string {
	const day = 24 * time.Hour
	if d >= day && d%day == 0 {
		return strconv.FormatInt(int64(d/day), 10) + "d"
	}
	s := d.String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}
