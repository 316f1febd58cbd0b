package datafile_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"

	"github.com/millrace-io/millrace/deltalog/datafile"
	"github.com/millrace-io/millrace/deltalog/schema"
)

func Example() {
	s := &schema.Schema{Fields: []schema.Field{
		{Name: "id", Type: schema.Type{Kind: schema.Long}, Nullable: true},
		{Name: "price", Type: schema.Type{Kind: schema.Decimal, Precision: 10, Scale: 2}, Nullable: true},
	}}
	rows := datafile.NewBatch(s)
	for i, cents := range []int64{999, 1250} {
		rows.Cols[0].AppendInt(int64(i))
		rows.Cols[1].AppendInt(cents)
	}

	var out bytes.Buffer
	w, err := datafile.NewWriter(&out, datafile.WriterOptions{Schema: s})
	if err != nil {
		fmt.Println(err)
		return
	}
	if err := w.Write(rows); err != nil {
		fmt.Println(err)
		return
	}
	info, err := w.Close()
	if err != nil {
		fmt.Println(err)
		return
	}
	stats, _ := json.Marshal(info.Stats)
	fmt.Println(string(stats))

	f, err := datafile.Open(bytes.NewReader(out.Bytes()), info.Bytes)
	if err != nil {
		fmt.Println(err)
		return
	}
	second, err := f.ReadRows(context.Background(), s, []int64{1})
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(second.Column("id").I64, second.Column("price").I64)
	// Output:
	// {"numRecords":2,"minValues":{"id":0,"price":9.99},"maxValues":{"id":1,"price":12.50},"nullCount":{"id":0,"price":0}}
	// [1] [1250]
}
