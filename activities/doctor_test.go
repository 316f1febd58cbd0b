package activities

import (
	"path/filepath"
	"strings"
	"testing"

	"github.com/millrace-io/millrace/activities/change"
	"github.com/millrace-io/millrace/activities/fleet"
	"github.com/millrace-io/millrace/activities/internal/lake"
)

func TestALakeIsAskedForItsSpace(t *testing.T) {
	dir := t.TempDir()
	l, err := lake.Open(t.Context(), lake.Config{Root: "file://" + filepath.Join(dir, "not", "yet"), Database: "shop", IndexDir: filepath.Join(dir, "index")})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	free, known, err := l.Free()
	if err != nil || !known || free <= 0 {
		t.Errorf("%d, %t, %v", free, known, err)
	}
	if p, little := space(100 << 20); !little || p.Blocking || p.Code != "DISK_FULL" || !strings.Contains(p.Sentence, "100 MB") {
		t.Errorf("100 MB: %+v, %t", p, little)
	}
	if _, little := space(1 << 40); little {
		t.Error("a terabyte is little")
	}
}

func TestColumnsThatBecomeStringsAreNamed(t *testing.T) {
	column := func(name, typ string, oid uint32) change.Column {
		return change.Column{Name: name, TypeOID: oid, TypeMod: -1, Type: change.Type{OID: oid, Name: typ, Kind: "b", Mod: -1}}
	}
	table := &change.Table{Schema: "public", Name: "t", Columns: []change.Column{
		column("id", "int4", 23), column("note", "text", 25), column("free", "numeric", 1700), column("took", "interval", 1186),
	}}
	p, odd := examineTypes(&fleet.Database{Name: "shop"}, table)
	if !odd || p.Blocking || p.Code != "TYPE_AS_STRING" || !strings.HasSuffix(p.Sentence, ": free (numeric), took (interval)") {
		t.Errorf("%+v", p)
	}
	// A cast that the column cannot have stands in the way.
	p, odd = examineTypes(&fleet.Database{Name: "shop", Options: fleet.Options{Casts: map[string]string{"id": "binary"}}}, table)
	if !odd || !p.Blocking || p.Code != "CAST_UNKNOWN" || !strings.Contains(p.Remedy, "millrace apply shop") {
		t.Errorf("%+v", p)
	}
}
