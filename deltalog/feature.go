package deltalog

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"github.com/millrace-io/millrace/deltalog/schema"
)

// Names of table features, as a protocol lists them.
const (
	FeatureAppendOnly        = "appendOnly"
	FeatureChangeDataFeed    = "changeDataFeed"
	FeatureClustering        = "clustering"
	FeatureColumnMapping     = "columnMapping"
	FeatureDeletionVectors   = "deletionVectors"
	FeatureDomainMetadata    = "domainMetadata"
	FeatureInCommitTimestamp = "inCommitTimestamp"
	FeatureRowTracking       = "rowTracking"
	FeatureTimestampNTZ      = "timestampNtz"
	FeatureTypeWidening      = "typeWidening"
	FeatureV2Checkpoint      = "v2Checkpoint"
)

// Properties that this package acts on. Their values are text.
const (
	// PropertyAppendOnly forbids taking rows away.
	PropertyAppendOnly = "delta.appendOnly"
	// PropertyDeletionVectors allows deletion vectors to be written.
	PropertyDeletionVectors = "delta.enableDeletionVectors"
	// PropertyChangeDataFeed has commits tell row by row what they changed.
	PropertyChangeDataFeed = "delta.enableChangeDataFeed"
	// PropertyRowTracking gives rows ids for life.
	PropertyRowTracking = "delta.enableRowTracking"
	// PropertyTypeWidening allows the types of columns to be widened in place.
	PropertyTypeWidening = "delta.enableTypeWidening"
	// PropertyInCommitTimestamps has every commit carry a growing time.
	PropertyInCommitTimestamps = "delta.enableInCommitTimestamps"
	// propertyInCommitVersion and propertyInCommitTime tell from which version on
	// commits have such times, where that is not the first.
	propertyInCommitVersion = "delta.inCommitTimestampEnablementVersion"
	propertyInCommitTime    = "delta.inCommitTimestampEnablementTimestamp"
	// PropertyCheckpointInterval is the number of commits after which a
	// checkpoint is due.
	PropertyCheckpointInterval = "delta.checkpointInterval"
	// PropertyCheckpointPolicy is classic, or v2 for checkpoints whose files are
	// in sidecars.
	PropertyCheckpointPolicy = "delta.checkpointPolicy"
	// PropertyDeletedFileRetention is for how long a removed file is
	// remembered, such as "interval 1 week".
	PropertyDeletedFileRetention = "delta.deletedFileRetentionDuration"
	// PropertyIsolationLevel is WriteSerializable, the default, or Serializable:
	// see [Commit.Conflict].
	PropertyIsolationLevel = "delta.isolationLevel"
	// PropertyStatsColumns is the number of columns with statistics.
	PropertyStatsColumns = "delta.dataSkippingNumIndexedCols"
)

// feature says how this package deals with one table feature.
type feature struct {
	name string
	// reader: readers must know it too.
	reader bool
	// legacyReader and legacyWriter are the protocol versions that imply the
	// feature without listing it; 0 means none.
	legacyReader, legacyWriter int
	// needs is another feature that comes with it; empty means none.
	needs string
	// supported: read and written as the protocol says.
	supported bool
	// idle, for a feature that is not supported, tells whether a table that
	// lists it can be read and written all the same because it makes no use
	// of it.
	idle func(*Metadata) bool
}

// features are those of the protocol; any other is not supported.
var features = []feature{
	{name: FeatureAppendOnly, legacyWriter: 2, supported: true},
	{name: "invariants", legacyWriter: 2, idle: noFieldKey("delta.invariants")},
	{name: "checkConstraints", legacyWriter: 3, idle: noProperty("delta.constraints.")},
	{name: FeatureChangeDataFeed, legacyWriter: 4, supported: true},
	{name: "generatedColumns", legacyWriter: 4, idle: noFieldKey("delta.generationExpression")},
	{name: FeatureColumnMapping, reader: true, legacyReader: 2, legacyWriter: 5, supported: true},
	{name: "identityColumns", legacyWriter: 6, idle: noFieldKey("delta.identity.")},
	{name: FeatureDeletionVectors, reader: true, supported: true},
	{name: FeatureTimestampNTZ, reader: true, supported: true},
	{name: FeatureInCommitTimestamp, supported: true},
	{name: FeatureDomainMetadata, supported: true},
	{name: FeatureV2Checkpoint, reader: true, supported: true},
	{name: FeatureTypeWidening, reader: true, supported: true},
	{name: FeatureRowTracking, needs: FeatureDomainMetadata, supported: true},
	{name: FeatureClustering, needs: FeatureDomainMetadata, supported: true},
	{name: "allowColumnDefaults", idle: noFieldKey("CURRENT_DEFAULT")},
	// It binds those who delete unreferenced files: [Table.Vacuum] refuses
	// tables with features of writers, or readers, that are not supported.
	{name: "vacuumProtocolCheck", reader: true, supported: true},
}

