package deltalog

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/millrace-io/millrace/deltalog/schema"
)

// commitLog is one version of the log as its file tells it. Where the log has
// at most one of a kind, nil means none.
type commitLog struct {
	info     *CommitInfo
	protocol *Protocol
	metadata *Metadata
	domains  []Domain
	txns     []Txn
	removes  []tombstone
	adds     []*File
	// rearranged are those of adds that change no data.
	rearranged []*File
	// changes are files of rows that changed, for those who follow the table.
	changes []*File
}

// tombstone is a file that was removed from the table.
type tombstone struct {
	file *File
	// deleted is in milliseconds since 1970.
	deleted    int64
	dataChange bool
}

// actionJSON is one line of a commit. A line holds one action; kinds that are
// not listed are ignored.
type actionJSON struct {
	CommitInfo *CommitInfo   `json:"commitInfo,omitempty"`
	Protocol   *Protocol     `json:"protocol,omitempty"`
	Metadata   *metadataJSON `json:"metaData,omitempty"`
	Domain     *Domain       `json:"domainMetadata,omitempty"`
	Txn        *Txn          `json:"txn,omitempty"`
	Remove     *removeJSON   `json:"remove,omitempty"`
	Add        *addJSON      `json:"add,omitempty"`
	Sidecar    *sidecarJSON  `json:"sidecar,omitempty"` // in checkpoints alone
	Change     *cdcJSON      `json:"cdc,omitempty"`
}

// sidecarJSON is the part of a sidecar action that is needed to read it.
type sidecarJSON struct {
	Path string `json:"path"`
}

type formatJSON struct {
	Provider string            `json:"provider"`
	Options  map[string]string `json:"options"`
}

type metadataJSON struct {
	ID               string            `json:"id"`
	Name             string            `json:"name,omitempty"`
	Description      string            `json:"description,omitempty"`
	Format           formatJSON        `json:"format"`
	SchemaString     string            `json:"schemaString"`
	PartitionColumns []string          `json:"partitionColumns"`
	Configuration    map[string]string `json:"configuration"`
	CreatedTime      int64             `json:"createdTime,omitempty"`
}

type addJSON struct {
	Path                    string             `json:"path"`
	PartitionValues         map[string]*string `json:"partitionValues"`
	Size                    int64              `json:"size"`
	ModificationTime        int64              `json:"modificationTime"`
	DataChange              bool               `json:"dataChange"`
	Stats                   string             `json:"stats,omitempty"`
	Tags                    map[string]string  `json:"tags,omitempty"`
	DeletionVector          *Vector            `json:"deletionVector,omitempty"`
	BaseRowID               *int64             `json:"baseRowId,omitempty"`
	DefaultRowCommitVersion *int64             `json:"defaultRowCommitVersion,omitempty"`
	ClusteringProvider      string             `json:"clusteringProvider,omitempty"`
}

type removeJSON struct {
	Path                    string             `json:"path"`
	DeletionTimestamp       int64              `json:"deletionTimestamp,omitempty"`
	DataChange              bool               `json:"dataChange"`
	ExtendedFileMetadata    bool               `json:"extendedFileMetadata,omitempty"`
	PartitionValues         map[string]*string `json:"partitionValues"`
	Size                    int64              `json:"size,omitempty"`
	DeletionVector          *Vector            `json:"deletionVector,omitempty"`
	BaseRowID               *int64             `json:"baseRowId,omitempty"`
	DefaultRowCommitVersion *int64             `json:"defaultRowCommitVersion,omitempty"`
}

type cdcJSON struct {
	Path            string             `json:"path"`
	PartitionValues map[string]*string `json:"partitionValues"`
	Size            int64              `json:"size"`
	DataChange      bool               `json:"dataChange"` // it is false
	Tags            map[string]string  `json:"tags,omitempty"`
}

// encode returns the lines of the commit's file. Removes come before adds:
// the protocol leaves the order open, but there are readers that lose a file
// whose add comes first.
func (c *commitLog) encode(dataChange bool) ([]byte, error) {
	var buf bytes.Buffer
	enc := json.NewEncoder(&buf)
	enc.SetEscapeHTML(false)
	var failed error
	line := func(a actionJSON) {
		if err := enc.Encode(a); err != nil && failed == nil {
			failed = err
		}
	}
	line(actionJSON{CommitInfo: c.info})
	if c.protocol != nil {
		line(actionJSON{Protocol: c.protocol})
	}
	if c.metadata != nil {
		m, err := c.metadata.json()
		if err != nil {
			return nil, err
		}
		line(actionJSON{Metadata: m})
	}
	for i := range c.domains {
		line(actionJSON{Domain: &c.domains[i]})
	}
	for i := range c.txns {
		line(actionJSON{Txn: &c.txns[i]})
	}
	for _, r := range c.removes {
		line(actionJSON{Remove: &removeJSON{
			Path: r.file.Path, DeletionTimestamp: r.deleted, DataChange: dataChange,
			ExtendedFileMetadata: true, PartitionValues: partitionJSON(r.file.Partition),
			Size: r.file.Size, DeletionVector: r.file.Vector,
			BaseRowID: r.file.tracking().BaseRowID, DefaultRowCommitVersion: r.file.tracking().DefaultRowCommitVersion,
		}})
	}
	for _, f := range c.adds {
		line(actionJSON{Add: &addJSON{
			Path: f.Path, PartitionValues: partitionJSON(f.Partition), Size: f.Size,
			ModificationTime: f.ModTime, DataChange: dataChange, Stats: f.Stats, Tags: f.Tags,
			DeletionVector: f.Vector, BaseRowID: f.tracking().BaseRowID,
			DefaultRowCommitVersion: f.tracking().DefaultRowCommitVersion, ClusteringProvider: f.tracking().ClusteringProvider,
		}})
	}
	for _, f := range c.changes {
		line(actionJSON{Change: &cdcJSON{Path: f.Path, PartitionValues: partitionJSON(f.Partition), Size: f.Size, Tags: f.Tags}})
	}
	return buf.Bytes(), failed
}

