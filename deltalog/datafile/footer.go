package datafile

import "github.com/millrace-io/millrace/deltalog/schema"

// rowGroup is what the footer says of one row group.
type rowGroup struct {
	rows   int64
	offset int64
	chunks []chunkMeta
}

// chunkMeta is what the footer says of one column of a row group.
type chunkMeta struct {
	leaf         *leaf
	encodings    []int32
	values       int64
	nulls        int64
	uncompressed int64
	compressed   int64
	dataOffset   int64
	dictOffset   int64 // zero for none
	pages        []written
	min, max     []byte
	maxExact     bool
	minExact     bool

	indexOffset int64
	indexSize   int32
}

// appendOffsetIndex writes where the pages of a chunk lie.
func appendOffsetIndex(t *thriftWriter, m *chunkMeta) {
	t.list(1, thriftStruct, len(m.pages))
	for _, p := range m.pages {
		t.element()
		t.i64(1, m.dataOffset+int64(p.offset))
		t.i32(2, int32(p.size))
		t.i64(3, p.firstRow)
		t.close()
	}
	t.b = append(t.b, 0)
}

// appendFooter writes FileMetaData.
func appendFooter(t *thriftWriter, elements []*element, leaves int, groups []rowGroup, codec int32, createdBy string) {
	t.i32(1, 2)
	appendSchema(t, elements)
	var rows int64
	for i := range groups {
		rows += groups[i].rows
	}
	t.i64(3, rows)
	t.list(4, thriftStruct, len(groups))
	for i := range groups {
		t.element()
		appendRowGroup(t, &groups[i], codec, i)
		t.close()
	}
	t.string(6, createdBy)
	t.list(7, thriftStruct, leaves)
	for range leaves {
		t.element()
		t.empty(1)
		t.close()
	}
	t.b = append(t.b, 0)
}

func appendRowGroup(t *thriftWriter, g *rowGroup, codec int32, ordinal int) {
	var uncompressed, compressed int64
	t.list(1, thriftStruct, len(g.chunks))
	for i := range g.chunks {
		m := &g.chunks[i]
		uncompressed += m.uncompressed
		compressed += m.compressed
		t.element()
		t.i64(2, 0)
		t.open(3)
		appendChunk(t, m, codec)
		t.close()
		if m.indexSize > 0 {
			t.i64(4, m.indexOffset)
			t.i32(5, m.indexSize)
		}
		t.close()
	}
	t.i64(2, uncompressed)
	t.i64(3, g.rows)
	t.i64(5, g.offset)
	t.i64(6, compressed)
	if ordinal < 1<<15 {
		t.i16(7, int16(ordinal))
	}
}

func appendChunk(t *thriftWriter, m *chunkMeta, codec int32) {
	t.i32(1, m.leaf.physical)
	t.list(2, thriftI32, len(m.encodings))
	for _, e := range m.encodings {
		t.rawI32(e)
	}
	t.list(3, thriftBinary, len(m.leaf.path))
	for _, p := range m.leaf.path {
		t.rawString(p)
	}
	t.i32(4, codec)
	t.i64(5, m.values)
	t.i64(6, m.uncompressed)
	t.i64(7, m.compressed)
	t.i64(9, m.dataOffset)
	if m.dictOffset > 0 {
		t.i64(11, m.dictOffset)
	}
	t.open(12)
	t.i64(3, m.nulls)
	if m.min != nil {
		t.bytes(5, m.max)
		t.bytes(6, m.min)
		t.bool(7, m.maxExact)
		t.bool(8, m.minExact)
	}
	t.close()
}

// What SchemaElement says of repetition.
const (
	parquetRequired = 0
	parquetOptional = 1
	parquetRepeated = 2
)

// Parquet's converted types, which older readers go by.
const (
	convertedUTF8      = 0
	convertedMap       = 1
	convertedList      = 3
	convertedDecimal   = 5
	convertedDate      = 6
	convertedTimestamp = 10
	convertedInt8      = 15
	convertedInt16     = 16
)

func appendSchema(t *thriftWriter, elements []*element) {
	n := 1
	for _, e := range elements {
		n += e.count()
	}
	t.list(2, thriftStruct, n)
	t.element()
	t.string(4, "schema")
	t.i32(5, int32(len(elements)))
	t.close()
	appendElements(t, elements)
}

func repetition(optional bool) int32 {
	if optional {
		return parquetOptional
	}
	return parquetRequired
}

// appendLeaf writes the SchemaElement of a leaf.
func appendLeaf(t *thriftWriter, e *element) {
	l := e.leaf
	t.element()
	t.i32(1, l.physical)
	if l.physical == parquetFixed {
		t.i32(2, int32(l.width))
	}
	t.i32(3, e.repetition)
	t.string(4, e.name)
	switch l.typ.Kind {
	case schema.String:
		t.i32(6, convertedUTF8)
	case schema.Byte:
		t.i32(6, convertedInt8)
	case schema.Short:
		t.i32(6, convertedInt16)
	case schema.Date:
		t.i32(6, convertedDate)
	case schema.Decimal:
		t.i32(6, convertedDecimal)
		t.i32(7, int32(l.typ.Scale))
		t.i32(8, int32(l.typ.Precision))
	case schema.Timestamp:
		t.i32(6, convertedTimestamp)
	}
	if e.id > 0 {
		t.i32(9, e.id)
	}
	appendLogicalType(t, l.typ)
	t.close()
}

func appendLogicalType(t *thriftWriter, typ schema.Type) {
	switch typ.Kind {
	case schema.String:
		t.open(10)
		t.empty(1)
		t.close()
	case schema.Byte:
		appendIntType(t, 8)
	case schema.Short:
		appendIntType(t, 16)
	case schema.Date:
		t.open(10)
		t.empty(6)
		t.close()
	case schema.Decimal:
		t.open(10)
		t.open(5)
		t.i32(1, int32(typ.Scale))
		t.i32(2, int32(typ.Precision))
		t.close()
		t.close()
	case schema.Timestamp:
		appendTimestampType(t, true)
	case schema.TimestampNTZ:
		appendTimestampType(t, false)
	}
}

func appendIntType(t *thriftWriter, width int8) {
	t.open(10)
	t.open(10)
	t.i8(1, width)
	t.bool(2, true)
	t.close()
	t.close()
}

func appendTimestampType(t *thriftWriter, utc bool) {
	t.open(10)
	t.open(8)
	t.bool(1, utc)
	t.open(2)
	t.empty(2)
	t.close()
	t.close()
	t.close()
}
