package lake

import (
	"bytes"
	"math"
	"testing"

	"pgregory.net/rapid"

	"github.com/millrace-io/millrace/activities/change"
	"github.com/millrace-io/millrace/deltalog/datafile"
	"github.com/millrace-io/millrace/deltalog/schema"
)

// encodings has one column of each way in which values are held.
func encodings() []*datafile.Column {
	text := schema.Type{Kind: schema.String}
	return []*datafile.Column{
		datafile.NewColumn(schema.Type{Kind: schema.Long}),
		datafile.NewColumn(schema.Type{Kind: schema.Double}),
		datafile.NewColumn(text),
		datafile.NewColumn(schema.Type{Kind: schema.Decimal, Precision: 30, Scale: 4}),
		datafile.NewColumn(schema.Type{Kind: schema.Array, Elem: &text, ElemNull: true}),
	}
}

func TestRowsAreEncodedAlikeExactlyWhenTheyAreEqual(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		cols := encodings()
		for range 2 {
			for _, c := range cols {
				if rapid.IntRange(0, 3).Draw(t, "null") == 0 {
					c.AppendNull()
					continue
				}
				switch c.Type.Kind {
				case schema.Long:
					c.AppendInt(rapid.SampledFrom([]int64{0, 1, -1, math.MinInt64}).Draw(t, "int"))
				case schema.Double:
					c.AppendFloat(rapid.SampledFrom([]float64{0, math.Copysign(0, -1), 1.5, math.NaN(), math.Inf(1)}).Draw(t, "float"))
				case schema.String:
					c.AppendString(rapid.SampledFrom([]string{"", "a", "ab", "\x00"}).Draw(t, "text"))
				case schema.Decimal:
					c.AppendDecimal128(rapid.Int64Range(-1, 1).Draw(t, "hi"), rapid.Uint64Range(0, 2).Draw(t, "lo"))
				case schema.Array:
					for range rapid.IntRange(0, 2).Draw(t, "length") {
						c.Elem.AppendString(rapid.SampledFrom([]string{"", "a"}).Draw(t, "element"))
					}
					c.EndArray()
				}
			}
		}
		equal := true
		for _, c := range cols {
			equal = equal && c.Equal(0, c, 1)
		}
		a, b := appendRow(nil, cols, 0), appendRow(nil, cols, 1)
		if bytes.Equal(a, b) != equal || (hashRow(a) == hashRow(b)) != equal {
			t.Fatalf("equal is %v, encoded as %x and %x", equal, a, b)
		}
		rest := a
		for range cols {
			var err error
			if _, rest, err = cutValue(rest); err != nil {
				t.Fatal(err)
			}
		}
		if len(rest) > 0 {
			t.Fatalf("%d bytes are left", len(rest))
		}
	})
}

func TestTheSumOfHashesKnowsNoOrder(t *testing.T) {
	a, b, c := hashRow([]byte("a")), hashRow([]byte("b")), rowHash(bytes.Repeat([]byte{0xff}, 16))
	var one, other hashSum
	for _, h := range []rowHash{a, b, c, c} {
		one.add(h)
	}
	for _, h := range []rowHash{c, b, c, a} {
		other.add(h)
	}
	if one != other || len(one.String()) != 32 {
		t.Fatalf("%s and %s", one, other)
	}
}

func TestValuesAreShownToPeople(t *testing.T) {
	text := schema.Type{Kind: schema.String}
	fields := []schema.Field{
		{Name: "n", Type: schema.Type{Kind: schema.Long}},
		{Name: "day", Type: schema.Type{Kind: schema.Date}},
		{Name: "at", Type: schema.Type{Kind: schema.Timestamp}},
		{Name: "local", Type: schema.Type{Kind: schema.TimestampNTZ}},
		{Name: "d", Type: schema.Type{Kind: schema.Decimal, Precision: 10, Scale: 2}},
		{Name: "wide", Type: schema.Type{Kind: schema.Decimal, Precision: 38, Scale: 2}},
		{Name: "f", Type: schema.Type{Kind: schema.Double}},
		{Name: "b", Type: schema.Type{Kind: schema.Boolean}},
		{Name: "bin", Type: schema.Type{Kind: schema.Binary}},
		{Name: "s", Type: text},
		{Name: "a", Type: schema.Type{Kind: schema.Array, Elem: &text, ElemNull: true}},
		{Name: "x", Type: text},
	}
	var cols []*datafile.Column
	for _, f := range fields {
		cols = append(cols, datafile.NewColumn(f.Type))
	}
	cols[0].AppendInt(-7)
	cols[1].AppendInt(19000)
	cols[2].AppendInt(1_700_000_000_123_456)
	cols[3].AppendInt(1_700_000_000_000_000)
	cols[4].AppendInt(-5)
	cols[5].AppendDecimal128(-1, math.MaxUint64-122)
	cols[6].AppendFloat(1.5)
	cols[7].AppendBool(true)
	cols[8].AppendBytes([]byte{0xde, 0xad})
	cols[9].AppendString("a\n")
	cols[10].Elem.AppendString("p")
	cols[10].Elem.AppendNull()
	cols[10].EndArray()
	cols[11].AppendNull()
	want := `n=-7 day=2022-01-08 at=2023-11-14T22:13:20.123456Z local=2023-11-14T22:13:20 d=-0.05 wide=-1.23 f=1.5 b=true bin=\xdead s="a\n" a={"p",NULL} x=NULL`
	if got := describe(fields, appendRow(nil, cols, 0)); got != want {
		t.Fatalf("got  %s\nwant %s", got, want)
	}
}

func TestPositionsSurviveTheirTag(t *testing.T) {
	want := change.Position{Epoch: math.MaxUint32, CommitLSN: math.MaxUint64, Ordinal: math.MaxUint64}
	if got, err := decodePosition(encodePosition(want)); err != nil || got != want {
		t.Fatal(got, err)
	}
	if _, err := decodePosition("1/2"); err == nil {
		t.Fatal("half a position was read")
	}
}

func FuzzCutValue(f *testing.F) {
	f.Add([]byte{tagNull})
	f.Add([]byte{tagInt, 1, 2, 3, 4, 5, 6, 7, 8, 9})
	f.Add([]byte{tagBytes, 3, 'a', 'b', 'c'})
	f.Add([]byte{tagArray, 2, tagNull, tagBytes, 1, 'a'})
	f.Add([]byte{tagArray, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1})
	f.Fuzz(func(t *testing.T, b []byte) {
		value, rest, err := cutValue(b)
		if err != nil {
			return
		}
		if len(value) == 0 || !bytes.Equal(append(bytes.Clone(value), rest...), b) {
			t.Fatalf("%x was cut into %x and %x", b, value, rest)
		}
	})
}
