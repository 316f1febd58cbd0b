package lake

import (
	"crypto/sha256"
	"encoding/hex"
	"strings"
	"unicode"
	"unicode/utf8"
)

// maxPlain is the longest name that stands for itself in a path.
const maxPlain = 80

// pathPart returns the folder name of an identifier. Plain names stand for
// themselves; others are made plain and told apart by a hash after a tilde,
// which no plain name holds. Names that differ in case alone get folders that
// differ on every file system.
func pathPart(name string) string {
	if isPlain(name) {
		return name
	}
	var b strings.Builder
	for _, r := range strings.ToLower(name) {
		if b.Len() >= maxPlain/2 {
			break
		}
		switch {
		case r >= 'a' && r <= 'z', r >= '0' && r <= '9', r == '_' && b.Len() > 0, r == '-' && b.Len() > 0:
			b.WriteRune(r)
		case b.Len() > 0:
			b.WriteByte('_')
		}
	}
	if b.Len() == 0 {
		b.WriteByte('x')
	}
	return b.String() + "~" + shortHash(name, 16)
}

// isPlain tells whether a name can stand for itself: letters, digits, dashes
// and underscores, in lower case, not hidden by a leading underscore or dash.
func isPlain(name string) bool {
	if name == "" || len(name) > maxPlain || name[0] == '_' || name[0] == '-' {
		return false
	}
	for i := range len(name) {
		c := name[i]
		plain := c >= 'a' && c <= 'z' || c >= '0' && c <= '9' || c == '_' || c == '-'
		if !plain {
			return false
		}
	}
	return true
}

// columnName returns the Delta name for a column of PostgreSQL: its own, unless
// Delta or its readers have trouble with it, or a name that differs in case
// alone is taken. A suffix, if any, says what tells it from its predecessor.
func columnName(name, suffix string, taken func(lower string) bool) string {
	plain := strings.Map(func(r rune) rune {
		if r == '_' || r == '-' || r == '$' || unicode.IsLetter(r) || unicode.IsDigit(r) {
			return r
		}
		return '_'
	}, name)
	if !utf8.ValidString(name) {
		plain = "column"
	}
	if plain == name && !taken(strings.ToLower(plain)) {
		return plain
	}
	if suffix != "" {
		plain += "_" + suffix
		if !taken(strings.ToLower(plain)) {
			return plain
		}
	}
	for n := 6; ; n += 6 {
		candidate := plain + "_" + shortHash(name+"\x00"+suffix, n)
		if n > 64 || !taken(strings.ToLower(candidate)) {
			return candidate
		}
	}
}

// shortHash returns the first n hexadecimal digits of the hash of s.
func shortHash(s string, n int) string {
	sum := sha256.Sum256([]byte(s))
	return hex.EncodeToString(sum[:])[:min(n, 64)]
}
