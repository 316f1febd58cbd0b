package fleet

import "strings"

// Matches tells whether the table schema.name is chosen by patterns such as
// public.* and !public.audit_*: the last pattern that fits decides. In a pattern
// * stands for any run of characters and ? for one. Tables of the system are
// never chosen. Patterns of another form fit nothing.
func Matches(patterns []string, schema, name string) bool {
	at, chosen := decides(patterns, schema, name)
	return at >= 0 && chosen && !system(schema)
}

// decides returns the last pattern that fits a table, and whether it chooses
// it; -1 where none does.
func decides(patterns []string, schema, name string) (at int, chosen bool) {
	for i := len(patterns) - 1; i >= 0; i-- {
		p, excluded := strings.CutPrefix(patterns[i], "!")
		if fits(p, schema, name) {
			return i, !excluded
		}
	}
	return -1, false
}

// system tells that a schema belongs to PostgreSQL or to an extension of it
// whose tables are not data.
func system(schema string) bool {
	return strings.HasPrefix(schema, "pg_") || schema == "information_schema"
}

// fits tells whether a pattern names a table. Names may hold dots themselves, so
// every dot of the pattern is tried as the one between schema and name, unless
// quotes say which it is.
func fits(pattern, schema, name string) bool {
	if strings.Contains(pattern, `"`) {
		first, rest := unquote(pattern)
		rest, dotted := strings.CutPrefix(rest, ".")
		second, rest := unquote(rest)
		return dotted && rest == "" && glob(first, schema) && glob(second, name)
	}
	for i := range len(pattern) {
		if pattern[i] == '.' && glob(pattern[:i], schema) && glob(pattern[i+1:], name) {
			return true
		}
	}
	return false
}

// unquote returns the first part of a dotted name without its quotes, and what
// follows it.
func unquote(s string) (part, rest string) {
	if !strings.HasPrefix(s, `"`) {
		i := strings.IndexByte(s, '.')
		if i < 0 {
			i = len(s)
		}
		return s[:i], s[i:]
	}
	for i := 1; i < len(s); i++ {
		switch {
		case s[i] != '"':
		case strings.HasPrefix(s[i+1:], `"`):
			i++
		default:
			return strings.ReplaceAll(s[1:i], `""`, `"`), s[i+1:]
		}
	}
	return s, ""
}

// glob matches the whole of s. On a mismatch it goes back to the last star
// alone, which makes it at worst quadratic.
func glob(pattern, s string) bool {
	p, i := 0, 0
	star, resume := -1, 0
	for i < len(s) {
		switch {
		case p < len(pattern) && pattern[p] == '*':
			star, resume = p, i
			p++
		case p < len(pattern) && pattern[p] == '?':
			p++
			i += runeLen(s[i:])
		case p < len(pattern) && pattern[p] == s[i]:
			p++
			i++
		case star >= 0:
			resume += runeLen(s[resume:])
			p, i = star+1, resume
		default:
			return false
		}
	}
	return strings.Trim(pattern[p:], "*") == ""
}

// runeLen is the length of the first character of s, of a byte where it is no
// UTF-8.
func runeLen(s string) int {
	for i := range s {
		if i > 0 {
			return i
		}
	}
	return len(s)
}