// checkText returns an error wrapping ErrInvalid where the commit has text that is
// not Unicode: JSON would hold other text, by which nothing is found again.
func (c *commitLog) checkText() error {
	var bad string
	check := func(what string, texts ...string) {
		for _, text := range texts {
			if bad == "" && !utf8.ValidString(text) {
				bad = what
			}
		}
	}
	checkMap := func(what string, m map[string]string) {
		for k, v := range m {
			check(what, k, v)
		}
	}
	check("the operation", c.info.Operation)
	checkMap("a parameter of the operation", c.info.Parameters)
	checkMap("a metric of the operation", c.info.Metrics)
	if m := c.metadata; m != nil {
		check("the table's id, name or description", m.ID, m.Name, m.Description)
		checkMap("a property", m.Configuration)
	}
	for i := range c.domains {
		check("a domain", c.domains[i].Name, c.domains[i].Configuration)
	}
	for i := range c.txns {
		check("the id of an application", c.txns[i].AppID)
	}
	for _, files := range [][]*File{c.adds, c.changes} {
		for _, f := range files {
			check("the path of a file", f.Path)
			check("the statistics of a file", f.Stats)
			checkMap("a tag of a file", f.Tags)
			for _, v := range f.Partition {
				if v != nil {
					check("a partition value of a file", *v)
				}
			}
		}
	}
	if bad != "" {
		return fmt.Errorf("%w: %s is not Unicode", ErrInvalid, bad)
	}
	return nil
}

// partitionJSON is never null: readers want an object.
func partitionJSON(p map[string]*string) map[string]*string {
	if p == nil {
		return map[string]*string{}
	}
	return p
}

// parseCommit reads a commit's file, which has at least one action. Errors wrap
// ErrCorrupt or ErrUnsupported.
func parseCommit(b []byte) (*commitLog, error) {
	c := &commitLog{}
	empty := true
	n := 0
	for line := range bytes.Lines(b) {
		n++
		if line = bytes.TrimSpace(line); len(line) == 0 {
			continue
		}
		empty = false
		a, err := parseAction(line)
		if err == nil {
			err = c.take(a)
		}
		if err != nil {
			return nil, fmt.Errorf("line %d: %w", n, err)
		}
	}
	if empty {
		return nil, fmt.Errorf("%w: it is empty", ErrCorrupt)
	}
	return c, nil
}

// parseAction reads a line, which holds one action; of more, all but one would be
// lost.
func parseAction(line []byte) (*actionJSON, error) {
	a := new(actionJSON)
	if err := json.Unmarshal(line, a); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrCorrupt, err)
	}
	n := 0
	for _, there := range []bool{
		a.CommitInfo != nil, a.Protocol != nil, a.Metadata != nil, a.Domain != nil, a.Txn != nil,
		a.Remove != nil, a.Add != nil, a.Sidecar != nil, a.Change != nil,
	} {
		if there {
			n++
		}
	}
	if n > 1 {
		return nil, fmt.Errorf("%w: %d actions in one line", ErrCorrupt, n)
	}
	return a, nil
}

// take adds one action to the commit.
func (c *commitLog) take(a *actionJSON) error {
	switch {
	case a.CommitInfo != nil:
		c.info = a.CommitInfo
	case a.Protocol != nil:
		if c.protocol != nil {
			return fmt.Errorf("a second protocol: %w", ErrCorrupt)
		}
		c.protocol = a.Protocol
	case a.Metadata != nil:
		if c.metadata != nil {
			return fmt.Errorf("a second metaData: %w", ErrCorrupt)
		}
		m, err := a.Metadata.metadata()
		if err != nil {
			return err
		}
		c.metadata = m
	case a.Domain != nil:
		c.domains = append(c.domains, *a.Domain)
	case a.Txn != nil:
		c.txns = append(c.txns, *a.Txn)
	case a.Remove != nil:
		if err := checkFile(a.Remove.Path, a.Remove.DeletionVector); err != nil {
			return err
		}
		c.removes = append(c.removes, a.Remove.tombstone())
	case a.Add != nil:
		f, err := a.Add.file()
		if err != nil {
			return err
		}
		c.adds = append(c.adds, f)
		if !a.Add.DataChange {
			c.rearranged = append(c.rearranged, f)
		}
	case a.Change != nil:
		if a.Change.Path == "" {
			return fmt.Errorf("a file without path: %w", ErrCorrupt)
		}
		c.changes = append(c.changes, &File{
			Path: a.Change.Path, Partition: a.Change.PartitionValues, Size: a.Change.Size, Rows: -1, Tags: a.Change.Tags,
		})
	}
	return nil
}

