package deltalog

import (
	"encoding/json"
	"fmt"
	"math/big"
	"reflect"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/millrace-io/millrace/deltalog/datafile"
	"github.com/millrace-io/millrace/deltalog/schema"
)

const (
	// propertyStatsAsJSON keeps the statistics of checkpoints as text, which is
	// the default; propertyStatsAsStruct keeps them in columns.
	propertyStatsAsJSON   = "delta.checkpoint.writeStatsAsJson"
	propertyStatsAsStruct = "delta.checkpoint.writeStatsAsStruct"
)

// statsForm is how a checkpoint keeps statistics and partition values.
type statsForm struct {
	text bool
	// parsed and partition are the types of the columns stats_parsed and
	// partitionValues_parsed; nil means that there is no such column.
	parsed, partition *parsedStruct
}

// newStatsForm returns the form that the table's properties ask for. Statistics
// stay text, too, where columns could not hold them all.
func newStatsForm(m *Metadata) statsForm {
	f := statsForm{text: !strings.EqualFold(m.Property(propertyStatsAsJSON, "true"), "false")}
	if !m.enabled(propertyStatsAsStruct) {
		f.text = true // they are not thrown away
		return f
	}
	isPartition := map[string]bool{}
	var partition, data []schema.Field
	for _, c := range m.PartitionColumns {
		isPartition[c] = true
	}
	for _, c := range m.Schema.Fields {
		if isPartition[c.Name] {
			partition = append(partition, c)
		} else {
			data = append(data, c)
		}
	}
	mapped := m.Property(PropertyColumnMapping, "none") != "none"
	bounds, whole := newParsedStruct(data, mapped, false)
	counts, _ := newParsedStruct(data, mapped, true)
	f.text = f.text || !whole
	f.parsed = &parsedStruct{}
	f.parsed.add("numRecords", parsedLeaf(schema.Long, "", nil))
	for _, name := range []string{"minValues", "maxValues"} {
		if len(bounds.fields) > 0 {
			f.parsed.add(name, parsedField{inner: bounds})
		}
	}
	if len(counts.fields) > 0 {
		f.parsed.add("nullCount", parsedField{inner: counts})
	}
	f.parsed.add("tightBounds", parsedField{typ: reflect.TypeFor[bool](), set: func(v reflect.Value, x any) bool {
		b, ok := x.(bool)
		v.SetBool(b)
		return ok
	}})
	if len(partition) > 0 {
		f.partition, _ = newParsedStruct(partition, mapped, false)
	}
	return f
}

// parsedStruct is a struct type that is made for the columns of a table.
type parsedStruct struct {
	fields []parsedField
	typ    reflect.Type
}

// parsedField is a field of one. Its Go type is a pointer, nil for NULL.
type parsedField struct {
	name  string
	tag   string // options of the Parquet type
	typ   reflect.Type
	inner *parsedStruct // nil for values
	// set puts a value out of JSON into place; it returns false where the type
	// cannot hold that very value.
	set    func(reflect.Value, any) bool
	column schema.Type // for partition values
}

func (s *parsedStruct) add(name string, f parsedField) {
	f.name = name
	s.fields = append(s.fields, f)
}

// of returns the Go type.
func (s *parsedStruct) of() reflect.Type {
	if s.typ != nil {
		return s.typ
	}
	fields := make([]reflect.StructField, len(s.fields))
	for i, f := range s.fields {
		t := f.typ
		if f.inner != nil {
			t = f.inner.of()
		}
		fields[i] = reflect.StructField{
			Name: "F" + strconv.Itoa(i), Type: reflect.PointerTo(t),
			Tag: reflect.StructTag("parquet:" + strconv.Quote(f.name+",optional"+f.tag)),
		}
	}
	s.typ = reflect.StructOf(fields)
	return s.typ
}

