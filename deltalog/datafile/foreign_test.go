package datafile

import (
	"bytes"
	"math"
	"strconv"
	"testing"

	"github.com/parquet-go/parquet-go"
	"github.com/parquet-go/parquet-go/deprecated"

	"github.com/millrace-io/millrace/deltalog/schema"
)

// foreignRow has what other writers write: their encodings and older types.
type foreignRow struct {
	Delta    int64             `parquet:"delta,delta"`
	Opt      *int32            `parquet:"opt,optional"`
	Text     string            `parquet:"text,delta"`
	Dict     string            `parquet:"dict,dict"`
	Split    float64           `parquet:"split,split"`
	Millis   int64             `parquet:"millis,timestamp(millisecond)"`
	Nanos    int64             `parquet:"nanos,timestamp(nanosecond)"`
	Old      deprecated.Int96  `parquet:"old"`
	Flag     bool              `parquet:"flag"`
	Dec      [5]byte           `parquet:"dec,decimal(2:10)"`
	List     []string          `parquet:"list,list"`
	Struct   struct{ A int64 } `parquet:"struct"`
	Unsigned uint32            `parquet:"unsigned"`
	Large    uint64            `parquet:"large"`
	Clock    int32             `parquet:"clock,time(millisecond)"`
}

func foreignFile(t *testing.T, rows int, opts ...parquet.WriterOption) []byte {
	t.Helper()
	var out bytes.Buffer
	w := parquet.NewGenericWriter[foreignRow](&out, opts...)
	for i := range rows {
		n := int32(i)
		r := foreignRow{
			Delta: int64(i) * 3, Text: text(i, i%9), Dict: []string{"x", "y"}[i%2], Split: float64(i) / 8,
			Millis: int64(i), Nanos: int64(i) * 1000, Old: deprecated.Int96{uint32(i * 1000), 0, 2440589},
			Unsigned: math.MaxUint32 - uint32(i), Large: math.MaxUint64 - uint64(i), Flag: i%3 == 0, Dec: [5]byte{0xff, 0xff, 0xff, 0xff, byte(256 - i%100 - 1)},
		}
		r.Struct.A = int64(i)
		if i%2 == 0 {
			r.Opt = &n
		}
		for j := range i % 3 {
			r.List = append(r.List, text(j, 3))
		}
		if _, err := w.Write([]foreignRow{r}); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

func TestFilesOfOthersAreRead(t *testing.T) {
	typ := func(name string, k schema.Kind) schema.Field {
		return schema.Field{Name: name, Type: schema.Type{Kind: k}, Nullable: true}
	}
	str := schema.Type{Kind: schema.String}
	want := &schema.Schema{Fields: []schema.Field{
		typ("delta", schema.Long), typ("opt", schema.Integer), typ("text", schema.String), typ("dict", schema.String),
		typ("split", schema.Double), typ("millis", schema.Timestamp), typ("nanos", schema.Timestamp), typ("old", schema.Timestamp),
		typ("flag", schema.Boolean),
		{Name: "dec", Type: schema.Type{Kind: schema.Decimal, Precision: 10, Scale: 2}, Nullable: true},
		{Name: "list", Type: schema.Type{Kind: schema.Array, Elem: &str, ElemNull: true}, Nullable: true},
		typ("unsigned", schema.Long),
		{Name: "large", Type: schema.Type{Kind: schema.Decimal, Precision: 22, Scale: 2}, Nullable: true},
		{Name: "struct", Type: schema.Type{Kind: schema.Struct, Fields: []schema.Field{typ("B", schema.String), typ("a", schema.Long)}}, Nullable: true},
	}}
	const rows = 3000
	for _, version := range []int{1, 2} {
		data := foreignFile(t, rows, parquet.DataPageVersion(version), parquet.PageBufferSize(2000), parquet.MaxRowsPerRowGroup(1700))
		f := openBytes(t, data)
		got := readAll(t, f, want, 100)
		for i := range rows {
			expect := []int64{int64(i) * 3, int64(i), 0, 0, 0, int64(i) * 1000, int64(i), 86_400_000_000 + int64(i)}
			for c, v := range expect {
				if len(got.Cols[c].I64) > 0 && got.Cols[c].Valid[i] && got.Cols[c].I64[i] != v {
					t.Fatalf("version %d, row %d: %s is %d, want %d", version, i, got.Names[c], got.Cols[c].I64[i], v)
				}
			}
			switch {
			case got.Cols[1].Valid[i] != (i%2 == 0),
				string(got.Cols[2].At(i)) != text(i, i%9),
				string(got.Cols[3].At(i)) != []string{"x", "y"}[i%2],
				math.Abs(got.Cols[4].F64[i]-float64(i)/8) > 0,
				got.Cols[8].I64[i] != int64(level(i%3 == 0)),
				got.Cols[9].I64[i] != int64(-i%100-1),
				got.Cols[11].I64[i] != math.MaxUint32-int64(i),
				decimalText(got.Cols[12], i) != strconv.FormatUint(math.MaxUint64-uint64(i), 10)+"00",
				!got.Cols[13].Valid[i], got.Cols[13].Fields[0].Valid[i], got.Cols[13].Fields[1].I64[i] != int64(i),
				int(got.Cols[10].Off[i+1]-got.Cols[10].Off[i]) != i%3:
				t.Fatalf("version %d: row %d is another", version, i)
			}
		}
		picked := []int32{5, 1699, 1700, 2998}
		some, err := f.ReadRows(t.Context(), want, []int64{5, 1699, 1700, 2998})
		if err != nil {
			t.Fatal(err)
		}
		if d := diff(some, got.Gather(picked)); d != "" {
			t.Fatal("picked rows:", d)
		}
		if f.Schema().Field("clock") >= 0 {
			t.Fatal("columns that cannot be held are in the schema")
		}
	}
}

// A column that is annotated to be always NULL fits every type.
func TestColumnsOfTypeNullAreNull(t *testing.T) {
	type inner struct {
		None *int32 `parquet:"none,optional"`
		Some int64  `parquet:"some"`
	}
	group := parquet.Group{
		"none": parquet.Optional(parquet.Leaf(parquet.NullType)),
		"in":   parquet.Optional(parquet.Group{"none": parquet.Optional(parquet.Leaf(parquet.NullType)), "some": parquet.Leaf(parquet.Int64Type)}),
	}
	type row struct {
		None *int32 `parquet:"none,optional"`
		In   *inner `parquet:"in,optional"`
	}
	var out bytes.Buffer
	w := parquet.NewGenericWriter[row](&out, parquet.NewSchema("s", group))
	if _, err := w.Write([]row{{}, {In: &inner{Some: 7}}}); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	f := openBytes(t, out.Bytes())
	want := &schema.Schema{Fields: []schema.Field{
		{Name: "none", Type: schema.Type{Kind: schema.String}, Nullable: true},
		{Name: "in", Type: schema.Type{Kind: schema.Struct, Fields: []schema.Field{
			{Name: "none", Type: schema.Type{Kind: schema.Decimal, Precision: 20}, Nullable: true},
			{Name: "some", Type: schema.Type{Kind: schema.Long}, Nullable: true},
		}}, Nullable: true},
	}}
	got := readAll(t, f, want, 0)
	in := got.Cols[1]
	if got.Rows() != 2 || got.Cols[0].Valid[0] || got.Cols[0].Valid[1] || in.Valid[0] || !in.Valid[1] ||
		in.Fields[0].Valid[1] || in.Fields[1].I64[1] != 7 {
		t.Fatalf("%+v", got)
	}
}
