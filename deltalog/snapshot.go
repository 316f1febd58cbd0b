package deltalog

import (
	"errors"
	"fmt"
	"iter"
	"maps"
	"slices"

	"github.com/millrace-io/millrace/deltalog/store"
)

// Snapshot is one version of a table. It is immutable and held in memory; its
// methods may be called concurrently.
type Snapshot struct {
	st       store.Store
	version  Version
	protocol *Protocol
	metadata *Metadata
	files    fileSet
	totals   totals
	txns     map[string]Txn
	domains  map[string]Domain // without removed ones
	// info is the commit's own account of this version; nil when a checkpoint
	// took its place.
	info *CommitInfo
	// base is the newest checkpoint known, or -1. removed has the files that
	// were removed since; those before are in the checkpoint.
	base    checkpointRef
	removed *removals
	// added has the files that commits added since addedSince, or since base.
	added      *additions
	addedSince Version
	logBytes   int64 // of the commits since this snapshot's line was loaded
	// refused says why this version cannot be read, though one after it may be:
	// what it needs is not supported. It is nil in snapshots that callers have.
	refused error
}

// totals are sums over the files of a snapshot.
type totals struct {
	bytes   int64
	rows    int64 // live ones, in files whose count is known
	unknown int   // files whose count is not known
}

func (t *totals) add(f *File, sign int64) {
	t.bytes += sign * f.Size
	if n := f.LiveRows(); n >= 0 {
		t.rows += sign * n
	} else {
		t.unknown += int(sign)
	}
}

// removals is a list of what commits removed, the latest first.
type removals struct {
	version Version
	files   []tombstone
	before  *removals
}

// since returns the list without what was removed at v or before.
func (r *removals) since(v Version) *removals {
	var later []*removals
	for at := r; at != nil && at.version > v; at = at.before {
		later = append(later, at)
	}
	var list *removals
	for _, at := range slices.Backward(later) {
		list = &removals{version: at.version, files: at.files, before: list}
	}
	return list
}

// additions is a list of what commits added as a change of the data, the latest
// first.
type additions struct {
	version Version
	files   []*File
	blind   bool // they were added without a look at the table
	before  *additions
}

// since returns the list without what was added at v or before.
func (a *additions) since(v Version) *additions {
	var later []*additions
	for at := a; at != nil && at.version > v; at = at.before {
		later = append(later, at)
	}
	var list *additions
	for _, at := range slices.Backward(later) {
		n := *at
		n.before = list
		list = &n
	}
	return list
}

// Version returns the version of the table that this is.
func (s *Snapshot) Version() Version { return s.version }

// Protocol returns the table's protocol.
func (s *Snapshot) Protocol() *Protocol { return s.protocol }

// Metadata returns the table's metadata.
func (s *Snapshot) Metadata() *Metadata { return s.metadata }

// Info returns what the commit of this version says about itself, or nil when
// that is not known: then the version was read from a checkpoint.
func (s *Snapshot) Info() *CommitInfo { return s.info }

// Files yields the data files in the order of their paths.
func (s *Snapshot) Files() iter.Seq[*File] { return s.files.all() }

// NumFiles returns the number of data files.
func (s *Snapshot) NumFiles() int { return s.files.len }

// Bytes returns the size of all data files, in bytes.
func (s *Snapshot) Bytes() int64 { return s.totals.bytes }

// Rows returns the number of live rows. Without ok there are files that do not
// tell, and the number counts the others.
func (s *Snapshot) Rows() (rows int64, ok bool) { return s.totals.rows, s.totals.unknown == 0 }

// File returns the data file of a path as it stands in the log, or nil.
func (s *Snapshot) File(path string) *File {
	if found := s.files.at(path); len(found) > 0 {
		return found[len(found)-1]
	}
	return nil
}

// Has tells whether the table holds this very file: path and vector.
func (s *Snapshot) Has(f *File) bool { return s.files.get(f) != nil }

// Txn returns the progress of an application.
func (s *Snapshot) Txn(appID string) (version int64, ok bool) {
	t, ok := s.txns[appID]
	return t.Version, ok
}

// Txns yields the progress of all applications, ordered by their ids.
func (s *Snapshot) Txns() iter.Seq[Txn] { return inOrder(s.txns) }

// Domain returns the configuration of a domain.
func (s *Snapshot) Domain(name string) (configuration string, ok bool) {
	d, ok := s.domains[name]
	return d.Configuration, ok
}

// Domains yields all domains, ordered by their names.
func (s *Snapshot) Domains() iter.Seq[Domain] { return inOrder(s.domains) }

func inOrder[V any](m map[string]V) iter.Seq[V] {
	return func(yield func(V) bool) {
		for _, k := range slices.Sorted(maps.Keys(m)) {
			if !yield(m[k]) {
				return
			}
		}
	}
}

// inCommitTimestamps tells whether commits after this version carry them.
func (s *Snapshot) inCommitTimestamps() bool {
	return s.metadata.enabled(PropertyInCommitTimestamps)
}