// newParsedStruct returns the struct of the columns that have statistics, with
// their types or as counts, and whether that is all of them.
func newParsedStruct(columns []schema.Field, mapped, counts bool) (s *parsedStruct, whole bool) {
	s, whole = &parsedStruct{}, true
	for i := range columns {
		c := &columns[i]
		name, ok := c.Name, true
		if mapped {
			name, ok = physicalName(c)
		}
		if !ok || name == "-" || strings.Contains(name, ",") { // which the library cannot be told
			whole = false
			continue
		}
		var f parsedField
		switch k := c.Type.Kind; {
		case k == schema.Struct:
			var all bool
			if f.inner, all = newParsedStruct(c.Type.Fields, mapped, counts); !all {
				whole = false
			}
			if len(f.inner.fields) == 0 {
				continue
			}
		case counts:
			f = parsedLeaf(schema.Long, "", nil)
		case k == schema.Decimal:
			f = decimalLeaf(c.Type)
		case k == schema.Date:
			f = parsedLeaf(schema.Integer, ",date", statsDate)
		case k == schema.Timestamp:
			f = parsedLeaf(schema.Long, ",timestamp(microsecond)", statsTime(k))
		case k == schema.TimestampNTZ:
			f = parsedLeaf(schema.Long, ",timestamp(microsecond:local)", statsTime(k))
		case k == schema.String:
			f = parsedField{typ: reflect.TypeFor[string](), set: setText}
		default:
			f = parsedLeaf(k, "", nil)
		}
		if f.inner == nil && f.typ == nil {
			// Booleans, bytes and collections have no bounds; wide decimals do.
			whole = whole && c.Type.Kind != schema.Decimal
			continue
		}
		f.column = c.Type
		s.add(name, f)
	}
	return s, whole
}

func physicalName(f *schema.Field) (string, bool) {
	keys, err := fieldKeys(f.Metadata)
	var name string
	if err != nil || json.Unmarshal(keys["delta.columnMapping.physicalName"], &name) != nil {
		return "", false
	}
	return name, name != ""
}

var leafTypes = map[schema.Kind]reflect.Type{
	schema.Byte: reflect.TypeFor[int8](), schema.Short: reflect.TypeFor[int16](), schema.Integer: reflect.TypeFor[int32](),
	schema.Long: reflect.TypeFor[int64](), schema.Float: reflect.TypeFor[float32](), schema.Double: reflect.TypeFor[float64](),
}

// parsedLeaf is a field of numbers, or one that read makes numbers of. Its type is
// nil for kinds without bounds.
func parsedLeaf(k schema.Kind, tag string, read func(string) (int64, bool)) parsedField {
	return parsedField{typ: leafTypes[k], tag: tag, set: func(v reflect.Value, x any) bool {
		switch x := x.(type) {
		case json.Number:
			if v.CanFloat() {
				n, err := x.Float64()
				if err != nil || v.OverflowFloat(n) {
					return false
				}
				v.SetFloat(n)
				return true
			}
			n, err := x.Int64()
			return err == nil && read == nil && setInt(v, n)
		case string:
			if read != nil {
				n, ok := read(x)
				return ok && setInt(v, n)
			}
		}
		return false
	}}
}

func setInt(v reflect.Value, n int64) bool {
	if v.OverflowInt(n) {
		return false
	}
	v.SetInt(n)
	return true
}

func setText(v reflect.Value, x any) bool {
	text, ok := x.(string)
	v.SetString(text)
	// What JSON cannot hold, such as half a character, reads as this one.
	return ok && !strings.ContainsRune(text, utf8.RuneError)
}

func statsDate(s string) (int64, bool) {
	days, rest, ok := cutDate(s)
	return days, ok && rest == ""
}

// statsTime reads microseconds since 1970; a moment needs its zone.
func statsTime(k schema.Kind) func(string) (int64, bool) {
	return func(s string) (int64, bool) {
		us, zoned, ok := parseTimestamp(s, k)
		return us, ok && (zoned || k == schema.TimestampNTZ)
	}
}

func decimalLeaf(t schema.Type) parsedField {
	f := parsedField{tag: fmt.Sprintf(",decimal(%d:%d)", t.Scale, t.Precision)}
	switch {
	case t.Precision <= 9:
		f.typ = reflect.TypeFor[int32]()
	case t.Precision <= 18:
		f.typ = reflect.TypeFor[int64]()
	}
	f.set = func(v reflect.Value, x any) bool {
		text, ok := x.(json.Number)
		if !ok {
			return false
		}
		n, ok := unscaled(string(text), t.Scale)
		limit := new(big.Int).Exp(big.NewInt(10), big.NewInt(int64(t.Precision)), nil)
		return ok && n.CmpAbs(limit) < 0 && setInt(v, n.Int64())
	}
	return f
}

