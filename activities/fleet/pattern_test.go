package fleet

import (
	"strings"
	"testing"
)

func TestPatterns(t *testing.T) {
	for _, c := range []struct {
		patterns, schema, name string
		want                   bool
	}{
		{"public.*", "public", "orders", true},
		{"public.*", "publicx", "orders", false},
		{"public.*", "sales", "orders", false},
		{"public.*,!public.audit_*", "public", "audit_log", false},
		{"public.*,!public.audit_*", "public", "orders", true},
		{"public.*,!public.audit_*,public.audit_keep", "public", "audit_keep", true},
		{"!public.audit_*,public.*", "public", "audit_log", true},
		{"*.orders", "sales", "orders", true},
		{"*.*", "sales", "orders", true},
		{"*.*", "pg_catalog", "pg_class", false},
		{"*.*", "information_schema", "tables", false},
		{"pg_catalog.pg_class", "pg_catalog", "pg_class", false},
		{"*.*", "pg_toast_temp_3", "x", false},
		{"public.order?", "public", "orders", true},
		{"public.order?", "public", "order", false},
		{"public.?", "public", "é", true},
		{"public.?ab", "public", "éab", true},
		{"public.*s", "public", "orders", true},
		{"public.*r*r*", "public", "orders", true},
		{"public.*r*x*", "public", "orders", false},
		{"public", "public", "orders", false},
		{"publicXorders", "public", "orders", false},
		{"a.b.c", "a", "b.c", true},
		{"a.b.c", "a.b", "c", true},
		{"a.b.c", "a", "b", false},
		{`"odd.schema".*`, "odd.schema", "t", true},
		{`"odd.schema".*`, "odd", "schema.t", false},
		{`public."a.b"`, "public", "a.b", true},
		{`public."a.*"`, "public", "a.b", true},
		{`"pu""b"."x"`, `pu"b`, "x", true},
		{`!"public".*`, "public", "x", false},
		{`"public.x`, "public", "x", false},
		{`"public"`, "public", "", false},
		{"Public.*", "public", "orders", false},
		{"", "public", "orders", false},
		{"public.***", "public", "", true},
	} {
		if got := Matches(strings.Split(c.patterns, ","), c.schema, c.name); got != c.want {
			t.Errorf("%s on %s.%s: %t", c.patterns, c.schema, c.name, got)
		}
	}
}

func TestManyStarsStayFast(t *testing.T) {
	pattern := "public." + strings.Repeat("*a", 200)
	if Matches([]string{pattern}, "public", strings.Repeat("a", 10_000)+"b") {
		t.Error("matches a name that ends otherwise")
	}
}
