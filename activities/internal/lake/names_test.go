package lake

import (
	"slices"
	"strings"
	"testing"

	"github.com/millrace-io/millrace/activities/change"
	"github.com/millrace-io/millrace/activities/internal/batch"
	"github.com/millrace-io/millrace/deltalog/schema"
	"github.com/millrace-io/millrace/deltalog/store"
)

func TestEveryNameGetsAFolderOfItsOwn(t *testing.T) {
	names := []string{
		"users", "Users", "USERS", "_users", "-users", "us.ers", "us/ers", "../users", "..", ".", "", "a b", "a_b", "_delta_log",
		"été", "ÉTÉ", "表", strings.Repeat("x", 200), strings.Repeat("x", 201), "users~0123456789abcdef", "nul\x00", "a=b", `a\b`, "%2e",
	}
	seen := map[string]string{}
	for _, name := range names {
		part := pathPart(name)
		if err := store.CheckName(part); err != nil || strings.Contains(part, "/") || len(part) > 120 {
			t.Errorf("%q becomes %q: %v", name, part, err)
		}
		if strings.ToLower(part) != part || part[0] == '_' || part[0] == '.' {
			t.Errorf("%q becomes %q, which is hidden or differs in case", name, part)
		}
		if other, taken := seen[part]; taken {
			t.Errorf("%q and %q share folder %q", name, other, part)
		}
		seen[part] = name
	}
	if pathPart("order_lines-2") != "order_lines-2" {
		t.Error("a plain name does not stand for itself")
	}
}

func TestColumnsOfAnyNameFitIntoDelta(t *testing.T) {
	table := &change.Table{OID: 1, Schema: "s", Name: "t", Identity: change.IdentityKey, Key: []int{0}}
	names := []string{"id", "ID", "a b", "a;b", "__op", "__Epoch", "x.y", "`", "naïve", "a_b", "bad\xff"}
	for i, name := range names {
		table.Columns = append(table.Columns, change.Column{Name: name, Attr: int16(i + 1), Type: change.Type{OID: 25, Name: "text", Kind: "b", Mod: -1}})
	}
	sh, err := (&shaper{fields: batch.MetaFields()}).lay(table)
	if err != nil {
		t.Fatal(err)
	}
	all := &schema.Schema{Fields: append(slices.Clone(sh.fields), batch.MetaFields()...)}
	if err := all.Validate(); err != nil {
		t.Fatal(err)
	}
	for i, f := range sh.fields {
		if strings.ContainsAny(f.Name, " ,;{}()\n\t=.`") || f.Name == "" {
			t.Errorf("%q becomes %q", names[i], f.Name)
		}
		if originOf(&f).column != names[i] && names[i] != "bad\xff" {
			t.Errorf("%q forgets where it comes from: %s", f.Name, f.Metadata)
		}
	}
	if sh.fields[0].Name != "id" || sh.fields[8].Name != "naïve" {
		t.Errorf("plain names do not stand for themselves: %q", fieldNames(sh.fields))
	}
	// The same columns find the same fields again.
	again, err := (&shaper{fields: all.Fields, key: sh.key, fit: strict}).lay(&change.Table{
		OID: 1, Schema: "s", Name: "t", Identity: change.IdentityKey, Key: []int{0}, Columns: table.Columns[:9],
	})
	if err != nil || again.missing {
		t.Fatal(err)
	}
	if !slices.Equal(fieldNames(again.fields), fieldNames(sh.fields[:9])) {
		t.Errorf("%q, then %q", fieldNames(sh.fields), fieldNames(again.fields))
	}
}

func TestOriginsKeepWhatElseAFieldKnows(t *testing.T) {
	f := schema.Field{Metadata: withOrigin([]byte(`{"comment":"kept","millrace.retired":"x"}`), origin{column: "a", attr: 3})}
	if got := originOf(&f); got != (origin{column: "a", attr: 3}) {
		t.Fatalf("%+v", got)
	}
	if !strings.Contains(string(f.Metadata), `"comment":"kept"`) {
		t.Fatalf("%s", f.Metadata)
	}
}