// fill returns a pointer to a struct with the values of a JSON object, and whether
// it holds all of them that have a field. What it cannot hold is NULL.
func (s *parsedStruct) fill(values map[string]any) (p reflect.Value, whole bool) {
	p, whole = reflect.New(s.of()), true
	for i, f := range s.fields {
		x, ok := values[f.name]
		if !ok || x == nil {
			continue
		}
		if f.inner == nil {
			v := reflect.New(f.typ)
			if f.set(v.Elem(), x) {
				p.Elem().Field(i).Set(v)
			} else {
				whole = false
			}
			continue
		}
		m, ok := x.(map[string]any)
		if !ok {
			whole = false
			continue
		}
		inner, all := f.inner.fill(m)
		p.Elem().Field(i).Set(inner)
		whole = whole && all
	}
	return p, whole
}

// partitionStruct returns a pointer to a struct with a file's partition values.
func (s *parsedStruct) partitionStruct(values map[string]*string) (reflect.Value, error) {
	p := reflect.New(s.of())
	for i, f := range s.fields {
		text := values[f.name]
		if text == nil || *text == "" {
			continue
		}
		c := datafile.NewColumn(f.column)
		if err := appendPartition(c, *text); err != nil {
			return p, fmt.Errorf("partition column %s: %w", f.name, err)
		}
		v := reflect.New(f.typ)
		switch e := v.Elem(); {
		case e.CanFloat():
			e.SetFloat(c.F64[0])
		case e.CanInt():
			e.SetInt(c.I64[0])
		case e.Kind() == reflect.String:
			e.SetString(string(c.At(0)))
		}
		p.Elem().Field(i).Set(v)
	}
	return p, nil
}

// rows makes rows of type T into rows whose add has the parsed columns too.
type rowMaker struct {
	form     statsForm
	row, add reflect.Type
	at       int // of add in row
}

func newRowMaker(form statsForm, base reflect.Type) *rowMaker {
	m := &rowMaker{form: form}
	var fields []reflect.StructField
	addType := reflect.TypeFor[checkpointAdd]()
	for i := range addType.NumField() {
		f := addType.Field(i)
		fields = append(fields, reflect.StructField{Name: f.Name, Type: f.Type, Tag: f.Tag})
	}
	if form.partition != nil && len(form.partition.fields) > 0 {
		fields = append(fields, reflect.StructField{Name: "PartitionParsed", Type: reflect.PointerTo(form.partition.of()), Tag: `parquet:"partitionValues_parsed,optional"`})
	}
	fields = append(fields, reflect.StructField{Name: "StatsParsed", Type: reflect.PointerTo(form.parsed.of()), Tag: `parquet:"stats_parsed,optional"`})
	m.add = reflect.StructOf(fields)
	fields = nil
	for i := range base.NumField() {
		f := base.Field(i)
		if f.Type == reflect.PointerTo(addType) {
			m.at, f.Type = i, reflect.PointerTo(m.add)
		}
		fields = append(fields, reflect.StructField{Name: f.Name, Type: f.Type, Tag: f.Tag})
	}
	m.row = reflect.StructOf(fields)
	return m
}

// make returns a pointer to the row that v becomes.
func (m *rowMaker) make(v reflect.Value) (any, error) {
	out := reflect.New(m.row)
	for i := range v.NumField() {
		if i != m.at {
			out.Elem().Field(i).Set(v.Field(i))
		}
	}
	if v.Field(m.at).IsNil() {
		return out.Interface(), nil
	}
	old, add := v.Field(m.at).Elem(), reflect.New(m.add)
	for i := range old.NumField() {
		add.Elem().Field(i).Set(old.Field(i))
	}
	a := old.Addr().Interface().(*checkpointAdd)
	if a.Stats != nil {
		dec := json.NewDecoder(strings.NewReader(*a.Stats))
		dec.UseNumber()
		var values map[string]any
		// Statistics that are no JSON stay text and make no column.
		if dec.Decode(&values) == nil {
			parsed, whole := m.form.parsed.fill(values)
			add.Elem().FieldByName("StatsParsed").Set(parsed)
			if whole && !m.form.text {
				add.Elem().FieldByName("Stats").SetZero()
			}
		}
	}
	if m.form.partition != nil && len(m.form.partition.fields) > 0 {
		p, err := m.form.partition.partitionStruct(a.PartitionValues)
		if err != nil {
			return nil, fmt.Errorf("file %s: %w: %w", a.Path, ErrCorrupt, err)
		}
		add.Elem().FieldByName("PartitionParsed").Set(p)
	}
	out.Elem().Field(m.at).Set(add)
	return out.Interface(), nil
}
