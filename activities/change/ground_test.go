package change

import "testing"

func TestGroundTellsWhatTheStreamDoesNot(t *testing.T) {
	plain := Ground{Member: 1, Shape: 2, Hidden: []int16{3}, Files: []File{{Table: 9, Node: 9}}}
	parts := Ground{Member: 1, Shape: 2, Partitioned: true, Files: []File{{Table: 10, Node: 10}, {Table: 11, Node: 11}}}
	table := &Table{Columns: []Column{{Name: "id", Attr: 1}, {Name: "g", Attr: 4}}}
	shown := &Table{Columns: []Column{{Name: "id", Attr: 1}, {Name: "g", Attr: 3}}}
	files := func(g Ground, shape Fingerprint, files ...File) Ground {
		g.Shape, g.Files = shape, files
		return g
	}
	member := func(g Ground, m uint32) Ground {
		g.Member = m
		return g
	}
	altered := func(g Ground) Ground {
		g.Altered++
		return g
	}
	for name, c := range map[string]struct {
		was, now         Ground
		table            *Table
		streamed, filled bool // told
	}{
		"nothing happened":                      {plain, plain, table, false, false},
		"left and came back":                    {plain, member(plain, 5), table, true, false},
		"published otherwise":                   {plain, altered(plain), table, true, false},
		"left":                                  {plain, member(plain, 0), table, true, false},
		"rewritten":                             {plain, files(plain, 2, File{Table: 9, Node: 12}), table, false, false},
		"another shape":                         {plain, files(plain, 7, plain.Files...), table, false, false},
		"rewritten in another shape":            {plain, files(plain, 7, File{Table: 9, Node: 12}), table, false, true},
		"a generated column is one of its own":  {plain, plain, shown, false, true},
		"a partition was made":                  {parts, files(parts, 2, append(parts.Files, File{Table: 12, Node: 12})...), table, false, false},
		"a table was attached":                  {parts, files(parts, 2, append(parts.Files, File{Table: 12, Node: 12, Attached: true})...), table, true, false},
		"a partition is gone":                   {parts, files(parts, 2, parts.Files[0]), table, true, false},
		"a partition was truncated by itself":   {parts, files(parts, 2, parts.Files[0], File{Table: 11, Node: 13}), table, true, false},
		"partitions, with a column that is new": {parts, files(parts, 7, parts.Files...), table, false, false},
	} {
		if got := c.was.Streamed(&c.now); (got != "") != c.streamed {
			t.Errorf("%s: %q", name, got)
		}
		if got := c.was.Filled(&c.now, c.table); (got != "") != c.filled {
			t.Errorf("%s: filled %q", name, got)
		}
		if (c.streamed || c.filled) && c.table == table && c.was.Fingerprint() == c.now.Fingerprint() {
			t.Errorf("%s: fingerprint %s", name, c.now.Fingerprint())
		}
	}
}
