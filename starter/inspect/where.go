package inspect

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/millrace-io/millrace/deltalog"
	"github.com/millrace-io/millrace/deltalog/datafile"
	"github.com/millrace-io/millrace/deltalog/schema"
)

// ErrWhere says that a condition is not one, or does not fit its table.
var ErrWhere = errors.New("condition")

// where is a condition on rows: all of its terms hold.
type where []term

// term compares a column with a literal.
type term struct {
	column string
	op     string // one of operators, or "null" or "not null"
	order  func(c *datafile.Column, row int) int
	// same is the comparison as deltalog makes it, which passes over files; nil
	// where it would not mean the same.
	same *deltalog.Condition
}

// parseWhere reads comparisons such as
//
//	id >= 7 AND name = 'O''Hara' AND `at` < '2024-01-01' AND x IS NOT NULL
//
// on columns of the schema. An empty text holds for all rows.
func parseWhere(text string, s *schema.Schema) (where, error) {
	words, err := wordsOf(text)
	if err != nil {
		return nil, err
	}
	var w where
	for len(words) > 0 {
		if len(w) > 0 {
			if !words[0].is("AND") || len(words) == 1 {
				return nil, fmt.Errorf("%w %q: there has to be AND and a comparison where it says %q", ErrWhere, text, words[0].text)
			}
			words = words[1:]
		}
		t, n, err := parseTerm(words, s)
		if err != nil {
			return nil, fmt.Errorf("%w %q: %w", ErrWhere, text, err)
		}
		w, words = append(w, t), words[n:]
	}
	return w, nil
}

// columns names the columns that the condition is about.
func (w where) columns() []string {
	var names []string
	for i := range w {
		if !slices.Contains(names, w[i].column) {
			names = append(names, w[i].column)
		}
	}
	return names
}

// conditions are those of the terms that deltalog can compare as well.
func (w where) conditions() []deltalog.Condition {
	var all []deltalog.Condition
	for i := range w {
		if w[i].same != nil {
			all = append(all, *w[i].same)
		}
	}
	return all
}

// choose appends the indices of the rows of a batch for which the condition
// holds.
func (w where) choose(rows []int32, b *datafile.Batch) []int32 {
	cols := make([]*datafile.Column, len(w))
	for i := range w {
		cols[i] = b.Column(w[i].column)
	}
	for row := range b.Rows() {
		holds := true
		for i := 0; holds && i < len(w); i++ {
			holds = w[i].holds(cols[i], row)
		}
		if holds {
			rows = append(rows, int32(row))
		}
	}
	return rows
}

// holds compares as SQL does: with NULL nothing compares.
func (t *term) holds(c *datafile.Column, row int) bool {
	if t.op == "null" || t.op == "not null" {
		return c.Valid[row] == (t.op == "not null")
	}
	if !c.Valid[row] {
		return false
	}
	o := t.order(c, row)
	switch t.op {
	case "=":
		return o == 0
	case "!=":
		return o != 0
	case "<":
		return o < 0
	case "<=":
		return o <= 0
	case ">":
		return o > 0
	}
	return o >= 0
}

// operators are how a comparison may be written, longer ones first.
var operators = []struct{ text, op string }{
	{"<=", "<="}, {">=", ">="}, {"<>", "!="}, {"!=", "!="}, {"==", "="}, {"=", "="}, {"<", "<"}, {">", ">"},
}

// word is a piece of a condition.
type word struct {
	text   string
	quoted byte // what it was quoted by; 0 for none
	op     bool
}

// is tells whether the word is a keyword.
func (w word) is(keyword string) bool {
	return w.quoted == 0 && !w.op && strings.EqualFold(w.text, keyword)
}

func wordsOf(text string) ([]word, error) {
	var words []word
	for rest := strings.TrimLeft(text, " \t\n"); rest != ""; rest = strings.TrimLeft(rest, " \t\n") {
		var w word
		switch q := rest[0]; {
		case q == '\'' || q == '"' || q == '`':
			n, inner, ok := unquote(rest)
			if !ok {
				return nil, fmt.Errorf("%w %q: no %c ends what begins with %s", ErrWhere, text, q, rest)
			}
			w, rest = word{text: inner, quoted: q}, rest[n:]
		case strings.IndexByte("<>=!", q) >= 0:
			for _, o := range operators {
				if strings.HasPrefix(rest, o.text) {
					w, rest = word{text: o.op, op: true}, rest[len(o.text):]
					break
				}
			}
			if !w.op {
				return nil, fmt.Errorf("%w %q: %s is no comparison", ErrWhere, text, rest)
			}
		default:
			n := strings.IndexAny(rest, " \t\n<>=!'\"`")
			if n < 0 {
				n = len(rest)
			}
			w, rest = word{text: rest[:n]}, rest[n:]
		}
		words = append(words, w)
	}
	return words, nil
}

// unquote returns what stands between quotes, of which two are one, and how
// long it is with them.
func unquote(s string) (n int, inner string, ok bool) {
	q := s[:1]
	for n = 1; n < len(s); n++ {
		if s[n] != q[0] {
			continue
		}
		if n+1 < len(s) && s[n+1] == q[0] {
			n++
			continue
		}
		return n + 1, strings.ReplaceAll(s[1:n], q+q, q), true
	}
	return 0, "", false
}

// parseTerm reads one comparison and tells of how many words it is.
func parseTerm(words []word, s *schema.Schema) (term, int, error) {
	if words[0].op || words[0].quoted == '\'' {
		return term{}, 0, fmt.Errorf("there has to be a column where it says %q", words[0].text)
	}
	t := term{column: words[0].text}
	i := s.Field(t.column)
	if i < 0 {
		return term{}, 0, fmt.Errorf("no column %q; there are %s", t.column, strings.Join(s.Names(), ", "))
	}
	switch {
	case len(words) >= 3 && words[1].is("IS") && words[2].is("NULL"):
		t.op, t.same = "null", &deltalog.Condition{Column: t.column, Op: deltalog.OpIsNull}
		return t, 3, nil
	case len(words) >= 4 && words[1].is("IS") && words[2].is("NOT") && words[3].is("NULL"):
		t.op, t.same = "not null", &deltalog.Condition{Column: t.column, Op: deltalog.OpIsNotNull}
		return t, 4, nil
	case len(words) < 3 || !words[1].op:
		return term{}, 0, fmt.Errorf("after %s there has to be a comparison such as = 7 or IS NULL", t.column)
	case words[2].op || words[2].quoted == '"' || words[2].quoted == '`':
		return term{}, 0, fmt.Errorf("%s %s has to be followed by a number, true, false or 'text'", t.column, words[1].text)
	case words[2].is("NULL"):
		return term{}, 0, fmt.Errorf("nothing compares with NULL: write %s IS NULL", t.column)
	}
	t.op = words[1].text
	var err error
	if t.order, err = ordering(s.Fields[i].Type, words[2]); err != nil {
		return term{}, 0, fmt.Errorf("%s is %s: %w", t.column, s.Fields[i].Type, err)
	}
	if value, ok := logValue(s.Fields[i].Type, words[2].text); ok {
		t.same = &deltalog.Condition{Column: t.column, Op: ops[t.op], Value: value}
	}
	return t, 3, nil
}

// ops are the comparisons of deltalog.
var ops = map[string]deltalog.Op{
	"=": deltalog.OpEqual, "!=": deltalog.OpNotEqual, "<": deltalog.OpLess, "<=": deltalog.OpLessOrEqual,
	">": deltalog.OpGreater, ">=": deltalog.OpGreaterOrEqual,
}