// metadata returns what the action says. Types and formats that are not known are
// no error here: a later version may do without them.
func (m *metadataJSON) metadata() (*Metadata, error) {
	s, err := &schema.Schema{}, error(nil)
	if m.SchemaString != "" { // the protocol has it, tables without columns do not
		s, err = schema.Parse([]byte(m.SchemaString))
	}
	var refused error
	switch {
	case errors.Is(err, schema.ErrUnsupported):
		s, refused = &schema.Schema{}, fmt.Errorf("metaData: %w: %w", ErrUnsupported, err)
	case err != nil:
		return nil, fmt.Errorf("metaData: %w: %w", ErrCorrupt, err)
	case m.Format.Provider != "" && m.Format.Provider != "parquet":
		refused = fmt.Errorf("metaData: %w: data files of format %q", ErrUnsupported, m.Format.Provider)
	}
	return &Metadata{
		ID: m.ID, Name: m.Name, Description: m.Description, Schema: s,
		PartitionColumns: m.PartitionColumns, Configuration: m.Configuration, CreatedTime: m.CreatedTime,
		formatOptions: m.Format.Options, schemaString: m.SchemaString, parsedSchema: s, refused: refused,
	}, nil
}

func (m *Metadata) json() (*metadataJSON, error) {
	text := m.schemaString
	if m.Schema != m.parsedSchema || text == "" {
		b, err := m.Schema.MarshalJSON()
		if err != nil {
			return nil, fmt.Errorf("print schema: %w", err)
		}
		text = string(b)
	}
	j := &metadataJSON{
		ID: m.ID, Name: m.Name, Description: m.Description,
		Format:       formatJSON{Provider: "parquet", Options: m.formatOptions},
		SchemaString: text, PartitionColumns: m.PartitionColumns,
		Configuration: m.Configuration, CreatedTime: m.CreatedTime,
	}
	if j.Format.Options == nil {
		j.Format.Options = map[string]string{}
	}
	if j.PartitionColumns == nil {
		j.PartitionColumns = []string{}
	}
	if j.Configuration == nil {
		j.Configuration = map[string]string{}
	}
	return j, nil
}

func (r *removeJSON) tombstone() tombstone {
	return tombstone{
		file: &File{
			Path: r.Path, Partition: r.PartitionValues, Size: r.Size, Rows: -1, Vector: r.DeletionVector,
			rowTracking: newRowTracking(r.BaseRowID, r.DefaultRowCommitVersion, ""),
		},
		deleted: r.DeletionTimestamp, dataChange: r.DataChange,
	}
}

func (a *addJSON) file() (*File, error) {
	if err := checkFile(a.Path, a.DeletionVector); err != nil {
		return nil, err
	}
	f := &File{
		Path: a.Path, Partition: a.PartitionValues, Size: a.Size, ModTime: a.ModificationTime,
		Stats: a.Stats, Rows: statsRows(a.Stats), Tags: a.Tags, Vector: a.DeletionVector,
		rowTracking: newRowTracking(a.BaseRowID, a.DefaultRowCommitVersion, a.ClusteringProvider),
	}
	if len(f.Partition) == 0 {
		f.Partition = nil
	}
	return f, nil
}

func newRowTracking(base, version *int64, provider string) *rowTracking {
	if base == nil && version == nil && provider == "" {
		return nil
	}
	return &rowTracking{BaseRowID: base, DefaultRowCommitVersion: version, ClusteringProvider: provider}
}

// checkFile checks the identity of a file in the log.
func checkFile(path string, v *Vector) error {
	if path == "" {
		return fmt.Errorf("a file without path: %w", ErrCorrupt)
	}
	if v == nil {
		return nil
	}
	if v.SizeInBytes < 0 || v.Cardinality < 0 || v.Offset < 0 || v.PathOrInline == "" {
		return fmt.Errorf("deletion vector of %q: %w", path, ErrCorrupt)
	}
	return nil
}

// statsRows returns the number of rows that statistics tell, or -1.
func statsRows(stats string) int64 {
	if stats == "" {
		return -1
	}
	// Most writers begin with it: then the rest need not be parsed.
	if rest, ok := strings.CutPrefix(stats, `{"numRecords":`); ok {
		if i := strings.IndexAny(rest, ",}"); i > 0 {
			if n, err := strconv.ParseInt(rest[:i], 10, 64); err == nil && n >= 0 {
				return n
			}
		}
	}
	var s struct {
		NumRecords *int64 `json:"numRecords"`
	}
	if err := json.Unmarshal([]byte(stats), &s); err != nil || s.NumRecords == nil || *s.NumRecords < 0 {
		return -1
	}
	return *s.NumRecords
}
