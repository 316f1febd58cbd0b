package deltalog

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/millrace-io/millrace/deltalog/schema"
	"github.com/millrace-io/millrace/deltalog/store"
)

// Version numbers the states of a table, from 0. A negative one means none.
type Version int64

// Protocol says what a reader and a writer of a table must be able to do. It
// is not changed once it is part of a snapshot or a commit.
type Protocol struct {
	// MinReader and MinWriter are the protocol's version numbers.
	MinReader int `json:"minReaderVersion"`
	MinWriter int `json:"minWriterVersion"`
	// ReaderFeatures is set with reader version 3 alone, WriterFeatures with
	// writer version 7 alone. What readers need, writers need too.
	ReaderFeatures []string `json:"readerFeatures,omitempty"`
	WriterFeatures []string `json:"writerFeatures,omitempty"`
}

// MarshalJSON writes the lists of features that the version numbers ask for, empty
// ones too, and no others.
func (p Protocol) MarshalJSON() ([]byte, error) {
	out := struct {
		MinReader      int       `json:"minReaderVersion"`
		MinWriter      int       `json:"minWriterVersion"`
		ReaderFeatures *[]string `json:"readerFeatures,omitempty"`
		WriterFeatures *[]string `json:"writerFeatures,omitempty"`
	}{MinReader: p.MinReader, MinWriter: p.MinWriter}
	list := func(names []string) *[]string {
		names = append([]string{}, names...)
		return &names
	}
	if p.MinReader >= 3 {
		out.ReaderFeatures = list(p.ReaderFeatures)
	}
	if p.MinWriter >= 7 {
		out.WriterFeatures = list(p.WriterFeatures)
	}
	return json.Marshal(out)
}

// HasFeature tells whether writers of the table must know the feature.
func (p *Protocol) HasFeature(name string) bool {
	return slices.Contains(p.writerFeatures(), name)
}

// Metadata describes a table. It is not changed once it is part of a snapshot
// or a commit: change a [Metadata.Clone].
type Metadata struct {
	// ID is the table's, for life.
	ID string
	// Name and Description are for people, and may be empty.
	Name        string
	Description string
	// Schema holds all columns, those of the partitions too.
	Schema *schema.Schema
	// PartitionColumns are names of columns that are constant in every file.
	PartitionColumns []string
	// Configuration holds the table's properties, unknown ones too.
	Configuration map[string]string
	// CreatedTime is in milliseconds since 1970; zero means unknown.
	CreatedTime int64

	// refused says why the table cannot be read, by its schema or the format of its
	// files; nil means that it can.
	refused error

	formatOptions map[string]string
	// schemaString is the text that parsedSchema was read from; it is written
	// again as it was for as long as Schema is that very one.
	schemaString string
	parsedSchema *schema.Schema
}

// Clone returns a copy whose maps and slices are its own. The schema is shared:
// put another one in its place to change it.
func (m *Metadata) Clone() *Metadata {
	c := *m
	c.PartitionColumns = slices.Clone(m.PartitionColumns)
	c.Configuration = maps.Clone(m.Configuration)
	c.formatOptions = maps.Clone(m.formatOptions)
	return &c
}

// Property returns a property of the table, or def when it is not set.
func (m *Metadata) Property(key, def string) string {
	if v, ok := m.Configuration[key]; ok {
		return v
	}
	return def
}

// enabled tells whether a boolean property is true.
func (m *Metadata) enabled(key string) bool {
	return strings.EqualFold(m.Configuration[key], "true")
}

// The protocol's names of isolation levels.
const (
	isolationSerializable      = "Serializable"
	isolationWriteSerializable = "WriteSerializable"
)

// isolation returns what the table asks of concurrent commits.
func (m *Metadata) isolation() string {
	if strings.EqualFold(m.Property(PropertyIsolationLevel, ""), isolationSerializable) {
		return isolationSerializable
	}
	return isolationWriteSerializable
}

// Txn is the progress of one application: with the data it writes, it commits
// how far it has come.
type Txn struct {
	// AppID names the application.
	AppID string `json:"appId"`
	// Version is the application's own count.
	Version int64 `json:"version"`
	// LastUpdated is in milliseconds since 1970; zero means unknown. A commit
	// fills it in.
	LastUpdated int64 `json:"lastUpdated,omitempty"`
}

// Domain is configuration that belongs to one user of the table.
type Domain struct {
	// Name identifies the domain; those beginning with "delta." are the
	// protocol's own.
	Name string `json:"domain"`
	// Configuration is any string, often JSON.
	Configuration string `json:"configuration"`
	// Removed ends the domain.
	Removed bool `json:"removed"`
}