// apply returns the next version. The commit's file had size bytes.
func (s *Snapshot) apply(c *commitLog, size int64) (*Snapshot, error) {
	n, err := s.applyAllButFiles(c, size)
	if err == nil && len(c.removes)+len(c.adds) > 0 {
		n.applyFiles(s, c)
		n.noteAdditions(c)
	}
	return n, err
}

// noteAdditions remembers what the commit added, for plans that it may upset.
func (s *Snapshot) noteAdditions(c *commitLog) {
	if len(c.adds) == 0 || len(c.adds) == len(c.rearranged) {
		return
	}
	s.added = &additions{
		version: s.version, files: c.adds, before: s.added,
		blind: c.info != nil && c.info.BlindAppend,
	}
	if len(c.rearranged) > 0 {
		quiet := fileSet{}.edit(editsOf(c.rearranged))
		s.added.files = slices.DeleteFunc(slices.Clone(c.adds), func(f *File) bool { return quiet.get(f) != nil })
	}
}

func editsOf(files []*File) []fileEdit {
	edits := make([]fileEdit, len(files))
	for i, f := range files {
		edits[i].file = f
	}
	return edits
}

// applyAllButFiles returns the next version with the files of this one.
func (s *Snapshot) applyAllButFiles(c *commitLog, size int64) (*Snapshot, error) {
	n := *s
	n.version++
	n.info = c.info
	n.logBytes += size
	if c.protocol != nil {
		n.protocol = c.protocol
	}
	if c.metadata != nil {
		n.metadata = c.metadata
	}
	if err := n.check(c); err != nil {
		return nil, fmt.Errorf("version %d: %w", n.version, err)
	}
	if n.refused != nil && n.refused != s.refused {
		n.refused = fmt.Errorf("%s: version %d: %w", commitName(n.version), n.version, n.refused)
	}
	if n.inCommitTimestamps() && (c.info == nil || c.info.InCommitTimestamp == 0) {
		return nil, fmt.Errorf("version %d: %w: it lacks its in-commit timestamp", n.version, ErrCorrupt)
	}
	if len(c.txns) > 0 {
		n.txns = maps.Clone(s.txns)
		if n.txns == nil {
			n.txns = map[string]Txn{}
		}
		for _, t := range c.txns {
			n.txns[t.AppID] = t
		}
	}
	if len(c.domains) > 0 {
		n.domains = maps.Clone(s.domains)
		if n.domains == nil {
			n.domains = map[string]Domain{}
		}
		for _, d := range c.domains {
			if d.Removed {
				delete(n.domains, d.Name)
			} else {
				n.domains[d.Name] = d
			}
		}
	}
	if len(c.removes) > 0 {
		n.removed = &removals{version: n.version, files: c.removes, before: n.removed}
	}
	return &n, nil
}

// check judges what a commit, or a checkpoint, made of a version. What breaks the
// protocol is an error; that the version cannot be read is kept in refused.
func (s *Snapshot) check(c *commitLog) error {
	if s.protocol == nil || s.metadata == nil {
		return fmt.Errorf("no protocol or no metaData: %w", ErrCorrupt)
	}
	if c.protocol != nil || c.metadata != nil {
		s.refused = nil
		if err := s.readable(); errors.Is(err, ErrUnsupported) {
			s.refused = err
		} else if err != nil {
			return err
		}
	}
	if s.refused != nil {
		return nil
	}
	for _, f := range c.adds {
		if f.Vector != nil && !s.protocol.has(FeatureDeletionVectors) {
			return fmt.Errorf("file %q has a deletion vector, the protocol does not: %w", f.Path, ErrCorrupt)
		}
	}
	return nil
}

// readable tells what of a version this package cannot read, or nobody should.
func (s *Snapshot) readable() error {
	if err := s.protocol.check(); err != nil {
		return err
	}
	if err := checkRead(s.protocol, s.metadata); err != nil {
		return err
	}
	if s.metadata.refused != nil {
		return s.metadata.refused
	}
	return s.checkMapping()
}

// applyFiles removes and adds the files of a commit. Within a commit a file's
// order does not count: an added one is there.
func (s *Snapshot) applyFiles(old *Snapshot, c *commitLog) {
	edits := make([]fileEdit, 0, len(c.removes)+len(c.adds))
	for _, r := range c.removes {
		if f := old.files.get(r.file); f != nil {
			s.totals.add(f, -1)
		}
		edits = append(edits, fileEdit{file: r.file, remove: true})
	}
	s.files = old.files.edit(edits)
	edits = edits[:0]
	for _, f := range c.adds {
		if was := s.files.get(f); was != nil {
			s.totals.add(was, -1)
		}
		s.totals.add(f, +1)
		edits = append(edits, fileEdit{file: f})
	}
	s.files = s.files.edit(edits)
}

// sumFiles sets the totals from the files.
func (s *Snapshot) sumFiles() {
	s.totals = totals{}
	for f := range s.Files() {
		s.totals.add(f, +1)
	}
}
