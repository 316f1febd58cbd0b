package pgoutput

import (
	"bytes"
	"encoding/binary"
	"fmt"

	"github.com/millrace-io/millrace/activities/change"
)

// Decode reads one message into m, whose memory it reuses.
func (m *Message) Decode(b []byte) error {
	oids, prefix := m.OIDs[:0], m.Prefix
	*m = Message{OIDs: oids}
	if len(b) == 0 {
		return fmt.Errorf("%w: empty", ErrMessage)
	}
	r := reader{b: b[1:]}
	m.Kind = Kind(b[0])
	switch m.Kind {
	case Begin:
		m.FinalLSN = change.LSN(r.uint64("final LSN"))
		m.CommitMicros = r.micros("commit time")
		m.XID = r.uint32("xid")
	case Commit:
		if flags := r.byte("flags"); flags != 0 {
			r.fail("flags %#x are not known", flags)
		}
		m.FinalLSN = change.LSN(r.uint64("commit LSN"))
		m.EndLSN = change.LSN(r.uint64("end LSN"))
		m.CommitMicros = r.micros("commit time")
	case Insert:
		m.OID = r.uint32("table")
		r.expect('N')
		m.New = r.tuple()
	case Update:
		m.OID = r.uint32("table")
		kind := r.byte("tuple kind")
		if kind == OldKey || kind == OldFull {
			m.OldKind = kind
			m.Old = r.tuple()
			kind = r.byte("tuple kind")
		}
		if kind != 'N' {
			r.fail("tuple kind %q where N should be", kind)
		}
		m.New = r.tuple()
	case Delete:
		m.OID = r.uint32("table")
		m.OldKind = r.byte("tuple kind")
		if m.OldKind != OldKey && m.OldKind != OldFull {
			r.fail("tuple kind %q where K or O should be", m.OldKind)
		}
		m.Old = r.tuple()
	case Truncate:
		m.truncate(&r)
	case Relation:
		m.relation(&r)
	case Logical:
		flags := r.byte("flags")
		if flags > 1 {
			r.fail("flags %#x are not known", flags)
		}
		m.Transactional = flags == 1
		m.LSN = change.LSN(r.uint64("LSN"))
		// The few prefixes there are come again and again.
		if p := r.cstring("prefix"); string(p) == prefix {
			m.Prefix = prefix
		} else {
			m.Prefix = string(p)
		}
		m.Content = r.take(r.uint32("length"), "content")
	case Type:
		m.OID = r.uint32("type")
		r.cstring("schema")
		r.cstring("name")
	case Origin:
		r.uint64("origin LSN")
		r.cstring("origin")
	default:
		return fmt.Errorf("%w: kind %q is not of protocol version 1", ErrMessage, b[0])
	}
	if r.err == nil && len(r.b) > 0 {
		r.fail("%d bytes follow its end", len(r.b))
	}
	if r.err != nil {
		return fmt.Errorf("%w: %c: %w", ErrMessage, m.Kind, r.err)
	}
	return nil
}

func (m *Message) truncate(r *reader) {
	n := r.uint32("number of tables")
	options := r.byte("options")
	if options > 3 {
		r.fail("options %#x are not known", options)
	}
	m.Cascade, m.RestartIdentity = options&1 != 0, options&2 != 0
	if uint64(n)*4 > uint64(len(r.b)) {
		r.fail("%d tables in %d bytes", n, len(r.b))
	}
	for r.err == nil && n > 0 {
		m.OIDs = append(m.OIDs, r.uint32("table"))
		n--
	}
}