// File is a data file as the log describes it: a Parquet file less the rows in
// its deletion vector. It is immutable: change a copy.
type File struct {
	// Path is the file's place as the log writes it: percent-encoded, relative
	// to the table. [File.Name] decodes it.
	Path string
	// Partition holds the values of the partition columns as strings, by the
	// names that column mapping gives the columns in files; nil pointers are
	// NULL. It is nil for tables without partitions.
	Partition map[string]*string
	// Size is the length of the file in bytes.
	Size int64
	// ModTime is when the file was written, in milliseconds since 1970.
	ModTime int64
	// Stats is the file's statistics as JSON; empty means none.
	Stats string
	// Rows counts the rows of the file, those that the vector hides too;
	// negative means unknown.
	Rows int64
	// Tags are for others; nil means none.
	Tags map[string]string
	// Vector hides rows; nil means none.
	Vector *Vector

	rowTracking *rowTracking
}

// tracking returns the fields of row tracking and clustering; zero for none.
func (f *File) tracking() rowTracking {
	if f.rowTracking == nil {
		return rowTracking{}
	}
	return *f.rowTracking
}

// rowTracking has the fields of tables with row tracking or clustering. A commit
// fills in the ids of rows; the rest is carried along.
type rowTracking struct {
	BaseRowID               *int64
	DefaultRowCommitVersion *int64
	ClusteringProvider      string
	// keeps says that no row of the file lost its id on the way into it, for the
	// commit that adds the file.
	keeps bool
}

// LiveRows counts the rows that are not hidden; negative means unknown.
func (f *File) LiveRows() int64 {
	if f.Rows < 0 || f.Vector == nil {
		return f.Rows
	}
	return f.Rows - f.Vector.Cardinality
}

// Name returns the name of the file in the table's store. A path that is
// absolute is an error wrapping ErrUnsupported, though it may lead there.
func (f *File) Name() (string, error) { return objectName(f.Path) }

// nameIn returns the name of the file in a store. A path that is absolute has to
// lie within the store.
func (f *File) nameIn(st store.Store) (string, error) {
	if name, ok := nameWithin(st.URI(), f.Path); ok {
		return name, nil
	}
	return f.Name()
}

// WithVector returns the same file with another vector; nil means none. The
// bounds in its statistics are marked as no longer tight.
func (f *File) WithVector(v *Vector) *File {
	c := *f
	c.Vector = v
	if v != nil {
		c.Stats = looseStats(f.Stats)
	}
	return &c
}

// looseStats marks bounds as wide: rows at their ends may be hidden.
func looseStats(stats string) string {
	if !strings.Contains(stats, `"tightBounds"`) {
		body := strings.TrimRight(stats, " \t\r\n")
		if len(body) < 2 || body[len(body)-1] != '}' || strings.TrimSpace(body[1:len(body)-1]) == "" {
			return stats
		}
		return body[:len(body)-1] + `,"tightBounds":false}`
	}
	var parts map[string]json.RawMessage
	if json.Unmarshal([]byte(stats), &parts) != nil || string(parts["tightBounds"]) == "false" {
		return stats
	}
	parts["tightBounds"] = json.RawMessage("false")
	b, err := json.Marshal(parts)
	if err != nil {
		return stats
	}
	return string(b)
}

// compare orders files by path, then by vector: that is a file's identity in
// the log.
func (f *File) compare(g *File) int {
	if c := strings.Compare(f.Path, g.Path); c != 0 || (f.Vector == nil && g.Vector == nil) {
		return c
	}
	return strings.Compare(f.Vector.uniqueID(), g.Vector.uniqueID())
}

// objectName decodes the path of an add, a remove or a sidecar.
func objectName(path string) (string, error) {
	name, err := url.PathUnescape(path)
	if err != nil {
		return "", fmt.Errorf("path %q: %w: %w", path, ErrCorrupt, err)
	}
	u, err := url.Parse(path)
	if err == nil && u.Scheme != "" || strings.HasPrefix(name, "/") {
		return "", fmt.Errorf("path %q: %w: files outside the table", path, ErrUnsupported)
	}
	if err := store.CheckName(name); err != nil {
		return "", fmt.Errorf("path %q: %w: %w", path, ErrCorrupt, err)
	}
	return name, nil
}

// nameWithin returns the name of an absolute path in the store at root, if that
// is where it leads.
func nameWithin(root, path string) (name string, ok bool) {
	r, ok1 := absolute(root)
	p, ok2 := absolute(path)
	if !ok1 || !ok2 {
		return "", false
	}
	name, ok = strings.CutPrefix(p, strings.TrimSuffix(r, "/")+"/")
	return name, ok && store.CheckName(name) == nil
}

// absolute returns a URI, or a path of the machine, in one form and decoded.
func absolute(uri string) (string, bool) {
	u, err := url.Parse(uri)
	if err != nil || u.Opaque != "" || u.Path != "" && u.Path[0] != '/' || u.Path+u.Host == "" {
		return "", false
	}
	switch u.Scheme {
	case "":
		u.Scheme = "file"
	case "s3a", "s3n": // names that others have for it
		u.Scheme = "s3"
	}
	return u.Scheme + "://" + u.Host + u.Path, true
}