func lookUp(name string) *feature {
	for i := range features {
		if features[i].name == name {
			return &features[i]
		}
	}
	return nil
}

func noProperty(prefix string) func(*Metadata) bool {
	return func(m *Metadata) bool {
		for k := range m.Configuration {
			if strings.HasPrefix(k, prefix) {
				return false
			}
		}
		return true
	}
}

// noFieldKey says that no column has metadata under a key with this prefix.
func noFieldKey(prefix string) func(*Metadata) bool {
	return func(m *Metadata) bool {
		for i := range m.Schema.Fields {
			if fieldHasKey(&m.Schema.Fields[i], prefix) {
				return false
			}
		}
		return true
	}
}

func fieldHasKey(f *schema.Field, prefix string) bool {
	if len(f.Metadata) > 0 {
		var keys map[string]json.RawMessage
		// What is not an object might hold the key: it counts as one that does.
		if err := json.Unmarshal(f.Metadata, &keys); err != nil {
			return true
		}
		for k := range keys {
			if strings.HasPrefix(k, prefix) {
				return true
			}
		}
	}
	return typeHasKey(&f.Type, prefix)
}

func typeHasKey(t *schema.Type, prefix string) bool {
	for i := range t.Fields {
		if fieldHasKey(&t.Fields[i], prefix) {
			return true
		}
	}
	for _, inner := range []*schema.Type{t.Elem, t.Key, t.Value} {
		if inner != nil && typeHasKey(inner, prefix) {
			return true
		}
	}
	return false
}

// readerFeatures lists what readers must know, with what old version numbers
// imply.
func (p *Protocol) readerFeatures() []string {
	if p.MinReader >= 3 {
		return p.ReaderFeatures
	}
	var names []string
	for _, f := range features {
		if f.legacyReader > 0 && f.legacyReader <= p.MinReader {
			names = append(names, f.name)
		}
	}
	return names
}

// writerFeatures lists what writers must know, with what old version numbers
// imply.
func (p *Protocol) writerFeatures() []string {
	if p.MinWriter >= 7 {
		return p.WriterFeatures
	}
	var names []string
	for _, f := range features {
		if f.legacyWriter > 0 && f.legacyWriter <= p.MinWriter {
			names = append(names, f.name)
		}
	}
	return names
}

// check returns an error wrapping ErrCorrupt unless the protocol is one.
func (p *Protocol) check() error {
	switch {
	case p.MinReader < 1 || p.MinWriter < 1:
		return fmt.Errorf("protocol (%d,%d): %w", p.MinReader, p.MinWriter, ErrCorrupt)
	case p.MinReader > 3 || p.MinWriter > 7:
		return fmt.Errorf("protocol (%d,%d): %w: the newest known is (3,7)", p.MinReader, p.MinWriter, ErrUnsupported)
	case p.MinReader < 3 && len(p.ReaderFeatures) > 0, p.MinWriter < 7 && len(p.WriterFeatures) > 0,
		p.MinReader == 3 && p.MinWriter < 7:
		return fmt.Errorf("protocol (%d,%d) with features: %w", p.MinReader, p.MinWriter, ErrCorrupt)
	}
	for _, f := range p.ReaderFeatures {
		if !slices.Contains(p.WriterFeatures, f) {
			return fmt.Errorf("protocol: feature %s is listed for readers alone: %w", f, ErrCorrupt)
		}
	}
	return nil
}

