package pgtype

import (
	"github.com/millrace-io/millrace/activities/change"
	"github.com/millrace-io/millrace/deltalog/schema"
)

// Object ids of types that this package names; they are the same in every
// database.
const (
	oidBox     = 603
	oidNumeric = 1700
	oidJSONB   = 3802
	// firstUserOID is the least object id of a type that is not built in. From
	// there on a name says nothing about a type's binary format.
	firstUserOID = 16384
)

// builtin is one row of the table of types.
type builtin struct {
	oid    uint32
	name   string
	kind   schema.Kind
	text   Convert
	binary Convert
}

// builtins lists the types that have a mapping or a binary decoder of their
// own. Numeric depends on its modifier. Every other type is a string, exactly
// as PostgreSQL prints it, and is copied through its output function.
var builtins = []builtin{
	{16, "bool", schema.Boolean, textBool, binaryBool},
	{21, "int2", schema.Short, textInt(16), binaryInt16},
	{23, "int4", schema.Integer, textInt(32), binaryInt32},
	{20, "int8", schema.Long, textInt(64), binaryInt64},
	{700, "float4", schema.Float, textFloat(32), binaryFloat4},
	{701, "float8", schema.Double, textFloat(64), binaryFloat8},
	{oidNumeric, "numeric", schema.String, utf8Text, binaryNumericText},
	{17, "bytea", schema.Binary, textBytea, rawBytes},
	{1082, "date", schema.Date, textDate, binaryDate},
	{1114, "timestamp", schema.TimestampNTZ, textTimestamp, binaryTimestamp},
	{1184, "timestamptz", schema.Timestamp, textTimestampTZ, binaryTimestamp},
	{25, "text", schema.String, utf8Text, utf8Text},
	{1043, "varchar", schema.String, utf8Text, utf8Text},
	{1042, "bpchar", schema.String, utf8Text, utf8Text},
	{19, "name", schema.String, utf8Text, utf8Text},
	{114, "json", schema.String, utf8Text, utf8Text},
	{oidJSONB, "jsonb", schema.String, utf8Text, versioned(utf8Text)},
	{2950, "uuid", schema.String, utf8Text, binaryUUID},
	{142, "xml", schema.String, utf8Text, nil},
	{18, "char", schema.String, utf8Text, nil},
	{26, "oid", schema.String, utf8Text, nil},
	{650, "cidr", schema.String, utf8Text, nil},
	{869, "inet", schema.String, utf8Text, nil},
	{829, "macaddr", schema.String, utf8Text, nil},
	{774, "macaddr8", schema.String, utf8Text, nil},
	{790, "money", schema.String, utf8Text, nil},
	{1083, "time", schema.String, utf8Text, nil},
	{1266, "timetz", schema.String, utf8Text, nil},
	{1186, "interval", schema.String, utf8Text, nil},
	{1560, "bit", schema.String, utf8Text, nil},
	{1562, "varbit", schema.String, utf8Text, nil},
	{3614, "tsvector", schema.String, utf8Text, nil},
	{3615, "tsquery", schema.String, utf8Text, nil},
}

var byOID = func() map[uint32]*builtin {
	m := make(map[uint32]*builtin, len(builtins))
	for i := range builtins {
		m[builtins[i].oid] = &builtins[i]
	}
	return m
}()

// delimiters lists, by name, the types of well-known extensions and what
// separates the elements of their arrays (pg_type.typdelim).
var delimiters = map[string]byte{
	"citext": ',', "hstore": ',', "ltree": ',', "lquery": ',', "ltxtquery": ',',
	"cube": ',', "seg": ',', "vector": ',', "halfvec": ',', "sparsevec": ',',
	"ean13": ',', "isbn": ',', "isbn13": ',', "ismn": ',', "issn": ',', "upc": ',',
	"geometry": ':', "geography": ':',
}

// natural is the mapping of a type that no cast changes.
func natural(t change.Type) Mapping {
	m := scalar(t)
	if !t.Array {
		return m
	}
	delim, known := delimiter(t)
	if !known {
		return Mapping{Type: schema.Type{Kind: schema.String}, Text: utf8Text}
	}
	elem := m.Type
	array := Mapping{
		Type: schema.Type{Kind: schema.Array, Elem: &elem, ElemNull: true},
		Text: textArray(m.Text, delim),
	}
	if m.Binary != nil {
		array.Binary = binaryArray(m.Binary)
	}
	return array
}

// scalar is the mapping of one value, or one element, of type t.
func scalar(t change.Type) Mapping {
	if t.OID == oidNumeric {
		if d, ok := decimalOf(t.Mod); ok {
			return Mapping{
				Type: schema.Type{Kind: schema.Decimal, Precision: d.precision, Scale: d.scale},
				Text: d.text, Binary: d.binary,
			}
		}
	}
	if b, ok := byOID[t.OID]; ok {
		return Mapping{Type: schema.Type{Kind: b.kind}, Text: b.text, Binary: b.binary}
	}
	m := Mapping{Type: schema.Type{Kind: schema.String}, Text: utf8Text}
	if t.Kind == "e" {
		m.Binary = utf8Text // enum_send writes the label
	}
	return m
}

// decimalOf reads a numeric's modifier. ok is false where the numbers that it
// admits are not those of a Delta decimal: it has no modifier, more than 38
// digits, a negative scale, or a scale above its precision.
func decimalOf(mod int32) (d decimal, ok bool) {
	if mod < 4 {
		return d, false
	}
	mod -= 4
	d.precision = int(mod >> 16 & 0xFFFF)
	d.scale = int((mod&0x7FF)^1024) - 1024 // 11 bits, signed
	return d, d.precision >= 1 && d.precision <= maxPrecision && d.scale >= 0 && d.scale <= d.precision
}

// delimiter returns what separates the elements of t's arrays. For a base type
// of an extension that is not listed it is not known: commas in a literal whose
// delimiter is another would be read as if they separated elements.
func delimiter(t change.Type) (delim byte, known bool) {
	switch {
	case t.OID == oidBox:
		return ';', true
	case t.OID < firstUserOID, t.Kind == "c", t.Kind == "e", t.Kind == "r", t.Kind == "m":
		return ',', true
	}
	delim, known = delimiters[t.Name]
	return delim, known
}

// isTextual tells that t's text is what clients wrote, in whatever encoding.
func isTextual(t change.Type) bool {
	switch t.OID {
	case 25, 1043, 1042, 19, 18, 114, 142, oidJSONB:
		return true
	}
	return t.Kind == "e" || t.Name == "citext" || t.Name == "hstore" || t.Name == "ltree"
}