// Vector says where a deletion vector is: the set of rows of a file, counted
// from 0, that are no longer there. It is immutable.
type Vector struct {
	// StorageType is u for a file of the table named by a UUID, p for a file
	// anywhere, i for bytes in the log.
	StorageType string `json:"storageType"`
	// PathOrInline is what StorageType says.
	PathOrInline string `json:"pathOrInlineDv"`
	// Offset is where the vector begins in its file; 0 means not given.
	Offset int32 `json:"offset,omitempty"`
	// SizeInBytes is the length of the vector, without its frame.
	SizeInBytes int32 `json:"sizeInBytes"`
	// Cardinality counts the rows.
	Cardinality int64 `json:"cardinality"`
}

// uniqueID is the vector's identity in the log; empty for none.
func (v *Vector) uniqueID() string {
	switch {
	case v == nil:
		return ""
	case v.Offset == 0:
		return v.StorageType + v.PathOrInline
	}
	return v.StorageType + v.PathOrInline + "@" + strconv.Itoa(int(v.Offset))
}

// CommitInfo is what a commit tells about itself. Only what this package uses
// or shows is kept.
type CommitInfo struct {
	// Timestamp is in milliseconds since 1970, by the clock of the writer.
	Timestamp int64 `json:"timestamp"`
	// InCommitTimestamp is in milliseconds since 1970 and grows with every
	// version, where the table has it; otherwise zero.
	InCommitTimestamp int64 `json:"inCommitTimestamp,omitempty"`
	// Operation names what was done, such as WRITE.
	Operation string `json:"operation"`
	// Parameters and Metrics tell more about it.
	Parameters map[string]string `json:"operationParameters"`
	Metrics    map[string]string `json:"operationMetrics,omitempty"`
	// ReadVersion is the version that the commit was planned on; nil in the
	// first.
	ReadVersion *Version `json:"readVersion,omitempty"`
	// IsolationLevel is the protocol's name of it.
	IsolationLevel string `json:"isolationLevel,omitempty"`
	// BlindAppend says that the commit adds files and read none.
	BlindAppend bool `json:"isBlindAppend"`
	// Engine names the software that wrote the commit.
	Engine string `json:"engineInfo,omitempty"`
	// TxnID identifies the commit.
	TxnID string `json:"txnId,omitempty"`
	// Tags say what the protocol asks writers to say.
	Tags map[string]string `json:"tags,omitempty"`
}

// Time returns the time of the commit: the in-commit timestamp if there is one.
func (c *CommitInfo) Time() time.Time {
	if c.InCommitTimestamp != 0 {
		return time.UnixMilli(c.InCommitTimestamp).UTC()
	}
	return time.UnixMilli(c.Timestamp).UTC()
}

// UnmarshalJSON reads what any writer wrote, which may be any JSON: parameters and
// metrics of any type become text, and what is of another type than its field is
// left out.
func (c *CommitInfo) UnmarshalJSON(b []byte) error {
	*c = CommitInfo{}
	var in map[string]json.RawMessage
	if json.Unmarshal(b, &in) != nil {
		return nil
	}
	take(in, "timestamp", (*millis)(&c.Timestamp))
	take(in, "inCommitTimestamp", (*millis)(&c.InCommitTimestamp))
	take(in, "operation", &c.Operation)
	take(in, "operationParameters", (*texts)(&c.Parameters))
	take(in, "operationMetrics", (*texts)(&c.Metrics))
	take(in, "readVersion", &c.ReadVersion)
	take(in, "isolationLevel", &c.IsolationLevel)
	take(in, "isBlindAppend", &c.BlindAppend)
	take(in, "engineInfo", &c.Engine)
	take(in, "txnId", &c.TxnID)
	take(in, "tags", (*texts)(&c.Tags))
	return nil
}

// take sets a field to the value of a key, if it can hold that.
func take[T any](in map[string]json.RawMessage, key string, field *T) {
	var v T
	if text, ok := in[key]; ok && json.Unmarshal(text, &v) == nil {
		*field = v
	}
}

// millis are milliseconds since 1970, which some write with a point or an
// exponent.
type millis int64

func (m *millis) UnmarshalJSON(b []byte) error {
	n, err := strconv.ParseInt(string(b), 10, 64)
	if err != nil {
		x, ok := unscaled(string(b), 0)
		if !ok || !x.IsInt64() {
			return err
		}
		n = x.Int64()
	}
	*m = millis(n)
	return nil
}

// texts holds JSON strings as their text and all else as it stands.
type texts map[string]string

func (t *texts) UnmarshalJSON(b []byte) error {
	var in map[string]json.RawMessage
	if err := json.Unmarshal(b, &in); err != nil || in == nil {
		return err
	}
	*t = make(texts, len(in))
	for k, v := range in {
		var s string
		if json.Unmarshal(v, &s) != nil {
			s = string(v)
		}
		(*t)[k] = s
	}
	return nil
}