// checkRead returns an error wrapping ErrUnsupported that names the features
// in the way of reading a table.
func checkRead(p *Protocol, m *Metadata) error {
	return refuse("read", p.readerFeatures(), m)
}

// checkWrite does the same for writing.
func checkWrite(p *Protocol, m *Metadata) error {
	return refuse("write", p.writerFeatures(), m)
}

func refuse(act string, names []string, m *Metadata) error {
	var missing []string
	for _, name := range names {
		f := lookUp(name)
		if f == nil || !f.supported && !f.idle(m) {
			missing = append(missing, name)
		}
	}
	if missing == nil {
		return nil
	}
	return fmt.Errorf("%s table: %w: feature %s", act, ErrUnsupported, strings.Join(missing, ", "))
}

// has tells whether the protocol allows a feature to be used.
func (p *Protocol) has(name string) bool {
	f := lookUp(name)
	return p.HasFeature(name) && (!f.reader || slices.Contains(p.readerFeatures(), name))
}

// With returns a protocol that has these features besides its own; p itself if
// it has them already. Unknown ones are listed for writers alone.
func (p *Protocol) With(names ...string) *Protocol {
	q := &Protocol{
		MinReader: p.MinReader, MinWriter: 7,
		ReaderFeatures: slices.Clone(p.readerFeatures()),
		WriterFeatures: slices.Clone(p.writerFeatures()),
	}
	changed := false
	for _, name := range names {
		if f := lookUp(name); f != nil && f.needs != "" {
			names = append(names, f.needs)
		}
	}
	for _, name := range names {
		if !slices.Contains(q.WriterFeatures, name) {
			q.WriterFeatures = append(q.WriterFeatures, name)
			changed = true
		}
		if f := lookUp(name); f != nil && f.reader && !slices.Contains(q.ReaderFeatures, name) {
			q.ReaderFeatures = append(q.ReaderFeatures, name)
			changed = true
		}
	}
	if !changed {
		return p
	}
	switch {
	case len(q.ReaderFeatures) > 0:
		q.MinReader = 3
	case q.MinReader < 3:
		q.ReaderFeatures = nil
	}
	slices.Sort(q.ReaderFeatures)
	slices.Sort(q.WriterFeatures)
	return q
}

// For returns a protocol that has what the types and the properties of m need
// besides its own; p itself if that is nothing.
func (p *Protocol) For(m *Metadata) *Protocol { return p.With(neededFeatures(m)...) }

// neededFeatures lists what a table needs by its types and properties, features
// that are not supported too.
func neededFeatures(m *Metadata) []string {
	var names []string
	for _, need := range []struct{ property, feature string }{
		{PropertyAppendOnly, FeatureAppendOnly},
		{PropertyDeletionVectors, FeatureDeletionVectors},
		{PropertyInCommitTimestamps, FeatureInCommitTimestamp},
		{PropertyChangeDataFeed, FeatureChangeDataFeed},
		{PropertyTypeWidening, FeatureTypeWidening},
		{PropertyRowTracking, FeatureRowTracking},
		{PropertyRowTracking, FeatureDomainMetadata},
	} {
		if m.enabled(need.property) {
			names = append(names, need.feature)
		}
	}
	if m.Property(PropertyColumnMapping, "none") != "none" {
		names = append(names, FeatureColumnMapping)
	}
	if m.Property(PropertyCheckpointPolicy, "") == "v2" {
		names = append(names, FeatureV2Checkpoint)
	}
	if slices.ContainsFunc(m.Schema.Fields, func(f schema.Field) bool { return hasKind(&f.Type, schema.TimestampNTZ) }) {
		names = append(names, FeatureTimestampNTZ)
	}
	for _, f := range features {
		if f.idle != nil && !f.idle(m) {
			names = append(names, f.name)
		}
	}
	return names
}

func hasKind(t *schema.Type, k schema.Kind) bool {
	if t.Kind == k {
		return true
	}
	for i := range t.Fields {
		if hasKind(&t.Fields[i].Type, k) {
			return true
		}
	}
	for _, inner := range []*schema.Type{t.Elem, t.Key, t.Value} {
		if inner != nil && hasKind(inner, k) {
			return true
		}
	}
	return false
}