// relation decodes a Relation message. All its names share one string.
func (m *Message) relation(r *reader) {
	names := string(r.b)
	begin := len(r.b)
	name := func(what string) string {
		at := begin - len(r.b)
		return names[at : at+len(r.cstring(what))]
	}
	t := &change.Table{OID: r.uint32("table")}
	t.Schema = name("schema")
	if t.Schema == "" {
		t.Schema = "pg_catalog"
	}
	t.Name = name("name")
	identity := r.byte("replica identity")
	n := int(r.uint16("number of columns"))
	const least = 1 + 1 + 4 + 4
	if n > change.MaxColumns || n*least > len(r.b) {
		r.fail("%d columns in %d bytes", n, len(r.b))
	}
	if r.err != nil {
		return
	}
	t.Columns = make([]change.Column, n)
	for i := range t.Columns {
		c := &t.Columns[i]
		flags := r.byte("column flags")
		if flags > 1 {
			r.fail("column flags %#x are not known", flags)
		}
		c.Identity = flags == 1
		c.Name = name("column")
		c.TypeOID = r.uint32("column type")
		c.TypeMod = int32(r.uint32("column modifier"))
		c.Type = change.Type{OID: c.TypeOID, Mod: c.TypeMod}
		if c.Identity {
			t.Identity = change.IdentityKey
		}
	}
	switch identity {
	case 'd', 'i':
	case 'n':
		t.Identity = change.IdentityNone
	case 'f':
		t.Identity = change.IdentityFull
	default:
		r.fail("replica identity %q is not known", identity)
	}
	if t.Identity == change.IdentityKey {
		for i := range t.Columns {
			if t.Columns[i].Identity {
				t.Key = append(t.Key, i)
			}
		}
	}
	if r.err != nil {
		return
	}
	t.Fingerprint = t.ComputeFingerprint()
	m.OID, m.Relation = t.OID, t
}

// reader reads fields from the front of b. After its first error it reads
// zeros.
type reader struct {
	b   []byte
	err error
}

func (r *reader) fail(format string, args ...any) {
	if r.err == nil {
		r.err = fmt.Errorf(format, args...)
		r.b = nil
	}
}

func (r *reader) take(n uint32, what string) []byte {
	if uint64(n) > uint64(len(r.b)) || r.err != nil {
		r.short(what)
		return nil
	}
	v := r.b[:n:n]
	r.b = r.b[n:]
	return v
}

// short fails because the message ends within a field.
func (r *reader) short(what string) {
	if r.err == nil {
		r.err = fmt.Errorf("ends in its %s", what)
		r.b = nil
	}
}

func (r *reader) byte(what string) byte {
	if v := r.take(1, what); v != nil {
		return v[0]
	}
	return 0
}

func (r *reader) uint16(what string) uint16 {
	if v := r.take(2, what); v != nil {
		return binary.BigEndian.Uint16(v)
	}
	return 0
}

func (r *reader) uint32(what string) uint32 {
	if v := r.take(4, what); v != nil {
		return binary.BigEndian.Uint32(v)
	}
	return 0
}

func (r *reader) uint64(what string) uint64 {
	if v := r.take(8, what); v != nil {
		return binary.BigEndian.Uint64(v)
	}
	return 0
}

func (r *reader) micros(what string) int64 {
	if v := r.take(8, what); v != nil {
		return int64(binary.BigEndian.Uint64(v)) + change.PostgresEpochMicros
	}
	return 0
}

func (r *reader) cstring(what string) []byte {
	i := bytes.IndexByte(r.b, 0)
	if i < 0 {
		r.short(what)
		return nil
	}
	v := r.b[:i]
	r.b = r.b[i+1:]
	return v
}

func (r *reader) expect(kind byte) {
	if k := r.byte("tuple kind"); k != kind && r.err == nil {
		r.fail("tuple kind %q where %c should be", k, kind)
	}
}

// tuple takes the TupleData at the front.
func (r *reader) tuple() []byte {
	if r.err != nil {
		return nil
	}
	rest, err := change.SkipTuple(r.b)
	if err != nil {
		r.err = err
		r.b = nil
		return nil
	}
	n := len(r.b) - len(rest)
	v := r.b[:n:n]
	r.b = rest
	return v
}
